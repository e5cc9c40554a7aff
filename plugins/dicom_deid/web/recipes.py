"""Pages of the shipped recipes: rules, the elements that each matches, and coverage."""

from __future__ import annotations

from functools import lru_cache

from fastapi import APIRouter, HTTPException, Request, Response

from dicom_deid.recipe import Recipe
from dicom_deid.recipe.check import RecipeReport, check
from dicom_deid.recipe.profile_attributes import profile_attributes
from dicom_deid.web.rendering import page

router = APIRouter()


@router.get("/recipes")
def recipes(request: Request) -> Response:
    """List the shipped recipes."""
    shown = [Recipe.named(name) for name in Recipe.shipped()]
    return page("recipes.html", request, recipes=shown)


@router.get("/recipes/{name}")
def recipe(request: Request, name: str) -> Response:
    """Show one recipe, rule by rule, and its coverage of PS3.15 Table E.1-1."""
    if name not in Recipe.shipped():
        raise HTTPException(404, "There is no such recipe.")
    found, report = _checked(name)
    attributes = profile_attributes()
    return page(
        "recipe.html",
        request,
        recipe=found,
        report=report,
        attributes=len(attributes),
        covered=len(attributes) - len(report.untouched),
    )


@lru_cache
def _checked(name: str) -> tuple[Recipe, RecipeReport]:
    found = Recipe.named(name)
    return found, check(found)

"""Pages of the shipped recipes: rules, the elements that each matches, and coverage."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from dicom_deid.database import Database
from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.errors import TableMissing
from dicom_deid.recipe import Recipe
from dicom_deid.recipe.check import RecipeReport, check
from dicom_deid.recipe.profile_attributes import profile_attributes
from dicom_deid.web.database import open_connection
from dicom_deid.web.rendering import PAGE_ROWS, PageNumber, page

router = APIRouter()

Connection = Annotated[DatabaseConnection, Depends(open_connection)]


@router.get("/recipes")
def recipes(request: Request, connection: Connection, number: PageNumber = 1) -> Response:
    """List the shipped recipes, and those that runs have used."""
    shown = [Recipe.named(name) for name in Recipe.shipped()]
    try:
        stored = Queries(connection).recipes(PAGE_ROWS + 1, offset=(number - 1) * PAGE_ROWS)
    except TableMissing:
        stored = []
    return page(
        "recipes.html",
        request,
        recipes=shown,
        stored=stored[:PAGE_ROWS],
        number=number,
        has_more=len(stored) > PAGE_ROWS,
    )


@router.get("/recipes/stored/{digest}")
def stored_recipe(request: Request, connection: Connection, digest: str) -> Response:
    """Show the text of a recipe as runs have used it."""
    found = Database(connection).recipe(digest)
    if found is None:
        raise HTTPException(404, "No run has used a recipe of this digest.")
    return page("stored_recipe.html", request, digest=digest, name=found[0], text=found[1])


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

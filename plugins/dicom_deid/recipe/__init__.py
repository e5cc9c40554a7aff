"""The recipe language: parse recipe files and compile them into steps per element; works on names, not bytes."""

from dicom_deid.recipe.compiler import NO_PRESENCE, Addition, CompiledRecipe, Presence, Step, Steps, ValueLists
from dicom_deid.recipe.concepts import VALUE_TYPES, Concept
from dicom_deid.recipe.criteria import CriteriaLine, Criterion, Question
from dicom_deid.recipe.element_names import ElementName
from dicom_deid.recipe.errors import RecipeError, RecipeProblem
from dicom_deid.recipe.fields import FieldExpression
from dicom_deid.recipe.filters import Coordinates, Filter, Rectangle
from dicom_deid.recipe.functions import load_function
from dicom_deid.recipe.recipe import Recipe
from dicom_deid.recipe.rules import Action, ListEntry, Rule
from dicom_deid.recipe.types import AttributeTypes, types_of
from dicom_deid.recipe.values import DeidFunction, Function, Literal, Value, Variable

__all__ = [
    "NO_PRESENCE",
    "VALUE_TYPES",
    "Action",
    "Addition",
    "AttributeTypes",
    "CompiledRecipe",
    "Concept",
    "Coordinates",
    "CriteriaLine",
    "Criterion",
    "DeidFunction",
    "ElementName",
    "FieldExpression",
    "Filter",
    "Function",
    "ListEntry",
    "Literal",
    "Presence",
    "Question",
    "Recipe",
    "RecipeError",
    "RecipeProblem",
    "Rectangle",
    "Rule",
    "Step",
    "Steps",
    "Value",
    "ValueLists",
    "Variable",
    "load_function",
    "types_of",
]

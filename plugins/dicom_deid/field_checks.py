"""Check the values of dataclass fields against their types, so that a misspelt word or a text "False" is an error."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dicom_deid.exceptions import ConfigurationError

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_fields(instance: Any) -> None:
    """Check all fields of a dataclass whose type is bool, int, float, str or a Literal, or one of these or None.

    Raises
    ------
    ConfigurationError
        A value has another type, or is none of the words of a Literal.
    """
    for name, allowed in _checked_fields(instance.__class__).items():
        value = getattr(instance, name)
        words = [word for each in allowed if get_origin(each) is Literal for word in get_args(each)]
        if any(_is_of(value, each) for each in allowed):
            continue
        if words:
            hint = similar_name(str(value), words) or "."
            raise ConfigurationError(f"{name} must be one of {', '.join(words)}{hint}")
        kinds = " or ".join(_NAMES[each] for each in allowed if each in _NAMES)
        raise ConfigurationError(f"{name} must be {kinds}.")


def check_names(what: str, given: Iterable[str], valid: Collection[str]) -> None:
    """Check that all names are valid.

    Raises
    ------
    ConfigurationError
        Naming those that are not, and a similar valid name or all valid ones.
    """
    unknown = sorted(set(given) - set(valid))
    if unknown:
        hint = similar_name(unknown[0], valid) or f"; valid are {', '.join(sorted(valid))}."
        raise ConfigurationError(f"{what} have no field {', '.join(unknown)}{hint}")


def similar_name(name: str, valid: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean limit?``, or an empty text if no valid name is similar."""
    found = get_close_matches(name, list(valid), n=1)
    return f"; did you mean {found[0]}?" if found else ""


@cache
def _checked_fields(cls: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(cls)
    found = {}
    for field in fields(cls):
        hint = hints[field.name]
        allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if all(each in _NAMES or each is NoneType or get_origin(each) is Literal for each in allowed):
            found[field.name] = allowed
    return found


def _is_of(value: Any, allowed: Any) -> bool:
    if get_origin(allowed) is Literal:
        return isinstance(value, str) and value in get_args(allowed)
    if allowed is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, allowed) and (allowed is not int or not isinstance(value, bool))

"""Load the user functions of ``func:NAME``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe.errors import nearest

GROUP = "dicom_deid.functions"
"""The entry point group in which a package offers functions to recipes."""


def load_function(name: str) -> Callable[..., Any]:
    """Find a function by the name that a recipe gives after ``func:``.

    Parameters
    ----------
    name
        Name of an entry point of the group ``dicom_deid.functions``, or a dotted path ``package.module:function``.

    Raises
    ------
    ConfigurationError
        No entry point or module of that name, a module that fails on import, or an object that is not callable.
    """
    found = _from_path(name) if ":" in name else _from_entry_point(name)
    if not callable(found):
        raise ConfigurationError(f"func:{name} is not callable")
    return found


def _from_entry_point(name: str) -> object:
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in offered:
        near = nearest(name, offered)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigurationError(f"func:{name} is neither given nor an entry point of the group {GROUP}{hint}")
    return _loaded(name, offered[name].load)


def _from_path(name: str) -> object:
    module, _, attribute = name.partition(":")
    return _loaded(name, lambda: getattr(importlib.import_module(module), attribute))


def _loaded(name: str, load: Callable[[], object]) -> object:
    try:
        return load()
    except Exception as error:
        # A module may raise anything on import.
        raise ConfigurationError(f"func:{name} cannot be loaded: {type(error).__name__}: {error}") from error

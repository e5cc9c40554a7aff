"""Values of rules: texts, variables and functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from dicom_deid.recipe.errors import RecipeSyntaxError, nearest
from dicom_deid.recipe.lexer import Token, quoted

_PREFIX = re.compile(r"(var|func|deid_func):", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?")
_ROOT = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*\.?")
Argument = int | bool | str | None


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, converted to the VR of the element; a backslash separates components."""

    text: str

    def __str__(self) -> str:
        return quoted(self.text, whole_first_word=_PREFIX.match(self.text) is not None)


@dataclass(frozen=True, slots=True)
class Variable:
    """``var:NAME``: a variable passed to the engine."""

    name: str

    def __str__(self) -> str:
        return f"var:{self.name}"


@dataclass(frozen=True, slots=True)
class Function:
    """``func:NAME``: the result of a function passed to the engine or found by its dotted path."""

    name: str

    def __str__(self) -> str:
        return f"func:{self.name}"


@dataclass(frozen=True, slots=True)
class DeidFunction:
    """``deid_func:NAME key=value ...``: one of the five functions of the language.

    Parameters
    ----------
    name
        ``jitter``, ``dicom_uuid``, ``suffix_uuid``, ``basic_uuid`` or ``pydicom_uuid``.
    arguments
        All arguments of the function, including defaults: `days` and `years` (int) of ``jitter``,
        `org_root` (str) of ``dicom_uuid``, `prefix` (str or None) and `stable_remapping` (bool) of ``pydicom_uuid``.
    """

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=lambda: MappingProxyType({}))

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.arguments.items())))

    def __str__(self) -> str:
        shown = {True: "true", False: "false", None: "none"}
        pairs = [
            f"{key}={shown[value] if value is None or isinstance(value, bool) else value}"
            for key, value in self.arguments.items()
        ]
        return " ".join([f"deid_func:{self.name}", *pairs])


Value = Literal | Variable | Function | DeidFunction

_DEFAULTS: dict[str, dict[str, Argument]] = {
    "jitter": {"days": 1, "years": 0},
    "dicom_uuid": {"org_root": "2.25"},
    "suffix_uuid": {},
    "basic_uuid": {},
    "pydicom_uuid": {"prefix": "2.25.", "stable_remapping": True},
}


def parse_value(tokens: Sequence[Token]) -> Value:
    """Read the tokens that follow a field.

    Raises
    ------
    RecipeSyntaxError
        A wrong prefix, name or argument.
    """
    first = tokens[0]
    prefix = None if first.begins_quoted else _PREFIX.match(first.raw)
    if prefix is None:
        return Literal(" ".join(token.text for token in tokens))
    kind, name = prefix[1], first.raw[prefix.end() :]
    if kind != kind.lower():
        raise RecipeSyntaxError(f"'{kind}:' must be in lower case", first.column, f"{kind.lower()}:{name}")
    if not _NAME.fullmatch(name):
        raise RecipeSyntaxError(f"'{name}' is not a name", first.column + prefix.end())
    if kind == "deid_func":
        return _deid_function(name, first.column + prefix.end(), tokens[1:])
    if len(tokens) > 1:
        raise RecipeSyntaxError(f"nothing may follow {first.raw}", tokens[1].column)
    return Variable(name) if kind == "var" else Function(name)


def _deid_function(name: str, column: int, tokens: Sequence[Token]) -> DeidFunction:
    if name not in _DEFAULTS:
        raise RecipeSyntaxError(f"unknown function deid_func:{name}", column, nearest(name, _DEFAULTS))
    arguments = dict(_DEFAULTS[name])
    for token in tokens:
        key, equals, text = token.text.partition("=")
        if not equals:
            raise RecipeSyntaxError(f"'{token.raw}' is not KEY=VALUE", token.column)
        if key not in arguments:
            takes = f"takes {', '.join(arguments)}" if arguments else "takes no argument"
            raise RecipeSyntaxError(f"deid_func:{name} {takes}, not '{key}'", token.column, nearest(key, arguments))
        arguments[key] = _argument(key, text, token.column + len(key) + 1)
    if arguments.get("stable_remapping") is True and arguments["prefix"] is None:
        raise RecipeSyntaxError("stable remapping needs a prefix: give one, or stable_remapping=false", column)
    return DeidFunction(name, MappingProxyType(arguments))


def _argument(key: str, text: str, column: int) -> Argument:
    if key in ("days", "years"):
        return _whole_number(key, text, column)
    if key == "stable_remapping":
        if text not in ("true", "false"):
            raise RecipeSyntaxError("stable_remapping is true or false", column)
        return text == "true"
    if key == "prefix":
        if text in ("none", "null"):
            return None
        if not _ROOT.fullmatch(text) or not text.endswith(".") or len(text) > 54:
            raise RecipeSyntaxError("prefix is a UID root that ends with a dot, of at most 54 characters", column)
    elif not text or not _ROOT.fullmatch(text) or text.endswith(".") or len(text) > 24:
        raise RecipeSyntaxError("org_root is a UID root without a dot at its end, of at most 24 characters", column)
    return text


def _whole_number(key: str, text: str, column: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,7}", text):
        raise RecipeSyntaxError(f"{key} is a whole number of at most 7 digits", column)
    return int(text)

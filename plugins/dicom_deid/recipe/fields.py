"""Field expressions, which select the elements of a rule."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from dicom_deid.recipe.concepts import VALUE_TYPES, Concept
from dicom_deid.recipe.element_names import (
    ElementName,
    is_private_form,
    keywords_in_any_case,
    names_in_any_case,
    nearest_field,
    parse_tag,
    tag_of,
)
from dicom_deid.recipe.errors import RecipeSyntaxError, nearest
from dicom_deid.recipe.lexer import Token, tokens

_SEARCHING = {
    "startswith": "^({})",
    "endswith": "({})$",
    "contains": "{}",
    "except": "{}",
}
EXPANDERS = (*_SEARCHING, "select", "content", "fields", "values")
_EXPANDER = re.compile(r'([^:"]*(?:"[^"]*"[^:"]*)*):(.*)')
_UPPER_CASE_ESCAPE = re.compile(r"(?:\\\\)*\\[A-Z]")
# Code Value and Coding Scheme Designator have VR SH; Long Code Value and URN Code Value are longer.
_CODE = re.compile(r"[^\s\\](?:[^\\]*[^\s\\])?")
_SCHEME = re.compile(r"[^\s\\](?:[^\\]{0,14}[^\s\\])?")
_VRS = frozenset(re.findall("..", "AEASATCSDADSDTFDFLISLOLTOBODOFOLOVOWPNSHSLSQSSSTSVTMUCUIULUNURUSUTUV"))


@dataclass(frozen=True, slots=True)
class FieldExpression:
    """Base of all field expressions.

    Parameters
    ----------
    text
        The expression as the recipe writes it.
    """

    text: str

    def __str__(self) -> str:
        try:
            as_it_stands = [token.raw for token in tokens(self.text) if not token.is_quoted] == [self.text]
        except RecipeSyntaxError:
            as_it_stands = False
        quote = "" if as_it_stands else "'" if '"' in self.text else '"'
        return f"{quote}{self.text}{quote}"

    def selects(self, element: ElementName) -> bool:
        """Return whether the expression selects the element; False for lists, which depend on the object."""
        raise NotImplementedError

    @property
    def depends_on_tag_only(self) -> bool:
        """True if elements of the same tag are always selected together."""
        return False


@dataclass(frozen=True, slots=True)
class Exact(FieldExpression):
    """One element, by keyword, nested name, element name, tag or private form, in any case."""

    lower: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", self.text.lower())

    def selects(self, element: ElementName) -> bool:
        """Return whether one of the element's names is the text."""
        return self.lower in lower_case_names(element)

    @property
    def tag(self) -> int | None:
        """The tag that the text names; None for nested and private names."""
        return tag_of(self.text)

    @property
    def depends_on_tag_only(self) -> bool:
        """True if the text names a tag that is not private."""
        return self.tag is not None


@dataclass(frozen=True, slots=True)
class All(FieldExpression):
    """``ALL``: every element."""

    def selects(self, element: ElementName) -> bool:
        """Select any element."""
        return True

    @property
    def depends_on_tag_only(self) -> bool:
        """Every element is selected."""
        return True


@dataclass(frozen=True, slots=True)
class Search(FieldExpression):
    """``startswith:``, ``endswith:``, ``contains:`` or ``except:`` with a regular expression.

    Parameters
    ----------
    pattern
        The regular expression that is searched, in any case, in every name of an element.
    inverted
        Whether to select the elements without a match (``except:``).
    """

    pattern: re.Pattern[str]
    inverted: bool

    def selects(self, element: ElementName) -> bool:
        """Return whether the pattern matches one of the element's names; for ``except:``, none of them."""
        search = self.pattern.search
        return any(search(name) for name in _names(element)) is not self.inverted


@dataclass(frozen=True, slots=True)
class SelectVR(FieldExpression):
    """``select:VR:XX``: the elements of one value representation."""

    vr: str

    def selects(self, element: ElementName) -> bool:
        """Return whether the element has the VR."""
        return element.vr == self.vr


@dataclass(frozen=True, slots=True)
class SelectGroup(FieldExpression):
    """``select:GROUP:gggg``: the elements of one group."""

    group: int

    def selects(self, element: ElementName) -> bool:
        """Return whether the element belongs to the group."""
        return element.tag >> 16 == self.group

    @property
    def depends_on_tag_only(self) -> bool:
        """The group is a part of the tag."""
        return True


@dataclass(frozen=True, slots=True)
class ContentItem(FieldExpression):
    """``content:CODE,SCHEME,VALUETYPE``: the content items of one concept name and value type."""

    concept: Concept

    def selects(self, element: ElementName) -> bool:
        """Return False: the engine selects content items when it reads them."""
        return False


@dataclass(frozen=True, slots=True)
class FieldsList(FieldExpression):
    """``fields:NAME``: elements of the tags that the section ``%fields NAME`` selects in the object."""

    name: str

    def selects(self, element: ElementName) -> bool:
        """Return False: `CompiledRecipe` selects elements of a list for each object."""
        return False


@dataclass(frozen=True, slots=True)
class ValuesList(FieldExpression):
    """``values:NAME``: the elements in which a value is found that ``%values NAME`` collects from the object."""

    name: str

    def selects(self, element: ElementName) -> bool:
        """Return False: the engine compares the values of each object."""
        return False


# Many rules are tried on one element before the next.
@lru_cache(maxsize=64)
def _names(element: ElementName) -> tuple[str, ...]:
    tag = f"{element.tag:08x}"
    parenthesised = f"({tag[:4]},{tag[4:]})"
    names = (element.nested_name, parenthesised, tag, element.name, element.keyword)
    if element.private_creator is None or not element.is_private:
        return names
    private = f'{tag[:4]},"{element.private_creator}",{tag[6:]}'
    return (*names, private, f"({private})")


@lru_cache(maxsize=64)
def lower_case_names(element: ElementName) -> frozenset[str]:
    """Return all names of an element in lower case."""
    return frozenset(map(str.lower, _names(element)))


def parse_field(token: Token) -> FieldExpression:
    """Read a field expression.

    Raises
    ------
    RecipeSyntaxError
        An unknown expander or name, a pattern that is no regular expression, or what ``select:`` does not know.
    """
    text, column = (token.text, token.column + 1) if token.is_quoted else (token.raw, token.column)
    if text.lower() == "all":
        return All(text)
    expander = _EXPANDER.fullmatch(text)
    if expander is None:
        return _exact(text, column)
    word, expression = expander[1].lower(), expander[2]
    column += len(word) + 1
    if word in _SEARCHING:
        return _search(text, word, expression, column)
    if word == "select":
        return _select(text, expression, column)
    if word == "content":
        return _content_item(text, expression, column)
    if word not in EXPANDERS:
        near = _with_colon(nearest(word, EXPANDERS))
        raise RecipeSyntaxError(f"unknown expander '{expander[1]}:'", token.column, near, ignored_by_deid=True)
    if not expression:
        raise RecipeSyntaxError(f"'{word}:' needs the name of a list", column)
    return FieldsList(text, expression) if word == "fields" else ValuesList(text, expression)


def _with_colon(word: str | None) -> str | None:
    return None if word is None else f"{word}:"


def _search(text: str, word: str, expression: str, column: int) -> Search:
    if not expression:
        raise RecipeSyntaxError(f"'{word}:' needs an expression", column)
    escape = _UPPER_CASE_ESCAPE.search(expression)
    if escape:
        # The language lower-cases expressions, so that \D would silently mean \d.
        raise RecipeSyntaxError(
            "expressions are read in lower case: an escape in upper case has no meaning", column + escape.end() - 2
        )
    try:
        re.compile(expression.lower())
        pattern = re.compile(_SEARCHING[word].format(expression.lower()), re.IGNORECASE)
    except re.error as error:
        raise RecipeSyntaxError(f"not a regular expression: {error.msg}", column + (error.pos or 0)) from None
    return Search(text, pattern, word == "except")


def _select(text: str, expression: str, column: int) -> SelectVR | SelectGroup:
    attribute, _, value = expression.partition(":")
    column_of_value = column + len(attribute) + 1
    if attribute.upper() == "VR":
        if value.upper() not in _VRS:
            raise RecipeSyntaxError(f"'{value}' is not a VR", column_of_value, nearest(value, _VRS))
        return SelectVR(text, value.upper())
    if attribute.upper() == "GROUP":
        if not re.fullmatch(r"(0x)?[0-9a-f]{1,4}", value.lower()):
            raise RecipeSyntaxError(f"'{value}' is not a group number of four hexadecimal digits", column_of_value)
        return SelectGroup(text, int(value, 16))
    raise RecipeSyntaxError(f"unknown attribute 'select:{attribute}'", column, "select:VR: or select:GROUP:")


def _content_item(text: str, expression: str, column: int) -> ContentItem:
    # A code may hold a comma; a coding scheme's designator and a value type do not.
    code, *rest = expression.rsplit(",", 2)
    if len(rest) < 2:
        raise RecipeSyntaxError(
            "a content item is named as in content:121022,DCM,TEXT: code, scheme, value type", column
        )
    scheme, value_type = rest
    if not _CODE.fullmatch(code):
        raise RecipeSyntaxError(f"'{code}' is not a code", column)
    column += len(code) + 1
    if not _SCHEME.fullmatch(scheme) and not (scheme == "" and code.lower().startswith("urn:")):
        raise RecipeSyntaxError(f"'{scheme}' is not the designator of a coding scheme", column)
    if value_type.upper() not in VALUE_TYPES:
        column += len(scheme) + 1
        raise RecipeSyntaxError(f"'{value_type}' is not a value type", column, nearest(value_type, VALUE_TYPES))
    return ContentItem(text, Concept.of(code, scheme, value_type))


def _exact(text: str, column: int) -> Exact:
    known = parse_tag(text) is not None or is_private_form(text) or text.lower() in names_in_any_case()
    if known or _is_nested_name(text):
        return Exact(text)
    is_tag = parse_tag(f"({text})") is not None
    near = f"({text})" if is_tag else nearest_field(text.rpartition("__")[2], quoted=True)
    raise RecipeSyntaxError(
        f"unknown field '{text}': no keyword, element name or tag", column, near, ignored_by_deid=True
    )


def _is_nested_name(text: str) -> bool:
    """Return whether the text is keywords joined by two underscores; private sequences have an empty keyword."""
    parts = text.lower().split("__")
    return any(parts) and all(not part or part in keywords_in_any_case() for part in parts)

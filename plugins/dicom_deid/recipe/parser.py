"""Parse recipe files into rules, lists and filters, and collect every problem found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe.concepts import DATED_VALUE_TYPES, WRITTEN_VALUE_TYPES
from dicom_deid.recipe.criteria import without_comment
from dicom_deid.recipe.element_names import PrivateElement, parse_private_element
from dicom_deid.recipe.errors import RecipeError, RecipeProblem, RecipeSyntaxError, nearest
from dicom_deid.recipe.fields import (
    ContentItem,
    Exact,
    FieldExpression,
    FieldsList,
    ValuesList,
    parse_field,
)
from dicom_deid.recipe.filters import Filter, parse_filter_line
from dicom_deid.recipe.lexer import Token, tokens
from dicom_deid.recipe.profile_attributes import composite_tags
from dicom_deid.recipe.rules import Action, ListEntry, Rule
from dicom_deid.recipe.values import DeidFunction, Function, Literal, Value, Variable, parse_value

SECTIONS = ("header", "option", "labels", "filter", "values", "fields", "safe-private", "vocabulary", "compat")
_NAMED = ("filter", "values", "fields", "compat")
_NEEDS_VALUE = (Action.ADD, Action.JITTER, Action.REPLACE)
_IGNORED = "ignored, as deid does: "
_PARAMETER = re.compile(r"""\s*(\w+)\s*=\s*("[^"]*"|'[^']*'|[^;\s"']+)\s*(?:;|$)""")


@dataclass(slots=True)
class _Reference:
    """The use of a list by a rule, to be checked once all files are read."""

    name: str
    section: str
    file: str
    line: int
    column: int
    compat: bool


@dataclass(slots=True)
class ParsedRecipe:
    """Content of one or more recipe files, in the order of the files.

    Parameters
    ----------
    rules, filters
        In the order of the files and their lines.
    fields, values
        The lists by name; sections of one name are read as one.
    warnings
        Lines that are ignored because of ``%compat deid``.
    retained
        Fields, in lower case, that fragments keep unchanged by KEEP in ``%option``.
    safe_private
        Group, private creator and last byte of the elements of ``%safe-private``.
    vocabulary
        Words of ``%vocabulary``, casefolded.
    """

    rules: list[Rule] = field(default_factory=list)
    filters: list[Filter] = field(default_factory=list)
    fields: dict[str, list[ListEntry]] = field(default_factory=dict)
    values: dict[str, list[ListEntry]] = field(default_factory=dict)
    warnings: list[RecipeProblem] = field(default_factory=list)
    retained: set[str] = field(default_factory=set)
    safe_private: set[PrivateElement] = field(default_factory=set)
    vocabulary: set[str] = field(default_factory=set)


def parse_files(files: Sequence[tuple[str, str]]) -> ParsedRecipe:
    """Read several recipe files in order.

    Parameters
    ----------
    files
        Name and text of each.

    Raises
    ------
    RecipeError
        With all problems of all files.
    """
    parsed = ParsedRecipe()
    problems: list[RecipeProblem] = []
    references: list[_Reference] = []
    for name, text in files:
        parser = _FileParser(name, parsed, references)
        parser.read(text)
        problems += parser.problems
    problems += _undefined(references, parsed)
    order = {name: index for index, (name, _) in enumerate(files)}
    for found in (problems, parsed.warnings):
        found.sort(key=lambda problem: (order[problem.file], problem.line, problem.column))
    if problems:
        raise RecipeError(problems)
    return parsed


def _undefined(references: Sequence[_Reference], parsed: ParsedRecipe) -> list[RecipeProblem]:
    """Return the uses of undefined lists; with ``%compat deid``, drop their rules and add warnings instead."""
    lists = {"fields": parsed.fields, "values": parsed.values}
    problems = []
    for reference in references:
        if reference.name in lists[reference.section]:
            continue
        message = f"no section %{reference.section} {reference.name} defines this list"
        near = nearest(reference.name, lists[reference.section])
        place = (reference.file, reference.line)
        if reference.compat:
            parsed.warnings.append(RecipeProblem(*place, reference.column, _IGNORED + message, near))
            parsed.rules[:] = [rule for rule in parsed.rules if (rule.source, rule.line) != place]
        else:
            problems.append(RecipeProblem(*place, reference.column, message, near))
    return problems


class _FileParser:
    """State of reading one file."""

    def __init__(self, name: str, parsed: ParsedRecipe, references: list[_Reference]) -> None:
        self.name = name
        self.parsed = parsed
        self.references = references
        self.problems: list[RecipeProblem] = []
        self.has_format = False
        self.compat = False
        self.section: str | None = None
        self.section_name = ""
        self.labelled = False
        self.line_number = 0
        self.readers: dict[str, Callable[[str], None]] = {
            "header": self.read_action,
            "option": self.read_option,
            "labels": lambda line: None,
            "filter": self.read_filter_line,
            "values": self.read_list_line,
            "fields": self.read_list_line,
            "safe-private": self.read_safe_private,
            "vocabulary": self.read_vocabulary,
        }

    def read(self, text: str) -> None:
        """Read the whole file and collect what is wrong in `problems`."""
        for self.line_number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
            try:
                self.read_line(line.rstrip())
            except RecipeSyntaxError as error:
                self.note(error)
        if not self.has_format:
            self.problems.insert(0, RecipeProblem(self.name, 1, 1, "the line 'FORMAT dicom' is missing"))

    def note(self, error: RecipeSyntaxError) -> None:
        """Add an error to the problems; with ``%compat deid``, one that `deid` ignores to the warnings."""
        is_ignored = self.compat and error.ignored_by_deid
        message = _IGNORED + error.message if is_ignored else error.message
        found = RecipeProblem(self.name, self.line_number, error.column, message, error.near)
        (self.parsed.warnings if is_ignored else self.problems).append(found)

    def read_line(self, line: str) -> None:
        stripped = line.lstrip()
        column = len(line) - len(stripped) + 1
        if not stripped or stripped.startswith("#"):
            return
        if stripped.startswith("%"):
            self.read_section(stripped, column)
        elif stripped.split()[0].upper() == "FORMAT":
            self.read_format(line)
        elif self.section is None:
            raise RecipeSyntaxError("a line before the first section, such as %header", column)
        else:
            self.readers[self.section](line)

    def read_format(self, line: str) -> None:
        words = tokens(line)
        self.has_format = True
        if words[0].raw != "FORMAT":
            raise RecipeSyntaxError(f"'{words[0].raw}' must be in upper case", words[0].column, "FORMAT")
        if len(words) != 2 or words[1].raw.lower() != "dicom":
            raise RecipeSyntaxError("the format is 'FORMAT dicom'", words[-1].column, "dicom")

    def read_section(self, line: str, column: int) -> None:
        word, *rest = line.split("#", 1)[0].split(maxsplit=1)
        section = word[1:].lower()
        # Lines after a wrong section line are not read as lines of the section before it.
        self.section, self.labelled = "labels", False
        if section not in SECTIONS:
            near = nearest(section, SECTIONS)
            raise RecipeSyntaxError(f"unknown section {word}", column, near and f"%{near}")
        name = rest[0].strip() if rest else ""
        if section in _NAMED and not name:
            raise RecipeSyntaxError(f"%{section} needs a name", column)
        if section not in _NAMED and name:
            raise RecipeSyntaxError(f"%{section} takes no name", column + line.index(name, len(word)))
        if section == "compat":
            if name.lower() != "deid":
                raise RecipeSyntaxError("%compat takes deid", column + line.index(name, len(word)), "%compat deid")
            self.compat = True
        else:
            self.section, self.section_name = section, name
        if section in ("fields", "values"):
            self.list_of(section).setdefault(name, [])

    def list_of(self, section: str) -> dict[str, list[ListEntry]]:
        return self.parsed.fields if section == "fields" else self.parsed.values

    # %header and %option

    def read_action(self, line: str) -> None:
        rule = self.rule_of(line)
        if rule is not None:
            self.parsed.rules.append(rule)

    def read_option(self, line: str) -> None:
        """Read a rule that replaces all rules of other files for the same field.

        KEEP of an element only removes those rules; KEEP of a content item remains as a rule, because rules for
        elements would otherwise apply to the item.
        """
        rule = self.rule_of(line)
        if rule is None:
            return
        text = rule.field.text.lower()
        self.parsed.rules[:] = [
            other for other in self.parsed.rules if other.source == self.name or other.field.text.lower() != text
        ]
        self.parsed.retained.discard(text)
        if rule.action is not Action.KEEP or isinstance(rule.field, ContentItem):
            self.parsed.rules.append(rule)
        else:
            self.parsed.retained.add(text)

    def rule_of(self, line: str) -> Rule | None:
        word, *rest = tokens(line)
        if word.raw == "LABEL":
            return None
        if word.raw not in list(Action):
            near = nearest(word.raw, Action)
            raise RecipeSyntaxError(f"unknown action '{word.raw}'", word.column, near, ignored_by_deid=True)
        action = Action(word.raw)
        if not rest:
            raise RecipeSyntaxError(f"{action} needs a field", word.column)
        expression = parse_field(rest[0])
        self.note_reference(expression, rest[0])
        if action is Action.ADD:
            _check_addition(expression, rest)
        if isinstance(expression, ContentItem):
            _check_content_item(action, expression, word, rest)
        elif action.is_composite:
            _check_composite(action, expression, rest)
        try:
            value = _value_of(action, rest)
        except RecipeSyntaxError as error:
            if not (self.compat and error.ignored_by_deid):
                raise
            # The line is not ignored, only its value.
            self.note(error)
            value = None
        return Rule(action, expression, value, self.name, self.line_number)

    def note_reference(self, expression: FieldExpression, token: Token) -> None:
        if isinstance(expression, FieldsList | ValuesList):
            section = "fields" if isinstance(expression, FieldsList) else "values"
            column = token.column + token.raw.index(":") + 1
            place = (self.name, self.line_number, column)
            self.references.append(_Reference(expression.name, section, *place, self.compat))

    # %fields and %values

    def read_list_line(self, line: str) -> None:
        word, *rest = tokens(line)
        allowed = ("FIELD", "SPLIT") if self.section == "values" else ("FIELD",)
        if word.raw not in allowed:
            near = nearest(word.raw, allowed)
            raise RecipeSyntaxError(
                f"%{self.section} takes {' and '.join(allowed)}, not '{word.raw}'", word.column, near
            )
        if not rest:
            raise RecipeSyntaxError(f"{word.raw} needs a field", word.column)
        expression = parse_field(rest[0])
        if isinstance(expression, FieldsList | ValuesList):
            raise RecipeSyntaxError("a list cannot be made of another list", rest[0].column)
        if isinstance(expression, ContentItem):
            raise RecipeSyntaxError("a list is made of elements, not of content items", rest[0].column)
        if word.raw == "FIELD":
            if len(rest) > 1:
                raise RecipeSyntaxError("nothing may follow the field of FIELD", rest[1].column)
            entry = ListEntry(expression)
        else:
            entry = _split_entry(expression, rest[1:])
        self.list_of(str(self.section))[self.section_name].append(entry)

    # %safe-private

    def read_safe_private(self, line: str) -> None:
        word, *rest = tokens(line)
        element = parse_private_element(word.raw)
        if element is None:
            raise RecipeSyntaxError('%safe-private takes (gggg,"CREATOR",ee)', word.column)
        if rest:
            raise RecipeSyntaxError("nothing may follow the element", rest[0].column)
        self.parsed.safe_private.add(element)

    # %vocabulary

    def read_vocabulary(self, line: str) -> None:
        self.parsed.vocabulary.update(without_comment(line).casefold().split())

    # %filter

    def read_filter_line(self, line: str) -> None:
        text = without_comment(line)
        stripped = text.lstrip()
        column = len(text) - len(stripped) + 1
        if stripped.split()[0].upper() == "LABEL":
            label = " ".join(stripped.split()[1:])
            if not label:
                raise RecipeSyntaxError("LABEL needs a name", column)
            self.labelled = True
            self.parsed.filters.append(Filter(self.section_name, label, source=self.name, line=self.line_number))
            return
        if not self.labelled:
            raise RecipeSyntaxError("a line before the first LABEL of the section", column)
        unknown: list[RecipeSyntaxError] | None = [] if self.compat else None
        parsed_line = parse_filter_line(stripped, column, unknown)
        for error in unknown or ():
            self.note(error)
        self.parsed.filters[-1] = self.parsed.filters[-1].with_line(parsed_line)


def _check_addition(expression: FieldExpression, rest: Sequence[Token]) -> None:
    column = rest[0].column
    tag = expression.tag if isinstance(expression, Exact) else None
    if tag is None:
        raise RecipeSyntaxError("ADD needs one element: a keyword, an element name or a tag", column)
    if vr_of(tag) == "SQ" and len(rest) > 1 and rest[1].text and not rest[1].raw.startswith("func:"):
        message = 'ADD writes an empty sequence (ADD KEYWORD ""), or the one that a function returns'
        raise RecipeSyntaxError(message, rest[1].column)


def _check_composite(action: Action, expression: FieldExpression, rest: Sequence[Token]) -> None:
    tag = expression.tag if isinstance(expression, Exact) else None
    if tag not in composite_tags():
        raise RecipeSyntaxError(
            f"{action} needs an attribute that has such an action in PS3.15 Table E.1-1; others take REMOVE, BLANK "
            "or REPLACE",
            rest[0].column,
        )
    is_sequence = vr_of(tag) == "SQ"
    takes_value = action.value.endswith("D") and not is_sequence
    if takes_value and len(rest) < 2:
        raise RecipeSyntaxError(f'{action} needs a value; "" is the empty one', rest[0].column + len(rest[0].raw))
    if not takes_value and len(rest) > 1:
        raise RecipeSyntaxError(
            f"{action} of {'a sequence' if is_sequence else 'an element'} takes no value", rest[1].column
        )
    if action is Action.X_OR_Z_OR_U and not is_sequence:
        raise RecipeSyntaxError(f"{action} needs a sequence", rest[0].column, Action.X_OR_Z_OR_D)


def _check_content_item(action: Action, item: ContentItem, word: Token, rest: Sequence[Token]) -> None:
    value_type = item.concept.value_type
    if action.is_composite:
        raise RecipeSyntaxError(
            f"{action} is for attributes: a content item has no type", word.column, "REMOVE or REPLACE"
        )
    if action in (Action.BLANK, Action.REPLACE) and value_type not in WRITTEN_VALUE_TYPES:
        raise RecipeSyntaxError(
            f"{action} cannot write the value of a {value_type} item: REMOVE or KEEP it", word.column, "REMOVE"
        )
    if action is Action.JITTER and value_type not in DATED_VALUE_TYPES:
        raise RecipeSyntaxError(
            f"JITTER shifts the day of a DATE or DATETIME item, not a {value_type} item", word.column
        )
    if action is Action.REMOVE and len(rest) > 1:
        raise RecipeSyntaxError("REMOVE of a content item takes no condition", rest[1].column)


def _value_of(action: Action, rest: Sequence[Token]) -> Value | None:
    field_token, *words = rest
    if action in (Action.BLANK, Action.KEEP):
        if words:
            raise RecipeSyntaxError(f"{action} takes no value", words[0].column, ignored_by_deid=True)
        return None
    if not words:
        if action in _NEEDS_VALUE:
            end = field_token.column + len(field_token.raw)
            raise RecipeSyntaxError(f'{action} needs a value; "" is the empty one', end)
        return None
    value = parse_value(words)
    _check_value(action, value, words[0].column)
    return value


def _check_value(action: Action, value: Value, column: int) -> None:
    match action, value:
        case Action.JITTER, Literal(text) if not re.fullmatch(r"[+-]?[0-9]{1,7}", text):
            raise RecipeSyntaxError("JITTER takes a whole number of days, of at most 7 digits", column)
        case Action.JITTER, DeidFunction(name):
            raise RecipeSyntaxError(
                f"JITTER takes a number of days; deid_func:{name} is a value of REPLACE", column, "REPLACE"
            )
        case Action.REMOVE, Literal() | DeidFunction():
            raise RecipeSyntaxError("the condition of REMOVE is func:NAME or var:NAME", column, ignored_by_deid=True)
        case Action.ADD, DeidFunction("jitter"):
            raise RecipeSyntaxError("ADD has no date to shift", column, "REPLACE")
        case Action.ADD, DeidFunction("pydicom_uuid", arguments) if arguments["stable_remapping"]:
            raise RecipeSyntaxError("ADD has no UID to map: give stable_remapping=false", column)
        case _, Literal() | Variable() | Function() | DeidFunction():
            return


def _split_entry(expression: FieldExpression, words: Sequence[Token]) -> ListEntry:
    by, minlength = " ", 1
    if not words:
        return ListEntry(expression, by, minlength)
    text, column = " ".join(word.raw for word in words), words[0].column
    position = 0
    while position < len(text):
        parameter = _PARAMETER.match(text, position)
        if parameter is None:
            raise RecipeSyntaxError('SPLIT takes by="TEXT";minlength=NUMBER', column + position)
        name, written = parameter.groups()
        argument = written[1:-1] if written[0] in "\"'" else written
        if name == "by" and argument:
            by = argument
        elif name == "minlength" and re.fullmatch(r"[1-9][0-9]{0,3}", argument):
            minlength = int(argument)
        elif name in ("by", "minlength"):
            what = "a text" if name == "by" else "a number from 1"
            raise RecipeSyntaxError(f"{name} is {what}", column + parameter.start(2))
        else:
            near = nearest(name, ("by", "minlength"))
            raise RecipeSyntaxError(f"SPLIT takes by and minlength, not '{name}'", column + parameter.start(1), near)
        position = parameter.end()
    return ListEntry(expression, by, minlength)

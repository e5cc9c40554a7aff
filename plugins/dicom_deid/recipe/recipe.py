"""Recipe: the rules, lists and filters of one file, or of several combined in order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe.element_names import PrivateElement
from dicom_deid.recipe.errors import RecipeProblem, nearest
from dicom_deid.recipe.filters import Filter
from dicom_deid.recipe.parser import ParsedRecipe, parse_files
from dicom_deid.recipe.rules import ListEntry, Rule

_SHIPPED = Path(__file__).parent.parent / "recipes"
_SUFFIX = ".dicom"


@dataclass(frozen=True)
class Recipe:
    """Rules, lists and filters, in order; made by one of the class methods.

    ``str(recipe)`` is the recipe's normalised text, which parses to an equal recipe.

    Parameters
    ----------
    name
        Name of the file, or the names of several joined by ``+``.
    rules
        The lines of ``%header``.
    filters
        The labels of ``%filter``.
    fields, values
        The lists of ``%fields`` and ``%values`` by name.
    safe_private
        Private elements that the site vouches for, from ``%safe-private``, in order.
    vocabulary
        Words that may stay in free text, from ``%vocabulary``, casefolded and in order.
    warnings
        Lines that were ignored because the file has the line ``%compat deid``.
    retained
        Fields, in lower case, that fragments keep unchanged by KEEP in ``%option``.
    """

    name: str = field(compare=False)
    rules: tuple[Rule, ...] = ()
    filters: tuple[Filter, ...] = ()
    fields: Mapping[str, tuple[ListEntry, ...]] = field(default_factory=dict)
    values: Mapping[str, tuple[ListEntry, ...]] = field(default_factory=dict)
    safe_private: tuple[PrivateElement, ...] = ()
    vocabulary: tuple[str, ...] = ()
    warnings: tuple[RecipeProblem, ...] = field(default=(), compare=False)
    retained: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def parse(cls, text: str, name: str = "recipe") -> Recipe:
        """Read the text of one recipe file.

        Raises
        ------
        RecipeError
            With all problems of the text.
        """
        return cls._of(name, parse_files([(name, text)]))

    @classmethod
    def from_path(cls, path: str | Path | Sequence[str | Path]) -> Recipe:
        """Read one recipe file, or several in order.

        A list (``fields:``, ``values:``) may be used in another file than the one that defines it.

        Raises
        ------
        RecipeError
            With all problems of all files.
        ConfigurationError
            A file that cannot be read.
        """
        paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
        if not paths:
            raise ConfigurationError("no recipe was given")
        name = "+".join(one.stem for one in paths)
        return cls._of_files(name, tuple((_shown_name(one, paths), _read(one)) for one in paths))

    @classmethod
    def named(cls, name: str) -> Recipe:
        """Read a recipe that ships with the package.

        Raises
        ------
        ConfigurationError
            No recipe of that name ships.
        """
        return cls.from_path(_shipped_path(name))

    @classmethod
    def resolve(cls, *names_or_paths: str | Path) -> Recipe:
        """Read recipes, each given by the name of one that ships or by the path of a file, and combine them.

        Raises
        ------
        RecipeError
            With all problems of all files.
        ConfigurationError
            Neither a name nor a file that can be read.
        """
        return cls.from_path([_resolve(one) for one in names_or_paths])

    @staticmethod
    def shipped() -> tuple[str, ...]:
        """Return the names of the recipes that ship with the package, in alphabetical order."""
        return tuple(sorted(path.stem for path in _SHIPPED.glob(f"*{_SUFFIX}")))

    @classmethod
    def combine(cls, *recipes: Recipe) -> Recipe:
        """Join recipes: rules and filters one after the other, lists of one name as one."""
        parsed = ParsedRecipe()
        for recipe in recipes:
            parsed.rules += recipe.rules
            parsed.filters += recipe.filters
            parsed.warnings += recipe.warnings
            parsed.retained |= recipe.retained
            parsed.safe_private.update(recipe.safe_private)
            parsed.vocabulary.update(recipe.vocabulary)
            for own, added in ((parsed.fields, recipe.fields), (parsed.values, recipe.values)):
                for list_name, entries in added.items():
                    own.setdefault(list_name, []).extend(entries)
        return cls._of("+".join(recipe.name for recipe in recipes), parsed)

    @classmethod
    @lru_cache(maxsize=16)
    def _of_files(cls, name: str, files: tuple[tuple[str, str], ...]) -> Recipe:
        """Return the recipe of files by name and text; the catalogue of devices takes 0.1 s to read."""
        return cls._of(name, parse_files(files))

    @classmethod
    def _of(cls, name: str, parsed: ParsedRecipe) -> Recipe:
        return cls(
            name,
            tuple(parsed.rules),
            tuple(parsed.filters),
            MappingProxyType({key: tuple(entries) for key, entries in parsed.fields.items()}),
            MappingProxyType({key: tuple(entries) for key, entries in parsed.values.items()}),
            tuple(sorted(parsed.safe_private)),
            tuple(sorted(parsed.vocabulary)),
            tuple(parsed.warnings),
            frozenset(parsed.retained),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the normalised text as 64 hexadecimal digits: comments and blank lines do not change it."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def __str__(self) -> str:
        lines = ["FORMAT dicom"]
        for section, lists in (("fields", self.fields), ("values", self.values)):
            for name in sorted(lists):
                lines += ["", f"%{section} {name}", *map(str, lists[name])]
        group = None
        for one in self.filters:
            if one.group != group:
                group = one.group
                lines += ["", f"%filter {group}"]
            lines += ["", str(one)]
        if self.safe_private:
            lines += ["", "%safe-private", *map(str, self.safe_private)]
        if self.vocabulary:
            lines += ["", "%vocabulary", *self.vocabulary]
        lines += ["", "%header", *map(str, self.rules)]
        return "\n".join(lines) + "\n"


def _shown_name(path: Path, paths: Sequence[Path]) -> str:
    """Return the file name if it is unique among the paths, else the whole path."""
    return path.name if sum(other.name == path.name for other in paths) == 1 else str(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"recipe {path}: byte {error.start} is not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"recipe {path}: {error.strerror}") from None


def _shipped_path(name: str) -> Path:
    names = Recipe.shipped()
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}"
        raise ConfigurationError(f"no recipe named {name} ships with this package; {hint}")
    return _SHIPPED / f"{name}{_SUFFIX}"


def _resolve(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if str(name_or_path) in Recipe.shipped():
        return _shipped_path(str(name_or_path))
    is_path = path.exists() or path.suffix == _SUFFIX or len(path.parts) > 1
    return path if is_path else _shipped_path(str(name_or_path))

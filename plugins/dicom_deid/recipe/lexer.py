"""Split a line of a recipe into tokens."""

from __future__ import annotations

import re
from typing import NamedTuple

from dicom_deid.recipe.errors import RecipeSyntaxError

_PIECE = re.compile(r"""[^\s"'#]+|"[^"]*"|'[^']*'""")
_QUOTES = "\"'"


class Token(NamedTuple):
    """A run of characters without a blank outside quotes.

    Parameters
    ----------
    raw
        The characters as written, including quotes.
    text
        The characters without quotes.
    column
        Where the token begins; counts from 1.
    """

    raw: str
    text: str
    column: int

    @property
    def is_quoted(self) -> bool:
        """True if the whole token is one quoted text."""
        return len(self.raw) > 1 and self.raw[0] in _QUOTES and self.raw[1:-1] == self.text

    @property
    def begins_quoted(self) -> bool:
        """True if the token begins with a quote, and therefore has no prefix such as ``var:``."""
        return self.raw[0] in _QUOTES


def tokens(line: str) -> list[Token]:
    """Split a line at blanks that are not in quotes; what follows a ``#`` outside quotes is a comment.

    Raises
    ------
    RecipeSyntaxError
        A quote that is not closed.
    """
    found: list[Token] = []
    raw, text, begin, position = "", "", 0, 0
    while position < len(line) and line[position] != "#":
        if line[position].isspace():
            position += 1
            if raw:
                found.append(Token(raw, text, begin + 1))
                raw = text = ""
            continue
        piece = _PIECE.match(line, position)
        if piece is None:
            raise RecipeSyntaxError(f"the quote {line[position]} is not closed", position + 1)
        if not raw:
            begin = position
        raw += piece[0]
        text += piece[0][1:-1] if piece[0][0] in _QUOTES else piece[0]
        position = piece.end()
    if raw:
        found.append(Token(raw, text, begin + 1))
    return found


def quoted(text: str, *, whole_first_word: bool = False) -> str:
    """Return `text` as a value that :func:`tokens` reads as the same text, quoted only where it must be.

    Parameters
    ----------
    text
        Any text of one line.
    whole_first_word
        Quote the first word in any case, so that it is not taken for a prefix such as ``var:``.
    """
    first, *rest = text.split(" ")
    return " ".join([_quoted_word(first, whole_first_word), *(_quoted_word(word, False) for word in rest)])


def _quoted_word(word: str, in_any_case: bool) -> str:
    if word and not in_any_case and not re.search(r"""[\s"'#]""", word):
        return word
    pieces = re.findall(r"""[^"]+|"+""", word)
    return "".join(f"'{piece}'" if piece[0] == '"' else f'"{piece}"' for piece in pieces) or '""'

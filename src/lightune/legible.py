"""Somebody else's text in one line that is safe to show on a screen or a page."""

from __future__ import annotations

import unicodedata

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # the Unicode categories of what has no letter of its own


def visible(text: str) -> str:
    """`text` with control, bidi and other invisible characters, and half characters, as escapes."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in UNSEEN else character
        for character in text
    )


def in_a_line(text: str, most: int) -> str:
    """The first `most` characters of a text, white space single; … is where it was cut."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"

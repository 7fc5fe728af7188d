"""What is shown on a screen or a page: somebody else's text in one line that is safe, numbers of any size."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # the Unicode categories of what has no letter of its own


def visible(text: str) -> str:
    """`text` with control, bidi and other invisible characters, and half characters, as escapes."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in UNSEEN else character
        for character in text
    )


def printable(text: str) -> str:
    """The same for a terminal, where lines may end and tabs may be."""
    return "".join(part if part in "\n\t" else visible(part) for part in re.split(r"([\n\t])", text))


def as_argument(path: Path) -> str:
    """A path that no command takes for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def typed(path: Path) -> str:
    """A path as one would type it in a shell: no option, one word."""
    return quote(as_argument(path))


def in_a_line(text: str, most: int) -> str:
    """The first `most` characters of a text, white space single; … is where it was cut."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"


def figures(value: float, digits: int = 3, sign: str = "") -> str:
    """A number with so many digits that count, and with those before the point in any case: "0.0512", "1,234"."""
    if value == 0 or not math.isfinite(value):
        return f"{value:{sign}g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:{sign},.{max(0, places)}f}" if places <= 9 else f"{value:{sign}.{digits - 1}e}"


def counted(n: int, what: str) -> str:
    """'1 row', '1,234 rows'."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def with_interval(score: Mapping[str, Any]) -> str:
    """'0.884 (0.870 to 0.898)'."""
    return f"{figures(score['value'])} ({ends(score)})"


def ends(score: Mapping[str, Any]) -> str:
    """'0.870 to 0.898', the ends of an interval."""
    return f"{figures(score['low'])} to {figures(score['high'])}"

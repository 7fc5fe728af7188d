"""What a report page is made of: sections of texts, tables and figures, and how numbers are written in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lightune.legible import figures

if TYPE_CHECKING:
    from lightune.report.marks import Piece

LONG_WORD, SHORT_TEXT, LONG_NAME = 28, 50, 48  # characters
MINUS, NOTHING = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One cell.

    note: under it, smaller; share: from 0 to 1, how strong its ground is; is_number: set to the right.
    """

    text: str
    note: str = ""
    share: float | None = None
    is_number: bool = False

    @property
    def look(self) -> str:
        """Its class in the style sheet: `long` may be broken anywhere, `text` needs some width."""
        if self.is_number:
            return "number"
        if max(map(len, self.text.split()), default=0) > LONG_WORD:
            return "long"
        return "text" if len(self.text) > SHORT_TEXT else ""


@dataclass(frozen=True)
class Text:
    """A paragraph. look: `verdict`, `note` or nothing."""

    kind: ClassVar[str] = "text"
    text: str
    look: str = ""


@dataclass(frozen=True)
class Code:
    """What can be typed into a terminal."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under the names of their columns; the first cell of a row is its name.

    under: for each row a text that stands under it, if there are any.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: list[Cell]
    rows: list[list[Cell]]
    look: str = ""
    under: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """Drawings side by side, each a whole <svg>, over one caption."""

    kind: ClassVar[str] = "figure"
    caption: str
    drawings: list[str]


@dataclass(frozen=True)
class Pair:
    """Blocks side by side where there is room."""

    kind: ClassVar[str] = "pair"
    blocks: list[Table]


@dataclass(frozen=True)
class MarkedText:
    """A text whose words are marked, under what it is, over what the marks come to."""

    head: str
    pieces: list[Piece]
    note: str


@dataclass(frozen=True)
class Marked:
    """Texts with marked words under a sentence that shows the marks."""

    kind: ClassVar[str] = "marked"
    legend: list[Piece]
    items: list[MarkedText]


Row = Sequence[Cell | str | int]
Block = Text | Code | Table | Figure | Pair | Marked


@dataclass(frozen=True)
class Section:
    """A heading with its blocks; id: what the list of contents links to."""

    id: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def table(caption: str, columns: Sequence[Cell | str], rows: Iterable[Row], *, look: str = "") -> Table:
    """A table of cells, texts and counts; a column of numbers is set to the right, its name too."""
    cells = [[_cell(value) for value in row] for row in rows]
    heads = [
        replace(_cell(name), is_number=any(row[place].is_number for row in cells))
        for place, name in enumerate(columns)
    ]
    return Table(caption, heads, cells, look)


def facts(caption: str, values: Mapping[str, Any], head: tuple[str, str]) -> Table:
    """A table of two columns, names and values, called `head`; a value that is missing is an en dash."""
    return table(caption, head, [[key, in_words(value)] for key, value in values.items()], look="facts")


def in_words(value: Any) -> str:
    """A value of a recipe as it is read; lists with commas, nothing as an en dash."""
    if value is None or value == []:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    return str(value)


def decimal(value: float | None, digits: int = 4) -> str:
    """0.8710, with a real minus sign; an en dash where there is no number."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float) -> str:
    """A number of any size by the figures that count, with a real minus sign."""
    return figures(value).replace("-", MINUS)


def interval(score: Mapping[str, Any], digits: int = 3) -> str:
    """'0.856 to 0.885', or nothing where the score has no interval."""
    ends = score.get("low"), score.get("high")
    return "" if None in ends else f"{decimal(ends[0], digits)} to {decimal(ends[1], digits)}"


def scored(score: Mapping[str, Any] | None, *, in_units: bool = False) -> Cell:
    """A score over its interval; an en dash where it has no value. in_units: of any size, as labels can be."""
    if score is None:
        return Cell(NOTHING, is_number=True)
    if in_units:
        return Cell(signed(score["value"]), f"{signed(score['low'])} to {signed(score['high'])}", is_number=True)
    return Cell(decimal(score.get("value")), interval(score), is_number=True)


def short(name: str) -> str:
    """A name of at most LONG_NAME characters; of a longer one the beginning and the end."""
    return name if len(name) <= LONG_NAME else f"{name[: LONG_NAME - 13]}…{name[-12:]}"


def number(text: str) -> Cell:
    """A cell that is set to the right."""
    return Cell(text, is_number=True)


def percent(share: float | None, digits: int = 1) -> str:
    """'87.1 %'; an en dash where there is no number."""
    return NOTHING if share is None else f"{decimal(100 * share, digits)} %"


def p_value(value: float) -> str:
    """'0.031'; what is smaller than 0.001 as such."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _cell(value: Cell | str | int) -> Cell:
    if isinstance(value, Cell):
        return value
    return number(f"{value:,}") if isinstance(value, int) else Cell(value)

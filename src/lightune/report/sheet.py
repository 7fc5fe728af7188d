"""The sheet that a run's picture is drawn on: its size, colours and margins, and how words and plots are put on it.

All places are in points on a sheet of 720 x 495, origin at the lower left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightune.report.lettering import text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 720, 495, 160  # points, points, pixels per inch
LEFT, RIGHT, PANEL = 100, 430, 240  # left edges of the plots in the two columns, their width
HEAD = 76  # how far the headings stand to the left of the plots
INK, SOFT, FAINT = "#1F2933", "#66717D", "#DDE2E7"
BEFORE, AFTER, DEV = "#D17A00", "#0067A5", "#00805E"  # orange, blue, green: apart for every colour vision
WHEN = (("before", BEFORE, LEFT + PANEL - 56), ("after", AFTER, LEFT + PANEL))  # right edges of the numbers


def write_at(sheet: Figure, x: float, y: float, text: str, **look: Any) -> None:
    """Put `text` on the sheet with the start (or other `ha`) of its baseline at (x, y) points."""
    sheet.text(x / WIDTH, y / HEIGHT, text, parse_math=False, va="baseline", **look)


def heading_at(sheet: Figure, x: float, y: float, title: str, note: str) -> None:
    """A panel's title and a quiet note behind it, over the plot whose left edge is at `x`."""
    write_at(sheet, x - HEAD, y, title, size=9.5, weight="bold")
    write_at(sheet, x - HEAD + text_width(title, 9.5, "bold") + 8, y, note, size=7.5, color=SOFT)


def axes_at(sheet: Figure, x: float, y: float, width: float, height: float, gid: str) -> Axes:
    axes = sheet.add_axes((x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT))
    axes.set_gid(gid)
    return axes


def decimal_of(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")

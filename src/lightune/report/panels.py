"""The lower half of a run's picture: F1 of each label, answers that are numbers, or two confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.report.lettering import fit_names, text_width
from lightune.report.sheet import (
    AFTER,
    BEFORE,
    FAINT,
    HEAD,
    HEIGHT,
    INK,
    LEFT,
    PANEL,
    RIGHT,
    SOFT,
    axes_at,
    decimal_of,
    heading_at,
    write_at,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COUNTED_CLASSES, MOST_PERCENT_CLASSES = 12, 6
MOST_LABELS = 36  # of several a row, in two columns


def draw_labels(sheet: Figure, results: dict[str, Any]) -> None:
    """F1 of the most frequent labels, before and after."""
    labels = sorted(results["by_label"], key=lambda each: -each["n"])
    shown = labels[:MOST_LABELS]
    more = f", the {MOST_LABELS} most frequent of {len(labels)}" if len(labels) > len(shown) else ""
    heading_at(sheet, LEFT, 238, "F1 of each label", f"rows that have it in brackets{more}")
    half = math.ceil(len(shown) / 2)
    for part, x, name in ((shown[:half], LEFT, "labels"), (shown[half:], RIGHT, "labels_more")):
        if part:
            axes = axes_at(sheet, x, 40, PANEL, 188 * len(part) / half, name)
            _draw_label_dots(axes, part)


def _draw_label_dots(axes: Axes, labels: list[dict[str, Any]]) -> None:
    places = range(len(labels))
    for key, colour in (("f1_before", BEFORE), ("f1", AFTER)):
        axes.plot([each[key] for each in labels], places, "o", color=colour, ms=4, clip_on=False)
    axes.hlines(
        places, [each["f1_before"] for each in labels], [each["f1"] for each in labels], color=SOFT, lw=0.8, zorder=0
    )
    names = fit_names([f"{each['label']} ({each['n']:,})" for each in labels], HEAD - 6, 6.5)
    axes.set_yticks(places, names, size=6.5, color=INK, parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.grid(True, color=FAINT, lw=0.5)
    axes.tick_params(axis="y", length=0)


def draw_answers(sheet: Figure, results: dict[str, Any]) -> None:
    """How many test texts of each part of the labels got which answers, before and after."""
    for when, x in (("before", LEFT), ("after", RIGHT)):
        axes = axes_at(sheet, x, 52, PANEL, 176, f"answers_{when}")
        found = results["answers"][when]
        about = f"R² {decimal_of(results[when]['r2']['value'])}" if "r2" in results[when] else ""
        heading_at(sheet, x, 238, when.capitalize(), about)
        low, high = found["low"], found["high"]
        counts = np.array(found["counts"])  # (K, K), a row for each part of the answers
        look = {"cmap": _colours(), "vmin": 0, "aspect": "auto", "interpolation": "nearest", "origin": "lower"}
        axes.imshow(np.sqrt(counts), extent=(low, high, low, high), **look)
        axes.plot([low, high], [low, high], color=SOFT, lw=1, ls=(0, (4, 3)))
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("label", labelpad=2)
        axes.set_ylabel("answer")
        axes.locator_params(nbins=6)
    key = "colour: how many test texts, by square root · on the line an answer is the label"
    write_at(sheet, LEFT - HEAD, 10, key, size=7, color=SOFT)


def draw_confusions(sheet: Figure, results: dict[str, Any]) -> None:
    """The matrices before and after on one colour scale: the share of each true class, 0 to 100 %."""
    rows, columns, turn = _names_on_axes(results["labels"])
    bottom = 28 + _height_of(columns, turn)
    both = {when: np.array(results["confusion"][when]) for when in ("before", "after")}
    size = _count_size(len(rows), f"{max(counts.max() for counts in both.values()):,}")
    for (when, counts), x in zip(both.items(), (LEFT, RIGHT), strict=True):
        axes = axes_at(sheet, x, bottom, PANEL, 228 - bottom, f"confusion_{when}")
        heading_at(sheet, x, 238, when.capitalize(), f"{np.trace(counts):,} of {counts.sum():,} right")
        _draw_matrix(axes, counts, size)
        _dress_matrix(axes, rows, columns, turn)
    _draw_colour_bar(sheet, axes, bottom)
    key = "rows: the true class · columns: what was predicted · colour: share of the row"
    write_at(sheet, LEFT - HEAD, 10, key, size=7, color=SOFT)


def _names_on_axes(labels: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Names beside the rows and under the columns, and the angle of the latter in degrees."""
    size = _name_size(len(labels))
    rows = fit_names(labels, 64, size)
    if max(text_width(name, size) for name in rows) <= PANEL / len(labels) - 5:
        return rows, rows, 0
    return rows, fit_names(labels, 46, size), 35 if len(labels) <= MOST_COUNTED_CLASSES else 90


def _name_size(n_classes: int) -> float:
    return 7.5 if n_classes <= MOST_COUNTED_CLASSES else 6.0


def _height_of(columns: Sequence[str], turn: int) -> float:
    """Points that the names under the columns take."""
    size, angle = _name_size(len(columns)), math.radians(turn)
    return max(text_width(name, size) for name in columns) * math.sin(angle) + size * math.cos(angle)


def _draw_matrix(axes: Axes, counts: np.ndarray, size: float) -> None:
    """counts (C, C): colours are shares of the row, numbers of font size `size` are counts."""
    n_classes, share = len(counts), row_shares(counts)
    axes.imshow(share, cmap=_colours(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if n_classes > MOST_COUNTED_CLASSES:
        return
    for (i, j), count in np.ndenumerate(counts):
        # Where the two meet, at 57 %, both have a contrast of 4.6 to 1.
        look: dict[str, Any] = {"color": "white" if share[i, j] > 0.57 else "black", "ha": "center"}
        look |= {"va": "center", "textcoords": "offset points"}
        percent = n_classes <= MOST_PERCENT_CLASSES
        axes.annotate(f"{count:,}", (j, i), (0, 0.4 * size if percent else 0), size=size, **look)
        if percent:
            axes.annotate(f"{100 * share[i, j]:.0f} %", (j, i), (0, -0.6 * size), size=0.65 * size, **look)


def row_shares(counts: np.ndarray) -> np.ndarray:
    """counts (C, C) -> shares (C, C) of each true class; a class without rows stays 0."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _count_size(n_classes: int, widest: str) -> float:
    """Font size in points at which the widest count still fits into its cell."""
    return min(11.0, 76 / n_classes, 0.85 * PANEL / n_classes / text_width(widest, 1.0))


@cache
def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("lightune", ["#F3F6F9", "#7FB2D6", AFTER, "#003B66"])


def _dress_matrix(axes: Axes, rows: list[str], columns: list[str], turn: int) -> None:
    size = _name_size(len(rows))
    every = math.ceil(len(rows) * (size + 1.2) / (axes.get_position().height * HEIGHT))
    ticks = range(0, len(rows), every)
    look: dict[str, Any] = {"size": size, "color": INK, "parse_math": False}
    axes.set_yticks(ticks, rows[::every], **look)
    if turn:
        look |= {"rotation": turn, "rotation_mode": "anchor", "ha": "right", "va": "center"}
    axes.set_xticks(ticks, columns[::every], **look)
    axes.tick_params(length=0 if every == 1 else 2, pad=3)
    axes.spines[:].set_visible(False)


def _draw_colour_bar(sheet: Figure, matrix: Axes, bottom: float) -> None:
    bar = axes_at(sheet, RIGHT + PANEL + 8, bottom, 6, 228 - bottom, "colour_bar")
    sheet.colorbar(matrix.images[0], cax=bar, ticks=[0, 0.5, 1])
    bar.set_yticklabels(["0 %", "50 %", "100 %"], size=6.5)
    bar.tick_params(length=0, pad=2)
    bar.spines[:].set_visible(False)

"""Drawings for report pages: inline SVG whose colours are classes of the page's own style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as Tree

from lightune.legible import visible
from lightune.report.parts import MINUS, decimal, scored

WIDTH, HEIGHT = 348, 214  # of a drawing, in units that are pixels where there is room
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 36  # margins of the plot in it
ROW = 34  # height of a row of an interval chart
LETTER = 6.3  # width of a figure on an axis
NAME_LETTER = 5.6  # of a letter in the name of a dot
MOST_POINTS, MOST_DOTS = 1200, 600  # of a drawn line, and of a cloud of dots


@dataclass(frozen=True)
class Scale:
    """Where values between low and high are drawn, from start to end."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of a value, which may lie outside."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the scale, at most so many, 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [place * step for place in range(first, last + 1)]


def around(values: Iterable[float], start: float, end: float, *, within: tuple[float, float] | None = None) -> Scale:
    """A scale that holds all values with a little air; within: ends that it does not pass."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    air = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    low, high = low - air, high + air
    if within:
        low, high = max(low, within[0]), min(high, within[1])
    return Scale(low, high, start, end)


def intervals(
    name: str, title: str, rows: Sequence[tuple[str, str, Mapping[str, Any]]], *, in_units: bool = False
) -> str:
    """A row for each (title, class, score): the value as a dot on its 95 % interval, and in figures.

    in_units: of any size, as labels that are numbers.
    """
    height = TOP + ROW * len(rows) + BOTTOM
    written = [scored(score, in_units=in_units) for *_, score in rows]
    told = "; ".join(f"{row[0]} {cell.text} ({cell.note})" for row, cell in zip(rows, written, strict=True))
    svg = _svg(name, title, f"Values with 95 % intervals: {told}.", height)
    x = around([score[end] for *_, score in rows for end in ("low", "value", "high")], 10, WIDTH - 12)
    _across(svg, x, TOP + 4, height - BOTTOM, decimals(x))
    for place, ((label, look, score), cell) in enumerate(zip(rows, written, strict=True)):
        y = TOP + ROW * place + 17
        _write(svg, 10, y, label)
        _write(svg, WIDTH - 12, y, cell.text, "end figure")
        ends = {"x1": x.at(score["low"]), "x2": x.at(score["high"]), "y1": y + 9, "y2": y + 9}
        _shape(svg, "line", f"interval {look}", **ends)
        _shape(svg, "circle", f"dot {look}", cx=x.at(score["value"]), cy=y + 9, r=4)
    return _markup(svg)


@dataclass(frozen=True)
class Line:
    """Points (x, y) that are joined; where y is None or no finite number the line is broken."""

    points: Sequence[tuple[float, float | None]]
    look: str
    has_dots: bool = False

    def drawn(self) -> list[tuple[float, float]]:
        """The points, NaN where there is no number; of very many, some at equal distances."""
        every = math.ceil(len(self.points) / MOST_POINTS)
        return [(x, math.nan if y is None else y) for x, y in self.points[:: every or 1]]


def curves(name: str, title: str, about: str, lines: Sequence[Line], *, mark: tuple[float, str] | None = None) -> str:
    """Lines over optimizer steps; about: what a reader who does not see it is told; mark: a step and its name."""
    svg = _svg(name, title, about, HEIGHT)
    drawn = [(line, line.drawn()) for line in lines]
    last = max([1.0, *(x for _, points in drawn for x, _ in points)])
    y = around([y for _, points in drawn for _, y in points], HEIGHT - BOTTOM, TOP + 4)
    x = Scale(0, last * 1.02, _room(y), WIDTH - RIGHT)
    _across(svg, x, TOP + 4, HEIGHT - BOTTOM, 0, most=5, grid=False)
    _up(svg, y, x.start)
    _write(svg, WIDTH - RIGHT, HEIGHT - 5, "optimizer step", "end soft")
    if mark:
        place = x.at(mark[0])
        _shape(svg, "line", "mark", x1=place, x2=place, y1=TOP + 4, y2=HEIGHT - BOTTOM)
        _write(svg, min(place, WIDTH - RIGHT), TOP - 2, mark[1], "end soft" if place > WIDTH / 2 else "soft")
    for line, points in drawn:
        _draw_line(svg, line, [(x.at(at), y.at(value)) for at, value in points])
    return _markup(svg)


def reliability(name: str, title: str, bins: Sequence[Mapping[str, Any]], look: str) -> str:
    """Accuracy by confidence as bars beside the diagonal of perfect calibration, each with its number of answers."""
    filled = [each for each in bins if each["n"]]
    told = "; ".join(
        f"{_bin(each)}: accuracy {decimal(each['accuracy'], 3)} of {each['n']:,} answers" for each in filled
    )
    svg = _svg(name, title, f"Accuracy by confidence. {told}.", HEIGHT + 60)
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT + 60 - BOTTOM, TOP + 4)
    _across(svg, x, y.end, y.start, 1, most=5, grid=False)
    _up(svg, y, x.start)
    for each in filled:
        width = x.at(each["high"]) - x.at(each["low"]) - 2
        place = {"x": x.at(each["low"]) + 1, "width": width, "y": y.at(each["accuracy"])}
        _shape(svg, "rect", f"bar {look}", **place, height=y.start - y.at(each["accuracy"]))
        if width > 7 * len(f"{each['n']:,}"):
            _write(svg, x.at(each["low"]) + 1 + width / 2, y.start - 4, f"{each['n']:,}", "middle count")
    _shape(svg, "line", "diagonal", x1=x.start, y1=y.start, x2=x.end, y2=y.end)
    _write(svg, WIDTH - RIGHT, HEIGHT + 55, "confidence", "end soft")
    return _markup(svg)


def scatter(name: str, title: str, about: str, points: Sequence[tuple[float, float]], look: str) -> str:
    """Answers (up) by labels (across) on one scale for both, beside the line of right answers; of many, some."""
    svg = _svg(name, title, about, HEIGHT + 60)
    every = math.ceil(len(points) / MOST_DOTS)
    y = around([value for point in points for value in point], HEIGHT + 60 - BOTTOM, TOP + 4)
    x = Scale(y.low, y.high, _room(y), WIDTH - RIGHT)
    _across(svg, x, y.end, y.start, decimals(x), most=4, grid=False)
    _up(svg, y, x.start)
    for label, answer in points[:: every or 1]:
        _shape(svg, "circle", f"dot many {look}", cx=x.at(label), cy=y.at(answer), r=2)
    _shape(svg, "line", "diagonal", x1=x.start, y1=y.start, x2=x.end, y2=y.end)
    _write(svg, WIDTH - RIGHT, HEIGHT + 55, "label", "end soft")
    return _markup(svg)


@dataclass(frozen=True)
class Dots:
    """Points (x, y) of one kind, on a line where they are joined; as stairs where each holds until the next.

    bare: the line without its points. names: of the points, beside them; spreads: an interval of y for each.
    """

    points: Sequence[tuple[float, float]]
    look: str
    joined: bool = False
    stairs: bool = False
    bare: bool = False
    names: Sequence[str] = ()
    spreads: Sequence[tuple[float, float]] = ()


def plot(
    name: str, title: str, about: str, series: Sequence[Dots], across: str, *, log: bool = False, whole: bool = False
) -> str:
    """Dots over a quantity, which `across` names. log: on a logarithmic scale; whole: it comes in whole numbers."""
    svg = _svg(name, title, about, HEIGHT)
    every = [point for each in series for point in each.points]
    ends = [end for each in series for spread in each.spreads for end in spread]
    y = around([*(y for _, y in every), *ends], HEIGHT - BOTTOM, TOP + 4)
    at = math.log10 if log else float
    x = around([at(x) for x, _ in every], _room(y), WIDTH - RIGHT)
    if log:
        _across_log(svg, x, HEIGHT - BOTTOM)
    else:
        _across(svg, x, TOP + 4, HEIGHT - BOTTOM, 0 if whole else decimals(x), most=5, grid=False)
    _up(svg, y, x.start)
    _write(svg, WIDTH - RIGHT, HEIGHT - 5, across, "end soft")
    for each in series:
        places = [(x.at(at(value)), y.at(up)) for value, up in each.points]
        if each.joined and places:
            steps = [f"H{px:.1f} V{py:.1f}" if each.stairs else f"L{px:.1f} {py:.1f}" for px, py in places[1:]]
            start = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
            _shape(svg, "path", f"line {each.look}", d=" ".join([start, *steps]))
        for (px, _), (low, high) in zip(places, each.spreads, strict=False):
            _shape(svg, "line", "spread", x1=px, x2=px, y1=y.at(low), y2=y.at(high))
        for px, py in places if not each.stairs and not each.bare else ():
            _shape(svg, "circle", f"dot {each.look}", cx=px, cy=py, r=3.5)
    named = [((x.at(at(value)), y.at(up)), name) for each in series for (value, up), name in _with_names(each)]
    for (px, py), name, look in _beside([(x.at(at(value)), y.at(up)) for value, up in every], named):
        _write(svg, px, py, name, f"{look} name".strip())
    return _markup(svg)


def _with_names(dots: Dots) -> list[tuple[tuple[float, float], str]]:
    return list(zip(dots.points, dots.names, strict=True)) if dots.names else []


def _beside(
    dots: Sequence[tuple[float, float]], named: Sequence[tuple[tuple[float, float], str]]
) -> list[tuple[tuple[float, float], str, str]]:
    """A place for each name beside its dot, if there is one that no dot and no other name covers; and its look."""
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    found = []
    for (x, y), name in named:
        width = NAME_LETTER * len(name)
        places = [(x + 7, y + 4, ""), (x - 7, y + 4, "end"), (x, y - 8, "middle"), (x, y + 16, "middle")]
        places += [(x, y - 20, "middle"), (x, y + 28, "middle"), (x, y - 32, "middle"), (x, y + 40, "middle")]
        places += [(x + 6, y - 6, ""), (x + 6, y + 14, ""), (x - 6, y - 6, "end"), (x - 6, y + 14, "end")]
        boxes = [(_left(px, width, look), py - 9, _left(px, width, look) + width, py + 2) for px, py, look in places]
        crossed = [sum(_cross(box, other) for other in taken) + 9 * _is_outside(box) for box in boxes]
        best = crossed.index(min(crossed))
        taken.append(boxes[best])
        px, py, look = places[best]
        found.append(((px, py), name, look))
    return found


def _left(x: float, width: float, look: str) -> float:
    return x - width * {"": 0.0, "middle": 0.5, "end": 1.0}[look]


def _cross(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _is_outside(box: tuple[float, float, float, float]) -> bool:
    return box[0] < LEFT or box[2] > WIDTH or box[1] < TOP or box[3] > HEIGHT - BOTTOM


def parallel(
    name: str,
    title: str,
    about: str,
    axes: Sequence[tuple[str, str, str]],
    lines: Sequence[tuple[Sequence[float], str]],
) -> str:
    """A line for each trial over upright axes.

    axes: (name, what is at the foot, what at the head); lines: the place of a trial on each axis, from 0 to 1, and
    its look.
    """
    height = HEIGHT + 40
    svg = _svg(name, title, about, height)
    top, foot = TOP + 22, height - BOTTOM - 8
    gap = (WIDTH - 60) / max(1, len(axes) - 1)
    for place, (axis, low, high) in enumerate(axes):
        x = 30 + gap * place
        look = "soft" if place == 0 else "end soft" if place == len(axes) - 1 else "middle soft"
        edge = {"soft": 4.0, "end soft": WIDTH - 4.0}.get(look, x)
        _shape(svg, "line", "axis", x1=x, x2=x, y1=top, y2=foot)
        _write(svg, edge, top - 6, high, look)
        _write(svg, edge, foot + 13, low, look)
        _write(svg, edge, foot + 27, axis, look)
    for places, look in lines:
        points = [(30 + gap * i, foot - (foot - top) * share) for i, share in enumerate(places)]
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
        _shape(svg, "path", f"line {look}", d=path)
    return _markup(svg)


def bars(name: str, title: str, rows: Sequence[tuple[str, float]]) -> str:
    """A bar for each (title, share of 1), with the share in figures."""
    height = TOP + ROW * len(rows) + 4
    svg = _svg(name, title, "; ".join(f"{label} {share:.0%}" for label, share in rows), height)
    for place, (label, share) in enumerate(rows):
        y = TOP + ROW * place + 14
        _write(svg, 10, y, label)
        _write(svg, WIDTH - 12, y, f"{100 * share:.0f} %", "end figure")
        _shape(svg, "rect", "bar after", x=10, y=y + 5, width=max(1.0, (WIDTH - 22) * share), height=9.0)
    return _markup(svg)


def _across_log(svg: Tree.Element, x: Scale, bottom: float) -> None:
    """The horizontal axis of a scale of powers of ten: 1, 2 and 5 times each."""
    _shape(svg, "line", "axis", x1=x.start, x2=x.end, y1=bottom, y2=bottom)
    powers = range(math.floor(x.low), math.ceil(x.high) + 1)
    ticks = [times * 10.0**power for power in powers for times in (1, 2, 5)]
    shown = [tick for tick in ticks if x.low <= math.log10(tick) <= x.high]
    if len(shown) > 6:
        shown = [tick for tick in shown if f"{tick:e}".startswith("1.0")] or shown
    for tick in shown:
        place = x.at(math.log10(tick))
        _shape(svg, "line", "axis", x1=place, x2=place, y1=bottom + 3, y2=bottom)
        _write(svg, place, bottom + 15, _short(tick), "middle soft")


def _short(value: float) -> str:
    """20,000 as 20k, a million as 1M."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            return f"{value / (1e3 if letter == 'k' else unit):g}{letter}"
    return f"{value:g}"


def decimals(scale: Scale) -> int:
    """Digits after the point that tell the ticks of a scale apart."""
    ticks = scale.ticks()
    return next((n for n in range(12) if len({f"{tick:.{n}f}" for tick in ticks}) == len(ticks)), 12)


def _tick(value: float, digits: int) -> str:
    """A number on an axis: with so many decimals, or with a power of ten where that is much shorter."""
    plain, power = f"{value:,.{digits}f}", f"{value:.4g}"
    return (power if "e" in power and len(power) < len(plain) else plain).replace("-", MINUS)


def _room(y: Scale) -> float:
    """Where a plot begins, to the right of the numbers on its vertical axis."""
    return max(LEFT, 10 + LETTER * max(len(_tick(tick, decimals(y))) for tick in y.ticks(5)))


def _bin(each: Mapping[str, Any]) -> str:
    return f"{decimal(each['low'], 2)} to {decimal(each['high'], 2)}"


def _svg(name: str, title: str, about: str, height: float) -> Tree.Element:
    """An empty drawing with its title on it; `title` and `about` are what a screen reader says."""
    labels = f"{name}-title {name}-about"
    attributes = {"viewBox": f"0 0 {WIDTH} {height:g}", "role": "img", "aria-labelledby": labels}
    svg = Tree.Element("svg", attributes)
    for tag, text, end in (("title", title, "title"), ("desc", about, "about")):
        Tree.SubElement(svg, tag, {"id": f"{name}-{end}"}).text = visible(text)
    _write(svg, 10, 14, title, "heading")
    return svg


def _shape(svg: Tree.Element, tag: str, look: str, **places: float | str) -> None:
    written = {key: value if isinstance(value, str) else f"{value:.1f}" for key, value in places.items()}
    Tree.SubElement(svg, tag, {"class": look, **written})


def _write(svg: Tree.Element, x: float, y: float, text: str, look: str = "") -> None:
    shown = visible(text)
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}"} | ({"class": look} if look else {})
    Tree.SubElement(svg, "text", place).text = shown if len(shown) <= 46 else shown[:45] + "…"


def _across(
    svg: Tree.Element, x: Scale, top: float, bottom: float, digits: int, *, most: int = 6, grid: bool = True
) -> None:
    """The horizontal axis under the plot, with a line up from each tick where there is a grid."""
    _shape(svg, "line", "axis", x1=x.start, x2=x.end, y1=bottom, y2=bottom)
    for tick in x.ticks(most):
        place = x.at(tick)
        _shape(svg, "line", "grid" if grid else "axis", x1=place, x2=place, y1=top if grid else bottom + 3, y2=bottom)
        told = _tick(tick, digits)
        is_near_end = place + LETTER * len(told) / 2 > WIDTH
        _write(svg, WIDTH if is_near_end else place, bottom + 15, told, f"{'end' if is_near_end else 'middle'} soft")


def _up(svg: Tree.Element, y: Scale, left: float) -> None:
    """The vertical axis at `left`: a line across the plot and a number for each tick."""
    digits = decimals(y)
    for tick in y.ticks(5):
        _shape(svg, "line", "grid", x1=left, x2=WIDTH - RIGHT, y1=y.at(tick), y2=y.at(tick))
        _write(svg, left - 6, y.at(tick) + 4, _tick(tick, digits), "end soft")


def _draw_line(svg: Tree.Element, line: Line, places: Sequence[tuple[float, float]]) -> None:
    path, is_broken = [], True
    for x, y in places:
        if math.isfinite(y):
            path.append(f"{'M' if is_broken else 'L'}{x:.1f} {y:.1f}")
        is_broken = not math.isfinite(y)
    if path:
        _shape(svg, "path", f"line {line.look}", d=" ".join(path))
    for x, y in places if line.has_dots else ():
        if math.isfinite(y):
            _shape(svg, "circle", f"dot {line.look}", cx=x, cy=y, r=3)


def _markup(svg: Tree.Element) -> str:
    return Tree.tostring(svg, encoding="unicode")

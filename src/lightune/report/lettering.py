"""Text in pictures and pages: which characters can be drawn, how wide they are, how to fit them into a place."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import cache

from lightune.legible import visible

# For scripts that DejaVu Sans lacks; those that are installed are used.
OTHER_FONTS = "Noto Sans CJK SC,Noto Sans CJK JP,WenQuanYi Micro Hei,Microsoft YaHei,Hiragino Sans GB,Malgun Gothic"


@cache
def fonts() -> list[str]:
    """The installed fonts that pictures are drawn with, the first one first."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_FONTS.split(",") if name in installed)]


@cache
def _drawable(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return any(get_font(findfont(name)).get_char_index(ord(character)) for name in fonts())


def shown(text: str) -> str:
    """`text` as it can be drawn: control and bidi characters as escapes, what no font has as an empty box."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    seen = visible(character)
    return seen if len(seen) > 1 or _drawable(character) else "□"


@cache
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in points of `text`, which is already `shown`, at font size `size` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    prop = FontProperties(family=fonts(), size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, prop, ismath=False)[0])


def fit(text: str, width: float, size: float, tail: int = 0) -> str:
    """`text` as it can be drawn in `width` points at font size `size`; … is where it was cut.

    tail: how many of the last characters stay, after the ….
    """
    whole = shown(text[: int(8 * width / size)])  # more characters than can fit, however thin
    if len(text) * size <= 8 * width and text_width(whole, size) <= width:
        return whole
    end = "…" + shown(text[len(text) - tail :])
    kept = bisect_right(range(1, len(whole)), width, key=lambda n: text_width(whole[:n] + end, size))
    return whole[:kept].rstrip() + end


def fit_names(labels: Sequence[str], width: float, size: float) -> list[str]:
    """The class names, each in `width` points. Those that look alike keep their ends, or get their ids."""
    names = [fit(label, width, size) for label in labels]
    names = _where_equal(names, [fit(label, width, size, tail=6) for label in labels])
    return _where_equal(names, [fit(f"{i}: {label}", width, size) for i, label in enumerate(labels)])


def _where_equal(names: list[str], others: list[str]) -> list[str]:
    seen = Counter(names)
    return [other if seen[name] > 1 else name for name, other in zip(names, others, strict=True)]

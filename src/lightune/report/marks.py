"""A text cut into pieces, those words marked that spoke for a label or against it: for the page and the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from lightune.legible import figures, visible
from lightune.records import Attribution, Word
from lightune.report.parts import MINUS

# of the strongest word in its text, from which on a word is marked; a text whose words all say next to nothing is
# held against a weight of FAINT, which changes a probability by 6 points at most; of numbers, in their deviations
MARKED, FAINT = 0.15, 0.25
MOST_TOLD = 5  # words for and against, in a sentence
LONG, END = 160, 60  # characters of a piece that was not read, and of its ends that are shown


@dataclass(frozen=True)
class Piece:
    """Some of a text.

    weight: of a marked word, in log-odds or the unit of a number; share: that in terms of the strongest word, from -1
    to 1; 0 is not marked.
    """

    text: str
    weight: float = 0.0
    share: float = 0.0
    is_read: bool = True

    @property
    def sign(self) -> str:
        """+ or a real minus sign."""
        return "+" if self.share > 0 else MINUS


def pieces(found: Attribution) -> list[Piece]:
    """The text of an attribution in order: plain pieces, marked words, pieces that were not read."""
    joined: list[Piece] = []
    for piece in _pieces(found):
        last = joined[-1] if joined else None
        if last and not last.share and not piece.share and last.is_read == piece.is_read:
            joined[-1] = replace(last, text=last.text + piece.text)
        else:
            joined.append(piece)
    return [replace(piece, text=_shown(piece)) for piece in joined]


def _pieces(found: Attribution) -> Iterator[Piece]:
    faint = FAINT * (found.deviation or 1.0)
    strongest = max([faint, *(abs(word.weight) for word in found.words if word.weight is not None)])
    end, was_read = 0, True
    for word in found.words:
        is_read = word.weight is not None
        if word.start > end:
            yield Piece(found.text[end : word.start], is_read=is_read or was_read)
        yield _piece(found.text[word.start : word.end], word.weight, strongest)
        end, was_read = word.end, is_read
    yield Piece(found.text[end:], is_read=was_read)


def _piece(text: str, weight: float | None, strongest: float) -> Piece:
    if weight is None:
        return Piece(text, is_read=False)
    share = weight / strongest
    return Piece(text, weight, share) if abs(share) >= MARKED else Piece(text)


def _shown(piece: Piece) -> str:
    """In one line, as it can be seen; of a long piece that was not read the ends."""
    text = piece.text if piece.share else re.sub(r"\s+", " ", piece.text)
    if not piece.is_read and len(text) > LONG:
        text = f"{text[:END]} … {text[-END:]}"
    return visible(text)


def told(found: Attribution, minus: str = MINUS) -> str:
    """'for positive: lovely +2.10; against it: but -0.31': the strongest words of each side."""
    weighed = [(word, word.weight) for word in found.words if word.weight is not None]
    ordered = sorted(weighed, key=lambda each: -abs(each[1]))
    up, down = ("for more", "for less") if found.deviation else (f"for {found.label}", "against it")
    sides = {up: [each for each in ordered if each[1] > 0], down: [each for each in ordered if each[1] < 0]}
    write = partial(_signed, minus=minus, is_number=bool(found.deviation))
    written = {side: [_named(found.text, *each, write) for each in some[:MOST_TOLD]] for side, some in sides.items()}
    return "; ".join(f"{side}: {', '.join(words) or 'nothing'}" for side, words in written.items())


def balance(found: Attribution, minus: str = MINUS) -> str:
    """What the words sum up to, from where to where, and how exactly."""
    write = partial(_signed, minus=minus, is_number=bool(found.deviation))
    what = f"the number {figures(found.log_odds)}, {figures(found.blank)}".replace("-", minus)
    if not found.deviation:
        what = f"log-odds {write(found.log_odds)}, {write(found.blank)}"
    ends = f"{what} for a blank text"
    gap = figures(abs(found.gap)) if found.deviation else f"{abs(found.gap):.2f}"
    exact = f"but for {gap} ({found.gap_share:.1%} of all weights, {found.n_steps} steps)"
    is_idle = not found.deviation and found.blank > found.log_odds / 2 > 0
    hint = "; a blank text has this label nearly as much, so the words say little" if is_idle else ""
    return f"{ends}; the words make up the difference {exact}{hint}"


def _named(text: str, word: Word, weight: float, write: Callable[[float], str]) -> str:
    return f"{visible(text[word.start : word.end])} {write(weight)}"


def _signed(value: float, minus: str, *, is_number: bool) -> str:
    return (figures(value, sign="+") if is_number else f"{value:+.2f}").replace("-", minus)

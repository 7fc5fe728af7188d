"""Where a classifier is worse: its accuracy by class, length and metadata, each slice against all other rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightune.evidence.statistics import holm, wilson
from lightune.evidence.verdict import LEVEL, Outcome
from lightune.records import Score

FEWEST_ROWS = 10  # of a slice, and of the rows beside it
LENGTH_PARTS = 4


@dataclass(frozen=True)
class Slice:
    """The n rows with one value of a kind: their accuracy, and that of the others.

    p_value: of Fisher's exact test, two-sided; p_adjusted: Holm's, over all slices of a run.
    """

    kind: str
    value: str
    n: int
    accuracy: Score
    others: float
    p_value: float
    p_adjusted: float

    @property
    def outcome(self) -> Outcome:
        """What may be said, with an error of one in twenty over all slices."""
        if self.p_adjusted > LEVEL:
            return "not distinguishable"
        return "better" if self.accuracy.value > self.others else "worse"


def slices(right: np.ndarray, kinds: Mapping[str, Sequence[str]]) -> list[Slice]:
    """Every slice of enough rows, by kind and value. right (N,) bool; kinds: name -> the value of each row."""
    found = [
        _slice(right, kind, value, mine)
        for kind, values in kinds.items()
        for value, mine in _parts(values)
        if FEWEST_ROWS <= mine.sum() <= len(right) - FEWEST_ROWS
    ]
    adjusted = holm([each.p_value for each in found])
    return [replace(each, p_adjusted=p) for each, p in zip(found, adjusted, strict=True)]


def worst(found: Sequence[Slice]) -> str | None:
    """The slice that is furthest behind the other rows, in words; None if none is so beyond chance."""
    behind = [each for each in found if each.outcome == "worse"]
    if not behind:
        return None
    each = min(behind, key=lambda each: each.accuracy.value - each.others)
    interval = f"{100 * each.accuracy.low:.1f} to {100 * each.accuracy.high:.1f}"
    accuracy = f"{100 * each.accuracy.value:.1f} % right (95 % CI {interval}), the others {100 * each.others:.1f} %"
    return f"{each.kind} {each.value}: {accuracy}; {each.n:,} rows"


def by_length(n_tokens: np.ndarray) -> list[str]:
    """Of each row which part of the lengths (N,) it belongs to: four parts of about as many rows, fewer for ties."""
    edges = np.unique(np.quantile(n_tokens, np.linspace(0, 1, LENGTH_PARTS + 1)[1:], method="inverted_cdf"))
    starts = [int(n_tokens.min()), *(int(edge) + 1 for edge in edges[:-1])]
    names = [f"{a:,} tokens" if a == b else f"{a:,} to {b:,} tokens" for a, b in zip(starts, edges, strict=True)]
    return [names[place] for place in np.searchsorted(edges, n_tokens)]


def _parts(values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Each value, numbers by their size and before words, with its rows (N,) bool."""
    names = np.asarray(values, dtype=object)
    return [(value, names == value) for value in sorted(set(values), key=_place)]


def _place(value: str) -> tuple[float, str]:
    found = re.match(r"-?[\d,]*\d(\.\d+)?", value, re.ASCII)
    return (float(found[0].replace(",", "")) if found else np.inf, value)


def _slice(right: np.ndarray, kind: str, value: str, mine: np.ndarray) -> Slice:
    from scipy.stats import fisher_exact

    n, n_right, n_others = int(mine.sum()), int(right[mine].sum()), int(right[~mine].sum())
    rest = len(right) - n
    p = float(fisher_exact([[n_right, n - n_right], [n_others, rest - n_others]]).pvalue)
    return Slice(kind, value, n, Score(n_right / n, *wilson(n_right, n)), n_others / rest, p, p)

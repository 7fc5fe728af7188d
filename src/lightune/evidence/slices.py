"""Where answers are worse: how good they are by class, length and metadata, each slice against all other rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightune.data.targets import as_written
from lightune.evidence.statistics import holm, wilson
from lightune.evidence.verdict import LEVEL, Outcome
from lightune.legible import figures
from lightune.records import Score

FEWEST_ROWS = 10  # of a slice, and of the rows beside it
PARTS = 4  # of lengths, and of labels that are numbers
MOST_NUMBERS = 12  # that are parts of their own


@dataclass(frozen=True)
class Slice:
    """The n rows with one value of a kind: their accuracy, or mean absolute error, and that of the others.

    p_value: of Fisher's exact test, or Welch's of errors, two-sided; p_adjusted: Holm's, over all slices of a run.
    """

    kind: str
    value: str
    n: int
    score: Score
    others: float
    p_value: float
    p_adjusted: float
    measure: str = "accuracy"

    @property
    def outcome(self) -> Outcome:
        """What may be said, with an error of one in twenty over all slices."""
        if self.p_adjusted > LEVEL:
            return "not distinguishable"
        return "better" if self.lead > 0 else "worse"

    @property
    def lead(self) -> float:
        """How far it is before the other rows."""
        ahead = self.score.value - self.others
        return -ahead if self.measure == "mae" else ahead


def slices(rows: np.ndarray, kinds: Mapping[str, Sequence[str]]) -> list[Slice]:
    """Every slice of enough rows, by kind and value.

    rows (N,): bool, whether each is right, or float, how far off it is; kinds: name -> the value of each row.
    """
    by = _slice_of_errors if rows.dtype.kind == "f" else _slice
    found = [
        by(rows, kind, value, mine)
        for kind, values in kinds.items()
        for value, mine in _parts(values)
        if FEWEST_ROWS <= mine.sum() <= len(rows) - FEWEST_ROWS
    ]
    adjusted = holm([each.p_value for each in found])
    return [replace(each, p_adjusted=p) for each, p in zip(found, adjusted, strict=True)]


def worst(found: Sequence[Slice]) -> str | None:
    """The slice that is furthest behind the other rows, in words; None if none is so beyond chance."""
    behind = [each for each in found if each.outcome == "worse"]
    if not behind:
        return None
    each = min(behind, key=lambda each: each.lead)
    value, low, high, others = (
        _told(each, n) for n in (each.score.value, each.score.low, each.score.high, each.others)
    )
    own, unit = (f"off by {value} on average", "") if each.measure == "mae" else (f"{value} % right", " %")
    told = f"{own} (95 % CI {low} to {high}), the others {others}{unit}"
    return f"{each.kind} {each.value}: {told}; {each.n:,} rows"


def _told(each: Slice, number: float) -> str:
    return figures(number) if each.measure == "mae" else f"{100 * number:.1f}"


def by_length(n_tokens: np.ndarray) -> list[str]:
    """Of each row which part of the lengths (N,) it belongs to: four parts of about as many rows, fewer for ties."""
    edges = np.unique(np.quantile(n_tokens, np.linspace(0, 1, PARTS + 1)[1:], method="inverted_cdf"))
    starts = [int(n_tokens.min()), *(int(edge) + 1 for edge in edges[:-1])]
    names = [f"{a:,} tokens" if a == b else f"{a:,} to {b:,} tokens" for a, b in zip(starts, edges, strict=True)]
    return [names[place] for place in np.searchsorted(edges, n_tokens)]


def own_kinds(y: np.ndarray, labels: Sequence[str], n_tokens: np.ndarray) -> dict[str, Sequence[str]]:
    """The kinds of slices that all rows have: what their label is, class or number, and how long they are (N,)."""
    by_label = {"label": by_number(y)} if y.dtype.kind == "f" else {"class": labels}
    return {**by_label, "length": by_length(n_tokens)}


def by_number(y: np.ndarray) -> list[str]:
    """Of each row its number, where there are few; or which of four parts of about as many rows it is in, y (N,)."""
    if len(np.unique(y)) <= MOST_NUMBERS:
        return [as_written(value) for value in y.tolist()]
    edges = np.unique(np.quantile(y, np.linspace(0, 1, PARTS + 1)[1:], method="inverted_cdf"))
    place = np.searchsorted(edges, y)
    ends = [(float(y[place == i].min()), float(y[place == i].max())) for i in range(len(edges))]
    names = [f"{as_written(low)} to {as_written(high)}" for low, high in ends]
    return [names[i] for i in place]


def _parts(values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Each value, numbers by their size and before words, with its rows (N,) bool."""
    names = np.asarray(values, dtype=object)
    return [(value, names == value) for value in sorted(set(values), key=_place)]


def _place(value: str) -> tuple[float, str]:
    found = re.match(r"-?[\d,]*\d(\.\d+)?(e[+-]\d+)?", value, re.ASCII)
    return (float(found[0].replace(",", "")) if found else np.inf, value)


def _slice(right: np.ndarray, kind: str, value: str, mine: np.ndarray) -> Slice:
    from scipy.stats import fisher_exact

    n, n_right, n_others = int(mine.sum()), int(right[mine].sum()), int(right[~mine].sum())
    rest = len(right) - n
    p = float(fisher_exact([[n_right, n - n_right], [n_others, rest - n_others]]).pvalue)
    return Slice(kind, value, n, Score(n_right / n, *wilson(n_right, n)), n_others / rest, p, p)


def _slice_of_errors(errors: np.ndarray, kind: str, value: str, mine: np.ndarray) -> Slice:
    from scipy.stats import t, ttest_ind

    own, rest = errors[mine], errors[~mine]
    mean, error = float(own.mean()), float(own.std(ddof=1) / np.sqrt(len(own)))
    half = float(t.ppf(0.975, len(own) - 1)) * error
    same = own.std() == 0 == rest.std()  # the test knows nothing to compare the means with
    p = float(own.mean() == rest.mean()) if same else float(ttest_ind(own, rest, equal_var=False).pvalue)
    score = Score(mean, max(0.0, mean - half), mean + half)
    return Slice(kind, value, len(own), score, float(rest.mean()), p, p, "mae")

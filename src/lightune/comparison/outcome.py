"""What may be said of a comparison: who is better than whom, who is on the front, what more rows would bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.comparison.curve import Curve, fit_curve
from lightune.evidence.decisions import f1_counts, f1_of, task_of
from lightune.evidence.seeds import Between, between_seeds, gain_of_recipes, p_of_recipes
from lightune.evidence.statistics import LEAST_P, holm, weight_draws
from lightune.evidence.verdict import LEVEL, N_RESAMPLES, Outcome, compare
from lightune.records import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entrant:
    """Who takes part: answers to the test rows, as `as_numbers` gives them, one of each training.

    method, model, size: what it is of; title: for people, where sizes are told beside it; a baseline, which is a row
    of BASELINES, has one answer.
    """

    name: str
    method: str
    model: str
    size: int
    title: str
    answers: Sequence[NDArray[Any]]
    baseline: str = ""

    @property
    def is_baseline(self) -> bool:
        """Whether it learned without the network."""
        return bool(self.baseline)


@dataclass(frozen=True)
class Pair:
    """One entrant against another on the same test rows: the gain of its recipe, and how often that is chance.

    gain: the mean over trainings, its interval with what other seeds would have made of it; p_adjusted: Holm's, over
    all pairs of the comparison; fixed, broken: of the first trainings.
    """

    one: str
    other: str
    gain: Score
    p_value: float
    p_adjusted: float
    fixed: int
    broken: int

    @property
    def outcome(self) -> Outcome:
        """What may be said of the first one, with an error of one in twenty over all pairs."""
        if self.p_adjusted > LEVEL:
            return "not distinguishable"
        return "better" if self.gain.value > 0 else "worse"


def spread_of_seeds(y: NDArray[Any], entrants: Sequence[Entrant], seed: int) -> dict[int, Between]:
    """Training rows -> how far apart trainings on so many are that differ in their seed, over all recipes."""
    sizes = sorted({each.size for each in entrants if not each.is_baseline})
    tuned = {
        n: {each.name: each.answers for each in entrants if each.size == n and not each.is_baseline} for n in sizes
    }
    return {size: between_seeds(y, answers, seed) for size, answers in tuned.items()}


def compare_all(
    y: NDArray[Any], entrants: Sequence[Entrant], between: Mapping[int, Between], seed: int
) -> list[Pair]:
    """Every two entrants of the same size that are not both baselines."""
    pairs = [
        _pair(y, one, other, between[one.size], seed)
        for one, other in combinations(entrants, 2)
        if one.size == other.size and not (one.is_baseline and other.is_baseline) and one.size in between
    ]
    adjusted = holm([pair.p_value for pair in pairs]) if pairs else []
    return [replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)]


def _pair(y: NDArray[Any], one: Entrant, other: Entrant, between: Between, seed: int) -> Pair:
    n = max(len(one.answers), len(other.answers))
    found = [
        compare(y, one.answers[i % len(one.answers)], {"other": other.answers[i % len(other.answers)]}, seed=seed)
        for i in range(n)
    ]
    each = [one_seed["other"] for one_seed in found]
    middle = float(np.mean([seen.gain.value for seen in each]))
    half = float(np.mean([(seen.gain.high - seen.gain.low) / 2 for seen in each]))  # the rows are the same for all
    of_rows = Score(middle, middle - half, middle + half)
    # a baseline has no seed: half of the variance, as twice the trainings would have
    trainings = 2 * n if one.is_baseline or other.is_baseline else n
    exact = min(seen.p_value for seen in each)  # of the trainings at hand: nothing is surer, but where it has an end
    p_value = max(p_of_recipes(of_rows, between, trainings), exact if exact > LEAST_P else 0.0)
    gain = gain_of_recipes(of_rows, between, trainings)
    return Pair(one.name, other.name, gain, p_value, p_value, each[0].fixed, each[0].broken)


def mean_score(
    entrant: Entrant, between: Between | None, scores: Sequence[float], interval: tuple[float, float]
) -> Score:
    """The mean of an entrant's scores, one of each training, with an interval for its recipe.

    interval: by the choice of test rows, of the first training.
    """
    middle, half = float(np.mean(scores)), (interval[1] - interval[0]) / 2
    rows = Score(middle, interval[0] + middle - scores[0], interval[1] + middle - scores[0])
    if entrant.is_baseline or between is None:
        return rows
    wider = gain_of_recipes(Score(middle, middle - half, middle + half), between, 2 * len(scores))
    return Score(middle, min(rows.low, wider.low), max(rows.high, wider.high))


def front(entrants: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names that none is both cheaper and better than; name -> (cost, score), a higher score being better."""
    found: list[str] = []
    best = -np.inf
    for name, (_, score) in sorted(entrants.items(), key=lambda item: (item[1][0], -item[1][1], item[0])):
        if score > best:
            found.append(name)
            best = score
    return found


def learning_curve(
    y: NDArray[Any], entrants: Sequence[Entrant], between: Mapping[int, Between], seed: int
) -> Curve | None:
    """The law by which the error of one recipe falls with its training rows; entrants: its sizes, rising."""
    rng = np.random.default_rng(seed)
    draws = _error_draws(y, entrants, rng)  # (B, K)
    nothing = Between(0.0, 0.0)
    apart = [
        0.0 if each.is_baseline else between.get(each.size, nothing).variance / len(each.answers) for each in entrants
    ]
    draws = draws + rng.standard_normal(draws.shape) * np.sqrt(apart)
    return fit_curve([each.size for each in entrants], draws, rng)


def _error_draws(y: NDArray[Any], entrants: Sequence[Entrant], rng: np.random.Generator) -> Floats:
    """(B, K) errors over resampled test rows, the same for all K; the mean over trainings."""
    error_of, counts = _counts(y, entrants)
    draws = [
        np.stack([np.mean([error_of(each.T @ weights) for each in several], axis=0) for several in counts], axis=1)
        for weights in weight_draws(len(y), N_RESAMPLES, rng)
    ]
    return np.concatenate(draws)


def _counts(y: NDArray[Any], entrants: Sequence[Entrant]) -> tuple[Callable[[Floats], Floats], list[list[Floats]]]:
    """What is counted of each row, (N, 2) of each training of each entrant, and the error by sums of it, (2, B)."""
    if task_of(y) == "multi_label":
        return lambda sums: 1 - f1_of(sums), [[f1_counts(y, a) for a in each.answers] for each in entrants]
    is_numbers = task_of(y) == "regression"

    def of(answers: NDArray[Any]) -> Floats:
        lost = np.abs(y - answers) if is_numbers else (y != answers).astype(float)
        return np.stack([lost, np.ones(len(y))], axis=1)

    return lambda sums: sums[0] / sums[1], [[of(a) for a in each.answers] for each in entrants]

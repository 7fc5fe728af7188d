"""Answers that mean what they say: a temperature, thresholds, sets of labels, intervals around numbers.

Everything is fitted on dev rows and knows probabilities only, not models. What a classifier obeys is in its contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.errors import UserError
from lightune.evidence.decisions import Readout, best_thresholds, in_units, probabilities, task_of
from lightune.evidence.statistics import require_rows
from lightune.recipe import EvidenceRecipe, Task
from lightune.records import UNSCALED, Scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

N_BINS = 15
SPREAD = 0.25  # of the logarithms of temperatures, before rows are seen (docs/log.md)
MOST = 3.0  # of the temperature's logarithm, either way: 20 times flatter or sharper
N_DRAWS = 1000
INTERVAL_LEVEL = 0.9  # of the intervals around numbers, where the recipe does not say
GOAL = re.compile(r"\s*(precision|accuracy)\s*>=\s*(0?\.\d+)\s*", re.ASCII)


# ---- temperature


def fit_temperature(logits: Floats, y_true: Ints) -> float:
    """What logits (N, C) are to be divided by so that their probabilities fit the labels (N,) best; > 0.

    The log-likelihood's maximum, with a normal prior on the logarithm that draws it towards 0 as far as rows are few:
    of 300 rows it is known to a tenth, and probabilities that were right would mostly be worse with it.
    Raises UserError if N == 0.  Source: Guo et al. 2017, arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    require_rows(len(y_true))

    def loss(log_t: float) -> float:
        return _surprise(logits / np.exp(log_t), y_true) + (log_t / SPREAD) ** 2 / 2

    return float(np.exp(minimize_scalar(loss, bounds=(-MOST, MOST), method="bounded").x))


def _surprise(logits: Floats, y_true: Ints) -> float:
    """Minus the log-likelihood of labels, in nats."""
    from scipy.special import logsumexp

    return float((logsumexp(logits, axis=1) - logits[np.arange(len(y_true)), y_true]).sum())


def tempered(proba: Floats, temperature: float, task: Task = "single_label") -> Floats:
    """The probabilities (N, C) that the logits behind `proba` have once divided by a temperature."""
    least = np.finfo(np.float64).tiny
    logits = np.log(np.maximum(proba, least))
    if task == "multi_label":
        logits = logits - np.log(np.maximum(1 - proba, least))
    return probabilities(logits / temperature, task)


# ---- how far probabilities are from the truth


@dataclass(frozen=True)
class Bin:
    """The rows whose answer has a probability in [low, high): how many, their mean probability, the share right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(y_true: Ints, proba: Floats, *, n_bins: int = N_BINS) -> list[Bin]:
    """The bins of a reliability diagram that hold rows; y_true (N,) int, proba (N, C), bins of equal width."""
    confidence, right, place = _binned(y_true, proba, n_bins)
    edges = np.linspace(0, 1, n_bins + 1)
    return [
        Bin(float(edges[k]), float(edges[k + 1]), int(mine.sum()), float(confidence[mine].mean()), float(share))
        for k in np.unique(place)
        for mine in [place == k]
        for share in [right[mine].mean()]
    ]


def calibration_error(y_true: Ints, proba: Floats, *, n_bins: int = N_BINS) -> float:
    """Mean gap between the answer's probability and the share right, weighted by bin size; 0 is perfect, 1 the worst.

    y_true (N,) int class ids; proba (N, C) float, rows sum to 1; n_bins equal-width bins on [0, 1]. Of N rows of a
    perfect classifier it is about sqrt(n_bins / N) / 4, not 0. Raises UserError if N == 0.
    Source: Naeini et al. 2015, AAAI, p. 2901; Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    require_rows(len(y_true))
    confidence, right, place = _binned(y_true, proba, n_bins)
    return float(np.abs(np.bincount(place, confidence - right)).sum() / len(y_true))


def resampled_errors(y_true: Ints, proba: Floats, weights: Floats) -> Floats:
    """`calibration_error` (B,) of resampled rows; weights (N, B): how often each is there."""
    confidence, right, place = _binned(y_true, proba, N_BINS)
    bins = np.eye(N_BINS)[:, place]  # (n_bins, N)
    gaps = (bins * (confidence - right)) @ weights  # (n_bins, B)
    return np.asarray(np.abs(gaps).sum(axis=0) / weights.sum(axis=0))


def calibration_interval(y_true: Ints, proba: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of the calibration error: those true errors of which the measured one is no extreme.

    An error measured on N rows is too high, most of all where the truth is near 0, and so are resamples of it: their
    percentiles would leave 0 out for a perfect classifier. So true gaps are tried that are s times the measured ones
    (the test inverted along this ray), each with the normal noise of its bin, and every s is kept with which the
    measured error lies in the middle 95 %.
    """
    confidence, right, place = _binned(y_true, proba, N_BINS)
    gaps, deviations = _gaps(confidence - right, confidence, place)
    measured = calibration_error(y_true, proba)
    noise = rng.normal(size=(N_DRAWS, len(gaps))) * deviations

    def quantile(s: float, share: float) -> float:
        return float(np.quantile(np.abs(s * gaps + noise).sum(axis=1), share))

    if measured == 0:  # every row is right and sure of it: the rule of three bounds what was not seen
        return 0.0, min(1.0, 3 / len(y_true))
    low = measured * _crossing(lambda s: quantile(s, 0.975) - measured)
    high = measured * _crossing(lambda s: quantile(s, 0.025) - measured)
    return min(low, measured), min(1.0, max(high, measured))  # it may be less than perfect ones mostly show


def _binned(y_true: Ints, proba: Floats, n_bins: int) -> tuple[Floats, Flags, Ints]:
    """(N,) each: the probability of the answer, whether it is right, and the bin it falls into."""
    confidence = proba.max(axis=1)
    place = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
    return confidence, proba.argmax(axis=1) == y_true, place


def _gaps(differences: Floats, confidence: Floats, place: Ints) -> tuple[Floats, Floats]:
    """The weighted gap of each bin that holds rows, and its standard deviation.

    One made-up row in each bin, as sure as the others, keeps a bin without an error from having no deviation.
    """
    bins, place = np.unique(place, return_inverse=True)
    values = (np.ones(len(place)), differences, differences**2, confidence)
    n, sums, squares, sure = (np.bincount(place, each, len(bins)) for each in values)
    smoothed = (squares + sure / n * (1 - sure / n)) * n / (n + 1)
    return sums / len(place), np.sqrt(np.maximum(smoothed - sums**2 / len(place), 0)) / len(place)


def _crossing(f: Callable[[float], float]) -> float:
    """Where a rising function of s >= 0 meets 0; 0 where it is above from the start."""
    if f(0.0) >= 0:
        return 0.0
    top = 1.0
    while f(top) < 0:
        top *= 2
    low = 0.0
    for _ in range(30):
        middle = (low + top) / 2
        low, top = (middle, top) if f(middle) < 0 else (low, middle)
    return top


# ---- answering only where a goal is met


@dataclass(frozen=True)
class Goal:
    """What answers have to reach: `precision` of every label, or `accuracy` of all answers together."""

    what: str
    share: float

    def __str__(self) -> str:
        return f"{self.what} >= {self.share:g}"


def parse_goal(text: str) -> Goal | None:
    """The goal that was typed, None for "". UserError if it is not understood."""
    if not text:
        return None
    if not (found := GOAL.fullmatch(text)):
        raise UserError(
            f"evidence.goal = {text!r}: not understood. Write precision >= 0.95 or accuracy >= 0.9, a share below 1."
        )
    return Goal(found[1], float(found[2]))


def find_thresholds(goal: Goal, y_true: Ints, proba: Floats) -> list[float | None]:
    """For each class the lowest probability with which it is answered, None where no probability is enough.

    y_true (N,), proba (N, C) calibrated. Of the rows answered so, the share that is right and the mean of the
    probabilities both reach the goal: rows alone promise too much where they are few, as the luckiest of many
    thresholds is taken, and probabilities alone where they are wrong.
    """
    answer, confidence = proba.argmax(axis=1), proba.max(axis=1)
    n_classes = proba.shape[1]
    groups = [np.ones(len(answer), bool)] if goal.what == "accuracy" else [answer == c for c in range(n_classes)]
    found = [_lowest(goal.share, confidence[mine], (answer == y_true)[mine]) for mine in groups]
    return found * n_classes if goal.what == "accuracy" else found


def _lowest(share: float, confidence: Floats, right: Flags) -> float | None:
    order = np.argsort(-confidence, kind="stable")
    n = np.arange(1, len(order) + 1)
    both = np.minimum(right[order].cumsum(), confidence[order].cumsum()) / n
    ends = np.append(np.diff(confidence[order]) < 0, True)[: len(order)]  # rows of one probability go together
    reached = np.flatnonzero((both >= share) & ends)
    return float(confidence[order][reached[-1]]) if len(reached) else None


def is_answered(proba: Floats, thresholds: Sequence[float | None]) -> Flags:
    """(N,) whether the answer, the most probable class, is sure enough; proba (N, C), thresholds of the C classes."""
    least = np.array([np.inf if each is None else each for each in thresholds])
    return np.asarray(proba.max(axis=1) >= least[proba.argmax(axis=1)])


# ---- sets that hold the true label


def conformal_threshold(y_true: Ints, proba: Floats, level: float) -> float:
    """The probability from which on a label belongs to a row's set, so that new rows' sets hold the true one.

    They do so with a probability of at least `level`, whatever the classifier, for rows drawn like these (N,).
    0, every label, where N < level / (1 - level).  Source: Sadinle et al. 2019, J. Amer. Statist. Assoc. 114:223;
    Angelopoulos and Bates 2023, Found. Trends Mach. Learn. 16:494, section 1.1.
    """
    own = np.sort(proba[np.arange(len(y_true)), y_true])
    n_outside = int(np.floor((len(own) + 1) * (1 - level) + 1e-9))  # of so many rows the true label may be left out
    return float(own[n_outside - 1]) if n_outside else 0.0


def interval_half_width(y_true: NDArray[Any], answers: Floats, level: float) -> float | None:
    """How far from an answer its number is at most, in `level` of the cases, for rows drawn like these (N,).

    None where N < level / (1 - level): so few rows tell no such distance.  Source: Lei et al. 2018, J. Amer. Statist.
    Assoc. 113:1094, algorithm 2.
    """
    require_rows(len(y_true))
    errors = np.sort(np.abs(y_true - answers))
    rank = int(np.ceil((len(errors) + 1) * level - 1e-9))
    return float(errors[rank - 1]) if rank <= len(errors) else None


def label_sets(proba: Floats, threshold: float) -> Flags:
    """(N, C) which labels belong to a row's set; the most probable one always does."""
    return np.asarray((proba >= threshold) | (proba == proba.max(axis=1, keepdims=True)))


# ---- all of it


@dataclass(frozen=True)
class Calibration:
    """What dev rows said, of how many of them: a temperature; thresholds if there is a goal; a level of sets.

    Of several labels a row there are also given_from, thresholds from which on each is given without a goal. Of
    numbers there is a scale that the logits are on, by the training rows, and half_width of the interval around an
    answer.
    """

    temperature: float = 1.0
    n_dev: int = 0
    goal: Goal | None = None
    thresholds: tuple[float | None, ...] = ()
    given_from: tuple[float, ...] = ()
    level: float | None = None
    set_threshold: float | None = None
    scale: Scale = UNSCALED
    half_width: float | None = None

    def readout(self, task: Task) -> Readout:
        """How logits are read so; goals hold answers back later."""
        return Readout(task, self.temperature, self.given_from, self.scale)


def check_goals(recipe: EvidenceRecipe, task: Task) -> None:
    """UserError for a goal that is not understood, or cannot be with several labels a row, or with numbers."""
    goal = parse_goal(recipe.goal)
    if task == "regression" and goal:
        raise UserError(f"evidence.goal = {recipe.goal!r}: numbers are not right or wrong. Leave it out.")
    if task == "multi_label" and goal and goal.what == "accuracy":
        raise UserError("evidence.goal: of several labels a row each has its own; write precision >= 0.9.")
    if task == "multi_label" and recipe.conformal is not None:
        raise UserError("evidence.conformal: answers of several labels a row are sets already. Leave it out.")


def calibrate(
    y_true: NDArray[Any], logits: Floats, recipe: EvidenceRecipe, scale: Scale | None = None
) -> Calibration:
    """Fits what the recipe asks for on the labels (N,) or label sets (N, C) and logits (N, C) of dev rows.

    scale: of logits that tell numbers (N,). Raises UserError if N == 0.
    """
    goal, level, task = parse_goal(recipe.goal), recipe.conformal, task_of(y_true)
    if task == "regression":
        level = INTERVAL_LEVEL if level is None else level
        scale = scale or UNSCALED
        width = interval_half_width(y_true, in_units(logits[:, 0], scale), level)
        return Calibration(n_dev=len(y_true), level=level, scale=scale, half_width=width)
    temperature = _temperature(y_true, logits) if recipe.calibrate else 1.0
    proba = probabilities(logits / temperature, task)
    if task == "multi_label":
        reaching = _label_thresholds(goal, y_true, proba) if goal else []
        return Calibration(
            temperature, len(y_true), goal, tuple(reaching), given_from=tuple(best_thresholds(y_true, proba))
        )
    thresholds = tuple(find_thresholds(goal, y_true, proba)) if goal else ()
    threshold = None if level is None else conformal_threshold(y_true, proba, level)
    return Calibration(temperature, len(y_true), goal, thresholds, level=level, set_threshold=threshold)


def _temperature(y_true: Ints, logits: Floats) -> float:
    """By the rows. A label by itself is two classes, no with a logit of 0 and yes with its own."""
    if y_true.ndim == 2:
        y_true, logits = y_true.ravel(), np.stack([np.zeros(logits.size), logits.ravel()], axis=1)
    return fit_temperature(logits, y_true)


def _label_thresholds(goal: Goal, y_true: Ints, proba: Floats) -> list[float | None]:
    """From which probability on each label is given, so that the goal is reached; None: from none."""
    return [_lowest(goal.share, p, y == 1) for y, p in zip(y_true.T, proba.T, strict=True)]

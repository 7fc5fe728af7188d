"""From logits to probabilities, from probabilities to answers, and which answers are right.

Of one label a row, an answer is a class id, the most probable; answers (N,). Of several, each label is given from its
own threshold on; answers (N, C) bool. Of numbers, what stands for probabilities (N, 1) is the answers (N,) already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightune.recipe import Task
from lightune.records import UNSCALED, Scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

EVEN = 0.5  # the threshold of a label without one of its own
FEWEST_POSITIVES = 10  # dev rows with a label, to choose its threshold on


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, C) of logits (N, C); rows sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return proba


@dataclass(frozen=True)
class Readout:
    """How a network's logits are read. temperature: what they are divided by; thresholds: see `decide`."""

    task: Task = "single_label"
    temperature: float = 1.0
    thresholds: Sequence[float | None] = ()
    scale: Scale = UNSCALED

    def probabilities(self, logits: Floats) -> Floats:
        """Of logits (N, C); of numbers (N, 1) the answers, in their own unit."""
        if self.task == "regression":
            return in_units(logits, self.scale)
        return probabilities(logits / self.temperature, self.task)

    def answers(self, proba: Floats) -> NDArray[np.generic]:
        """Of such probabilities."""
        return decide(proba, self.task, self.thresholds)


ONE_LABEL = Readout()


def probabilities(logits: Floats, task: Task) -> Floats:
    """Probabilities (N, C): that sum to 1, or of each label by itself. Not for numbers."""
    from scipy.special import expit

    return np.asarray(expit(logits)) if task == "multi_label" else softmax(logits)


def task_of(y: NDArray[np.generic]) -> Task:
    """Which task labels are of: class ids (N,), label sets (N, C), or numbers (N,) float. Grades are class ids."""
    if y.ndim == 2:
        return "multi_label"
    return "regression" if y.dtype.kind == "f" else "single_label"


def decide(proba: Floats, task: Task, thresholds: Sequence[float | None] = ()) -> NDArray[np.generic]:
    """The answers to rows of probabilities (N, C). thresholds: of each label; None: it is never given."""
    if task == "regression":
        return proba[:, 0]
    if task != "multi_label":
        return np.asarray(proba.argmax(axis=1))
    least = [np.inf if each is None else each for each in thresholds] or EVEN
    return np.asarray(proba >= least)


def scale_of(y: NDArray[np.generic]) -> Scale:
    """The scale on which the numbers y (N,) have mean 0 and deviation 1; of other labels, none."""
    if task_of(y) != "regression":
        return UNSCALED
    values = y.astype(np.float64)
    return Scale(float(values.mean()), float(values.std()) or 1.0)


def on_scale(y: NDArray[np.generic], scale: Scale) -> NDArray[np.generic]:
    """What a network is to answer for the labels y: numbers on their scale, float32, all others as they are."""
    if task_of(y) != "regression":
        return y
    return ((y.astype(np.float64) - scale.mean) / scale.deviation).astype(np.float32)


def in_units(logits: Floats, scale: Scale) -> Floats:
    """What logits on a scale are as numbers."""
    return np.asarray(scale.mean + scale.deviation * logits)


def right_rows(y_true: NDArray[np.generic], answers: NDArray[np.generic]) -> Flags:
    """(N,) whether a row's answer is right: of several labels, all of them. Not for numbers."""
    same = y_true == answers
    return np.asarray(same if same.ndim == 1 else same.all(axis=1))


def f1_micro(y_true: Ints, answers: NDArray[np.generic]) -> float:
    """F1 of all labels of all rows together; 0 where none is there or given. Both (N, C) of 0 and 1."""
    return float(f1_of(f1_counts(y_true, answers).sum(axis=0)))


def f1_counts(y_true: NDArray[np.integer], answers: NDArray[np.generic]) -> Floats:
    """(N, 2) of each row: labels that are there and given, and all that are there plus all that are given."""
    there, given = y_true == 1, answers.astype(bool)
    return np.stack([(there & given).sum(axis=1), there.sum(axis=1) + given.sum(axis=1)], axis=1).astype(float)


def f1_of(counts: Floats) -> Floats:
    """Of sums (2,) or (2, B) of such counts; 0 where nothing is there or given."""
    right, either = counts
    return np.asarray(2 * right / np.maximum(either, 1))


def best_thresholds(y_true: Ints, proba: Floats) -> list[float]:
    """For each of C labels the threshold with the best F1 on these rows; y_true (N, C) 0 or 1, proba (N, C).

    A label with few rows takes the one that is best for all labels together: its own would follow chance.
    Source: Yang 2001, SIGIR, p. 137 (SCut with a fallback for rare categories).
    """
    together = _best_threshold(y_true.ravel(), proba.ravel())
    return [
        _best_threshold(y, p) if y.sum() >= FEWEST_POSITIVES else together
        for y, p in zip(y_true.T, proba.T, strict=True)
    ]


def _best_threshold(y: Ints, p: Floats) -> float:
    """Between the probabilities of two rows; EVEN where no row has the label."""
    if not y.sum():
        return EVEN
    order = np.argsort(-p, kind="stable")
    hits, n_given = y[order].cumsum(), np.arange(1, len(y) + 1)
    ends = np.append(np.diff(p[order]) < 0, True)  # rows of one probability go together
    f1 = np.where(ends, 2 * hits / (n_given + y.sum()), -1.0)
    last = int(f1.argmax())
    below = p[order][last + 1] if last + 1 < len(y) else 0.0
    return float((p[order][last] + below) / 2)

"""METRICS: what a classifier is scored by, with what there is to know about each score.

To add a metric, write one function `compute(y_true, y_pred or proba) -> float` and one row in METRICS. Its
interval, its Evaluate module, its docs and its error messages follow. A vectorised form of the bootstrap
(`replicate` or `reweigh`) makes the interval fast, and is optional.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lightune.errors import UserError, near_match
from lightune.evidence.calibration import calibration_error, calibration_interval, resampled_errors
from lightune.evidence.statistics import weighted_auc

Compute = Callable[[np.ndarray, np.ndarray], float]
Replicate = Callable[[np.ndarray], np.ndarray]
Reweigh = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
FindInterval = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[float, float]]


def _no_obstacle(y_true: np.ndarray, n_classes: int) -> str:
    return ""


@dataclass(frozen=True)
class Metric:
    """A way to score N predictions of C classes, and what there is to know about it.

    compute(y_true (N,), y_pred (N,) or proba (N, C), as `needs` says) is the value, within [low, high].
    replicate(confusions (B, C, C) [resample, true, predicted]) -> (B,), or
    reweigh(y_true, prediction, weights (N, B) of each row in each resample) -> (B,), is the same on resamples.
    is_proportion: the value is a share of the rows, so its interval is Wilson's and nothing is resampled.
    interval(y_true, proba, rng): where resamples would mislead, the 95 % interval by a way of its own.
    applies: when it does, in words; obstacle(y_true, n_classes) is why it does not, or "".
    """

    summary: str
    source: str
    compute: Compute
    direction: Literal["higher", "lower"] = "higher"
    low: float = 0
    high: float = 1
    needs: Literal["labels", "probabilities"] = "labels"
    replicate: Replicate | None = None
    reweigh: Reweigh | None = None
    is_proportion: bool = False
    interval: FindInterval | None = None
    applies: str = "always"
    obstacle: Callable[[np.ndarray, int], str] = _no_obstacle


# ---- what callers use


def find_metric(name: str) -> Metric:
    """The row of METRICS. Raises UserError if there is no such metric."""
    if name not in METRICS:
        raise UserError(f"No metric {name!r}.{near_match(name, METRICS)} There are: {', '.join(METRICS)}.")
    return METRICS[name]


def prediction_of(metric: Metric, proba: np.ndarray, answers: np.ndarray | None = None) -> np.ndarray:
    """What the metric's compute takes: the answers, if not given the most probable classes (N,), or proba (N, C)."""
    if metric.needs == "probabilities":
        return proba
    return np.asarray(proba.argmax(axis=1) if answers is None else answers)


def markdown_table(metrics: Mapping[str, Metric] | None = None) -> str:
    """The documentation's table of METRICS, or of others like them."""
    head = ["Metric", "What it is", "Better", "Range", "Needs", "95 % interval", "Applies", "Source"]
    rows = [[f"`{name}`", *_table_cells(metric)] for name, metric in (metrics or METRICS).items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


def _table_cells(metric: Metric) -> list[str]:
    low, high = (f"{end:g}".replace("inf", "∞") for end in (metric.low, metric.high))
    own = "a test inverted" if metric.interval else "bootstrap over rows"
    interval = "Wilson" if metric.is_proportion else own
    facts = [metric.direction, f"{low} to {high}", metric.needs, interval, metric.applies]
    return [metric.summary, *facts, metric.source]


# ---- the metrics: compute


def sklearn_metric(function: str, **options: Any) -> Compute:
    """scikit-learn's function of that name with these options, imported when it is first called."""

    def compute(y_true: np.ndarray, prediction: np.ndarray) -> float:
        import sklearn.metrics

        return float(getattr(sklearn.metrics, function)(y_true, prediction, **options))

    return compute


def _balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Not balanced_accuracy_score: it warns when a class is predicted that y_true lacks. Same value."""
    return sklearn_metric("recall_score", labels=np.unique(y_true), average="macro", zero_division=0)(y_true, y_pred)


def _mcc(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """0 where undefined: when all rows have one class, or all are predicted as one."""
    if (y_true == y_true[0]).all() or (y_pred == y_pred[0]).all():
        return 0.0  # what scikit-learn says too, but with a warning when the two classes are the same
    return sklearn_metric("matthews_corrcoef")(y_true, y_pred)


def _log_loss(y_true: np.ndarray, proba: np.ndarray) -> float:
    """scikit-learn warns if a row's sum is off by 1e-8, and rows of a float32 softmax are off by 1e-7."""
    return sklearn_metric("log_loss", labels=range(proba.shape[1]))(y_true, _normalised(proba))


def _log_loss_rows(y_true: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """(N,) surprise of each row, in nats; clipped as scikit-learn does, so 0 costs 36.04 and not infinity."""
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(_normalised(proba)[np.arange(len(y_true)), y_true].clip(eps, 1 - eps)))


def _brier(y_true: np.ndarray, proba: np.ndarray) -> float:
    """Not brier_score_loss: before scikit-learn 1.7 it takes two classes only."""
    return float(_brier_rows(y_true, proba).mean())


def _brier_rows(y_true: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """(N,) half the squared distance from the probabilities to the truth."""
    truth = np.eye(proba.shape[1])[y_true]  # (N, C)
    return np.asarray(((_normalised(proba) - truth) ** 2).sum(axis=1) / 2)


def _normalised(proba: np.ndarray) -> np.ndarray:
    return np.asarray(proba / proba.sum(axis=1, keepdims=True))


def _roc_auc(y_true: np.ndarray, proba: np.ndarray) -> float:
    """One call a class: scikit-learn's one-against-rest wants exact row sums, and rescaling breaks ties."""
    area = sklearn_metric("roc_auc_score")
    return float(np.mean([area(y_true == c, proba[:, c]) for c in _ranked_classes(proba)]))


def _ranked_classes(proba: np.ndarray) -> Sequence[int]:
    return [1] if proba.shape[1] == 2 else range(proba.shape[1])


def _absent_classes(y_true: np.ndarray, n_classes: int) -> str:
    n_absent = n_classes - len(np.unique(y_true))
    return f"{n_absent} of {n_classes} classes have no row here" if n_absent else ""


# ---- the metrics: the same on B resamples at once, from confusions (B, C, C) [resample, true, predicted]


def _per_class(confusions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of each class that are right, that there are, and that are predicted; each (B, C)."""
    return np.diagonal(confusions, axis1=1, axis2=2), confusions.sum(axis=2), confusions.sum(axis=1)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0))


def _mean_over(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B,) means of the values (B, C) over classes, with weights (B, C) of which one at least is not 0."""
    return np.asarray((values * weights).sum(axis=1) / weights.sum(axis=1))


def _accuracy_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, _ = _per_class(confusions)
    return np.asarray(right.sum(axis=1) / there.sum(axis=1))


def _balanced_accuracy_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, _ = _per_class(confusions)
    return _mean_over(ratio(right, there), there > 0)


def _f1_macro_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(ratio(2 * right, there + predicted), there + predicted > 0)


def _f1_weighted_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(ratio(2 * right, there + predicted), there)


def _precision_macro_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(ratio(right, predicted), there + predicted > 0)


def _recall_macro_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(ratio(right, there), there + predicted > 0)


def _mcc_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = (counts.astype(float) for counts in _per_class(confusions))
    n = there.sum(axis=1)
    covariance = n * right.sum(axis=1) - (there * predicted).sum(axis=1)
    spread = (n**2 - (there**2).sum(axis=1)) * (n**2 - (predicted**2).sum(axis=1))
    return ratio(covariance, np.sqrt(spread))


# ---- the metrics: the same from weights (N, B), how often each row is in each resample


def _mean_of(rows: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Reweigh:
    """The bootstrap form of a metric that is the mean of a per-row value."""

    def reweigh(y_true: np.ndarray, proba: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(rows(y_true, proba) @ weights / weights.sum(axis=0))

    return reweigh


def _roc_auc_samples(y_true: np.ndarray, proba: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """NaN for a resample of one class; with more than two classes, the mean over those that are defined."""
    classes = _ranked_classes(proba)
    areas = np.stack([weighted_auc(y_true == c, proba[:, c], weights) for c in classes])  # (C or 1, B)
    defined = ~np.isnan(areas)
    mean = np.nansum(areas, axis=0) / np.maximum(defined.sum(axis=0), 1)
    return np.where(defined.any(axis=0), mean, np.nan)


# ---- the table

HEADLINE = ("accuracy", "f1_macro", "mcc", "roc_auc", "log_loss", "ece")  # what tables and cards show

IMBALANCED = 4  # times that the largest class has the rows of the smallest one


def headline(class_sizes: Sequence[int]) -> tuple[str, ...]:
    """HEADLINE, with what counts classes alike at the front where their sizes differ much."""
    sizes = [size for size in class_sizes if size]
    if not sizes or max(sizes) < IMBALANCED * min(sizes):
        return HEADLINE
    first = ("f1_macro", "balanced_accuracy", "mcc")
    return (*first, *(name for name in HEADLINE if name not in first))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        summary="Share of rows whose most probable class is the true one",
        source="scikit-learn `accuracy_score`; interval: Wilson 1927, J. Amer. Statist. Assoc. 22:209",
        compute=sklearn_metric("accuracy_score"),
        replicate=_accuracy_samples,
        is_proportion=True,
    ),
    "balanced_accuracy": Metric(
        summary="Recall, averaged over the classes that occur",
        source="Brodersen et al. 2010, ICPR, p. 3121; scikit-learn `balanced_accuracy_score`",
        compute=_balanced_accuracy,
        replicate=_balanced_accuracy_samples,
    ),
    "f1_macro": Metric(
        summary="F1, the harmonic mean of precision and recall, averaged over the classes that occur or "
        "are predicted",
        source="Opitz and Burst 2019, arXiv:1911.03347; scikit-learn `f1_score`",
        compute=sklearn_metric("f1_score", average="macro", zero_division=0),
        replicate=_f1_macro_samples,
    ),
    "f1_weighted": Metric(
        summary="F1, averaged over classes by their number of rows",
        source="scikit-learn `f1_score`",
        compute=sklearn_metric("f1_score", average="weighted", zero_division=0),
        replicate=_f1_weighted_samples,
    ),
    "precision_macro": Metric(
        summary="Share of the rows predicted as a class that are of it, averaged like f1_macro; 0 for one "
        "never predicted",
        source="Sokolova and Lapalme 2009, Inf. Process. Manag. 45:427; scikit-learn `precision_score`",
        compute=sklearn_metric("precision_score", average="macro", zero_division=0),
        replicate=_precision_macro_samples,
    ),
    "recall_macro": Metric(
        summary="Share of the rows of a class that are found, averaged like f1_macro; 0 for a class that is "
        "predicted but never occurs",
        source="Sokolova and Lapalme 2009, Inf. Process. Manag. 45:427; scikit-learn `recall_score`",
        compute=sklearn_metric("recall_score", average="macro", zero_division=0),
        replicate=_recall_macro_samples,
    ),
    "mcc": Metric(
        summary="Correlation of true and predicted classes; 0 is chance, whatever the class sizes",
        source="Gorodkin 2004, Comput. Biol. Chem. 28:367; scikit-learn `matthews_corrcoef`",
        compute=_mcc,
        low=-1,
        replicate=_mcc_samples,
    ),
    "log_loss": Metric(
        summary="Mean surprise at the true class, in nats; punishes confident errors most",
        source="Good 1952, J. R. Statist. Soc. B 14:107; scikit-learn `log_loss`",
        compute=_log_loss,
        direction="lower",
        high=math.inf,
        needs="probabilities",
        reweigh=_mean_of(_log_loss_rows),
    ),
    "brier": Metric(
        summary="Half the mean squared distance from the probabilities to the truth",
        source="Brier 1950, Mon. Weather Rev. 78:1; scikit-learn `brier_score_loss(scale_by_half=True)`",
        compute=_brier,
        direction="lower",
        needs="probabilities",
        reweigh=_mean_of(_brier_rows),
    ),
    "ece": Metric(
        summary="Expected calibration error: mean gap between an answer's probability and the share of such answers "
        "that are right, over 15 bins of equal width; on N rows of a perfect classifier about 1 / sqrt(N), not 0",
        source="Naeini et al. 2015, AAAI, p. 2901; Guo et al. 2017, arXiv:1706.04599",
        compute=calibration_error,
        direction="lower",
        needs="probabilities",
        reweigh=resampled_errors,
        interval=calibration_interval,
    ),
    "roc_auc": Metric(
        summary="Chance that a row of the class scores above a row of another; of two classes: for the "
        "second; of more: each against the rest, averaged",
        source="Hanley and McNeil 1982, Radiology 143:29; scikit-learn `roc_auc_score`",
        compute=_roc_auc,
        needs="probabilities",
        reweigh=_roc_auc_samples,
        applies="every class has a row",
        obstacle=_absent_classes,
    ),
}

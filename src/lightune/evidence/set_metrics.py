"""SET_METRICS: what a classifier that gives several labels a row is scored by.

A row is like one of METRICS, with y_true (N, C) of 0 and 1; `needs="labels"`: compute takes the answers (N, C).
"""

from __future__ import annotations

import math

import numpy as np

from lightune.evidence.calibration import calibration_error, calibration_interval, resampled_errors
from lightune.evidence.decisions import right_rows
from lightune.evidence.metrics import Metric, ratio, sklearn_metric
from lightune.evidence.statistics import weighted_auc

SET_HEADLINE = ("f1_micro", "f1_macro", "accuracy", "roc_auc", "log_loss", "ece")  # what tables and cards show


# ---- compute


def _log_loss_rows(y_true: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """(N,) mean surprise over the labels of a row, in nats; clipped as scikit-learn does."""
    eps = np.finfo(np.float64).eps
    p = proba.clip(eps, 1 - eps)
    return np.asarray(-np.where(y_true == 1, np.log(p), np.log1p(-p)).mean(axis=1))


def _brier_rows(y_true: np.ndarray, proba: np.ndarray) -> np.ndarray:
    return np.asarray(((proba - y_true) ** 2).mean(axis=1))


def _roc_auc(y_true: np.ndarray, proba: np.ndarray) -> float:
    area = sklearn_metric("roc_auc_score")
    return float(np.mean([area(y_true[:, c], proba[:, c]) for c in _told_apart(y_true)]))


def _told_apart(y_true: np.ndarray) -> list[int]:
    """The labels that some rows have and some have not."""
    counts = y_true.sum(axis=0)
    return [int(c) for c in np.flatnonzero((counts > 0) & (counts < len(y_true)))]


def _none_told_apart(y_true: np.ndarray, n_classes: int) -> str:
    return "" if _told_apart(y_true) else "no label has rows with it and rows without it"


def as_pairs(y_true: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every label of every row as a row of its own with the classes no and yes: (N · C,) and (N · C, 2)."""
    p = proba.ravel()
    return y_true.ravel(), np.stack([1 - p, p], axis=1)


# ---- the same on resamples; weights (N, B): how often each row is in each


def _counts(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each label the rows where it is right, there, and given; each (C, B)."""
    return tuple(part.T.astype(float) @ weights for part in (y_true * answers, y_true, answers))


def _f1_micro_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    right, there, given = (each.sum(axis=0) for each in _counts(y_true, answers, weights))
    return ratio(2 * right, there + given)


def _f1_macro_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    right, there, given = _counts(y_true, answers, weights)
    return np.asarray(ratio(2 * right, there + given).mean(axis=0))


def _precision_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    right, _, given = (each.sum(axis=0) for each in _counts(y_true, answers, weights))
    return ratio(right, given)


def _recall_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    right, there, _ = (each.sum(axis=0) for each in _counts(y_true, answers, weights))
    return ratio(right, there)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(values @ weights / weights.sum(axis=0))


def _accuracy_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean(right_rows(y_true, answers).astype(float), weights)


def _wrong_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean((y_true != answers).mean(axis=1), weights)


def _roc_auc_samples(y_true: np.ndarray, proba: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over the labels that are told apart in a resample; NaN where none is."""
    areas = np.stack([weighted_auc(y_true[:, c] == 1, proba[:, c], weights) for c in _told_apart(y_true)])
    defined = ~np.isnan(areas)
    mean = np.nansum(areas, axis=0) / np.maximum(defined.sum(axis=0), 1)
    return np.where(defined.any(axis=0), mean, np.nan)


# ---- the table

SET_METRICS: dict[str, Metric] = {
    "f1_micro": Metric(
        summary="F1 of all labels of all rows together; a label counts by how often it occurs",
        source="scikit-learn `f1_score`",
        compute=sklearn_metric("f1_score", average="micro", zero_division=0),
        reweigh=_f1_micro_samples,
    ),
    "f1_macro": Metric(
        summary="F1 of each label, averaged; 0 for a label that neither occurs nor is given",
        source="scikit-learn `f1_score`",
        compute=sklearn_metric("f1_score", average="macro", zero_division=0),
        reweigh=_f1_macro_samples,
    ),
    "precision_micro": Metric(
        summary="Share of the labels given that are right",
        source="scikit-learn `precision_score`",
        compute=sklearn_metric("precision_score", average="micro", zero_division=0),
        reweigh=_precision_samples,
    ),
    "recall_micro": Metric(
        summary="Share of the labels there that are given",
        source="scikit-learn `recall_score`",
        compute=sklearn_metric("recall_score", average="micro", zero_division=0),
        reweigh=_recall_samples,
    ),
    "accuracy": Metric(
        summary="Share of rows with all their labels given and no other",
        source="scikit-learn `accuracy_score`; interval: Wilson 1927, J. Amer. Statist. Assoc. 22:209",
        compute=sklearn_metric("accuracy_score"),
        reweigh=_accuracy_samples,
        is_proportion=True,
    ),
    "hamming_loss": Metric(
        summary="Share of labels that are wrongly given or wrongly left out",
        source="scikit-learn `hamming_loss`",
        compute=sklearn_metric("hamming_loss"),
        direction="lower",
        reweigh=_wrong_samples,
    ),
    "log_loss": Metric(
        summary="Mean surprise at each label being there or not, in nats, averaged over labels",
        source="Good 1952, J. R. Statist. Soc. B 14:107",
        compute=lambda y_true, proba: float(_log_loss_rows(y_true, proba).mean()),
        direction="lower",
        high=math.inf,
        needs="probabilities",
        reweigh=lambda y_true, proba, weights: _mean(_log_loss_rows(y_true, proba), weights),
    ),
    "brier": Metric(
        summary="Mean squared distance from the probability of each label to 1 or 0",
        source="Brier 1950, Mon. Weather Rev. 78:1",
        compute=lambda y_true, proba: float(_brier_rows(y_true, proba).mean()),
        direction="lower",
        needs="probabilities",
        reweigh=lambda y_true, proba, weights: _mean(_brier_rows(y_true, proba), weights),
    ),
    "ece": Metric(
        summary="Expected calibration error of the answers yes and no, all labels of all rows together; its interval "
        "takes the labels of a row for independent",
        source="Naeini et al. 2015, AAAI, p. 2901; Guo et al. 2017, arXiv:1706.04599",
        compute=lambda y_true, proba: calibration_error(*as_pairs(y_true, proba)),
        direction="lower",
        needs="probabilities",
        reweigh=lambda y_true, proba, weights: resampled_errors(
            *as_pairs(y_true, proba), np.repeat(weights, y_true.shape[1], axis=0)
        ),
        interval=lambda y_true, proba, rng: calibration_interval(*as_pairs(y_true, proba), rng),
    ),
    "roc_auc": Metric(
        summary="Chance that a row with the label scores above one without it, averaged over the labels",
        source="Hanley and McNeil 1982, Radiology 143:29; scikit-learn `roc_auc_score`",
        compute=_roc_auc,
        needs="probabilities",
        reweigh=_roc_auc_samples,
        applies="a label has rows with it and rows without it",
        obstacle=_none_told_apart,
    ),
}

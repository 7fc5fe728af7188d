"""VALUE_METRICS: what answers that are numbers are scored by; GRADE_METRICS: how far off classes with an order are.

A row is like one of METRICS. Of numbers y_true and the answers are (N,) float; grades are class ids (N,) by rank.
"""

from __future__ import annotations

import math

import numpy as np

from lightune.evidence.metrics import Metric, ratio, sklearn_metric

IN_UNITS = ("mae", "rmse")  # of numbers: those that are in the label's unit
VALUE_HEADLINE = ("mae", "rmse", "r2", "spearman", "pearson")  # what tables and cards show
GRADE_HEADLINE = ("accuracy", "mae", "qwk", "spearman", "f1_macro", "log_loss", "ece")


# ---- compute


def _r2(y_true: np.ndarray, answers: np.ndarray) -> float:
    return float(1 - ((y_true - answers) ** 2).sum() / ((y_true - y_true.mean()) ** 2).sum())


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; 0 where all of one side are the same."""
    return float(_correlations(x, y, np.ones((len(x), 1)))[0])


def _spearman(y_true: np.ndarray, answers: np.ndarray) -> float:
    from scipy.stats import rankdata

    return _correlation(rankdata(y_true), rankdata(answers))


def _classes_off(y_true: np.ndarray, answers: np.ndarray) -> float:
    return float(np.abs(y_true - answers).mean())


def _kappa(y_true: np.ndarray, answers: np.ndarray) -> float:
    n_classes = int(max(y_true.max(), answers.max())) + 1
    counts = np.zeros((1, n_classes, n_classes))
    np.add.at(counts[0], (y_true, answers), 1)
    return float(_kappa_samples(counts)[0])


def _no_spread(y_true: np.ndarray, n_classes: int) -> str:
    return "" if y_true.min() < y_true.max() else "all rows have the same label"


# ---- the same on resamples; weights (N, B): how often each row is in each


def _mae_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(y_true - answers) @ weights / weights.sum(axis=0))


def _rmse_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((y_true - answers) ** 2 @ weights / weights.sum(axis=0)))


def _r2_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    spread = (_centred(y_true[:, None], weights) ** 2 * weights).sum(axis=0)
    off = (y_true - answers) ** 2 @ weights
    return np.where(spread > 0, 1 - off / np.where(spread > 0, spread, 1), np.nan)


def _correlations(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B,) Pearson's of x and y, each (N,) or, where it is another one in each resample, (N, B)."""
    x, y = (_centred(each.reshape(len(each), -1), weights) for each in (x, y))
    both = (x * y * weights).sum(axis=0)
    spread = [np.sqrt((each**2 * weights).sum(axis=0)) for each in (x, y)]
    return ratio(both, spread[0] * spread[1]).clip(-1, 1)


def _centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, B) of (N, B) or (N, 1): less the mean in each resample, exactly 0 where all that are in it are the same."""
    first = np.take_along_axis(np.broadcast_to(values, weights.shape), (weights > 0).argmax(axis=0)[None], axis=0)
    near = values - first
    return np.asarray(near - (near * weights).sum(axis=0) / weights.sum(axis=0))


def _spearman_samples(y_true: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _correlations(_ranks(y_true, weights), _ranks(answers, weights), weights)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, B) the rank of each row in each resample, equal values sharing the mean of theirs."""
    from scipy.sparse import csr_array

    levels, place = np.unique(values, return_inverse=True)
    adder = csr_array((np.ones(len(values)), (place, np.arange(len(values)))), shape=(len(levels), len(values)))
    at_level = adder @ weights  # (L, B)
    return np.asarray((at_level.cumsum(axis=0) - (at_level - 1) / 2)[place])


# ---- of grades, on confusions (B, C, C) [resample, true, answer]


def _distances(confusions: np.ndarray) -> np.ndarray:
    places = np.arange(confusions.shape[1])
    return np.asarray(np.abs(places[:, None] - places[None, :]))


def _classes_off_samples(confusions: np.ndarray) -> np.ndarray:
    return np.asarray((confusions * _distances(confusions)).sum(axis=(1, 2)) / confusions.sum(axis=(1, 2)))


def _kappa_samples(confusions: np.ndarray) -> np.ndarray:
    squared = _distances(confusions) ** 2
    true, answered = confusions.sum(axis=2), confusions.sum(axis=1)
    by_chance = true[:, :, None] * answered[:, None, :] / confusions.sum(axis=(1, 2))[:, None, None]
    expected = (by_chance * squared).sum(axis=(1, 2))
    return np.where(
        expected > 0, 1 - (confusions * squared).sum(axis=(1, 2)) / np.where(expected > 0, expected, 1), 0
    )


def _grade_spearman_samples(confusions: np.ndarray) -> np.ndarray:
    n = confusions.sum(axis=(1, 2))
    x, y = (
        side.cumsum(axis=1) - (side - 1) / 2 - (n[:, None] + 1) / 2
        for side in (confusions.sum(axis=2), confusions.sum(axis=1))
    )
    both = np.einsum("bij,bi,bj->b", confusions.astype(float), x, y)
    spread = [(confusions.sum(axis=axis) * ranks**2).sum(axis=1) for axis, ranks in ((2, x), (1, y))]
    return ratio(both, np.sqrt(spread[0] * spread[1]))


# ---- the tables

VALUE_METRICS: dict[str, Metric] = {
    "mae": Metric(
        summary="Mean absolute error: how far an answer is from its label on average, in the label's unit",
        source="Willmott and Matsuura 2005, Clim. Res. 30:79; scikit-learn `mean_absolute_error`",
        compute=sklearn_metric("mean_absolute_error"),
        direction="lower",
        high=math.inf,
        reweigh=_mae_samples,
    ),
    "rmse": Metric(
        summary="Root of the mean squared error, in the label's unit: what is far off counts most",
        source="scikit-learn `root_mean_squared_error`",
        compute=sklearn_metric("root_mean_squared_error"),
        direction="lower",
        high=math.inf,
        reweigh=_rmse_samples,
    ),
    "r2": Metric(
        summary="Share of the labels' variance that the answers explain; 0 is the mean of the test labels, whatever "
        "the text, and below it is worse than that",
        source="Kvalseth 1985, Am. Stat. 39:279; scikit-learn `r2_score`",
        compute=_r2,
        low=-math.inf,
        reweigh=_r2_samples,
        applies="labels differ",
        obstacle=_no_spread,
    ),
    "spearman": Metric(
        summary="Correlation of the ranks: whether larger labels get larger answers; 0 for answers all the same",
        source="Spearman 1904, Am. J. Psychol. 15:72; SciPy `spearmanr`",
        compute=_spearman,
        low=-1,
        reweigh=_spearman_samples,
        applies="labels differ",
        obstacle=_no_spread,
    ),
    "pearson": Metric(
        summary="Linear correlation of labels and answers; 0 for answers all the same",
        source="Pearson 1895, Proc. R. Soc. Lond. 58:240; SciPy `pearsonr`",
        compute=_correlation,
        low=-1,
        reweigh=_correlations,
        applies="labels differ",
        obstacle=_no_spread,
    ),
}

GRADE_METRICS: dict[str, Metric] = {
    "mae": Metric(
        summary="Mean number of classes from the answer to the label, in their order",
        source="Baccianella et al. 2009, ISDA, p. 283; scikit-learn `mean_absolute_error`",
        compute=_classes_off,
        direction="lower",
        high=math.inf,
        replicate=_classes_off_samples,
    ),
    "qwk": Metric(
        summary="Agreement beyond chance, a mistake counting by its squared distance: quadratic weighted kappa",
        source="Cohen 1968, Psychol. Bull. 70:213; scikit-learn `cohen_kappa_score(weights='quadratic', labels=…)`",
        compute=_kappa,
        low=-1,
        replicate=_kappa_samples,
        applies="labels differ",
        obstacle=_no_spread,
    ),
    "spearman": Metric(
        summary="Correlation of the ranks of labels and answers; 0 for answers all the same",
        source="Spearman 1904, Am. J. Psychol. 15:72; SciPy `spearmanr`",
        compute=_spearman,
        low=-1,
        replicate=_grade_spearman_samples,
        applies="labels differ",
        obstacle=_no_spread,
    ),
}

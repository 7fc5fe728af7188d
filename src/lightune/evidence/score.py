"""The scores of a classifier: each metric's value, from its Evaluate module, and its 95 % interval."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from lightune.errors import UserError, near_match
from lightune.evidence.decisions import decide, task_of
from lightune.evidence.metrics import HEADLINE, METRICS, Metric, headline, prediction_of
from lightune.evidence.modules import as_module, hub_row
from lightune.evidence.set_metrics import SET_HEADLINE, SET_METRICS
from lightune.evidence.statistics import (
    confusion_draws,
    percentile_interval,
    require_rows,
    weight_draws,
    weighted_confusions,
    wilson,
)
from lightune.evidence.value_metrics import GRADE_HEADLINE, GRADE_METRICS, VALUE_HEADLINE, VALUE_METRICS
from lightune.recipe import Task
from lightune.records import Score

HUB = "hub:"  # before the name of a metric that is downloaded
SLOW_RESAMPLES = 200  # the most without a vectorised form: scikit-learn needs milliseconds for each

Draw = TypeVar("Draw")


TABLES: dict[Task, Mapping[str, Metric]] = {
    "single_label": METRICS,
    "ordinal": ChainMap(GRADE_METRICS, METRICS),
    "multi_label": SET_METRICS,
    "regression": VALUE_METRICS,
}
HEADLINES: dict[Task, tuple[str, ...]] = {
    "single_label": HEADLINE,
    "ordinal": GRADE_HEADLINE,
    "multi_label": SET_HEADLINE,
    "regression": VALUE_HEADLINE,
}
MEASURES: dict[Task, str] = {  # what the verdict compares
    "single_label": "accuracy",
    "ordinal": "accuracy",
    "multi_label": "f1_micro",
    "regression": "mae",
}


def spoken(measure: str) -> str:
    """A metric's name in a sentence."""
    return measure.replace("_", " ")


def is_lower_better(measure: str) -> bool:
    """Whether a smaller value is the better one."""
    return any(table[measure].direction == "lower" for table in TABLES.values() if measure in table)


def headline_of(task: Task, class_sizes: Sequence[int] = ()) -> tuple[str, ...]:
    """What tables and cards show, the most telling first."""
    return headline(class_sizes) if task == "single_label" and class_sizes else HEADLINES[task]


def score_all(
    y_true: np.ndarray,
    proba: np.ndarray,
    answers: np.ndarray | None = None,
    *,
    names: Sequence[str] | None = None,
    seed: int,
    n_resamples: int = 1000,
) -> dict[str, Score]:
    """Every metric that applies (or those of `names` that do), each with its 95 % interval.

    names: rows of the task's table, and "hub:NAME" for a metric of the Hugging Face Hub.
    y_true (N,) int in [0, C), proba (N, C) float, rows sum to 1; or, of several labels a row, y_true (N, C) of 0 and
    1, proba of each label; or y_true (N,) float, proba (N, 1) the answers. answers: as `decide` gives them, without
    thresholds if not given. Intervals are Wilson's
    for a proportion and the percentile bootstrap over rows for the rest: they cover the choice of test rows, not
    of the training seed, and shrink to a point when no row is wrong. `not_applicable` says what was left out, and
    why; a Hub
    metric that gives no number is left out too.
    Raises UserError if N == 0, a name is unknown or a probability is not a number.
    """
    task = task_of(np.asarray(y_true))
    wanted = list(TABLES[task]) if names is None else names
    metrics = {name: find(name, task) for name in wanted}
    y_true, proba = _checked(y_true, proba)
    answers = decide(proba, task) if answers is None else answers
    metrics = {name: metric for name, metric in metrics.items() if not metric.obstacle(y_true, proba.shape[1])}
    given = {name: prediction_of(metric, proba, answers) for name, metric in metrics.items()}
    values = {name: _value(name, metric, y_true, given[name], proba.shape[1]) for name, metric in metrics.items()}
    # a Hub metric may give NaN, as a correlation does for answers that are all the same; a row of ours may not
    kept = {
        name: metric for name, metric in metrics.items() if math.isfinite(values[name]) or not name.startswith(HUB)
    }
    intervals = _intervals(kept, y_true, given, proba.shape[1], seed, n_resamples)
    return {name: Score(values[name], *intervals[name]) for name in kept}


def paired_difference_of(
    name: str,
    y_true: np.ndarray,
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    *,
    seed: int,
    n_resamples: int = 1000,
) -> Score:
    """Our value of a metric less the other's on the same rows, with the paired 95 % interval.

    y_true, and each one's probabilities and answers: as for `score_all`. Rows are resampled for both alike.
    Raises UserError if N == 0, the name is unknown, the metric does not apply or a probability is not a number.
    """
    metric = find(name, task_of(np.asarray(y_true)))
    checked = [(*_checked(y_true, proba), answers) for proba, answers in (ours, theirs)]
    y_true, n_classes = checked[0][0], checked[0][1].shape[1]
    if reason := metric.obstacle(y_true, n_classes):
        raise UserError(f"{name}: has no value on these rows ({reason}).")
    given = [prediction_of(metric, proba, answers) for _, proba, answers in checked]
    value = _value(name, metric, y_true, given[0], n_classes) - _value(name, metric, y_true, given[1], n_classes)
    samples = [_paired_samples(metric, y_true, each, n_classes, seed, n_resamples) for each in given]
    return Score(value, *percentile_interval(samples[0] - samples[1]))


def check(names: Sequence[str]) -> list[str]:
    """The same names, each once. Raises UserError for one that is neither a row of a table nor the Hub's."""
    for name in names:
        if name.startswith(HUB) or not any(name in table for table in TABLES.values()):
            find(name, "single_label")
    return list(dict.fromkeys(names))


def check_task(names: Sequence[str], task: Task) -> None:
    """UserError for a metric that labels of this task do not have; the Hub's are taken as they are."""
    for name in names:
        if not name.startswith(HUB) and name not in TABLES[task]:
            there = ", ".join(TABLES[task])
            raise UserError(f"metrics: {name!r} is no metric of a {task} task. There are {there}.")


def not_applicable(y_true: np.ndarray, n_classes: int, task: Task) -> dict[str, str]:
    """The metrics of the task that cannot be computed on these labels (N,), each with the reason."""
    y_true = np.asarray(y_true)
    reasons = {name: metric.obstacle(y_true, n_classes) for name, metric in TABLES[task].items()}
    return {name: reason for name, reason in reasons.items() if reason}


def find(name: str, task: Task) -> Metric:
    """The row of the task's table, or the Hub's metric. UserError if there is none."""
    if name.startswith(HUB):
        return hub_row(name.removeprefix(HUB))
    table = TABLES["ordinal" if task == "single_label" else task]  # the labels do not tell that they are grades
    if name not in table:
        of = {"multi_label": " of several labels a row", "regression": " of numbers"}.get(task, "")
        there = ", ".join(TABLES[task])
        raise UserError(f"No metric {name!r}{of}.{near_match(name, TABLES[task])} There are: {there}.")
    return table[name]


def _checked(y_true: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As int64 or, of numbers, float64. Raises UserError for no rows or for NaN, and ValueError for a bug of ours."""
    is_numbers, proba = task_of(np.asarray(y_true)) == "regression", np.asarray(proba, dtype=np.float64)
    y_true = np.asarray(y_true, dtype=np.float64 if is_numbers else np.int64)
    require_rows(len(y_true))
    _require_finite(proba)
    if is_numbers:
        if proba.shape != (len(y_true), 1):
            raise ValueError(f"numbers {y_true.shape} for answers {proba.shape}")
        return y_true, proba
    if y_true.ndim == 2:
        if y_true.shape != proba.shape or not np.isin(y_true, (0, 1)).all() or proba.min() < 0 or proba.max() > 1:
            raise ValueError(f"label sets {y_true.shape} of 0 and 1 for probabilities {proba.shape}")
        return y_true, proba
    if y_true.shape != proba.shape[:1] or y_true.min() < 0 or y_true.max() >= proba.shape[1]:
        raise ValueError(f"class ids {y_true.shape} in [{y_true.min()}, {y_true.max()}] for {proba.shape}")
    if not np.allclose(proba.sum(axis=1), 1, atol=1e-3):
        raise ValueError(f"rows of proba sum to {proba.sum(axis=1).min()} … {proba.sum(axis=1).max()}, not 1")
    return y_true, proba


def _require_finite(proba: np.ndarray) -> None:
    n_broken = int((~np.isfinite(proba)).any(axis=-1).sum())
    if n_broken:
        raise UserError(
            f"The model's answers are not numbers for {n_broken} of {len(proba)} rows: the base's weights are "
            "damaged, 16-bit numbers overflowed, or training diverged. Check the base, set hardware.precision=fp32 "
            "(`lightune evaluate`: --precision fp32), or lower train.learning_rate."
        )


def _value(name: str, metric: Metric, y_true: np.ndarray, prediction: np.ndarray, n_classes: int) -> float:
    module = as_module(name, metric, n_classes, task_of(y_true))
    result = module.compute(predictions=prediction, references=y_true)
    return float(result[name])


def _intervals(
    metrics: Mapping[str, Metric],
    y_true: np.ndarray,
    given: Mapping[str, np.ndarray],
    n_classes: int,
    seed: int,
    n_resamples: int,
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each metric, all of one seed. given: what each one scores."""
    shares = {name: metric for name, metric in metrics.items() if metric.is_proportion}
    own = {name: metric.interval for name, metric in metrics.items() if metric.interval}
    others = {name: metric for name, metric in metrics.items() if name not in shares | own}
    samples = _samples(others, y_true, given, n_classes, seed, n_resamples)
    intervals = {name: _proportion_interval(metric, y_true, given[name]) for name, metric in shares.items()}
    intervals |= {name: interval(y_true, given[name], _rng(seed)) for name, interval in own.items()}
    return intervals | {name: percentile_interval(values) for name, values in samples.items()}


def _proportion_interval(metric: Metric, y_true: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    share = metric.compute(y_true, prediction)
    return wilson(round(share * len(y_true)), len(y_true))


def _samples(
    metrics: Mapping[str, Metric],
    y_true: np.ndarray,
    given: Mapping[str, np.ndarray],
    n_classes: int,
    seed: int,
    n_resamples: int,
) -> dict[str, np.ndarray]:
    """name -> (B,) values on resampled rows, by each metric's fastest form."""
    replicates = {name: metric.replicate for name, metric in metrics.items() if metric.replicate}
    reweighs = {name: partial(m.reweigh, y_true, given[name]) for name, m in metrics.items() if m.reweigh}
    slow = {name: metric for name, metric in metrics.items() if not (metric.replicate or metric.reweigh)}
    samples = _apply(reweighs, weight_draws(len(y_true), n_resamples, _rng(seed)))
    if replicates:
        y_pred = given[next(iter(replicates))]  # the same answers for all
        samples |= _apply(replicates, confusion_draws(y_true, y_pred, n_classes, n_resamples, _rng(seed)))
    n_slow = min(n_resamples, SLOW_RESAMPLES)
    return samples | {
        name: _slow_samples(metric, y_true, given[name], n_classes, n_slow, _rng(seed))
        for name, metric in slow.items()
    }


def _paired_samples(
    metric: Metric, y_true: np.ndarray, given: np.ndarray, n_classes: int, seed: int, n_resamples: int
) -> np.ndarray:
    """(B,) values on resamples that depend on the seed and the number of rows alone."""
    weights = weight_draws(len(y_true), n_resamples, _rng(seed))
    if metric.reweigh:
        return np.concatenate([metric.reweigh(y_true, given, each) for each in weights])
    if metric.replicate:
        chunks = (chunk for each in weights for chunk in weighted_confusions(y_true, given, n_classes, each))
        return np.concatenate([metric.replicate(chunk) for chunk in chunks])
    return _slow_samples(metric, y_true, given, n_classes, min(n_resamples, SLOW_RESAMPLES), _rng(seed))


def _rng(seed: int) -> np.random.Generator:
    """A fresh generator: a metric's interval does not depend on which others were asked for."""
    return np.random.default_rng(seed)


def _apply(forms: Mapping[str, Callable[[Draw], np.ndarray]], draws: Iterable[Draw]) -> dict[str, np.ndarray]:
    """Each form on every chunk of draws, which are made once for all of them and one chunk at a time."""
    if not forms:
        return {}
    parts = [{name: form(draw) for name, form in forms.items()} for draw in draws]
    return {name: np.concatenate([part[name] for part in parts]) for name in forms}


def _slow_samples(
    metric: Metric,
    y_true: np.ndarray,
    given: np.ndarray,
    n_classes: int,
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(B,) values of `compute` on resampled rows; NaN where the metric does not apply to a resample."""
    samples = np.full(n_resamples, np.nan)
    for i in range(n_resamples):
        rows = rng.integers(0, len(y_true), len(y_true))
        if not metric.obstacle(y_true[rows], n_classes):
            samples[i] = metric.compute(y_true[rows], given[rows])
    return samples

"""METRICS: what a classifier is scored by, computed by Hugging Face Evaluate modules that need no network.

To add a metric, write one function `compute(y_true, y_pred or proba) -> float` and one row in METRICS. Its
interval, its Evaluate module, its docs and its error messages follow. A vectorised form of the bootstrap
(`replicate` or `reweigh`) makes the interval fast, and is optional.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from lightune.errors import UserError, near_match
from lightune.evidence.statistics import (
    confusion_draws,
    percentile_interval,
    require_rows,
    weight_draws,
    weighted_auc,
    wilson,
)
from lightune.records import Score

if TYPE_CHECKING:
    import datasets
    import evaluate

SLOW_RESAMPLES = 200  # the most without a vectorised form: scikit-learn needs milliseconds for each

Compute = Callable[[np.ndarray, np.ndarray], float]
Replicate = Callable[[np.ndarray], np.ndarray]
Reweigh = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Draw = TypeVar("Draw")


def _no_obstacle(y_true: np.ndarray, n_classes: int) -> str:
    return ""


@dataclass(frozen=True)
class Metric:
    """A way to score N predictions of C classes, and what there is to know about it.

    compute(y_true (N,), y_pred (N,) or proba (N, C), as `needs` says) is the value, within [low, high].
    replicate(confusions (B, C, C) [resample, true, predicted]) -> (B,), or
    reweigh(y_true, proba, weights (N, B) of each row in each resample) -> (B,), is the same on resamples.
    is_proportion: the value is a share of the rows, so its interval is Wilson's and nothing is resampled.
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
    applies: str = "always"
    obstacle: Callable[[np.ndarray, int], str] = _no_obstacle


# ---- what callers use


def score_all(
    y_true: np.ndarray,
    proba: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    seed: int,
    n_resamples: int = 1000,
) -> dict[str, Score]:
    """Every metric that applies (or those of `names` that do), each with its 95 % interval.

    y_true (N,) int in [0, C); proba (N, C) float, rows sum to 1. Intervals are Wilson's for a proportion and
    the percentile bootstrap over rows for the rest: they cover the choice of test rows, not of the training
    seed, and shrink to a point when no row is wrong. `not_applicable` says what was left out and why.
    Raises UserError if N == 0, a name is unknown or a probability is not a number.
    """
    metrics = {name: _row(name) for name in (METRICS if names is None else names)}
    y_true, proba = _checked(y_true, proba)
    absent = not_applicable(y_true, proba.shape[1])
    metrics = {name: metric for name, metric in metrics.items() if name not in absent}
    intervals = _intervals(metrics, y_true, proba, seed, n_resamples)
    values = {name: _value(name, metric, y_true, proba) for name, metric in metrics.items()}
    return {name: Score(value, *intervals[name]) for name, value in values.items()}


def not_applicable(y_true: np.ndarray, n_classes: int) -> dict[str, str]:
    """The metrics that cannot be computed on these labels (N,), each with the reason."""
    reasons = {name: metric.obstacle(np.asarray(y_true), n_classes) for name, metric in METRICS.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def local_module(name: str, n_classes: int) -> evaluate.EvaluationModule:
    """The metric as a Hugging Face Evaluate module that needs no network and leaves no file behind.

    `module.compute(predictions=…, references=…)` takes class ids (N,) or probabilities (N, C), and only the
    latter if the metric needs them; so `evaluate.combine([...])` works, on probabilities for any mixture.
    Raises UserError if there is no such metric.
    """
    module = _module_class(name, _row(name), n_classes)
    with TemporaryDirectory() as scratch:  # Evaluate makes a folder even when it keeps the rows in memory
        return module(cache_dir=scratch, keep_in_memory=True)


def hub_metric(name: str, *, revision: str | None = None) -> evaluate.EvaluationModule:
    """Any metric of the Hugging Face Hub, "meteor" or "someone/their-metric", ready to compute.

    This downloads the metric's Python code and runs it: pin `revision` to the commit that was read.
    Raises UserError offline (unless it was used before and is in the cache), or if it does not load.
    """
    import evaluate
    from huggingface_hub import is_offline_mode

    _require_hub_name(name)
    # Evaluate has an offline switch of its own and does not look at HF_HUB_OFFLINE.
    offline = evaluate.config.HF_EVALUATE_OFFLINE = is_offline_mode() or evaluate.config.HF_EVALUATE_OFFLINE
    try:
        return evaluate.load(name, module_type="metric", revision=revision, keep_in_memory=True)
    except (FileNotFoundError, ConnectionError):
        reason = "offline mode is on and it is not in the cache" if offline else "no connection, or no such name"
        raise _no_hub_metric(name, reason) from None
    except ImportError as error:
        raise _no_hub_metric(name, str(error)) from error


def markdown_table() -> str:
    """The documentation's table of METRICS."""
    head = ["Metric", "What it is", "Better", "Range", "Needs", "95 % interval", "Applies", "Source"]
    rows = [[f"`{name}`", *_table_cells(metric)] for name, metric in METRICS.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


# ---- values and intervals


def _row(name: str) -> Metric:
    if name not in METRICS:
        raise UserError(f"No metric {name!r}.{near_match(name, METRICS)} There are: {', '.join(METRICS)}.")
    return METRICS[name]


def _checked(y_true: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As int64 and float64. Raises UserError for no rows or for NaN, and ValueError for a bug of ours."""
    y_true, proba = np.asarray(y_true, dtype=np.int64), np.asarray(proba, dtype=np.float64)
    require_rows(len(y_true))
    _require_finite(proba)
    if y_true.shape != proba.shape[:1] or y_true.min() < 0 or y_true.max() >= proba.shape[1]:
        raise ValueError(f"class ids {y_true.shape} in [{y_true.min()}, {y_true.max()}] for {proba.shape}")
    if not np.allclose(proba.sum(axis=1), 1, atol=1e-3):
        raise ValueError(f"rows of proba sum to {proba.sum(axis=1).min()} … {proba.sum(axis=1).max()}, not 1")
    return y_true, proba


def _require_finite(proba: np.ndarray) -> None:
    n_broken = int((~np.isfinite(proba)).any(axis=-1).sum())
    if n_broken:
        raise UserError(
            f"The model's probabilities are not numbers for {n_broken} of {len(proba)} rows: training "
            "diverged, or 16-bit numbers overflowed. Lower train.learning_rate, or use 32-bit precision."
        )


def _value(name: str, metric: Metric, y_true: np.ndarray, proba: np.ndarray) -> float:
    module = local_module(name, proba.shape[1])
    result = module.compute(predictions=_prediction(metric, proba), references=y_true)
    return float(result[name])


def _prediction(metric: Metric, proba: np.ndarray) -> np.ndarray:
    """What the metric's compute takes: class ids (N,) or proba (N, C)."""
    return proba.argmax(axis=1) if metric.needs == "labels" else proba


def _intervals(
    metrics: Mapping[str, Metric], y_true: np.ndarray, proba: np.ndarray, seed: int, n_resamples: int
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each metric, all of one seed."""
    shares = {name: metric for name, metric in metrics.items() if metric.is_proportion}
    others = {name: metric for name, metric in metrics.items() if not metric.is_proportion}
    samples = _samples(others, y_true, proba, seed, n_resamples)
    intervals = {name: _proportion_interval(metric, y_true, proba) for name, metric in shares.items()}
    return intervals | {name: percentile_interval(values) for name, values in samples.items()}


def _proportion_interval(metric: Metric, y_true: np.ndarray, proba: np.ndarray) -> tuple[float, float]:
    share = metric.compute(y_true, _prediction(metric, proba))
    return wilson(round(share * len(y_true)), len(y_true))


def _samples(
    metrics: Mapping[str, Metric], y_true: np.ndarray, proba: np.ndarray, seed: int, n_resamples: int
) -> dict[str, np.ndarray]:
    """name -> (B,) values on resampled rows, by each metric's fastest form."""
    replicates = {name: metric.replicate for name, metric in metrics.items() if metric.replicate}
    reweighs = {name: partial(m.reweigh, y_true, proba) for name, m in metrics.items() if m.reweigh}
    slow = {name: metric for name, metric in metrics.items() if not (metric.replicate or metric.reweigh)}
    n_rows, n_classes = proba.shape
    confusions = confusion_draws(y_true, proba.argmax(axis=1), n_classes, n_resamples, _rng(seed))
    weights = weight_draws(n_rows, n_resamples, _rng(seed))
    samples = _apply(replicates, confusions) | _apply(reweighs, weights)
    n_slow = min(n_resamples, SLOW_RESAMPLES)
    return samples | {name: _slow_samples(m, y_true, proba, n_slow, _rng(seed)) for name, m in slow.items()}


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
    metric: Metric, y_true: np.ndarray, proba: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """(B,) values of `compute` on resampled rows; NaN where the metric does not apply to a resample."""
    prediction, samples = _prediction(metric, proba), np.full(n_resamples, np.nan)
    for i in range(n_resamples):
        rows = rng.integers(0, len(y_true), len(y_true))
        if not metric.obstacle(y_true[rows], proba.shape[1]):
            samples[i] = metric.compute(y_true[rows], prediction[rows])
    return samples


# ---- Evaluate modules


def _module_class(name: str, metric: Metric, n_classes: int) -> type[evaluate.Metric]:
    import evaluate

    class LocalMetric(evaluate.Metric):  # type: ignore[misc]  # Evaluate ships no types
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(metric.summary, metric.source, _features(metric, n_classes))

        def _compute(self, predictions: list[Any], references: list[int]) -> dict[str, float]:
            given = np.asarray(predictions)
            prediction = _prediction(metric, given) if given.ndim == 2 else given
            return {name: metric.compute(np.asarray(references), prediction)}

    LocalMetric.__name__ = name  # Evaluate names a module after its class
    return LocalMetric


def _features(metric: Metric, n_classes: int) -> list[datasets.Features]:
    """The forms of input that the module takes: class ids if they will do, and probabilities."""
    from datasets import ClassLabel, Features, List, Value

    ids = ClassLabel(num_classes=n_classes)
    proba = List(Value("float64"), length=n_classes)
    forms = [ids, proba] if metric.needs == "labels" else [proba]
    return [Features(predictions=form, references=ids) for form in forms]


def _require_hub_name(name: str) -> None:
    """Raises UserError for what Evaluate would take for a Python file on this machine, and run."""
    if name.endswith(".py") or (Path(name) / f"{Path(name).name}.py").is_file():
        raise UserError(
            f"{name!r} is a Python file here, not a metric of the Hub, and loading it would run it. "
            "Give a name like 'meteor' or 'owner/metric', or rename the file."
        )


def _no_hub_metric(name: str, reason: str) -> UserError:
    return UserError(
        f"Hub metric {name!r} did not load: {reason}.{near_match(name, METRICS)} "
        f"Go online, or use a metric that needs no network: {', '.join(METRICS)}."
    )


def _table_cells(metric: Metric) -> list[str]:
    high = "∞" if math.isinf(metric.high) else f"{metric.high:g}"
    interval = "Wilson" if metric.is_proportion else "bootstrap over rows"
    facts = [metric.direction, f"{metric.low:g} to {high}", metric.needs, interval, metric.applies]
    return [metric.summary, *facts, metric.source]


# ---- the metrics: compute


def _sklearn(function: str, **options: Any) -> Compute:
    """scikit-learn's function of that name with these options, imported when it is first called."""

    def compute(y_true: np.ndarray, prediction: np.ndarray) -> float:
        import sklearn.metrics

        return float(getattr(sklearn.metrics, function)(y_true, prediction, **options))

    return compute


def _balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Not balanced_accuracy_score: it warns when a class is predicted that y_true lacks. Same value."""
    return _sklearn("recall_score", labels=np.unique(y_true), average="macro", zero_division=0)(y_true, y_pred)


def _mcc(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """0 where undefined: when all rows have one class, or all are predicted as one."""
    if (y_true == y_true[0]).all() or (y_pred == y_pred[0]).all():
        return 0.0  # what scikit-learn says too, but with a warning when the two classes are the same
    return _sklearn("matthews_corrcoef")(y_true, y_pred)


def _log_loss(y_true: np.ndarray, proba: np.ndarray) -> float:
    """scikit-learn warns if a row's sum is off by 1e-8, and rows of a float32 softmax are off by 1e-7."""
    return _sklearn("log_loss", labels=range(proba.shape[1]))(y_true, _normalised(proba))


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
    area = _sklearn("roc_auc_score")
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


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0))


def _mean_over(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B,) means of the values (B, C) over classes, with weights (B, C) of which one at least is not 0."""
    return np.asarray((values * weights).sum(axis=1) / weights.sum(axis=1))


def _balanced_accuracy_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, _ = _per_class(confusions)
    return _mean_over(_ratio(right, there), there > 0)


def _f1_macro_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(_ratio(2 * right, there + predicted), there + predicted > 0)


def _f1_weighted_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(_ratio(2 * right, there + predicted), there)


def _precision_macro_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(_ratio(right, predicted), there + predicted > 0)


def _recall_macro_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = _per_class(confusions)
    return _mean_over(_ratio(right, there), there + predicted > 0)


def _mcc_samples(confusions: np.ndarray) -> np.ndarray:
    right, there, predicted = (counts.astype(float) for counts in _per_class(confusions))
    n = there.sum(axis=1)
    covariance = n * right.sum(axis=1) - (there * predicted).sum(axis=1)
    spread = (n**2 - (there**2).sum(axis=1)) * (n**2 - (predicted**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(spread))


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

METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        summary="Share of rows whose most probable class is the true one",
        source="scikit-learn `accuracy_score`; interval: Wilson 1927, J. Amer. Statist. Assoc. 22:209",
        compute=_sklearn("accuracy_score"),
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
        compute=_sklearn("f1_score", average="macro", zero_division=0),
        replicate=_f1_macro_samples,
    ),
    "f1_weighted": Metric(
        summary="F1, averaged over classes by their number of rows",
        source="scikit-learn `f1_score`",
        compute=_sklearn("f1_score", average="weighted", zero_division=0),
        replicate=_f1_weighted_samples,
    ),
    "precision_macro": Metric(
        summary="Share of the rows predicted as a class that are of it, averaged like f1_macro; 0 for one "
        "never predicted",
        source="Sokolova and Lapalme 2009, Inf. Process. Manag. 45:427; scikit-learn `precision_score`",
        compute=_sklearn("precision_score", average="macro", zero_division=0),
        replicate=_precision_macro_samples,
    ),
    "recall_macro": Metric(
        summary="Share of the rows of a class that are found, averaged like f1_macro; 0 for a class that is "
        "predicted but never occurs",
        source="Sokolova and Lapalme 2009, Inf. Process. Manag. 45:427; scikit-learn `recall_score`",
        compute=_sklearn("recall_score", average="macro", zero_division=0),
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

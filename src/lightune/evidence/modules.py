"""METRICS as Hugging Face Evaluate modules that need no network, and any metric of the Hub by its name."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.errors import UserError, near_match
from lightune.evidence.metrics import METRICS, Metric, find_metric, prediction_of
from lightune.recipe import Task

if TYPE_CHECKING:
    import datasets
    import evaluate


def local_module(name: str, n_classes: int) -> evaluate.EvaluationModule:
    """The metric as a Hugging Face Evaluate module that needs no network and leaves no file behind.

    `module.compute(predictions=…, references=…)` takes class ids (N,) or probabilities (N, C), and only the
    latter if the metric needs them; so `evaluate.combine([...])` works, on probabilities for any mixture.
    Raises UserError if there is no such metric.
    """
    return as_module(name, find_metric(name), n_classes)


def as_module(name: str, metric: Metric, n_classes: int, task: Task = "single_label") -> evaluate.EvaluationModule:
    """A row, of a table or made by `hub_row`, as an Evaluate module."""
    module = _module_class(name, metric, n_classes, task)
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
    before = evaluate.config.HF_EVALUATE_OFFLINE
    offline = evaluate.config.HF_EVALUATE_OFFLINE = is_offline_mode() or before
    try:
        return evaluate.load(name, module_type="metric", revision=revision, keep_in_memory=True)
    except (FileNotFoundError, ConnectionError):
        reason = "offline mode is on and it is not in the cache" if offline else "no connection, or no such name"
        raise _no_hub_metric(name, reason) from None
    except ImportError as error:
        raise _no_hub_metric(name, str(error)) from error
    finally:
        evaluate.config.HF_EVALUATE_OFFLINE = before


def hub_row(name: str) -> Metric:
    """A Hub metric of class ids as a row like those of METRICS; its value is the first number it gives.

    name: as for `hub_metric`, with "@revision" to pin it.
    """
    module_name, _, revision = name.partition("@")
    module = hub_metric(module_name, revision=revision or None)

    def compute(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        try:
            return float(next(iter(module.compute(predictions=y_pred, references=y_true).values())))
        except Exception as error:  # somebody else's code, which may raise anything
            seen = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"metrics: hub:{name} cannot score these rows ({seen}). Leave it out.") from error

    return Metric(f"the Hub's {name}", module_name, compute, low=-np.inf, high=np.inf)


def _module_class(name: str, metric: Metric, n_classes: int, task: Task) -> type[evaluate.Metric]:
    import evaluate

    class LocalMetric(evaluate.Metric):  # type: ignore[misc]  # Evaluate ships no types
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(metric.summary, metric.source, _features(metric, n_classes, task))

        def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
            given = np.asarray(predictions)
            is_of_classes = given.ndim == 2 and task not in ("multi_label", "regression")
            prediction = prediction_of(metric, given) if is_of_classes else given
            return {name: metric.compute(np.asarray(references), prediction)}

    LocalMetric.__name__ = name  # Evaluate names a module after its class
    return LocalMetric


def _features(metric: Metric, n_classes: int, task: Task) -> list[datasets.Features]:
    """The forms of input that the module takes: class ids if they will do, and probabilities; label sets; numbers."""
    from datasets import ClassLabel, Features, List, Value

    if task == "multi_label":
        kind = "bool" if metric.needs == "labels" else "float64"
        flags = List(Value("int64"), length=n_classes)
        return [Features(predictions=List(Value(kind), length=n_classes), references=flags)]
    if task == "regression":
        return [Features(predictions=Value("float64"), references=Value("float64"))]
    ids = ClassLabel(num_classes=n_classes)
    proba = List(Value("float64"), length=n_classes)
    forms = [ids, proba] if metric.needs == "labels" else [proba]
    return [Features(predictions=form, references=ids) for form in forms]


def _require_hub_name(name: str) -> None:
    """Raises UserError for what Evaluate would take for a Python file on this machine, and run."""
    if not name.strip():
        raise UserError("metrics: 'hub:' without a name. Write hub:NAME, for example hub:meteor.")
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

"""A finished run as its folder tells it: what the report pages are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.artifact.folder import DOCTOR, ENVIRONMENT, PREDICTIONS, RESULTS
from lightune.artifact.results import Results
from lightune.data.label_sets import members
from lightune.data.targets import as_numbers
from lightune.data.values import Names
from lightune.errors import UserError
from lightune.records import Attribution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Answers = NDArray[np.object_] | NDArray[np.float64]

FORMAT = 1
_AGAIN = "Copy the run's folder once more, or make the run again."


@dataclass(frozen=True)
class Predictions:
    """The answers to N test rows, of predictions.parquet.

    rows (N,) numbers in the source; label, before, after (N,) names of classes, or float where they are numbers;
    others: baseline -> its answers (N,); by_seed: of each training, first
    that of `after`; confidence (N,): the probability of the answer `after`, 0 of numbers; of
    several labels a row, that with which the least sure of them is given or not.
    """

    rows: NDArray[np.int64]
    label: Answers
    before: Answers
    after: Answers
    others: dict[str, Answers]
    by_seed: list[Answers]
    confidence: NDArray[np.float64]
    are_sets: bool = False

    def in_order(self) -> Predictions:
        """The same answers by rising row number."""
        order = np.argsort(self.rows, kind="stable")
        others = {name: answers[order] for name, answers in self.others.items()}
        by_seed = [answers[order] for answers in self.by_seed]
        answers = (self.label[order], self.before[order], self.after[order])
        return Predictions(self.rows[order], *answers, others, by_seed, self.confidence[order], self.are_sets)

    def answers(self, when: str = "after") -> Answers:
        """(N,) those `before`, `after` or of a baseline."""
        found: Answers = self.others[when] if when in self.others else getattr(self, when)
        return found

    def right(self, when: str = "after") -> NDArray[np.bool_]:
        """(N,) whether the answer is the label."""
        return np.asarray(self.answers(when) == self.label, dtype=bool)

    @property
    def are_numbers(self) -> bool:
        """Whether labels and answers are numbers."""
        return self.label.dtype.kind == "f"

    def errors(self, when: str = "after") -> NDArray[np.float64]:
        """(N,) how far the answer is from the label, where they are numbers."""
        return np.abs(self.answers(when).astype(np.float64) - self.label.astype(np.float64))


@dataclass(frozen=True)
class FinishedRun:
    """A run's own files as values.

    doctor: None where nobody looked for faults in the data; texts: row number -> text, where they were asked for;
    attributions: row number -> what its words said for the answer after tuning; unexplained: why some have none.
    """

    name: str
    results: dict[str, Any]
    predictions: Predictions
    environment: dict[str, Any]
    doctor: dict[str, Any] | None
    texts: Mapping[int, str] = field(default_factory=dict)
    attributions: Mapping[int, Attribution] = field(default_factory=dict)
    unexplained: str = ""


@dataclass(frozen=True)
class Compared:
    """The answers of a run to N test rows by rising row number, as numbers that can be compared with another's.

    y, by_seed and others: as `as_numbers` gives them.
    """

    rows: NDArray[np.int64]
    y: NDArray[Any]
    by_seed: list[NDArray[Any]]
    others: dict[str, NDArray[Any]]


def as_compared(run: FinishedRun, labels: Sequence[str]) -> Compared:
    """The answers of a run; labels: the classes in the order of their ids, which may be that of another run."""
    found, task = run.predictions.in_order(), run.results.get("task", "single_label")

    def numbers(answers: Answers) -> NDArray[Any]:
        return answers if found.are_numbers else as_numbers(Names.of(answers.tolist()), labels, task)

    others = {name: numbers(answers) for name, answers in found.others.items()}
    return Compared(found.rows, numbers(found.label), [numbers(each) for each in found.by_seed], others)


def read_finished(folder: str | Path) -> FinishedRun:
    """The run in `folder`. Raises UserError if that is no folder of a run, or a file in it is damaged."""
    path = Path(folder)
    if not (path / RESULTS).is_file():
        raise UserError(f"{folder}: no run of lightune ({RESULTS} is not there). Name the folder that `run` wrote.")
    results = _read_json(path / RESULTS)
    _check_results(path / RESULTS, results)
    environment = _read_json(path / ENVIRONMENT) if (path / ENVIRONMENT).is_file() else {}
    doctor = _read_json(path / DOCTOR) if (path / DOCTOR).is_file() else None
    predictions = _read_predictions(path / PREDICTIONS, results)
    return FinishedRun(path.resolve().name, results, predictions, environment, doctor)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_AGAIN}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}, not an object. {_AGAIN}")
    return values


def _check_results(path: Path, results: Mapping[str, Any]) -> None:
    if results.get("format_version") != FORMAT:
        seen = results.get("format_version")
        raise UserError(f"{path}: format_version {seen!r}, this lightune reads {FORMAT}. Use the one that made it.")
    if missing := [key for key, field in Results.model_fields.items() if field.is_required() and key not in results]:
        raise UserError(f"{path}: lacks {missing}. {_AGAIN}")


def _read_predictions(path: Path, results: Mapping[str, Any]) -> Predictions:
    import pyarrow as pa
    import pyarrow.parquet as pq

    others = list(results["baselines"])
    seeds = [of_seed(seed) for seed in (results.get("seeds") or {}).get("seeds", [])[1:]]
    wanted = ["row", "label", "before", "after", *others]
    try:
        if lacking := [name for name in wanted if name not in pq.read_schema(path).names]:
            raise LookupError(f"lacks the columns {lacking}")
        seeds = [name for name in seeds if name in pq.read_schema(path).names]  # runs of before they were kept
        table = pq.read_table(path, columns=[*wanted, *seeds])
        is_numbers, are_sets = (results.get("task") == task for task in ("regression", "multi_label"))
        kind = np.float64 if is_numbers else object
        names = {key: np.array(table.column(key).to_pylist(), dtype=kind) for key in table.column_names[1:]}
        confidence = np.full(table.num_rows, 1.0 if are_sets else 0.0)
        for name in () if is_numbers else results["labels"]:  # one at a time: 77 classes of a million rows are 600 MB
            p = pq.read_table(path, columns=[f"p_{name}"]).column(0).to_numpy()
            if are_sets:
                is_given = np.array([name in members(answer) for answer in names["after"]], dtype=bool)
                confidence = np.minimum(confidence, np.where(is_given, p, 1 - p))
            else:
                confidence = np.maximum(confidence, p)
        rows = table.column("row").to_numpy()
        if len(rows) != results["n_test"]:
            raise LookupError(f"holds {len(rows):,} rows, {RESULTS} tells of {results['n_test']:,}")
        if is_numbers and not all(np.isfinite(each).all() for each in names.values()):
            raise LookupError("holds answers that are no numbers")
    except (OSError, pa.ArrowException, LookupError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_AGAIN}") from None
    answers = {key: names[key] for key in others}
    by_seed = [names["after"], *(names[key] for key in seeds)]
    return Predictions(rows, names["label"], names["before"], names["after"], answers, by_seed, confidence, are_sets)


def of_seed(seed: int) -> str:
    """The column of predictions.parquet that holds the answers of another seed."""
    return f"after_{seed}"

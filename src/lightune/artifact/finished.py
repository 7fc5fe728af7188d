"""A finished run as its folder tells it: what the report pages are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.artifact.folder import DOCTOR, ENVIRONMENT, PREDICTIONS, RESULTS
from lightune.artifact.results import Results
from lightune.errors import UserError
from lightune.records import Attribution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Names = NDArray[np.object_]

FORMAT = 1
_AGAIN = "Copy the run's folder once more, or make the run again."


@dataclass(frozen=True)
class Predictions:
    """The answers to N test rows, of predictions.parquet.

    rows (N,) numbers in the source; label, before, after (N,) names of classes; others: baseline -> its answers (N,);
    confidence (N,): the probability of the answer `after`.
    """

    rows: NDArray[np.int64]
    label: Names
    before: Names
    after: Names
    others: dict[str, Names]
    confidence: NDArray[np.float64]

    def in_order(self) -> Predictions:
        """The same answers by rising row number."""
        order = np.argsort(self.rows, kind="stable")
        others = {name: answers[order] for name, answers in self.others.items()}
        answers = (self.label[order], self.before[order], self.after[order])
        return Predictions(self.rows[order], *answers, others, self.confidence[order])

    def right(self, when: str = "after") -> NDArray[np.bool_]:
        """(N,) whether the answer `before`, `after` or that of a baseline is the label."""
        answers = self.others[when] if when in self.others else getattr(self, when)
        return np.asarray(answers == self.label, dtype=bool)


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
    try:
        table = pq.read_table(path, columns=["row", "label", "before", "after", *others])
        confidence = np.zeros(table.num_rows)
        for name in results["labels"]:  # one at a time: 77 classes of a million rows are 600 MB
            column = pq.read_table(path, columns=[f"p_{name}"]).column(0)
            confidence = np.maximum(confidence, column.to_numpy())
        names = {key: np.array(table.column(key).to_pylist(), dtype=object) for key in table.column_names[1:]}
        rows = table.column("row").to_numpy()
    except (OSError, pa.ArrowException, LookupError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_AGAIN}") from None
    answers = {key: names[key] for key in others}
    return Predictions(rows, names["label"], names["before"], names["after"], answers, confidence)

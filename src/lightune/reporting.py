"""`lightune report`: the page of a finished run made anew, or a page that compares two runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lightune.artifact.finished import FinishedRun, read_finished
from lightune.artifact.folder import DOCTOR, PAGE
from lightune.data.prepare import Prepared, prepare
from lightune.destination import check_destination
from lightune.doctor.excerpts import with_examples
from lightune.doctor.findings import Diagnosis
from lightune.doctor.patient import of_corpus
from lightune.errors import GateError, UserError
from lightune.evidence.verdict import Comparison
from lightune.libraries import network_off
from lightune.recipe import check_recipe
from lightune.report.answers import rows_named
from lightune.report.page import run_page, write_page
from lightune.report.versus import compare_runs, versus_page

ENDINGS = (".html", ".htm")


def make_report(
    run: str | Path,
    other: str | Path | None = None,
    *,
    output: str | Path | None = None,
    show_texts: bool = False,
    offline: bool = False,
) -> dict[str, Any]:
    """Writes the page of a run, or of two; returns where it is and what it says, as printed by --json.

    output: without it RUN/report.html, or report-vs-<other>.html here; show_texts: rows are shown with their texts,
    which are read from the run's data again.
    Raises UserError for a folder that is no run, an output that cannot be, and data that is no longer the run's.
    """
    one, second = read_finished(run), None if other is None else read_finished(other)
    target = _target(Path(run), second, output)
    with network_off(offline):
        if second is None:
            shown = with_texts(one, rows_named(one.predictions)) if show_texts else one
            _write(run_page(shown), target)
            return {"page": str(target), "verdict": one.results["verdict"]}
        return {"page": str(target), **_compare(one, second, target, show_texts)}


def _compare(one: FinishedRun, other: FinishedRun, target: Path, show_texts: bool) -> dict[str, Any]:
    """Writes the page of both; returns how they compare, or why their rows do not."""
    if one.name == other.name:
        one, other = replace(one, name=f"{one.name} (first)"), replace(other, name=f"{other.name} (second)")
    compared, why_not = compare_runs(one, other)
    if show_texts and compared:
        one = with_texts(one, one.predictions.rows.tolist())
    _write(versus_page(one, other), target)
    return {"comparison": _as_json(compared), "why_not": why_not}


def _as_json(compared: Comparison | None) -> dict[str, Any] | None:
    if compared is None:
        return None
    detectable = None if math.isnan(compared.detectable) else compared.detectable
    return asdict(compared) | {"detectable": detectable, "outcome": compared.outcome}


def with_texts(run: FinishedRun, rows: Iterable[int]) -> FinishedRun:
    """The run with the texts of these test rows, read from its data again.

    Raises UserError if the data cannot be read, or is no longer what the run was made from.
    """
    recipe = check_recipe(run.results["recipe"]).data
    data = prepare(recipe)
    _check_digest(recipe.source, data.corpus.digest, run.results["data"]["digest"])
    if data.other is not None:
        _check_digest(data.other.source, data.other.digest, run.results["data"].get("test_digest"))
    tested, wanted = data.source if data.test is None else data.test, set(rows)
    places = {row: place for place, row in enumerate(tested.rows) if row in wanted}
    texts = {row: tested.texts[place] for row, place in places.items()}
    return replace(run, texts=texts, doctor=_with_examples(run, data))


def _with_examples(run: FinishedRun, data: Prepared) -> dict[str, Any] | None:
    """What the doctor found, each finding with a few of its rows. UserError if doctor.json is damaged."""
    if run.doctor is None:
        return None
    try:
        diagnosis = Diagnosis.model_validate(run.doctor)
    except ValidationError as error:
        seen = f"{error.error_count()} faults, such as {error.errors()[0]['msg']!r}"
        raise UserError(f"{run.name}/{DOCTOR}: cannot be read ({seen}). Make the run again.") from None
    return with_examples(diagnosis, of_corpus(data.corpus, data.other, data.text, data.label)).model_dump()


def _check_digest(source: str, found: str, wanted: str | None) -> None:
    if found != wanted:
        seen = f"sha256 {found[:12]}…, the run read {str(wanted)[:12]}…"
        raise UserError(
            f"{source}: changed since the run ({seen}). Put the old data back, or leave out --show-texts."
        )


def _target(run: Path, other: FinishedRun | None, output: str | Path | None) -> Path:
    """Where the page goes. UserError if it cannot be there."""
    if output is None:
        return run / PAGE if other is None else Path(f"report-vs-{other.name}.html")
    check_destination(Path(output), ENDINGS)
    return Path(output)


def _write(page: str, target: Path) -> None:
    try:
        write_page(page, target)
    except OSError as error:
        raise GateError(f"{target}: cannot be written ({error.strerror}). Choose another --output.") from None

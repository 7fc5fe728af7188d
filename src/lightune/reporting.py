"""`lightune report`: the page of a finished run made anew, or a page that compares two runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lightune.artifact.finished import FinishedRun, read_finished
from lightune.artifact.folder import DOCTOR, PAGE
from lightune.data.framing import split_pair
from lightune.data.prepare import Prepared, prepare
from lightune.destination import check_destination
from lightune.doctor.excerpts import with_examples
from lightune.doctor.findings import Diagnosis
from lightune.doctor.patient import of_corpus
from lightune.errors import GateError, LightuneError, UserError
from lightune.evidence.verdict import Comparison
from lightune.journal import Journal
from lightune.libraries import network_off
from lightune.recipe import check_recipe
from lightune.records import Attribution
from lightune.report.answers import rows_named
from lightune.report.explained import rows_to_explain
from lightune.report.page import run_page, write_page
from lightune.report.versus import compare_runs, versus_page

if TYPE_CHECKING:
    from lightune.use.classifier import Classifier

EXPLAINED, EXPLAIN_SECONDS = 8, 60.0  # rows whose words are marked, and the time after which none is begun
ENDINGS = (".html", ".htm")


def make_report(
    run: str | Path,
    other: str | Path | None = None,
    *,
    output: str | Path | None = None,
    show_texts: bool = False,
    explain: int | None = None,
    base: str | None = None,
    offline: bool = False,
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Writes the page of a run, or of two; returns where it is and what it says, as printed by --json.

    output: without it RUN/report.html, or report-vs-<other>.html here; show_texts: rows are shown with their texts,
    which are read from the run's data again; explain: of so many rows, or EXPLAINED, the words are marked, with the
    classifier on its base, which may be elsewhere.
    Raises UserError for a folder that is no run, an output that cannot be, and data that is no longer the run's.
    """
    _check_explain(explain, other, show_texts=show_texts)
    one, second = read_finished(run), None if other is None else read_finished(other)
    target = _target(Path(run), second, output)
    with network_off(offline):
        if second is None:
            if show_texts:
                rows = rows_to_explain(one.predictions, EXPLAINED if explain is None else explain)
                one = with_texts(one, {*rows_named(one.predictions), *rows})
                one = explained(one, run, rows, base, journal or Journal(quiet=True))
            _write(run_page(one), target)
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
    return with_examples(
        diagnosis, of_corpus(data.corpus, data.other, data.text, data.label, pair=data.pair, task=data.task)
    ).model_dump()


def explained(
    run: FinishedRun, folder: str | Path, rows: Sequence[int], base: str | None, journal: Journal
) -> FinishedRun:
    """The run with the words of these rows weighed for the answer after tuning, as far as that can be.

    rows: the most wanted first; none is begun after EXPLAIN_SECONDS. What went wrong is a sentence on the page.
    """
    from lightune.use.classifier import Classifier

    found: dict[int, Attribution] = {}
    why = f"there was time for {EXPLAIN_SECONDS:.0f} s"
    try:
        if rows:
            _explain_rows(Classifier.load(folder, base=base), run, rows, found, journal)
    except LightuneError as error:
        why = str(error).replace(str(Path(folder)), run.name).rstrip(".")
        journal.warn(f"not all words are marked: {error}")
    left = len(rows) - len(found)
    note = f"The words of {left:,} of {len(rows):,} rows are not marked: {why}." if left else ""
    return replace(run, attributions=found, unexplained=note)


def _explain_rows(
    classifier: Classifier, run: FinishedRun, rows: Sequence[int], found: dict[int, Attribution], journal: Journal
) -> None:
    """Puts what the words of each row say for its answer into `found`, until the time is over."""
    answers = dict(zip(run.predictions.rows.tolist(), run.predictions.after, strict=True))
    started = time.monotonic()
    with journal.progress("explaining", len(rows)) as progress:
        for row in rows:
            if found and time.monotonic() - started > EXPLAIN_SECONDS:
                break
            label = answers[row] if answers[row] in classifier.labels else None  # a set of labels is none
            text = run.texts[row] if classifier.contract.pair is None else split_pair(run.texts[row])
            (found[row],) = classifier.explain([text], label)
            progress.advance(1)


def _check_explain(explain: int | None, other: object, *, show_texts: bool) -> None:
    """UserError if rows are to be explained that no page shows."""
    if explain is None:
        return
    if explain < 0:
        raise UserError(f"--explain {explain}: no number of rows. Write 0 or more.")
    if not show_texts or other is not None:
        seen = "without --show-texts" if not show_texts else "with two runs"
        raise UserError(f"--explain {explain}: {seen} no words are marked. It is for --show-texts and one run.")


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

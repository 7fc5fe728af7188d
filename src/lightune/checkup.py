"""`lightune check`: the data doctor on its own, from a source to its findings and a repaired copy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightune.artifact.folder import write_json
from lightune.doctor import repair
from lightune.doctor.embedded import embedder
from lightune.doctor.examine import examine
from lightune.doctor.findings import Diagnosis
from lightune.doctor.patient import admit
from lightune.errors import UserError
from lightune.journal import Journal
from lightune.libraries import network_off
from lightune.report.screen import show_diagnosis


def check(
    source: str,
    *,
    test: str | None = None,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    only: Sequence[str] | None = None,
    model: str | None = "minilm",
    fix: bool = False,
    output: str | Path | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    offline: bool = False,
    seed: int = 0,
    journal: Journal | None = None,
) -> Diagnosis:
    """What is wrong with labelled data; with `fix`, a repaired copy of its training rows is written to `output`.

    test: separate test data; group: a column that says what a row is about; only: names of CHECKS; model: the base
    model that looks for wrong labels, None for none; output without `fix`: where the findings go as JSON; seed: of
    what is looked at where not every row is.
    Raises UserError for data that cannot be read, and for a check or column that is not there.
    """
    journal = journal or Journal(quiet=True)
    target = None if output is None else Path(output)
    if fix and target is None:
        raise UserError("--fix: needs the file that the repaired copy goes to. Name it with -o.")
    if fix and target is not None:
        repair.check_target(target, source)
    how = {"text": text, "label": label, "encoding": encoding, "delimiter": delimiter}
    with network_off(offline):
        patient = admit(source, test=test, offline=offline, **how)
        embed = embedder(model) if model else None
        with journal.progress("reading", len(patient), "rows") as progress:
            diagnosis, symptoms = examine(
                patient, checks=only, group=group, embed=embed, seed=seed, advance=progress.advance
            )
    show_diagnosis(journal, diagnosis)
    if fix and target is not None:
        changes = repair.repair(patient, symptoms, target)
        told = ", ".join(f"{count:,} rows {change}" for change, count in changes.items())
        journal.say(f"{target}: {told or 'nothing had to be changed'}; each change is in {target.name}.changes.jsonl")
    elif target is not None:
        write_json(target, diagnosis.model_dump())
    return diagnosis

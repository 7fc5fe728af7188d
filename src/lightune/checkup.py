"""`lightune check`: the data doctor on its own, from a source to its findings and a repaired copy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

from lightune.artifact.folder import write_json
from lightune.doctor import repair
from lightune.doctor.checks import chosen
from lightune.doctor.embedded import embedder
from lightune.doctor.examine import examine
from lightune.doctor.excerpts import with_examples
from lightune.doctor.findings import Diagnosis
from lightune.doctor.patient import admit
from lightune.doctor.target import check_target, written
from lightune.doctor.tokenised import tokeniser_of
from lightune.errors import UserError, near_match
from lightune.journal import Journal
from lightune.libraries import network_off
from lightune.model.backbones import locate
from lightune.recipe import Task
from lightune.report.screen import show_diagnosis

MODEL = "minilm"  # where none is named; without it the words alone are looked at
ASK_MODEL = {"label_errors", "truncation"}  # the checks that ask it
MOST_SEED = 2**32 - 1  # of scikit-learn


def check(
    source: str | Path,
    *,
    test: str | Path | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    task: str = "auto",
    group: str | None = None,
    only: str | Sequence[str] | None = None,
    model: str | None = MODEL,
    fix: bool = False,
    show_texts: bool = False,
    output: str | Path | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    offline: bool = False,
    seed: int = 0,
    journal: Journal | None = None,
) -> Diagnosis:
    """What is wrong with labelled data; with `fix`, a repaired copy of its training rows is written to `output`.

    test: separate test data; pair: the second text, where there are two; task: what a label is, "auto" by its looks;
    group: a column that says what a row is about; only: names of CHECKS; model: the base model that looks for wrong
    labels and counts tokens, None for none; show_texts: findings come with a few of their rows; output without `fix`:
    where the findings go as JSON; seed: of what is looked at where not every row is.
    Raises UserError for data that cannot be read, for a check, column or model that is not there, and for an output
    that cannot be written or is one of the files that are read.
    """
    journal = journal or Journal(quiet=True)
    source, test = str(source), None if test is None else str(test)
    target = None if output is None else Path(output)
    names = chosen(only)
    _check_seed(seed)
    if fix and target is None:
        raise UserError("--fix: needs the file that the repaired copy goes to. Name it with -o.")
    if target is not None:
        check_target(target, repair.FORMATS if fix else (".json",), [source] if test is None else [source, test])
    how: dict[str, Any] = {"text": text, "pair": pair, "label": label, "encoding": encoding, "delimiter": delimiter}
    how["task"] = _checked_task(task)
    with network_off(offline), _in_words_of_options():
        if model and model != MODEL and ASK_MODEL & set(names):
            locate(model)  # before the reading
        patient = admit(source, test=test, offline=offline, **how)
        if fix and target is not None:
            repair.check_columns(patient, target)
        is_pair = patient.pair is not None
        embed = embedder(model, seed, pair=is_pair) if model else None
        tokeniser = partial(tokeniser_of, model) if model else None
        with journal.progress("reading", len(patient), "rows") as progress:
            diagnosis, symptoms = examine(
                patient,
                checks=names,
                group=group,
                embed=embed,
                tokeniser=tokeniser,
                seed=seed,
                advance=progress.advance,
            )
    if show_texts:
        diagnosis = with_examples(diagnosis, patient)
    show_diagnosis(journal, diagnosis)
    if fix and target is not None:
        changes = repair.repair(patient, symptoms, target, checks=names)
        told = ", ".join(f"{count:,} rows {change}" for change, count in changes.items())
        said = f"{told}; each change is in {target.name}.changes.jsonl" if told else "nothing had to be changed"
        journal.say(f"{target}: {said}")
    elif target is not None:
        with written(target) as (part,):
            write_json(part, diagnosis.model_dump())
    return diagnosis


def _checked_task(task: str) -> str:
    if task not in (tasks := ("auto", *get_args(Task))):
        raise UserError(f"--task {task}: no task.{near_match(task, tasks)} There are {', '.join(tasks)}.")
    return task


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"--seed {seed}: is no seed. Give a whole number from 0 to {MOST_SEED}.")


@contextmanager
def _in_words_of_options() -> Iterator[None]:
    """What is wrong, by the names of the options instead of the keys of a recipe."""
    try:
        yield
    except UserError as error:
        said = str(error).replace(" (--text, --label)", "")
        said = re.sub(r"\bdata\.(text|pair|label|task|test|encoding|delimiter)\b( =)?", r"--\1", said)
        raise UserError(re.sub(r"^model = (\S+):", r"--model \1:", said)) from error

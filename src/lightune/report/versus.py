"""The page that compares two finished runs: verdicts, scores, settings that differ, the same rows if they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from lightune.artifact.finished import FinishedRun, Predictions, as_compared
from lightune.evidence.score import TABLES, headline_of
from lightune.evidence.verdict import Comparison, amount, compare, in_words
from lightune.recipe import flatten
from lightune.report import parts
from lightune.report.answers import by_confidence, by_most, rows_table
from lightune.report.charts import intervals
from lightune.report.measured import heading
from lightune.report.page import render, without_folders
from lightune.report.parts import Block, Cell, Figure, Row, Section, Text, number, p_value, scored, table
from lightune.report.screen import units_in

Runs = tuple[FinishedRun, FinishedRun]


def versus_page(one: FinishedRun, other: FinishedRun) -> str:
    """The page of both; their answers are compared in pairs where they are to the same rows."""
    compared, why_not = compare_runs(one, other)
    shown = without_folders(one), without_folders(other)
    sections = [
        Section("verdict", "Verdict", _verdict(shown, compared, why_not)),
        Section("scores", "Scores", _scores(shown)),
        Section("settings", "Settings that differ", _settings((one, other), shown)),
    ]
    if compared:
        is_nearer = one.predictions.are_numbers
        heading = "Rows that one of them is nearer on" if is_nearer else "Rows that one of them alone has right"
        sections.append(Section("rows", heading, _rows(one, other)))
    return render(f"{one.name} against {other.name}", "Report of two runs", sections)


def compare_runs(one: FinishedRun, other: FinishedRun) -> tuple[Comparison | None, str]:
    """How `one` compares with `other` on the same test rows; or None, and why they cannot be compared so."""
    if why_not := _why_not(one, other):
        return None, why_not
    mine, its = (as_compared(run, one.results["labels"]) for run in (one, other))
    found = compare(mine.y, mine.by_seed[0], {"other": its.by_seed[0]}, seed=one.results["recipe"]["seed"])
    return found["other"], ""


def _why_not(one: FinishedRun, other: FinishedRun) -> str:
    """What keeps the answers from being compared in pairs; nothing if they can be."""
    if _tested_on(one) != _tested_on(other):
        return "they were tested on different data, as the digests say"
    mine, its = one.predictions.in_order(), other.predictions.in_order()
    common = len(np.intersect1d(mine.rows, its.rows))
    if not common == len(mine.rows) == len(its.rows):
        return f"of {len(mine.rows):,} and {len(its.rows):,} test rows, {common:,} are the same"
    if one.results.get("task") != other.results.get("task"):
        return "their labels are of different kinds"
    if set(one.results["labels"]) != set(other.results["labels"]):
        return "they tell other classes apart"
    return "the same rows have other labels" if (mine.label != its.label).any() else ""


def _tested_on(run: FinishedRun) -> tuple[Any, ...]:
    data = run.results["data"]
    return data.get("test_digest") or data["digest"], data["test"] is None


def _verdict(runs: Runs, compared: Comparison | None, why_not: str) -> list[Block]:
    """What may be said of the two, and the verdict of each on its own."""
    columns = ["run", "model", "method", "data", "its own verdict"]
    rows = [
        [
            run.name,
            found["model"]["name"],
            found["recipe"]["method"]["name"],
            found["data"]["source"],
            found["verdict"],
        ]
        for run in runs
        for found in [run.results]
    ]
    own = table("The two runs, and what each found about itself", columns, rows)
    if compared is None:
        told = f"The two are not compared row by row: {why_not}."
        return [Text(told, "verdict"), Text("The scores below are of each run on its own test rows.", "note"), own]
    return [*_paired(runs, compared), own]


def _paired(runs: Runs, compared: Comparison) -> list[Block]:
    one, other = (run.name for run in runs)
    n_rows = len(runs[0].predictions.rows)
    value, low, high = (amount(compared.measure, end) for end in astuple(compared.gain))
    row: Row = [
        f"{one} against {other}",
        n_rows,
        Cell(value.replace("-", parts.MINUS), f"{low} to {high}".replace("-", parts.MINUS), is_number=True),
        compared.fixed,
        compared.broken,
        number(p_value(compared.p_value)),
    ]
    columns = ["pair", "test rows", "gain in points", "the first alone right", "the second alone right", "p"]
    caption = "Accuracy on the same test rows, with a 95 % interval and McNemar's exact test"
    if compared.measure == "f1_micro":
        columns[3:5] = ["rows with fewer wrong labels of the first", "of the second"]
        caption = "F1 micro on the same test rows, with a 95 % interval and a permutation test"
    elif compared.measure == "mae":
        columns[2:5] = [
            "mean absolute error smaller by",
            "rows the first is nearer on",
            "rows the second is nearer on",
        ]
        caption = "Mean absolute error on the same test rows, with a 95 % interval and a permutation test"
    return [Text(f"{one} is {in_words(other, compared, n_rows)}.", "verdict"), table(caption, columns, [row])]


def _scores(runs: Runs) -> list[Block]:
    """The headline metrics of both after tuning."""
    found = [(run.name, look, run.results["after"]) for run, look in zip(runs, ("after", "other"), strict=True)]
    task, other = (run.results.get("task", "single_label") for run in runs)
    units = units_in(runs[0].results)
    same = [name for name in headline_of(task) if TABLES[task][name] is TABLES[other].get(name)]
    names = [name for name in same if any(name in scores for *_, scores in found)]
    if not names:
        return [Text("They share no score: their labels are of different kinds.")]
    drawn = [
        intervals(
            f"score-{name}",
            heading(name, TABLES[task]).text,
            [(run, look, scores[name]) for run, look, scores in found],
            in_units=name in units,
        )
        for name in names
        if all(name in scores for *_, scores in found)
    ]
    rows = [
        [Cell(run), *(scored(scores.get(name), in_units=name in units) for name in names)] for run, _, scores in found
    ]
    caption = "Scores after tuning, each on the run's own test rows, with 95 % intervals"
    figures: list[Block] = [Figure(caption, drawn)] if drawn else []
    return [*figures, table(caption, [Cell("run"), *(heading(name, TABLES[task]) for name in names)], rows)]


def _settings(runs: Runs, shown: Runs) -> list[Block]:
    """The values of the recipes that are not the same."""
    flat = [flatten(run.results["recipe"]) for run in runs]
    written = [flatten(run.results["recipe"]) for run in shown]
    keys = [key for key in {**flat[0], **flat[1]} if flat[0].get(key) != flat[1].get(key)]
    if not keys:
        return [Text("None: the recipes are the same.")]
    rows = [[key, *(parts.in_words(values.get(key)) for values in written)] for key in keys]
    return [table("Values of the recipe, every choice filled in", ["key", *(run.name for run in runs)], rows)]


def _rows(one: FinishedRun, other: FinishedRun) -> list[Block]:
    """The rows that one alone has right, most confident first; of numbers, is nearer on, by most first."""
    mine, its = one.predictions.in_order(), other.predictions.in_order()
    return [
        _alone(one.name, mine, its, {one.name: mine, other.name: its}, one.texts),
        _alone(other.name, its, mine, {one.name: mine, other.name: its}, one.texts),
    ]


def _alone(
    name: str, right: Predictions, wrong: Predictions, both: dict[str, Predictions], texts: Mapping[int, str]
) -> Block:
    answers = {run: predictions.after for run, predictions in both.items()}
    if right.are_numbers:
        nearer_by = wrong.errors() - right.errors()
        return rows_table(f"{name} is nearer", right, by_most(nearer_by, nearer_by > 0), answers, texts)
    places = by_confidence(right, right.right() & ~wrong.right())
    return rows_table(f"{name} alone is right", right, places, answers, texts)

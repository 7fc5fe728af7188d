"""The sections of a report on where it comes from: the doctor's findings, the cost, how to make it again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from lightune.artifact.finished import FinishedRun
from lightune.artifact.folder import RECIPE
from lightune.doctor.findings import SEVERITIES
from lightune.hardware import GIB
from lightune.journal import duration
from lightune.recipe import flatten
from lightune.report.parts import NOTHING, Block, Cell, Code, Text, facts, number, table

MOST_PLACES = 8  # row numbers of a finding


def findings(run: FinishedRun) -> list[Block]:
    """What the doctor said of the data, the worst first."""
    if run.doctor is None:
        return [Text("Nobody looked for faults in the data of this run.")]
    found = sorted(run.doctor["findings"], key=lambda each: SEVERITIES.index(each["severity"]))
    rows = [
        [each["severity"], Cell(each["what"], _places(each["rows"])), each["why"], each["do"], each["check"]]
        for each in found
    ]
    left_out = [Text(f"Left out: {check} ({why}).", "note") for check, why in run.doctor["left_out"].items()]
    if not rows:
        return [Text("Nothing was found that would spoil the result."), *left_out]
    columns = ["severity", "what", "why it matters", "what to do", "check"]
    made = table(f"{len(rows)} findings in the data, rows from 0", columns, rows, look="words")
    under = [_examples(each.get("examples") or {}) for each in found]
    return [replace(made, under=under) if any(under) else made, *left_out]


def _places(rows: dict[str, list[int]]) -> str:
    """'train: 3, 17, 20 …'."""
    parts = [
        f"{split}: {', '.join(map(str, places[:MOST_PLACES]))}{' …' if len(places) > MOST_PLACES else ''}"
        for split, places in rows.items()
        if places
    ]
    return "; ".join(parts)


def _examples(examples: dict[str, list[dict[str, Any]]]) -> str:
    """'train 3 (good): the text · train 17 (bad): another'."""
    parts = [
        f"{split} {each['row']} ({each['label']}): {each['text']}"
        for split, rows in examples.items()
        for each in rows
    ]
    return " · ".join(parts)


def cost(run: FinishedRun) -> list[Block]:
    """Seconds by phase, parameters, speed and memory; the machine; every choice with its reason."""
    results = run.results
    speed = results["tokens_per_second"]
    rows = [[phase, number(duration(seconds))] for phase, seconds in results["seconds"].items()]
    spent = {
        "announced before the work": duration(results["estimated_seconds"]),
        "parameters trained": f"{results['trainable_parameters']:,} of {results['total_parameters']:,}",
        "tokens a second, training": f"{speed['train']:,.0f}",
        "tokens a second, evaluating": f"{speed['evaluate']:,.0f}",
        "memory at the peak": f"{results['peak_memory_bytes'] / GIB:.2f} GiB",
    }
    decisions = [[each["what"], each["choice"], each["why"] or NOTHING] for each in results["decisions"]]
    return [
        table("Time by phase", ["phase", "time"], rows, look="small"),
        facts("Parameters, speed and memory", spent, ("what", "value")),
        table("Choices that were made, and why", ["what", "choice", "why"], decisions, look="words"),
        *_environment(run.environment),
    ]


def _environment(found: dict[str, Any]) -> list[Block]:
    """environment.json in a table, if there is one: the machine, what was chosen on it and why, versions."""
    if not found:
        return []
    chosen = {
        name: f"{value['choice']} ({value['why']})" if isinstance(value, dict) else value
        for name, value in found["hardware"].items()
    }
    versions = {"python": found["python"]} | found["versions"]
    values = {
        "machine": ", ".join(f"{name} {value}" for name, value in found["machine"].items()),
        **chosen,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": found["git_commit"],
    }
    return [facts("Machine and versions", values, ("what", "value"))]


def reproduce(run: FinishedRun) -> list[Block]:
    """The command that makes the run again, what the data and the model were, and every value of the recipe."""
    results, recipe = run.results, flatten(run.results["recipe"])
    made_from: dict[str, Any] = {
        "seed": results["recipe"]["seed"],
        "data, sha256": results["data"]["digest"],
        "test data, sha256": results["data"].get("test_digest"),
        "data, revision": results["data"]["revision"],
        "model, sha256": results["model"]["digest"],
        "model, revision": results["model"]["revision"],
    }
    return [
        Code(f"lightune run {shlex.quote(f'{run.name}/{RECIPE}')}"),
        Text("Paths in the recipe are relative to the folder where the run was started.", "note"),
        facts("What it was made from", made_from, ("what", "value")),
        facts("The recipe with every choice filled in", recipe, ("key", "value")),
    ]

"""Everything a comparison found, as the dictionary of compare.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightune import __version__
from lightune.artifact.finished import Compared, FinishedRun, as_compared
from lightune.comparison.cells import Asked, Cell
from lightune.comparison.curve import Curve
from lightune.comparison.outcome import (
    Entrant,
    compare_all,
    front,
    learning_curve,
    mean_score,
    spread_of_seeds,
)
from lightune.comparison.words import verdicts
from lightune.errors import GateError
from lightune.evidence.score import MEASURES
from lightune.evidence.seeds import Between
from lightune.recipe import Checked
from lightune.records import Score

FORMAT = 1
MORE_ROWS = (2, 4)  # times as many as the most that were trained on


@dataclass(frozen=True)
class Over:
    """A cell that is over: its run, what was measured beside it; or why there is none."""

    cell: Cell
    run: FinishedRun | None
    measured: Mapping[str, Any]

    @property
    def why_not(self) -> str:
        """What went wrong, nothing if nothing did."""
        return str(self.measured.get("failed", ""))


@dataclass(frozen=True)
class _Found:
    """An entrant with its score and where it comes from."""

    entrant: Entrant
    score: Score
    over: Over


def gather(checked: Checked, asked: Asked, overs: Sequence[Over]) -> dict[str, Any]:
    """The numbers of a comparison. GateError if not one cell could be run, or they answered different rows."""
    finished = [over for over in overs if over.run is not None]
    if not any(not over.cell.is_baselines for over in finished):
        failures = sorted({over.why_not for over in overs if over.why_not})
        raise GateError(f"no run came to its end: {'; '.join(failures)[:500]}")
    first = _run(finished[0]).results
    measure, seed = MEASURES[first["task"]], checked.recipe.seed
    answered = [(over, as_compared(_run(over), first["labels"])) for over in finished]
    y = answered[0][1].y
    if any(
        not np.array_equal(each.rows, answered[0][1].rows) or not np.array_equal(each.y, y) for _, each in answered
    ):
        raise GateError("the runs answered different test rows, as their folders say. Choose another --output.")
    entrants = [entrant for over, each in answered for entrant in _entrants(over, each)]
    between = spread_of_seeds(y, entrants, seed)
    found = {each.name: _found(y, each, between, overs, measure) for each in entrants}
    pairs = compare_all(y, entrants, between, seed)
    rows = [_row(each, measure) for each in found.values()]
    rows += [_failed(over) for over in overs if over.run is None]
    curves = _curves(y, entrants, between, seed, is_error=measure == "mae")
    results: dict[str, Any] = {
        "format_version": FORMAT,
        "lightune": __version__,
        "name": checked.name,
        "data": checked.recipe.data.source,
        "task": first["task"],
        "measure": measure,
        "seed": seed,
        "asked": asdict(asked),
        "time_budget": checked.recipe.time_budget,
        "n_dev": first["n_dev"],
        "n_test": first["n_test"],
        "rows": rows,
        "pairs": [asdict(pair) | {"outcome": pair.outcome} for pair in pairs],
        "between_seeds": {size: asdict(each) for size, each in between.items()},
        "fronts": _fronts(rows, measure),
        "curves": curves,
    }
    return results | {"verdicts": verdicts(results)}


def _run(over: Over) -> FinishedRun:
    assert over.run is not None
    return over.run


def _entrants(over: Over, answers: Compared) -> list[Entrant]:
    """Who answers in a run: the tuned classifier, or the baselines."""
    cell = over.cell
    if not cell.is_baselines:
        return [Entrant(cell.name, cell.method, cell.model, cell.size, answers.by_seed)]
    titles = {name: each["title"] for name, each in _run(over).results["baselines"].items()}
    return [
        Entrant(f"{name}-{cell.size}", titles[name], "", cell.size, [theirs], is_baseline=True)
        for name, theirs in answers.others.items()
    ]


def _found(y: Any, entrant: Entrant, between: Mapping[int, Between], overs: Sequence[Over], measure: str) -> _Found:
    over = next(o for o in overs if _is_of(o, entrant))
    results = _run(over).results
    if entrant.is_baseline:
        score = results["baselines"][entrant.name.rpartition("-")[0]]["scores"][measure]
        return _Found(entrant, Score(**score), over)
    score = results["after"][measure]
    scores = results["seeds"]["scores"][measure] if results["seeds"] else [score["value"]]
    mean = mean_score(y, entrant, between.get(entrant.size), scores, (score["low"], score["high"]))
    return _Found(entrant, mean, over)


def _is_of(over: Over, entrant: Entrant) -> bool:
    if over.run is None or over.cell.is_baselines != entrant.is_baseline:
        return False
    return over.cell.size == entrant.size if entrant.is_baseline else over.cell.name == entrant.name


def _row(found: _Found, measure: str) -> dict[str, Any]:
    entrant, over = found.entrant, found.over
    results = _run(over).results
    row = {
        "name": entrant.name,
        "method": entrant.method,
        "model": entrant.model,
        "size": entrant.size,
        "is_baseline": entrant.is_baseline,
        "failed": "",
        "score": asdict(found.score),
    }
    if entrant.is_baseline:
        return row | {"seconds": results["baselines"][entrant.name.rpartition("-")[0]]["seconds"]}
    seeds = results["seeds"]
    return row | {
        "by_seed": seeds["scores"][measure] if seeds else [results["after"][measure]["value"]],
        "after": results["after"],
        "trainable_parameters": results["trainable_parameters"],
        "total_parameters": results["total_parameters"],
        "learning_rate": results["recipe"]["train"]["learning_rate"],
        "epochs": results["recipe"]["train"]["epochs"],
        "values": dict(over.measured.get("values", {})),
        "seconds": results["seconds"]["train"],
        "seconds_in_all": results["seconds"]["total"],
        "peak_memory_bytes": results["peak_memory_bytes"],
        "artifact_bytes": over.measured["artifact_bytes"],
        "texts_per_second": over.measured["texts_per_second"],
    }


def _failed(over: Over) -> dict[str, Any]:
    cell = over.cell
    row = {"name": cell.name, "method": cell.method, "model": cell.model, "size": cell.size}
    return row | {"is_baseline": cell.is_baselines, "failed": over.why_not, "score": None}


def _fronts(rows: Sequence[Mapping[str, Any]], measure: str) -> dict[str, list[str]]:
    """The names on the front of each cost, over the rows of the most texts."""
    sign = -1 if measure == "mae" else 1
    tuned = [row for row in rows if not row["is_baseline"] and not row["failed"]]
    most = max(row["size"] for row in tuned)
    costs = ("trainable_parameters", "seconds")
    return {
        cost: front({row["name"]: (row[cost], sign * row["score"]["value"]) for row in tuned if row["size"] == most})
        for cost in costs
    }


def _curves(
    y: Any, entrants: Sequence[Entrant], between: Mapping[int, Between], seed: int, *, is_error: bool
) -> list[dict[str, Any]]:
    """For each recipe what more rows would bring, in what verdicts are told in."""
    keys = list(dict.fromkeys((each.method, each.model, each.is_baseline) for each in entrants))
    found = []
    for method, model, is_baseline in keys:
        own = [each for each in entrants if (each.method, each.model) == (method, model)]
        own.sort(key=lambda each: each.size)
        curve = learning_curve(y, own, between, seed) if own[-1].size == max(each.size for each in entrants) else None
        if curve is not None:
            told = {"method": method, "model": model, "is_baseline": is_baseline, "sizes": [e.size for e in own]}
            found.append(told | _beyond(curve, own[0].size, own[-1].size, is_error=is_error))
    return found


def _beyond(curve: Curve, least: int, most: int, *, is_error: bool) -> dict[str, Any]:
    """The scores along a curve, beyond its last size too, and what that brings."""

    def score(n_rows: float) -> dict[str, float]:
        error = curve.at(n_rows)
        return asdict(error if is_error else Score(1 - error.value, 1 - error.high, 1 - error.low))

    places = np.geomspace(least, most * MORE_ROWS[-1], 25)
    return {
        "line": [{"size": float(place)} | score(place) for place in places],
        "more": [
            {"size": times * most, "score": score(times * most), "gain": asdict(curve.gain(most, times * most))}
            for times in MORE_ROWS
        ],
    }

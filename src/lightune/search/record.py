"""Everything a search found, as the dictionary of search.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightune import __version__
from lightune.artifact.claimed import shown_folder
from lightune.artifact.finished import read_finished
from lightune.evidence.score import MEASURES
from lightune.evidence.verdict import Comparison
from lightune.recipe import Checked
from lightune.records import Score, Splits
from lightune.search.folder import AS_IT_IS, WINNER
from lightune.search.outcome import in_words
from lightune.search.plan import SearchPlan
from lightune.search.space import Choices
from lightune.search.study import Trial
from lightune.search.trials import Chosen, Finalist

FORMAT = 1


@dataclass(frozen=True)
class Made:
    """The trials of a search, and how much each key made of the differences between them."""

    plan: SearchPlan
    trials: Sequence[Trial]
    importances: Mapping[str, float]


@dataclass(frozen=True)
class Shown:
    """What the runs on all rows show: the winner against the recipe as it is, None where that won, or why_not.

    refused: what a gate said of the winner.
    """

    compared: Comparison | None = None
    gain: Score | None = None
    why_not: str = ""
    refused: str = ""


def gather(
    checked: Checked, splits: Splits, made: Made, chosen: Chosen, shown: Shown, folder: Path
) -> dict[str, Any]:
    """The numbers of a search, and of its runs in `folder`."""
    compared, plan = shown.compared, made.plan
    is_cut = len(made.trials) < checked.search.trials
    why_not = "" if chosen.winner is chosen.finalists[0] else shown.why_not
    runs = {name: _run(folder / name) for name in (WINNER, AS_IT_IS) if (folder / name).is_dir()}
    return {
        "format_version": FORMAT,
        "lightune": __version__,
        "name": checked.name,
        "data": checked.recipe.data.source,
        "model": checked.recipe.model,
        "method": checked.recipe.method.name,
        "task": splits.task,
        "measure": MEASURES[splits.task],
        "seed": checked.recipe.seed,
        "n_train": len(splits.train),
        "n_dev": len(splits.dev),
        "n_test": len(splits.test),
        "trial_rows": plan.trial_rows,
        "final_rows": plan.final_rows,
        "space": {key: _domain(domain) for key, domain in plan.space.items()},
        "importances": dict(made.importances),
        "trials": [_trial(trial, plan) for trial in made.trials],
        "finalists": [_finalist(each, chosen) for each in chosen.finalists],
        "winner": _finalist(chosen.winner, chosen),
        "expected_luck": chosen.luck,
        "between_seeds": asdict(chosen.between),
        "runs": runs,
        "gain": None if shown.gain is None else asdict(shown.gain),
        "p_value": None if compared is None else compared.p_value,
        "fixed": None if compared is None else compared.fixed,
        "broken": None if compared is None else compared.broken,
        "verdict": in_words(compared, shown.gain, _n_others(made), why_not, _times(runs), is_cut=is_cut),
        "refused": shown.refused,
        "folder": shown_folder(folder),
    }


def _n_others(made: Made) -> int:
    """Recipes other than the one as it is that were tried, and could be trained."""
    known = [trial.values for trial in made.trials if made.plan.starts and not trial.number]
    others = [trial.values for trial in made.trials if trial.state != "failed" and trial.values not in known]
    return sum(values not in others[:i] for i, values in enumerate(others))


def _trial(trial: Trial, plan: SearchPlan) -> dict[str, Any]:
    reports = {str(part): loss for part, loss in trial.reports.items() if math.isfinite(loss)}
    return asdict(trial) | {"reports": reports, "is_as_it_is": bool(plan.starts) and not trial.number}


def _domain(domain: Any) -> dict[str, Any]:
    return {
        "what": domain.in_words(),
        "log": getattr(domain, "log", False),
        "values": list(domain.values) if isinstance(domain, Choices) else None,
    }


def _finalist(finalist: Finalist, chosen: Chosen) -> dict[str, Any]:
    losses = list(chosen.losses[finalist.number].values())
    mean = float(np.mean(losses))
    return {
        "number": finalist.number,
        "name": finalist.name,
        "values": finalist.values,
        "losses": [_finite(loss) for loss in losses],
        "mean": _finite(mean),
        "wins": finalist is chosen.winner,
    }


def _finite(loss: float) -> float | None:
    """None for a training that failed: JSON has no infinity."""
    return loss if math.isfinite(loss) else None


def _run(folder: Path) -> dict[str, Any]:
    results = read_finished(folder).results
    kept = ("after", "trainable_parameters", "n_steps", "verdict", "recipe")
    spent = results["seconds"]
    return {key: results[key] for key in kept} | {"seconds": spent["total"], "training_seconds": spent["train"]}


def _times(runs: Mapping[str, Mapping[str, Any]]) -> float:
    """How often as long as the recipe as it is the winner trains; 1 where only one of them was run."""
    if len(runs) < 2:
        return 1.0
    return float(runs[WINNER]["training_seconds"] / max(1e-9, runs[AS_IT_IS]["training_seconds"]))

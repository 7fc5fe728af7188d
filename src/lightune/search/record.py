"""Everything a search found, as the dictionary of search.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightune import __version__
from lightune.artifact.finished import read_finished
from lightune.evidence.score import MEASURES
from lightune.evidence.verdict import Comparison
from lightune.recipe import Checked
from lightune.records import Score, Splits
from lightune.search.folder import AS_IT_IS, WINNER
from lightune.search.outcome import Between, in_words
from lightune.search.plan import SearchPlan
from lightune.search.study import Trial
from lightune.search.trials import Finalist, Losses

FORMAT = 1


@dataclass(frozen=True)
class Found:
    """What came of a search.

    compared, gain: of the winner over the recipe as it is, None where that won, or why_not; refused: what a gate
    said.
    """

    plan: SearchPlan
    trials: Sequence[Trial]
    finalists: Sequence[Finalist]
    losses: Losses
    winner: Finalist
    luck: float
    between: Between
    importances: Mapping[str, float]
    compared: Comparison | None
    gain: Score | None
    why_not: str
    refused: str


def gather(
    checked: Checked, splits: Splits, found: Found, folder: Path, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The numbers of a search, and of its runs in `folder`."""
    compared, plan = found.compared, found.plan
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
        "importances": dict(found.importances),
        "trials": [asdict(trial) | {"is_as_it_is": bool(plan.starts) and not trial.number} for trial in found.trials],
        "finalists": [_finalist(each, found) for each in found.finalists],
        "winner": _finalist(found.winner, found),
        "expected_luck": found.luck,
        "between_seeds": asdict(found.between),
        "runs": {name: _run(folder / name) for name in (WINNER, AS_IT_IS) if (folder / name).is_dir()},
        "gain": None if found.gain is None else asdict(found.gain),
        "p_value": None if compared is None else compared.p_value,
        "fixed": None if compared is None else compared.fixed,
        "broken": None if compared is None else compared.broken,
        "verdict": in_words(compared, found.gain, len(found.trials), found.why_not),
        "refused": found.refused,
        "folder": folder.name,
        "seconds": dict(seconds),
    }


def _domain(domain: Any) -> dict[str, Any]:
    return {
        "what": domain.in_words(),
        "log": getattr(domain, "log", False),
        "values": getattr(domain, "values", None),
    }


def _finalist(finalist: Finalist, found: Found) -> dict[str, Any]:
    losses = list(found.losses[finalist.number].values())
    mean = float(np.mean(losses))
    return {
        "number": finalist.number,
        "name": finalist.name,
        "values": finalist.values,
        "losses": [_finite(loss) for loss in losses],
        "mean": _finite(mean),
        "wins": finalist is found.winner,
    }


def _finite(loss: float) -> float | None:
    """None for a training that failed: JSON has no infinity."""
    return loss if math.isfinite(loss) else None


def _run(folder: Path) -> dict[str, Any]:
    results = read_finished(folder).results
    kept = ("after", "trainable_parameters", "n_steps", "verdict", "recipe")
    return {key: results[key] for key in kept} | {"seconds": results["seconds"]["total"]}

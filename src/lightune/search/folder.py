"""The folder of a search: what is in it.

settings.json   what is searched, by which the same command finds its search again
plan.json       what is tried, on how many rows: as the first process planned it
finals.json     the finalists, once the trials are closed
seeds.json      the fresh seeds that count, once the finals are over: of a time budget not all
runs.json       of a time budget, how much each run at the end has
search.db       the trials and the finals, two Optuna studies; optuna-dashboard opens it
finals/         dev logits of each finalist and seed
workers/        a file for each process that takes or took part, locked while it lives; from when to when it did
winner/         the run of the best recipe found: a whole run folder
default/        the run of the recipe as it was given, beside it
best.toml       the best recipe, for `lightune run`
search.json     every number of the search, once it is over
search.html     its page
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightune.artifact.claimed import Claim
from lightune.artifact.folder import RESULTS as RUN_RESULTS
from lightune.recipe import Checked, SearchRecipe, flatten

PLAN, CLOSED, SEEDS, RUN_TIME = "plan.json", "finals.json", "seeds.json", "runs.json"
RESULTS, PAGE, BEST = "search.json", "search.html", "best.toml"
WINNER, AS_IT_IS = "winner", "default"
STORAGE_VARIABLE = "LIGHTUNE_STORAGE"  # of the environment: where a URL is not seen by others


def run_name(results: Mapping[str, Any], name: str) -> str:
    """A run of a search in words: the folder of the winner may hold the recipe as it is."""
    return "the winner" if name == WINNER and results["winner"]["values"] else "the recipe as it is"


def storage_of(search: SearchRecipe) -> str | None:
    """Where its trials are kept; None: in its folder."""
    return search.storage or os.environ.get(STORAGE_VARIABLE)


def claim_of(checked: Checked, output: str | Path | None = None, *, with_runs: bool) -> Claim:
    """What the folder of a search is known by; not where it is stored, which may hold a password, but whether."""
    search = {f"search.{key}": value for key, value in checked.search.model_dump().items()}
    search["search.storage"] = "elsewhere" if storage_of(checked.search) else "in the folder"
    settings = flatten(checked.recipe.model_dump()) | search | ({} if with_runs else {"runs": False})
    name = f"{checked.name}-search"
    return Claim("search", settings, RESULTS, name, output, _is_whole)


def _is_whole(folder: Path, results: Mapping[str, Any]) -> bool:
    """Whether all that the results tell of is still there."""
    files = [BEST, PAGE, *(f"{name}/{RUN_RESULTS}" for name in results.get("runs", ()))]
    return "refused" in results and all((folder / each).is_file() for each in files)

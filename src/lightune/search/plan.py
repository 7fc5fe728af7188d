"""What a search will do: what is tried, on how many rows, and what comes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightune.errors import UserError
from lightune.model import methods
from lightune.model.anatomy import inspect
from lightune.recipe import Recipe, SearchRecipe
from lightune.records import Decision, Splits
from lightune.search.bench import Bench
from lightune.search.space import Space, default_space

TENTH, FEWEST_ROWS = 0.1, 1000  # of the training rows, what a trial trains on; not fewer, where there are
LEAST_ROWS = 200  # where time is short
FINAL_ROWS = 2  # times as many for the finalists
TRIALS_PART, FINALS_PART = 0.3, 0.2  # of a time budget; the rest is for the two runs


@dataclass(frozen=True)
class SearchPlan:
    """space: what is tried; starts: what the first trials set, the recipe as it is before all; training rows."""

    space: Space
    starts: list[dict[str, Any]]
    trial_rows: int
    final_rows: int
    decisions: tuple[Decision, ...]


def pinned(recipe: Recipe, splits: Splits) -> Recipe:
    """The recipe of every training of a search: the sizes of its splits written down, one seed, no time budget."""
    sizes = {f"{name}_rows": splits.asked[name] for name in ("train", "dev", "test")}
    data = recipe.data.model_copy(update=sizes)
    layers = "all" if recipe.train.layers == "auto" else recipe.train.layers
    train = recipe.train.model_copy(update={"layers": layers})
    return recipe.model_copy(update={"data": data, "train": train, "time_budget": None, "seeds": 1})


def plan_search(
    search: SearchRecipe, written: Space, recipe: Recipe, bench: Bench, budget: float | None
) -> SearchPlan:
    """The plan of a search around a pinned recipe. written: the space that was given, else there is one of our own.

    budget: seconds for all of it. UserError if more rows are asked for than there are.
    """
    n_rows = _trial_rows(search, bench, recipe, budget)
    base = bench.base(recipe.model)
    anatomy = inspect(base.model, base.missing_keys)
    rate = methods.METHODS[recipe.method.name].rate_for(anatomy.hidden_size)
    plan, task = bench.plan(recipe, n_rows), bench.splits.task
    space = written or default_space(recipe, plan, rate, anatomy.n_layers, search.trials, task)
    own = _values_of(recipe, space, {"train.learning_rate": plan.learning_rate, "train.epochs": plan.epochs})
    why = "as [search] says" if written else "the first of a list by importance; [search] in the recipe says others"
    decisions = tuple(Decision(f"tries {key}", domain.in_words(), why) for key, domain in space.items())
    final_rows = min(FINAL_ROWS * n_rows, len(bench.splits.train))
    return SearchPlan(space, _starts(own, space, rate), n_rows, final_rows, decisions)


def _trial_rows(search: SearchRecipe, bench: Bench, recipe: Recipe, budget: float | None) -> int:
    """Training rows of a trial: those asked for, else a tenth, of few all; fewer where time is short."""
    n_train = len(bench.splits.train)
    if search.rows != "auto":
        if search.rows > n_train:
            raise UserError(f"search.rows = {search.rows}: there are {n_train:,} training rows. Ask for fewer.")
        return search.rows
    n_rows = min(n_train, max(FEWEST_ROWS, round(TENTH * n_train)))
    if budget is None:
        return n_rows
    takes, has = bench.seconds(recipe, n_rows), TRIALS_PART * budget / search.trials
    least = min(n_rows, max(LEAST_ROWS, 2 * len(bench.splits.class_names)))
    return n_rows if takes <= has else max(least, int(n_rows * has / takes))


def _starts(own: Mapping[str, Any], space: Space, rate: float) -> list[dict[str, Any]]:
    """The recipe as it is, if the space has it, and the same with the method's own learning rate, likewise."""
    starts = [dict(own)]
    if "train.learning_rate" in space and own["train.learning_rate"] != rate:
        starts.append(dict(own) | {"train.learning_rate": rate})
    inside = [start for start in starts if all(start[key] in domain for key, domain in space.items())]
    return inside if inside[:1] == starts[:1] else []


def _values_of(recipe: Recipe, space: Space, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe has at the keys of a space, options of its method included; found: what was chosen for it."""
    options = methods.check_options(recipe.method.name, recipe.method.options)
    values: dict[str, Any] = {}
    for key in space:
        table, _, leaf = key.partition(".")
        if key in found or not leaf:
            values[key] = found[key] if key in found else getattr(recipe, key)
        elif table == "method" and leaf != "name":
            values[key] = options.get(leaf)
        else:
            values[key] = getattr(getattr(recipe, table), leaf)
    return values

"""What a search will do: what is tried, on how many rows, and what comes first."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from lightune.artifact.claimed import write_once
from lightune.errors import UserError
from lightune.journal import duration
from lightune.model import methods
from lightune.model.anatomy import inspect
from lightune.recipe import Recipe, SearchRecipe, check_recipe
from lightune.records import Decision, Splits
from lightune.search.bench import Bench, with_plan
from lightune.search.space import (
    EPOCHS,
    FASTEST,
    RATE,
    SLOWEST,
    Choices,
    Space,
    as_whole,
    default_space,
    space_as_json,
    space_of_json,
    with_values,
)
from lightune.search.study import REPORTS

PART, FEWEST_ROWS = 1 / 25, 1000  # of the training rows, what a trial trains on; not fewer, where there are
LEAST_ROWS = 200  # where time is short
FINAL_ROWS = 1.5  # times as many for the finalists
LEAST_RUN = 45.0  # seconds: a run of a small network is ready to train after some fifteen
TRIALS_PART, FINALS_PART = 0.3, 0.2  # of a time budget; the rest is for the two runs


@dataclass(frozen=True)
class Parts:
    """Seconds of a time budget for all trials, for all finals and for a run; None without a budget."""

    trials: float | None = None
    finals: float | None = None
    run: float | None = None


def time_parts(budget: float | None, *, with_runs: bool) -> Parts:
    """How a budget in seconds is shared out; without runs all of it is for the trials and the finals.

    UserError if there is too little for the runs.
    """
    if budget is None:
        return Parts()
    both = TRIALS_PART + FINALS_PART
    search = budget if with_runs else budget / both
    run = budget * (1 - both) / 2
    if with_runs and run < LEAST_RUN:
        least = math.ceil(2 * LEAST_RUN / (1 - both) / 60)
        raise UserError(
            f"time budget: of {duration(budget)} each of the two runs at the end would have {duration(run)}, too "
            f"little to read, train and score in. Ask for {least}m or more, or leave the runs out with --no-runs."
        )
    return Parts(TRIALS_PART * search, FINALS_PART * search, run if with_runs else None)


@dataclass(frozen=True)
class SearchPlan:
    """What is tried, what the first trials set or change, the recipe as it is before all, on how many rows, and why.

    recipe: as it is, with the epochs and layers that it comes to.
    """

    recipe: Recipe
    space: Space
    starts: list[dict[str, Any]]
    trial_rows: int
    final_rows: int
    decisions: tuple[Decision, ...] = ()

    def settled_in(self, path: Path) -> SearchPlan:
        """This plan, or that of the first process: another time is measured each time, one search has one plan."""
        mine = {
            "recipe": self.recipe.model_dump(),
            "space": space_as_json(self.space),
            "starts": self.starts,
            "trial_rows": self.trial_rows,
            "final_rows": self.final_rows,
        }
        found, is_ours = write_once(path, mine)
        if is_ours:
            return self
        try:
            recipe, space = check_recipe(found["recipe"]), space_of_json(found["space"])
            return SearchPlan(
                recipe, space, found["starts"], found["trial_rows"], found["final_rows"], self.decisions
            )
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: is no plan of a search. Choose another --output.") from None


def pinned(recipe: Recipe, splits: Splits) -> Recipe:
    """The recipe of every training of a search: the sizes of its splits written down, one seed, no time budget."""
    sizes = {f"{name}_rows": splits.asked[name] for name in ("train", "dev", "test")}
    data = recipe.data.model_copy(update=sizes)
    layers = "all" if recipe.train.layers == "auto" else recipe.train.layers
    train = recipe.train.model_copy(update={"layers": layers})
    return recipe.model_copy(update={"data": data, "train": train, "time_budget": None, "seeds": 1})


def plan_search(
    search: SearchRecipe,
    written: Space,
    recipe: Recipe,
    bench: Bench,
    parts: Parts,
    started: float = math.inf,
    *,
    builds: bool = True,
) -> SearchPlan:
    """The plan of a search around a pinned recipe. written: the space that was given, else there is one of our own.

    started: the search, in monotonic time; builds: each method and option is tried on the network. UserError for what
    no trial could take, and for more rows than there are.
    """
    _check_values(written, recipe, bench, builds=builds)
    n_rows, final_rows = _rows(search, bench, recipe, parts, max(0.0, time.monotonic() - started))
    base = bench.base(recipe.model)
    anatomy = inspect(base.model, base.missing_keys)
    rate = methods.METHODS[recipe.method.name].rate_for(anatomy.hidden_size)
    plan, task = bench.plan(recipe, n_rows), bench.splits.task
    space = written or default_space(recipe, plan, rate, len(anatomy.layers), search.trials, task)
    automatic = {key: value for key, value in _values_of(recipe, space, {}).items() if value == "auto"}
    recipe = with_plan(recipe, plan)
    own = _values_of(recipe, space, {RATE: plan.learning_rate})
    own |= {key: value for key, value in automatic.items() if value in space[key]}
    why = "as [search] says" if written else "the first of a list by importance; [search] in the recipe says others"
    epochs = f"{plan.epochs:g} epoch{'' if plan.epochs == 1 else 's'}"
    as_it_is = Decision("the recipe as it is", f"{epochs}, layers {plan.layers}", "in trials and runs")
    decisions = (as_it_is, *(Decision(f"tries {key}", domain.in_words(), why) for key, domain in space.items()))
    return SearchPlan(recipe, space, first_trials(own, space, rate, alone=not written), n_rows, final_rows, decisions)


def _check_values(written: Space, recipe: Recipe, bench: Bench, *, builds: bool) -> None:
    """What no trial could take is told before the work: each value, beside the first ones of other options."""
    ends = {key: d.values if isinstance(d, Choices) else (d.low, d.high) for key, d in written.items()}
    first = {key: as_whole(values[0]) for key, values in ends.items() if key.startswith("method.")}
    for key, values in ends.items():
        names = ends.get("method.name", (recipe.method.name,)) if key != "method.name" else (None,)
        for name, value in product(names, values):
            own = {} if name is None else {"method.name": name}
            tried = with_values(recipe, {**first, **own, key: as_whole(value)})
            bench.check(tried, builds=builds and key.startswith("method."))


def _rows(search: SearchRecipe, bench: Bench, recipe: Recipe, parts: Parts, spent: float) -> tuple[int, int]:
    """Training rows of a trial and of a finalist: as asked, else a twenty-fifth, of few all; less in a short time."""
    n_train = len(bench.splits.train)
    if search.rows != "auto" and search.rows > n_train:
        raise UserError(f"search.rows = {search.rows}: there are {n_train:,} training rows. Ask for fewer.")
    n_classes = 0 if bench.splits.task == "multi_label" else len(bench.splits.class_names)
    if search.rows != "auto" and search.rows < n_classes:
        raise UserError(
            f"search.rows = {search.rows}: there are {n_classes} classes. Ask for a row of each at least."
        )
    wanted = min(n_train, max(FEWEST_ROWS, round(PART * n_train))) if search.rows == "auto" else search.rows
    if parts.trials is None or parts.finals is None:
        return wanted, min(round(FINAL_ROWS * wanted), n_train)
    training, look = bench.seconds(recipe, wanted)
    a_row = training / wanted
    least = min(wanted, max(LEAST_ROWS, 2 * len(bench.splits.class_names)))
    n_finals = (search.finalists + 1) * search.fresh_seeds
    left = parts.trials - spent
    n_rows = max(least, min(wanted, int((left / search.trials - REPORTS * look) / a_row)))
    n_rows = n_rows if search.rows == "auto" else wanted
    return n_rows, max(least, min(round(FINAL_ROWS * n_rows), n_train, int((parts.finals / n_finals - look) / a_row)))


def first_trials(own: Mapping[str, Any], space: Space, rate: float, *, alone: bool) -> list[dict[str, Any]]:
    """The recipe as it is, if the space has it; then what changes in the best so far: the rate, to the method's own.

    alone: and each other key in turn, to its first other value. More epochs come before the rate, unless it is far
    off: which of two rates is better is seen where a training has taken its first steps, and depends on their number.
    """
    if not all(own[key] in domain for key, domain in space.items()):
        return []
    changes = {
        key: next(value for value in domain.values if value != own[key])
        for key, domain in space.items()
        if alone and isinstance(domain, Choices)
    }
    mine = own.get(RATE, rate)
    if mine not in (rate, "auto") and rate in space[RATE]:
        is_near = rate * SLOWEST <= mine <= rate * FASTEST
        longer = {EPOCHS: changes.pop(EPOCHS)} if is_near and EPOCHS in changes else {}
        changes = longer | {RATE: rate} | changes
    return [dict(own), *({key: value} for key, value in changes.items())]


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

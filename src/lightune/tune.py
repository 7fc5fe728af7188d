"""The journey of a search: from a recipe to a better one, or to the advice to keep it.

read → try many recipes on few rows, and stop the poor ones → train the best again with fresh seeds, beside the recipe
as it is → run the winner and the recipe as it is on all rows → compare them on the test rows, which are read only now
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightune.artifact.claimed import ELSEWHERE, write_once
from lightune.artifact.finished import read_finished
from lightune.artifact.folder import RESULTS as RUN_RESULTS
from lightune.artifact.folder import disk_errors, write_json
from lightune.callable import let_be_called
from lightune.data.prepare import prepare, split_prepared
from lightune.errors import GateError, UserError
from lightune.evidence.seeds import gain_of_recipes
from lightune.hardware import choose_hardware, own_randomness, told_when_full, tune_process
from lightune.journal import Journal
from lightune.libraries import network_off
from lightune.recipe import Checked, Recipe, flatten, seconds_of, write_recipe
from lightune.records import Result
from lightune.report.page import write_page
from lightune.report.search_page import search_page
from lightune.report.search_screen import Board, show_finals, show_outcome
from lightune.report.versus import compare_runs
from lightune.run import LESS_MEMORY, check_asked, check_for_task
from lightune.run import follow as run_recipe
from lightune.search.bench import Bench
from lightune.search.folder import AS_IT_IS, BEST, PAGE, PLAN, RESULTS, RUN_TIME, WINNER, claim_of, storage_of
from lightune.search.outcome import NO_RUNS
from lightune.search.plan import Parts, pinned, plan_search, time_parts
from lightune.search.record import Made, Shown, gather
from lightune.search.space import EPOCHS, read_space
from lightune.search.storage import check_storage, storage_errors
from lightune.search.study import Study, seed_of
from lightune.search.trials import (
    Chosen,
    Finalist,
    choose_finalists,
    choose_winner,
    seeds_apart,
    train_finalists,
    try_all,
)
from lightune.settings import Settings, load_recipe, name_of


def tune(
    target: str | Path | None = None,
    *,
    trials: int | None = None,
    test: str | Path | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    task: str | None = None,
    seed: int | None = None,
    settings: Settings = (),
    preset: str | None = None,
    time_budget: str | None = None,
    no_baselines: bool = False,
    storage: str | None = None,
    output: str | Path | None = None,
    offline: bool = False,
    no_runs: bool = False,
    journal: Journal | None = None,
) -> Result:
    """Searches for a better recipe; returns the search's folder and its search.json as a dictionary.

    target, test … offline: as for `run`. What may be tried is in the recipe's table [search], or in settings such as
    "search.train.learning_rate={low=1e-4, high=1e-2, log=true}". trials: recipes that are tried; time_budget: for all
    of it; no_runs: ends with best.toml, without a run of it and without a verdict. The same call goes on with a
    search that was cut off, and several processes may share one.
    Raises UserError for a mistake in what was given, GateError if a check fails.
    """
    given: dict[str, Any] = {
        "data.test": None if test is None else str(test),
        "data.text": text,
        "data.pair": pair,
        "data.label": label,
        "data.task": task,
        "seed": seed,
        "time_budget": time_budget,
        "evidence.baselines": [] if no_baselines else None,
        "search.trials": trials,
        "search.storage": storage,
    }
    checked = load_recipe(name_of(target), given, settings, preset)
    with network_off(offline), own_randomness(), told_when_full(LESS_MEMORY):
        return follow(checked, journal or Journal(), output=output, with_runs=not no_runs)


def follow(checked: Checked, journal: Journal, *, output: str | Path | None = None, with_runs: bool = True) -> Result:
    """The journey of one checked recipe and its table [search]."""
    started = time.monotonic()
    journal.begin()
    recipe, search = checked.recipe, checked.search
    written = read_space(search.space, recipe)  # mistakes are told before the work
    metrics, _, requirements = check_asked(recipe)
    budget = None if recipe.time_budget is None else seconds_of(recipe.time_budget)
    parts = time_parts(budget, with_runs=with_runs)
    claim = claim_of(checked, output, with_runs=with_runs)
    folder = claim.find()
    if (storage := storage_of(search)) and claim.over(folder) is None:
        check_storage(storage)
    with journal.phase("read", "Reading the data"):
        hardware = choose_hardware(recipe.hardware.device, recipe.hardware.precision)
        data = prepare(recipe.data)
        if (earlier := claim.over(folder, data.digest)) is not None:
            journal.say(f"this search is over: {folder}")
            show_outcome(journal, earlier, folder)
            return _ended(folder, earlier)
        check_for_task(recipe, metrics, requirements, data.task)
        splits = split_prepared(data, recipe.data, seed=recipe.seed, **hardware.speed, budget=parts.run)
        journal.decide(*data.decisions, *splits.decisions, *hardware.decisions, *tune_process(hardware))

    with journal.phase("plan", "Planning the search"):
        bench = Bench(data, pinned(recipe, splits), splits, hardware)
        journal.decide(*bench.decisions)
        plan = plan_search(search, written, bench.recipe, bench, parts, started, builds=not (folder / PLAN).is_file())
        folder, name, is_begun = claim.take(folder, data.digest)
        plan = plan.settled_in(folder / PLAN)
        journal.decide(*plan.decisions)

    journal.say(f"\n{'Going on with the search' if is_begun else 'The search is'} in {folder}")
    began = time.time() - (time.monotonic() - started)
    given = folder, storage, plan.space, search.trials, plan.starts, recipe.seed, name, began
    with disk_errors(folder), storage_errors(storage), _frozen(), Study(*given) as study:
        title = f"Trying {search.trials} recipes on {plan.trial_rows:,} of {len(splits.train):,} training rows"
        # what earlier processes have spent is spent
        deadline = None if parts.trials is None else time.monotonic() + parts.trials - study.spent()
        with journal.phase("trials", title), Board(journal, study, deadline) as board:
            board.begin()
            try_all(study, bench, plan.recipe, plan.trial_rows, deadline, board.tell, board.waits)

        title = f"The best, and the recipe as it is, with fresh seeds on {plan.final_rows:,} rows"
        with journal.phase("finals", title):
            finalists = choose_finalists(study, plan.recipe, search.finalists)
            seeds = [seed_of(recipe.seed, "fresh", i) for i in range(search.fresh_seeds)]
            deadline = None if deadline is None or parts.finals is None else deadline + parts.finals
            trained = study, bench, finalists, seeds, plan.final_rows
            losses = train_finalists(*trained, deadline, board.tell_final, board.waits)
            between = seeds_apart(study, bench, finalists, losses, plan.final_rows)
            chosen = choose_winner(finalists, losses, between, study.settled())
            show_finals(journal, chosen)

        with study.last(
            partial(board.waits, "the runs" if with_runs else "the page")
        ):  # one process alone ends the search
            if (earlier := claim.over(folder)) is not None:
                journal.say(f"another process has ended the search: {folder}")
                show_outcome(journal, earlier, folder)
                return _ended(folder, earlier)
            write_recipe(_as_checked(checked, chosen.winner), {}, folder / BEST)
            shown = Shown(why_not=NO_RUNS)
            if with_runs:
                seconds = _seconds_of_a_run(folder, budget, study.spent(), parts, chosen)
                shown = LastRuns(journal, folder, checked, chosen, data.digest, seconds, study.seen).make()
            made = Made(plan, study.settled(), study.importances())
            results = gather(checked, splits, made, chosen, shown, folder)
            results["seconds"] = journal.spent() | {"total": study.spent()}
            write_page(search_page(results), folder / PAGE)
            write_json(folder / RESULTS, results)  # last: it says that all the others are there
    show_outcome(journal, results, folder)
    return _ended(folder, results)


@contextmanager
def _frozen() -> Iterator[None]:
    """What is loaded by now stays: each training looks for what the one before has left."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _seconds_of_a_run(folder: Path, budget: float | None, spent: float, parts: Parts, chosen: Chosen) -> float | None:
    """How long each run at the end may take: as long as the other, before a kill and after it."""
    if budget is None or parts.run is None:
        return None
    n_runs = 1 if chosen.winner is chosen.finalists[0] else 2
    found, _ = write_once(folder / RUN_TIME, {"seconds": max(parts.run, (budget - spent) / n_runs)})
    return float(found["seconds"])


@dataclass(frozen=True)
class LastRuns:
    """The runs on all rows at the end of a search, of its winner and of the recipe as it is.

    digest: of the data; seconds: that each run may take; seen: is called when one is over.
    """

    journal: Journal
    folder: Path
    checked: Checked
    chosen: Chosen
    digest: str
    seconds: float | None
    seen: Callable[[], None]

    def make(self) -> Shown:
        """Makes both; what their answers to the test rows say."""
        base, winner = self.chosen.finalists[0], self.chosen.winner
        with self.journal.phase(WINNER, f"Running {winner.name} on all rows"):
            refused = self.run(WINNER, winner)
        if winner is base:
            return Shown(refused=refused)
        if not all(map(math.isfinite, self.chosen.losses[base.number].values())):
            return Shown(why_not=f"{base.name} cannot be trained", refused=refused)
        with self.journal.phase(AS_IT_IS, f"Running {base.name} on all rows, to compare with"):
            self.run(AS_IT_IS, base)
        compared, why_not = compare_runs(read_finished(self.folder / WINNER), read_finished(self.folder / AS_IT_IS))
        gain = None if compared is None else gain_of_recipes(compared.gain, self.chosen.between)
        return Shown(compared, gain, why_not, refused)

    def run(self, name: str, finalist: Finalist) -> str:
        """Makes the run of a finalist, unless an earlier process has; what a gate said, if it said no.

        UserError where the run that is there is of another recipe, or of other data.
        """
        path = self.folder / name
        if not (path / RUN_RESULTS).is_file():
            own = _as_checked(self.checked, finalist)
            budget = None if self.seconds is None else f"{self.seconds:.0f}s"
            recipe = own.recipe.model_copy(update={"time_budget": budget, "seeds": 1})
            own = replace(own, recipe=_bare(recipe) if name == AS_IT_IS else recipe)
            try:
                run_recipe(own, self.journal.another(), output=path)  # a run counts its own seconds
            except GateError:
                if not (path / RUN_RESULTS).is_file():
                    raise
        self.seen()
        results = read_finished(path).results
        self._check(path, results, finalist)
        failed = (each for each in results["requirements"] if not each["passed"])
        return "; ".join(f"required {each['what']}: {each['why']}" for each in failed)

    def _check(self, path: Path, results: Mapping[str, Any], finalist: Finalist) -> None:
        """UserError for a run that is not of this finalist, or not on the data that was searched on.

        A run writes down what it came to: the epochs that its time was enough for, a model's revision, a length.
        """
        used = [results["data"][each] for each in ("digest", "test_digest") if results["data"].get(each)]
        if " ".join(used) != self.digest:
            raise UserError(f"{path}: the data has changed since the search began. {ELSEWHERE}")
        made, wanted = flatten(results["recipe"]), flatten(finalist.recipe.model_dump())
        for key in sorted({key for each in self.chosen.finalists for key in each.values}):
            if wanted.get(key) in (None, "auto", "most") or (key == EPOCHS and self.seconds is not None):
                continue
            is_revision = key == "model" and str(made.get(key)).startswith(f"{wanted[key]}@")
            if made.get(key) != wanted[key] and not is_revision:
                raise UserError(f"{path}: is of another recipe ({key} = {made.get(key)!r}). {ELSEWHERE}")


def _ended(folder: Path, results: dict[str, Any]) -> Result:
    """What every process returns that takes part in a search. GateError if its winner lacks what was required."""
    if results["refused"]:
        raise GateError(f"{folder / WINNER}: {results['refused']}")
    return Result(str(folder), results)


def _bare(recipe: Recipe) -> Recipe:
    """Without what the winner's run tells already, unless that would give it more time to train in."""
    needless = {} if recipe.time_budget else {"baselines": [], "doctor": False}
    evidence = recipe.evidence.model_copy(update={"require": [], **needless})
    return recipe.model_copy(update={"evidence": evidence, "trackers": []})


def _as_checked(checked: Checked, finalist: Finalist) -> Checked:
    """The finalist's recipe with the origin of each value, and as many seeds as were asked for."""
    recipe = finalist.recipe.model_copy(update={"seeds": checked.recipe.seeds})
    before, after = flatten(checked.recipe.model_dump()), flatten(recipe.model_dump())
    changed = {key: "chosen" for key, value in after.items() if before.get(key) != value}
    found = dict.fromkeys(finalist.values, "found by search")
    return replace(checked, recipe=recipe, origins=checked.origins | changed | found)


let_be_called(__name__, tune)

"""The journey of a search: from a recipe to a better one, or to the advice to keep it.

read → try many recipes on few rows, and stop the poor ones → train the best again with fresh seeds, beside the recipe
as it is → run the winner and the recipe as it is on all rows → compare them on the test rows, which are read only now
"""

from __future__ import annotations

import gc
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightune.artifact.finished import read_finished
from lightune.artifact.folder import RESULTS as RUN_RESULTS
from lightune.artifact.folder import write_json
from lightune.data.prepare import prepare, split_prepared
from lightune.errors import GateError
from lightune.hardware import choose_hardware, own_randomness, told_when_full, tune_process
from lightune.journal import Journal
from lightune.libraries import network_off
from lightune.recipe import Checked, Recipe, Settings, load_recipe, seconds_of, write_recipe
from lightune.records import Result
from lightune.report.page import write_page
from lightune.report.search_page import search_page
from lightune.report.search_screen import Board, show_finals, show_outcome
from lightune.report.versus import compare_runs
from lightune.run import LESS_MEMORY, check_asked, check_for_task
from lightune.run import follow as run_recipe
from lightune.search.bench import Bench
from lightune.search.folder import (
    AS_IT_IS,
    BEST,
    CLOSED,
    PAGE,
    PLAN,
    RESULTS,
    WINNER,
    claim,
    find_folder,
    read_results,
)
from lightune.search.outcome import best_by_mean, expected_luck, gain_of_recipes
from lightune.search.plan import FINALS_PART, TRIALS_PART, pinned, plan_search
from lightune.search.record import Found, gather
from lightune.search.space import read_space
from lightune.search.study import Study, seed_of
from lightune.search.trials import Finalist, choose_finalists, seeds_apart, train_finalists, try_all

LEAST_LEFT = 0.3  # of a time budget, for the two runs: a search that took longer is not to end with nothing


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
    journal: Journal | None = None,
) -> Result:
    """Searches for a better recipe; returns the search's folder and its search.json as a dictionary.

    target, test … offline: as for `run`. What may be tried is in the recipe's table [search], or in settings such as
    "search.train.learning_rate={low=1e-4, high=1e-2, log=true}". trials: recipes that are tried; time_budget: for all
    of it. The same call goes on with a search that was cut off, and several processes may share one.
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
    checked = load_recipe(None if target is None else str(target), given, settings, preset)
    with network_off(offline), own_randomness(), told_when_full(LESS_MEMORY):
        return follow(checked, journal or Journal(), output=output)


def follow(checked: Checked, journal: Journal, *, output: str | Path | None = None) -> Result:
    """The journey of one checked recipe and its table [search]."""
    started = time.monotonic()
    journal.begin()
    recipe, search = checked.recipe, checked.search
    written = read_space(search.space, recipe)  # mistakes are told before the work
    metrics, _, requirements = check_asked(recipe)
    budget = None if recipe.time_budget is None else seconds_of(recipe.time_budget)
    folder = find_folder(output, checked)
    if (earlier := read_results(folder)) is not None:
        journal.say(f"this search is over: read {folder / PAGE}")
        return _ended(folder, earlier)

    with journal.phase("read", "Reading the data"):
        hardware = choose_hardware(recipe.hardware.device, recipe.hardware.precision)
        data = prepare(recipe.data)
        check_for_task(recipe, metrics, requirements, data.task)
        run_budget = None if budget is None else budget * (1 - TRIALS_PART - FINALS_PART) / 2
        splits = split_prepared(data, recipe.data, seed=recipe.seed, device=hardware.device, budget=run_budget)
        journal.decide(*data.decisions, *splits.decisions, *hardware.decisions, *tune_process(hardware))

    with journal.phase("plan", "Planning the search"):
        bench = Bench(data, pinned(recipe, splits), splits, hardware)
        journal.decide(*bench.decisions)
        plan = plan_search(search, written, bench.recipe, bench, budget)
        digests = [corpus.digest for corpus in (data.corpus, data.other) if corpus is not None]
        name, is_begun = claim(folder, checked, " ".join(digests))
        plan = plan.settled_in(folder / PLAN)
        journal.decide(*plan.decisions)

    journal.say(f"\n{'Going on with the search' if is_begun else 'The search is'} in {folder}")
    study = Study(folder, search.storage, plan.space, search.trials, plan.starts, recipe.seed, name)
    gc.freeze()  # what is loaded by now stays: each training looks for what the one before has left
    try:
        title = f"Trying {search.trials} recipes on {plan.trial_rows:,} of {len(splits.train):,} training rows"
        with journal.phase("trials", title), Board(journal, study) as board:
            deadline = None if budget is None else started + budget * TRIALS_PART
            if not (folder / CLOSED).is_file():
                try_all(study, bench, plan.recipe, plan.trial_rows, deadline, board.tell)

        title = f"The best, and the recipe as it is, with fresh seeds on {plan.final_rows:,} rows"
        with journal.phase("finals", title):
            finalists = choose_finalists(study, plan.recipe, search.finalists, folder / CLOSED)
            seeds = [seed_of(recipe.seed, "fresh", i) for i in range(search.fresh_seeds)]
            losses = train_finalists(study, bench, finalists, seeds, plan.final_rows, board.tell_final)
            n_tried = sum(trial.state != "failed" for trial in study.settled())
            number, luck = best_by_mean(losses), expected_luck(losses, n_tried)
            base, winner = finalists[0], next(each for each in finalists if each.number == number)
            between = seeds_apart(study, bench, finalists, seeds, plan.final_rows)
            show_finals(journal, finalists, losses, winner, luck)

        with study.last():  # one process alone ends the search
            if (earlier := read_results(folder)) is not None:
                journal.say(f"another process has ended the search: {folder}")
                return _ended(folder, earlier)
            run = partial(_run, journal, folder, checked, _seconds_left(budget, started))
            with journal.phase("winner", f"Running {winner.name} on all rows"):
                refused = run(WINNER, winner, 1 if winner is base else 2)
            gain, compared, why_not = None, None, ""
            if winner is not base:
                with journal.phase("default", f"Running {base.name} on all rows, to compare with"):
                    run(AS_IT_IS, base, 1)
                compared, why_not = compare_runs(read_finished(folder / WINNER), read_finished(folder / AS_IT_IS))
                gain = None if compared is None else gain_of_recipes(compared.gain, between)
            weights, trials_made = study.importances(), study.settled()
            found = Found(
                plan,
                trials_made,
                finalists,
                losses,
                winner,
                luck,
                between,
                weights,
                compared,
                gain,
                why_not,
                refused,
            )
            results = gather(checked, splits, found, folder, journal.spent() | {"total": time.monotonic() - started})
            write_recipe(_as_checked(checked, winner), {}, folder / BEST)
            write_page(search_page(results), folder / PAGE)
            write_json(folder / RESULTS, results)  # last: it says that all the others are there
    finally:
        gc.unfreeze()
        study.close()
    show_outcome(journal, results, folder)
    return _ended(folder, results)


def _ended(folder: Path, results: dict[str, Any]) -> Result:
    """What every process returns that takes part in a search. GateError if its winner lacks what was required."""
    if results["refused"]:
        raise GateError(f"{folder / WINNER}: {results['refused']}")
    return Result(str(folder), results)


def _run(
    journal: Journal,
    folder: Path,
    checked: Checked,
    seconds_left: Callable[[], float | None],
    name: str,
    finalist: Finalist,
    n_left: int,
) -> str:
    """The run of a finalist on all rows, unless an earlier process has made it; what a gate said, if it said no.

    n_left: runs that share the time.
    """
    if not (folder / name / RUN_RESULTS).is_file():
        own, left = _as_checked(checked, finalist), seconds_left()
        budget = None if left is None else f"{left / n_left:.0f}s"
        recipe = own.recipe.model_copy(update={"time_budget": budget})
        voice = journal.another()  # a run counts its own seconds
        try:
            run_recipe(
                replace(own, recipe=_bare(recipe) if name == AS_IT_IS else recipe), voice, output=folder / name
            )
        except GateError:
            if not (folder / name / RUN_RESULTS).is_file():
                raise
    results = read_finished(folder / name).results
    return "; ".join(
        f"required {each['what']}: {each['why']}" for each in results["requirements"] if not each["passed"]
    )


def _bare(recipe: Recipe) -> Recipe:
    """Without what the winner's run tells already."""
    evidence = recipe.evidence.model_copy(update={"baselines": [], "doctor": False, "require": []})
    return recipe.model_copy(update={"evidence": evidence, "trackers": []})


def _as_checked(checked: Checked, finalist: Finalist) -> Checked:
    """The finalist's recipe with the origin of each value."""
    found = dict.fromkeys(finalist.values, "found by search")
    return replace(checked, recipe=finalist.recipe, origins=checked.origins | found)


def _seconds_left(budget: float | None, started: float) -> Callable[[], float | None]:
    """Of a budget; not less than the runs need at least, whatever came before them."""
    return lambda: None if budget is None else max(LEAST_LEFT * budget, budget - (time.monotonic() - started))


class _CallableModule(types.ModuleType):
    """Lets `lightune.tune(…)` work although `lightune.tune` is also this module, which importing it makes so."""

    __call__ = staticmethod(tune)


sys.modules[__name__].__class__ = _CallableModule

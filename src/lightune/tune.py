"""The journey of a search: from a recipe to a better one, or to the advice to keep it.

read → try many recipes on few rows, and stop the poor ones → train the best again with fresh seeds, beside the recipe
as it is → run the winner and the recipe as it is on all rows → compare them on the test rows, which are read only now
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
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
from lightune.search.space import read_space
from lightune.search.study import Study, seed_of, storage_errors
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
    claim = claim_of(checked, with_runs=with_runs)
    folder = claim.find(output, f"{checked.name}-search")
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
        plan = plan_search(search, written, bench.recipe, bench, parts)
        name, is_begun = claim.take(folder, data.digest)
        plan = plan.settled_in(folder / PLAN)
        journal.decide(*plan.decisions)

    journal.say(f"\n{'Going on with the search' if is_begun else 'The search is'} in {folder}")
    storage = storage_of(search)
    given = folder, storage, plan.space, search.trials, plan.starts, recipe.seed, name
    with disk_errors(folder), storage_errors(storage), _frozen(), Study(*given) as study:
        title = f"Trying {search.trials} recipes on {plan.trial_rows:,} of {len(splits.train):,} training rows"
        with journal.phase("trials", title), Board(journal, study) as board:
            # what an earlier process has spent is spent
            deadline = None if parts.trials is None else started + parts.trials - study.seconds()
            try_all(study, bench, plan.recipe, plan.trial_rows, deadline, board.tell, board.waits)

        title = f"The best, and the recipe as it is, with fresh seeds on {plan.final_rows:,} rows"
        with journal.phase("finals", title):
            finalists = choose_finalists(study, plan.recipe, search.finalists)
            seeds = [seed_of(recipe.seed, "fresh", i) for i in range(search.fresh_seeds)]
            losses = train_finalists(study, bench, finalists, seeds, plan.final_rows, board.tell_final, board.waits)
            between = seeds_apart(study, bench, finalists, seeds, plan.final_rows)
            chosen = choose_winner(finalists, losses, between, study.settled())
            show_finals(journal, chosen)

        with study.last(partial(board.waits, "the runs")):  # one process alone ends the search
            if (earlier := claim.over(folder)) is not None:
                journal.say(f"another process has ended the search: {folder}")
                return _ended(folder, earlier)
            write_recipe(_as_checked(checked, chosen.winner), {}, folder / BEST)
            spent = max(time.monotonic() - started, study.seconds())
            shown = Shown(why_not=NO_RUNS)
            if with_runs:
                seconds = _seconds_of_a_run(folder, budget, spent, parts, chosen)
                shown = _run_both(journal, folder, checked, chosen, data.digest, seconds)
            made = Made(plan, study.settled(), study.importances())
            results = gather(checked, splits, made, chosen, shown, folder)
            results["seconds"] = journal.spent() | {
                "total": time.monotonic() - started + _elsewhere(journal, study, results)
            }
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


def _elsewhere(journal: Journal, study: Study, results: Mapping[str, Any]) -> float:
    """Seconds of trials, finals and runs in other processes and in earlier ones."""
    here = sum(journal.seconds.get(name, 0.0) for name in ("trials", "finals", WINNER, AS_IT_IS))
    runs: float = sum(run["seconds"] for run in results["runs"].values())
    return max(0.0, study.seconds() + runs - here)


def _seconds_of_a_run(folder: Path, budget: float | None, spent: float, parts: Parts, chosen: Chosen) -> float | None:
    """How long each run at the end may take: as long as the other, before a kill and after it."""
    if budget is None or parts.run is None:
        return None
    n_runs = 1 if chosen.winner is chosen.finalists[0] else 2
    found, _ = write_once(folder / RUN_TIME, {"seconds": max(parts.run, (budget - spent) / n_runs)})
    return float(found["seconds"])


def _run_both(
    journal: Journal, folder: Path, checked: Checked, chosen: Chosen, digest: str, seconds: float | None
) -> Shown:
    """The runs of the winner and of the recipe as it is on all rows, and what their answers to the test rows say.

    digest: of the data; seconds: that each may take.
    """
    run = partial(_run, journal, folder, checked, seconds)
    base, winner = chosen.finalists[0], chosen.winner
    with journal.phase(WINNER, f"Running {winner.name} on all rows"):
        refused = run(WINNER, winner)
        _check_run(folder / WINNER, winner, chosen, digest)
    if winner is base:
        return Shown(refused=refused)
    if not all(map(math.isfinite, chosen.losses[base.number].values())):
        return Shown(why_not=f"{base.name} cannot be trained", refused=refused)
    with journal.phase(AS_IT_IS, f"Running {base.name} on all rows, to compare with"):
        run(AS_IT_IS, base)
        _check_run(folder / AS_IT_IS, base, chosen, digest)
    compared, why_not = compare_runs(read_finished(folder / WINNER), read_finished(folder / AS_IT_IS))
    gain = None if compared is None else gain_of_recipes(compared.gain, chosen.between)
    return Shown(compared, gain, why_not, refused)


def _ended(folder: Path, results: dict[str, Any]) -> Result:
    """What every process returns that takes part in a search. GateError if its winner lacks what was required."""
    if results["refused"]:
        raise GateError(f"{folder / WINNER}: {results['refused']}")
    return Result(str(folder), results)


def _run(
    journal: Journal,
    folder: Path,
    checked: Checked,
    seconds: float | None,
    name: str,
    finalist: Finalist,
) -> str:
    """The run of a finalist on all rows, unless an earlier process has made it; what a gate said, if it said no."""
    if not (folder / name / RUN_RESULTS).is_file():
        own = _as_checked(checked, finalist)
        budget = None if seconds is None else f"{seconds:.0f}s"
        recipe = own.recipe.model_copy(update={"time_budget": budget, "seeds": 1})
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


def _check_run(path: Path, finalist: Finalist, chosen: Chosen, digest: str) -> None:
    """UserError for a run that is not of this finalist, or not on the data that was searched on."""
    results = read_finished(path).results
    made, wanted = flatten(results["recipe"]), flatten(finalist.recipe.model_dump())
    tried = sorted({key for each in chosen.finalists for key in each.values})
    for key in tried:
        if wanted.get(key) not in (made.get(key), "auto", None):
            raise UserError(f"{path}: is of another recipe ({key} = {made.get(key)!r}). {ELSEWHERE}")
    used = [results["data"][name] for name in ("digest", "test_digest") if results["data"].get(name)]
    if " ".join(used) != digest:
        raise UserError(f"{path}: the data has changed since the search began. {ELSEWHERE}")


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

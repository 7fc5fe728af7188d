"""The journey of a comparison: the same job by several methods, with several models, on several numbers of rows.

read → for each cell: search, if asked for → a whole run in a process of its own → how fast it answers
→ compare all answers to the same test rows → report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightune.artifact.claimed import SETTINGS, Claim, read_object, shown_folder
from lightune.artifact.finished import read_finished
from lightune.artifact.folder import ADAPTER, disk_errors, write_json
from lightune.artifact.folder import RESULTS as RUN_RESULTS
from lightune.callable import let_be_called
from lightune.comparison.cell_run import LOOK_SECONDS, Runner
from lightune.comparison.cells import Asked, Cell, Listed, make_cells, read_asked
from lightune.comparison.folder import PAGE, RESULTS, RUNS, measured_file
from lightune.comparison.record import Over, gather
from lightune.data.framing import split_pair
from lightune.data.prepare import prepare, split_prepared
from lightune.errors import GateError, UserError
from lightune.hardware import choose_hardware, told_when_full, tune_process
from lightune.journal import Journal, duration
from lightune.libraries import network_off
from lightune.model.backbones import locate
from lightune.recipe import Checked, flatten, seconds_of
from lightune.records import Decision, Result
from lightune.report.compare_page import compare_page
from lightune.report.compare_screen import Waiting, show_cell, show_comparison
from lightune.report.page import write_page
from lightune.run import LESS_MEMORY, check_asked, check_for_task
from lightune.search.plan import LEAST_RUN
from lightune.settings import Settings, load_recipe, name_of
from lightune.use.classifier import Classifier

SPEED_TEXTS, WARM_TEXTS = 128, 16  # that a classifier answers to be timed, and before that
SPEED_TIMES = 2  # the faster one counts

Texts = Sequence[str | tuple[str, str]]


def compare(
    target: str | Path | None = None,
    *,
    methods: Listed = None,
    models: Listed = None,
    sizes: Listed = None,
    seeds: int | None = None,
    tune: int | None = None,
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
    output: str | Path | None = None,
    offline: bool = False,
    journal: Journal | None = None,
) -> Result:
    """Runs the same job in several ways; returns the folder and its compare.json as a dictionary.

    target, test … offline: as for `run`; time_budget: of each run, and of each search. methods: rows of METHODS, dora
    and the like, or with options "lora:rank=4"; "all". models: as a recipe names them. sizes: numbers of training
    rows, or "all". seeds: trainings of each; tune: trials of a search before each. The same call goes on with a
    comparison that was cut off, and several processes may share one.
    Raises UserError for a mistake in what was given, GateError if not one of them can be run.
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
    }
    searches = "" if tune else "Ask for a search before each run with --tune 8."
    checked = load_recipe(name_of(target), given, settings, preset, searches=searches)
    asked = read_asked(checked, methods, models, sizes, seeds, tune)
    with network_off(offline), told_when_full(LESS_MEMORY):
        return follow(checked, asked, journal or Journal(), output=output, offline=offline)


def follow(
    checked: Checked, asked: Asked, journal: Journal, *, output: str | Path | None = None, offline: bool = False
) -> Result:
    """The journey of one checked recipe and what is to be compared."""
    began = time.time()
    journal.begin()
    recipe = checked.recipe
    metrics, _, requirements = check_asked(recipe)
    budget = None if recipe.time_budget is None else seconds_of(recipe.time_budget)
    claim = Claim("comparison", _settings(checked, asked), RESULTS, f"{checked.name}-compare", output, _is_whole)
    folder = claim.find()
    if budget is not None and budget < LEAST_RUN and not (folder / SETTINGS).is_file():
        raise UserError(
            f"time budget: {duration(budget)} for each run is too little to start, read, train and score in. "
            f"Ask for {duration(LEAST_RUN)} or more."
        )
    with journal.phase("read", "Reading the data"):
        for model in asked.models:
            locate(model)  # one that is not there is told before the work
        hardware = choose_hardware(recipe.hardware.device, recipe.hardware.precision)
        data = prepare(recipe.data)
        if (earlier := claim.over(folder, data.digest)) is not None:
            journal.say(f"this comparison is over: {folder}")
            show_comparison(journal, earlier, folder)
            return Result(str(folder), earlier)
        check_for_task(recipe, metrics, requirements, data.task)
        every = asked.has_sizes and recipe.data.train_rows == "auto"  # the sizes say how many, not we
        wanted = recipe.data.model_copy(update={"train_rows": "all"}) if every else recipe.data
        splits = split_prepared(data, wanted, seed=recipe.seed, **hardware.speed, budget=budget)
        cells = make_cells(checked, splits, asked)
        runs = Decision("runs", str(len(cells)), f"each in a process of its own; {_in_words(cells)}")
        journal.decide(*data.decisions, *splits.decisions, runs, *tune_process(hardware))
        texts = [text if data.pair is None else split_pair(text) for text in splits.test.texts[:SPEED_TEXTS]]
        digest = data.digest
        del data, splits
        hardware.release()  # the runs need the room
        folder, _, is_begun = claim.take(folder, digest)

    journal.say(f"\n{'Going on with the comparison' if is_begun else 'The comparison is'} in {folder}")
    runner = Runner(folder, bool(asked.tune), offline, began)
    runner.make_folders()
    title = f"Running {len(cells)} recipes"
    with disk_errors(folder), journal.phase("runs", title), Waiting(journal, len(cells)) as waiting:
        overs = _run_all(runner, cells, texts, waiting)

    with disk_errors(folder), journal.phase("report", "Comparing the answers"), runner.last():
        results = gather(checked, asked, [_as_it_is(runner, over) for over in overs])
        results |= {"folder": shown_folder(folder), "seconds": _spent(journal, overs)}
        write_page(compare_page(results), folder / PAGE)
        write_json(folder / RESULTS, results)  # last: it says that all the others are there
    show_comparison(journal, results, folder)
    return Result(str(folder), results)


def _spent(journal: Journal, overs: Sequence[Over]) -> dict[str, float]:
    """Seconds of each phase and in all, with what other processes and earlier ones have run."""
    spent = journal.spent()
    elsewhere = max(0.0, sum(over.measured.get("seconds", 0.0) for over in overs) - spent["runs"])
    return {name: spent[name] + (elsewhere if name in ("runs", "total") else 0.0) for name in spent}


def _settings(checked: Checked, asked: Asked) -> dict[str, Any]:
    """What a comparison is known by; not where searches are stored, which may hold a password."""
    search = checked.search.model_dump(exclude={"storage", "trials"}) if asked.tune else {}
    return flatten(checked.recipe.model_dump()) | asked.settings | {f"search.{k}": v for k, v in search.items()}


def _is_whole(folder: Path, results: dict[str, Any]) -> bool:
    """Whether no run is missing, which the same command would try once more, nor the page."""
    rows = results.get("rows", ())
    runs = [folder / RUNS / row["name"] / RUN_RESULTS for row in rows if not row["is_baseline"]]
    is_made = bool(runs) and all(path.is_file() for path in (*runs, folder / PAGE))
    return is_made and not any(row["failed"] for row in rows)


def _in_words(cells: Sequence[Cell]) -> str:
    tuned = [cell for cell in cells if not cell.is_baselines]
    counts = [len({getattr(cell, axis) for cell in tuned}) for axis in ("method", "model", "size")]
    named = zip(counts, ("methods", "models", "sizes"), strict=True)
    axes = " x ".join(f"{n} {name}" for n, name in named if n > 1) or "one recipe"
    return axes + (", and what there is to beat" if len(tuned) < len(cells) else "")


def _run_all(runner: Runner, cells: Sequence[Cell], texts: Texts, waiting: Waiting) -> list[Over]:
    """Every cell, in the order given, each run by this process or by another that shares the comparison."""
    overs: dict[str, Over] = {}
    while missing := [cell for cell in cells if cell.name not in overs]:
        is_idle, waits_for = True, (missing[0].name, "another process is at it")
        for cell in missing:
            with runner.held(cell) as held:
                if held is None and runner.is_left_alone(cell):
                    waits_for = cell.name, "what was left running when a comparison was killed comes to its end"
                    break  # two trainings at once would slow each other, and be timed wrongly
                if held is None:
                    continue
                began = time.monotonic()
                over = _as_it_is(runner, Over(cell, None, {}))
                seconds = None
                if over.run is None and (why := runner.failure_of(cell)):
                    over = Over(cell, None, {"failed": why})
                elif over.run is None:
                    over = _run(runner, cell, held, texts, partial(waiting.tell, cell.name))
                    seconds = time.monotonic() - began
                    if over.run is None:
                        runner.note_failure(cell, over.why_not)
                overs[cell.name] = over
                show_cell(waiting, over, seconds)
                is_idle = False
        if is_idle:
            waiting.waits(*waits_for)
            time.sleep(LOOK_SECONDS)
    return [overs[cell.name] for cell in cells]


def _run(runner: Runner, cell: Cell, held: int, texts: Texts, tell: Callable[[str], None]) -> Over:
    """The run of a cell, and what is measured beside it."""
    began, file, run = time.monotonic(), measured_file(runner.folder, cell.name), runner.run_of(cell)
    if failed := runner.run(cell, held, tell):
        return Over(cell, None, {"failed": failed})
    finished = read_finished(run)
    measured: dict[str, Any] = {}
    if not cell.is_baselines:
        tell("timing its answers")
        try:
            measured = {"texts_per_second": _speed(run, cell, texts), "artifact_bytes": _size(run / ADAPTER)}
        except (UserError, GateError, RuntimeError, MemoryError) as error:
            return Over(cell, None, {"failed": str(error) or type(error).__name__})
        measured["values"] = runner.found_values(cell)
    measured["seconds"] = time.monotonic() - began
    write_json(file, measured)
    return Over(cell, finished, measured)


def _as_it_is(runner: Runner, over: Over) -> Over:
    """The cell with its run, if there is one by now, of this process or of another."""
    file, run = measured_file(runner.folder, over.cell.name), runner.run_of(over.cell)
    if over.run is not None or not file.is_file() or not (run / RUN_RESULTS).is_file():
        return over
    return Over(over.cell, read_finished(run), read_object(file))


def _speed(run: Path, cell: Cell, texts: Texts) -> float:
    """Texts a second that the classifier of a run answers, loaded as its users load it; tokenising included."""
    asked = cell.checked.recipe.hardware
    classifier = Classifier.load(run, base=cell.model, device=asked.device, precision=asked.precision)
    classifier.predict(texts[:WARM_TEXTS])
    seconds = []
    for _ in range(SPEED_TIMES):
        began = time.perf_counter()
        classifier.predict(texts)
        seconds.append(time.perf_counter() - began)
    hardware = classifier.hardware
    del classifier
    hardware.release()  # the next run needs the room
    return round(len(texts) / min(seconds), 1)


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


let_be_called(__name__, compare)

"""READ THIS FIRST: the whole journey of a run, from labelled text to a proved adapter.

read → plan → fine-tune a few parameters → evaluate BEFORE and AFTER on the same rows → save and prove → report

Before is the base model under the same seed, loaded afresh: measured last, it lets the training start at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightune import trackers
from lightune.artifact.contract import make_contract
from lightune.artifact.finished import read_finished
from lightune.artifact.folder import DOCTOR, MARK, PAGE, PICTURE, choose_run_folder, save_adapter, write_json
from lightune.artifact.gathering import Evidence, gather, write_run
from lightune.artifact.proof import prove
from lightune.callable import let_be_called
from lightune.data.batching import encode, make_encoder
from lightune.data.prepare import metadata, prepare, split_prepared
from lightune.doctor.examine import glance
from lightune.doctor.follow_up import with_label_errors, with_truncation
from lightune.doctor.label_errors import seconds_in_run
from lightune.doctor.patient import of_corpus
from lightune.evidence import baselines, gate, score
from lightune.evidence.baselines import Lesson, embed
from lightune.evidence.calibration import Calibration, calibrate, check_goals, parse_goal
from lightune.evidence.decisions import scale_of
from lightune.evidence.evaluate import evaluate, predict_logits
from lightune.evidence.gate import Requirement
from lightune.evidence.slices import own_kinds
from lightune.hardware import (
    choose_hardware,
    in_fp32,
    own_randomness,
    refuse_several_processes,
    told_when_full,
    tune_process,
)
from lightune.journal import Journal
from lightune.libraries import network_off
from lightune.model import methods
from lightune.model.backbones import load_base, locate, share_with_hub_cache
from lightune.model.embeddings import embeddings_beside_logits
from lightune.model.engine import can_compute, quicken
from lightune.recipe import Checked, Recipe, Task, seconds_of
from lightune.records import Evaluation, Result
from lightune.report.card import write_card
from lightune.report.page import run_page, write_page
from lightune.report.pictures import draw_results
from lightune.report.screen import plan_as_dict, show_faults, show_plan, show_results
from lightune.settings import Settings, load_recipe, name_of
from lightune.training.fine_tune import fine_tune
from lightune.training.losses import check_for_labels
from lightune.training.plan import OVERHEAD_SECONDS, Besides
from lightune.training.rehearsal import rehearse

if TYPE_CHECKING:
    from torch import nn

PROOF_ROWS = 32
LESS_MEMORY = "Lower train.memory_tokens or data.max_tokens, or set train.gradient_checkpointing to true."


def run(
    target: str | Path | None = None,
    *,
    test: str | Path | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    task: str | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    settings: Settings = (),
    preset: str | None = None,
    time_budget: str | None = None,
    no_baselines: bool = False,
    require: Sequence[str] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    offline: bool = False,
    dry_run: bool = False,
    journal: Journal | None = None,
) -> Result:
    """Fine-tunes and measures before against after; returns the run's folder and its results.json as a dictionary.

    target: a data source, a recipe's name or file, or None for the embedded default. settings: "key=value"
    texts that override the recipe, or a dictionary of the same. task: single_label, ordinal, multi_label or
    regression, where the label column does not show it. seeds: trainings on the same split. preset: fast,
    balanced or best; time_budget: such as "10m". require: such as ["accuracy>tfidf"]; no_baselines: nothing is
    compared with but the untuned head.
    dry_run: only the plan and its cost; no folder.
    Raises UserError for a mistake in what was given, GateError if a check fails.
    """
    given = {
        "data.test": None if test is None else str(test),
        "data.text": text,
        "data.pair": pair,
        "data.label": label,
        "data.task": task,
        "seed": seed,
        "seeds": seeds,
        "time_budget": time_budget,
        "evidence.require": None if require is None else list(require),
        "evidence.baselines": [] if no_baselines else None,
    }
    checked = load_recipe(name_of(target), given, settings, preset, searches="lightune tune does that.")
    with network_off(offline), own_randomness(), told_when_full(LESS_MEMORY):
        return follow(checked, journal or Journal(), output=output, overwrite=overwrite, dry_run=dry_run)


def follow(
    checked: Checked,
    journal: Journal,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Result:
    """The journey of one checked recipe."""
    started = time.monotonic()
    journal.begin()
    recipe, seed = checked.recipe, checked.recipe.seed
    method, options = recipe.method.name, methods.check_options(recipe.method.name, recipe.method.options)
    metrics, names, requirements = check_asked(recipe)  # a mistake in it is told before the work
    folder = choose_run_folder(output, f"{checked.name}-{method}", overwrite=overwrite)

    with journal.phase("read", "Reading the data"):
        data = prepare(recipe.data)
        journal.decide(*data.decisions)
        check_for_task(recipe, metrics, requirements, data.task)
        hardware = choose_hardware(recipe.hardware.device, recipe.hardware.precision)
        budget = None if recipe.time_budget is None else seconds_of(recipe.time_budget)
        splits = split_prepared(data, recipe.data, seed=seed, **hardware.speed, budget=budget)
        journal.decide(*splits.decisions)
        columns = metadata(data, splits.test.rows, recipe.evidence.slices)
        hardware.release()  # what reading needed

    diagnosis = None
    if recipe.evidence.doctor:
        with journal.phase("check", "Looking for faults in the data"):
            patient = of_corpus(data.corpus, data.other, data.text, data.label, pair=data.pair, task=data.task)
            diagnosis = glance(patient, seed=seed)
            del patient
            hardware.release()
            show_faults(journal, diagnosis, recipe.data.model_dump(include={"task", "test", "encoding", "delimiter"}))

    with journal.phase("load", "Loading the model"):
        journal.decide(*hardware.decisions, *tune_process(hardware))
        reference = locate(recipe.model)
        load = partial(load_base, reference, splits.class_names, seed=seed, task=splits.task)
        base = load()
        journal.decide(*base.decisions)
        if refused := can_compute(base.model.to(hardware.device), hardware.precision):
            hardware = in_fp32(hardware, recipe.hardware.precision, refused)
            journal.decide(hardware.decisions[-1])

    with journal.phase("tokenise", "Tokenising"):
        limit = base.max_tokens - methods.extra_tokens(method, options)
        is_pair = data.pair is not None
        encoder = make_encoder(base.tokenizer, recipe.data.max_tokens, recipe.data.truncation, limit, pair=is_pair)
        rows, decisions = encode(encoder, splits, recipe.train.max_tokens)
        journal.decide(*decisions)
        if diagnosis:
            diagnosis = with_truncation(diagnosis, rows, encoder)

    with journal.phase("plan", "Planning"):
        lesson = Lesson.of(splits, rows)
        probe_rows = baselines.probe_rows(names, lesson)
        looking = seconds_in_run(lesson, probe_rows) if diagnosis else 0.0
        besides = Besides(OVERHEAD_SECONDS + baselines.seconds(names, lesson) + looking, probe_rows)
        left = None if budget is None else budget - (time.monotonic() - started)
        plan = rehearse(base, load, recipe, options, encoder, rows, hardware, left, besides)
        journal.decide(*plan.decisions)
        show_plan(journal, plan, splits)
    if dry_run:
        return Result(None, plan_as_dict(plan, splits))

    scale = scale_of(rows["train"].y)  # of numbers

    def measure(when: str, model: nn.Module, calibration: Calibration) -> Evaluation:
        with journal.progress(when, rows["test"].n_tokens, "tokens") as progress:
            return evaluate(
                model,
                encoder,
                rows["test"],
                hardware,
                metrics,
                seed=seed,
                readout=calibration.readout(splits.task),
                advance=progress.advance,
            )

    cpu = hardware.device == "cpu"
    name, parameters = checked.name, recipe.model_dump()
    with (
        folder.being_written() as folder,
        journal.events_in(folder.partial / MARK),
        trackers.start(recipe.trackers, folder.partial, name, parameters, journal.warn, cpu=cpu) as watchers,
    ):
        journal.say(f"\nBuilding the run in {folder.partial}; it becomes {folder.final.name} once it is proved")

        with journal.phase("train", f"Fine-tuning with {method}"):
            del base  # the rehearsal used it up
            hardware.release()
            tune = partial(fine_tune, recipe, options, encoder, rows, hardware, journal)
            base = load()
            model, history, cache = tune(plan.plan, base, seed=seed, on_log=watchers.log)

        with journal.phase("before", "Before: the base model with an untrained head"):
            model.to("cpu")  # the base needs the room
            hardware.release()
            untrained = load().model.to(hardware.device)
            quicken(untrained, hardware.precision)
            if cache:
                cache.attach(untrained, hardware.precision)  # its lower blocks are the same
            with embeddings_beside_logits(untrained) if plan.probe_rows else nullcontext():  # for the probe
                before = measure("before", untrained, Calibration(scale=scale))
                lesson = embed(lesson, before, untrained, encoder, plan.probe_rows, hardware, seed=seed)
            del untrained
            hardware.release()

        with journal.phase("after", "After: the same rows"):
            calibration = calibrate(rows["dev"].y, history.dev_logits, recipe.evidence, scale)
            after = measure("after", model.to(hardware.device), calibration)

        with journal.phase("seeds", f"Other seeds: {recipe.seeds - 1}") if recipe.seeds > 1 else nullcontext():
            model.to("cpu")
            later = replace(plan.plan, seconds=plan.plan.seconds_later)
            by_seed, steps = {seed: after}, [history.n_steps]
            for other in range(seed + 1, seed + recipe.seeds):
                hardware.release()
                tuned, told, _ = tune(later, load(seed=other), seed=other, find_cache=lambda network: cache)
                taught = calibrate(rows["dev"].y, told.dev_logits, recipe.evidence, scale)
                by_seed[other] = measure(f"seed {other}", tuned, taught)
                steps.append(told.n_steps)
                del tuned
            if len(set(steps)) > 1:
                done = ", ".join(f"{n:,}" for n in steps)
                journal.warn(
                    f"the clock ended the trainings after {done} steps: seeds are apart by their lengths, too"
                )
        if cache and cache.trouble:
            journal.warn(cache.trouble)

        with journal.phase("baselines", "Baselines: the same rows"):
            hardware.release()
            answers = baselines.answer(names, lesson, seed=seed, tell=journal.decide)

        if diagnosis:
            with journal.phase("labels", "Likely wrong labels among the training rows"):
                diagnosis = with_label_errors(diagnosis, lesson, splits.train.rows, splits.class_names, seed=seed)
                journal.say(f"  {diagnosis.in_words('label_errors')}")

        with journal.phase("proof", "Saving, and proving that it reloads"):
            contract = make_contract(
                splits.class_names,
                data.text,
                data.label,
                encoder,
                method,
                base,
                folder.adapter,
                data.corpus.digest,
                hardware.precision,
                calibration,
                splits.task,
                data.pair,
            )
            contract = save_adapter(model, encoder, contract, folder.adapter)
            journal.decide(*share_with_hub_cache(base))
            texts = splits.test.texts[:PROOF_ROWS]
            logits = predict_logits(model.to(hardware.device), encoder, encoder.tokenise(texts), hardware)
            model.to("cpu")  # the fresh process needs the room
            hardware.release()
            proof = prove(folder.adapter, texts, logits, hardware, seed=seed)
            journal.say(f"  {proof.rows} texts in a fresh process: logits differ by {proof.max_logit_difference:.1e}")

        with journal.phase("report", "Reporting"):
            kinds = own_kinds(rows["test"].y, splits.test.labels or [], rows["test"].tokens.lengths)
            kinds |= {f"column {name}": values for name, values in columns.items()}
            doubts = diagnosis.about("label_errors") if diagnosis else []
            evidence = Evidence(before, after, answers, requirements, calibration, kinds, by_seed, doubts)
            results = gather(checked, journal, hardware, data, splits, base, contract, plan, history, evidence, proof)
            watchers.log(
                {f"test_{name}": scored["value"] for name, scored in results["after"].items()}, history.n_steps
            )
            watchers.finish()
            draw_results(results, folder.partial / PICTURE)
            card = write_card(results, contract, is_peft=methods.METHODS[method].is_peft)
            (folder.adapter / "README.md").write_text(card, encoding="utf-8")
            results["seconds"] = journal.spent()  # with the report's own share
            if diagnosis:
                write_json(folder.partial / DOCTOR, diagnosis.model_dump())
            write_run(folder.partial, checked, results, splits, evidence, hardware)
        made = replace(read_finished(folder.partial), name=folder.final.name)
        write_page(run_page(made), folder.partial / PAGE)
        folder.publish()
    show_results(journal, results, folder.final)
    gate.keep(results["requirements"], folder.final)
    return Result(str(folder.final), results)


def check_asked(recipe: Recipe) -> tuple[list[str], list[str], list[Requirement]]:
    """The metrics, baselines and requirements of a recipe. UserError for what there is not, or cannot be."""
    trackers.check(recipe.trackers)
    refuse_several_processes()
    metrics, names = score.check(recipe.metrics), baselines.check(recipe.evidence.baselines)
    requirements = gate.parse(recipe.evidence.require, ["before", *names])
    parse_goal(recipe.evidence.goal)
    return metrics, names, requirements


def check_for_task(recipe: Recipe, metrics: Sequence[str], requirements: Sequence[Requirement], task: Task) -> None:
    """UserError for what is asked for and does not suit the kind of labels."""
    gate.check_task(requirements, task)
    score.check_task(metrics, task)
    check_goals(recipe.evidence, task)
    check_for_labels(recipe.train, task)


let_be_called(__name__, run)

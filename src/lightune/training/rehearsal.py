"""What a run will cost: a base model that is thrown away afterwards is adapted, and a few passes are timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.batching import Encoder, Labelled, Tokens, epoch_steps
from lightune.evidence.evaluate import MEMORY_TOKENS
from lightune.hardware import GIB, Hardware
from lightune.model.anatomy import Anatomy, inspect
from lightune.model.backbones import Base
from lightune.model.engine import bytes_of_a_number, copied_bytes, quicken
from lightune.model.methods import METHODS, apply
from lightune.recipe import Recipe, TrainRecipe
from lightune.records import Decision, Plan, Rehearsal
from lightune.training.plan import Besides, Cost, Work, choose_depth, fit, make_plan, memory_needed, probe_rows_in
from lightune.training.prefix_cache import can_keep, frozen_blocks, room_bytes
from lightune.training.train import Loop, count_steps, reading, training_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Ints = NDArray[np.int64]

REPEATS = 6  # timed passes and steps of each kind, unless they take ENOUGH_SECONDS
ENOUGH_SECONDS = 0.8


def rehearse(
    base: Base,
    load_again: Callable[[], Base],
    recipe: Recipe,
    options: dict[str, Any],
    encoder: Encoder,
    rows: Mapping[str, Labelled],
    hardware: Hardware,
    budget: float | None = None,
    besides: Besides = Besides(),  # noqa: B008  frozen
) -> Rehearsal:
    """Adapts a base model, which is used up, and times a few passes on rows of this data.

    load_again: another copy, for a second rehearsal once the layers are chosen, and as each further seed needs one;
    rows: those of the splits train, dev and test; budget: seconds for all that follows, what is `besides` included.
    UserError if it is too short.
    """
    train, started = recipe.train, time.monotonic()
    anatomy = inspect(base.model, base.missing_keys)
    plan, decisions = make_plan(
        train,
        hardware,
        learning_rate=METHODS[recipe.method.name].rate_for(anatomy.hidden_size),
        train_tokens=training_tokens(rows["train"], train, 1.0),
        max_tokens=encoder.max_tokens,
        hidden_size=anatomy.hidden_size,
        n_layers=anatomy.n_layers,
    )
    began = time.monotonic()
    model, adapted = apply(
        base.model, anatomy, recipe.method.name, options, layers=plan.layers, train_pooler=train.pooler
    )
    model = model.to(hardware.device)
    quicken(model, hardware.precision)
    if recipe.seeds > 1:
        load_again()
    set_up = time.monotonic() - began  # of a training with another seed
    readings = tuple((tokens.n_tokens, share) for tokens, share in reading(rows["train"], train))
    room = room_bytes() / (bytes_of_a_number(model) * anatomy.hidden_size)
    cost = measure(model, anatomy, encoder, rows, train, plan, hardware, recipe.seed)
    if budget is not None:
        budget -= time.monotonic() - started
    tokens_a_row = rows["train"].n_tokens / len(rows["train"])
    probe_rows = probe_rows_in(cost, tokens_a_row, besides.probe_rows, budget)
    work = Work(
        readings=readings,
        dev=rows["dev"].n_tokens,
        test=rows["test"].n_tokens,
        evaluations=train.evaluations,
        room=room,
        probe=probe_rows * tokens_a_row,
        rest=besides.seconds + (recipe.seeds - 1) * set_up,
        trainings=recipe.seeds,
    )
    if train.layers == "auto" and METHODS[recipe.method.name].by_layers:
        depth, why = choose_depth(cost, work, plan.epochs, budget)
        layers = depth if depth < cost.n_blocks else "all"
        chosen = recipe.model_copy(update={"train": train.model_copy(update={"layers": layers})})
        del base, model
        hardware.release()
        started, another = time.monotonic(), load_again()
        if budget is not None:
            budget -= time.monotonic() - started
        rehearsal = rehearse(another, load_again, chosen, options, encoder, rows, hardware, budget, besides)
        return replace(rehearsal, decisions=(why, *rehearsal.decisions))
    if budget is not None:
        plan, why = fit(plan, train.epochs == "auto", cost, work, budget)
        decisions.append(why)
    copies = copied_bytes(model)
    memory = memory_needed(model, anatomy.hidden_size, anatomy.n_layers, plan.memory_tokens, copies)
    if memory > hardware.free:
        reason = f"about {memory / GIB:.1f} GiB needed; lower train.memory_tokens or data.max_tokens if it fails"
        decisions.append(Decision("free memory", f"only {hardware.free / GIB:.1f} GiB", reason))
    estimate = cost.estimate(work, plan.epochs, memory)
    limit = math.inf if plan.seconds is None else plan.seconds + (work.trainings - 1) * (plan.seconds_later or 0.0)
    return Rehearsal(
        plan=plan,
        n_steps=count_steps(len(rows["train"]), train.batch_size, plan.epochs),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_parameters=sum(p.numel() for p in model.parameters()),
        estimate=replace(estimate, train=min(estimate.train, limit)),
        decisions=(*adapted, *decisions),
        probe_rows=probe_rows,
    )


def measure(
    model: nn.Module,
    anatomy: Anatomy,
    encoder: Encoder,
    rows: Mapping[str, Labelled],
    recipe: TrainRecipe,
    plan: Plan,
    hardware: Hardware,
    seed: int,
) -> Cost:
    """Times passes and optimizer steps like those to come. `model` is used up; no random state changes."""
    import torch

    def forward(batch: Ints) -> None:
        with torch.inference_mode(), hardware.autocast():
            model(**encoder.batch(test, batch, hardware.device))
        _wait(hardware)

    def step(tokens: Tokens, batch: Ints) -> None:
        loop.step(batch, tokens)
        _wait(hardware)

    test, train = rows["test"].tokens, rows["train"]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        model.eval()
        predict = _speed(forward, _spread(list(encoder.batches(test, MEMORY_TOKENS[hardware.device]))), test.lengths)
        n_steps = count_steps(len(train), recipe.batch_size, plan.epochs)
        loop = Loop(model, encoder, train, recipe, plan, hardware, n_steps)
        rng = np.random.default_rng(seed)
        steps = list(islice(epoch_steps(train.tokens.lengths, recipe.batch_size, rng), REPEATS))
        if loop.recorded:  # what is met again is recorded, once
            for tokens, _ in reading(train, recipe):
                for batch in 2 * steps:
                    step(tokens, batch)
        trained = _mean_speed(step, steps, train, recipe)
    n_frozen = frozen_blocks(model)
    keeps = recipe.cache and hardware.device == "cpu" and can_keep(model, test, hardware.precision)
    return Cost(1 / predict, 1 / trained, len(anatomy.layers) - n_frozen, len(anatomy.layers), keeps)


def _mean_speed(
    step: Callable[[Tokens, Ints], None], steps: list[Ints], rows: Labelled, recipe: TrainRecipe
) -> float:
    """Tokens per second of an epoch's steps, those on short texts and those on whole ones."""
    n_tokens = seconds = 0.0
    for tokens, share in reading(rows, recipe):
        n_tokens += share * tokens.n_tokens
        seconds += share * tokens.n_tokens / _speed(partial(step, tokens), steps, tokens.lengths)
    return n_tokens / seconds


def _spread(batches: list[Ints]) -> list[Ints]:
    """Some of `batches`, which are sorted by length, evenly from the whole range."""
    return [batches[i] for i in np.linspace(0, len(batches) - 1, REPEATS).round().astype(int)]


def _speed(work: Callable[[Ints], None], batches: list[Ints], lengths: Ints) -> float:
    """Tokens per second of `work` on some batches, after a first one that builds kernels and fills caches."""
    work(batches[0])
    n_tokens, started = 0, time.perf_counter()
    for batch in islice(cycle(batches), REPEATS):
        work(batch)
        n_tokens += int(lengths[batch].sum())
        if time.perf_counter() - started > ENOUGH_SECONDS:
            break
    return n_tokens / (time.perf_counter() - started)


def _wait(hardware: Hardware) -> None:
    import torch

    if hardware.device == "cuda":
        torch.cuda.synchronize()
    elif hardware.device == "mps":
        torch.mps.synchronize()

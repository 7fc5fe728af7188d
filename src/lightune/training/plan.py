"""The numbers a recipe leaves open, and what a run will cost: a short measurement before the work starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.batching import Encoder, Labelled, Tokens, epoch_steps
from lightune.evidence.evaluate import MEMORY_TOKENS
from lightune.hardware import GIB, Hardware
from lightune.model.anatomy import inspect
from lightune.model.backbones import Base
from lightune.model.engine import quicken
from lightune.model.methods import METHODS, apply
from lightune.recipe import Recipe, TrainRecipe
from lightune.records import Decision, Estimate, Plan, Rehearsal
from lightune.training.prefix_cache import PrefixCache, frozen_blocks, open_cache
from lightune.training.train import Loop, count_steps, reading, training_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Ints = NDArray[np.int64]

REPEATS = 6  # timed passes and steps of each kind, unless they take ENOUGH_SECONDS
ENOUGH_SECONDS = 2.0
AUTO_TOKENS = {"cpu": 500_000, "mps": 2_000_000, "cuda": 5_000_000}  # seen in training where epochs are ours
AUTO_EPOCHS = 6
OVERHEAD_SECONDS = 20.0  # the proof's fresh process, the pictures
BYTES_PER_ACTIVATION = 4 * 34  # fp32 numbers a transformer block keeps per hidden unit (Korthikanti 2022, eq. 2)
RUNTIME_BYTES = 0.6 * GIB  # Python, torch and transformers themselves, measured on Linux


@dataclass(frozen=True)
class Speed:
    """Useful tokens per second of this model on this machine, in a forward pass and in a training step.

    again: those of texts whose way through the frozen blocks is known.
    """

    predict: float
    predict_again: float
    train: float
    train_again: float


def rehearse(
    base: Base,
    recipe: Recipe,
    options: dict[str, Any],
    encoder: Encoder,
    rows: Mapping[str, Labelled],
    hardware: Hardware,
) -> Rehearsal:
    """Adapts a base model that is thrown away afterwards, and times a few passes on rows of this data.

    rows: those of the splits train, dev and test.
    """
    anatomy = inspect(base.model, base.missing_keys)
    train = recipe.train
    n_tokens = {name: part.n_tokens for name, part in rows.items()}
    n_tokens["train"] = training_tokens(rows["train"], train, 1.0)
    plan, decisions = make_plan(
        train,
        hardware,
        learning_rate=METHODS[recipe.method.name].rate_for(anatomy.hidden_size),
        train_tokens=n_tokens["train"],
        max_tokens=encoder.max_tokens,
        hidden_size=anatomy.hidden_size,
        n_layers=anatomy.n_layers,
    )
    model, adapted = apply(
        base.model, anatomy, recipe.method.name, options, layers=train.layers, train_pooler=train.pooler
    )
    model = model.to(hardware.device)
    quicken(model, hardware.precision)
    n_frozen = frozen_blocks(model)
    cache = open_cache(n_frozen, rows, train, plan.epochs, anatomy.hidden_size, hardware.device)
    speed = measure_speed(model, encoder, rows, train, plan, hardware, recipe.seed, cache)
    n_dev = math.ceil(plan.epochs * train.evaluations)
    first = min(1.0, plan.epochs)
    training = n_tokens["train"] * (first / speed.train + (plan.epochs - first) / speed.train_again)
    training += n_tokens["dev"] * (1 / speed.predict + (n_dev - 1) / speed.predict_again)
    memory = memory_needed(model, anatomy.hidden_size, anatomy.n_layers, plan.memory_tokens)
    if memory > hardware.free:
        why = f"about {memory / GIB:.1f} GiB needed; lower train.memory_tokens or data.max_tokens if it fails"
        decisions.append(Decision("free memory", f"only {hardware.free / GIB:.1f} GiB", why))
    return Rehearsal(
        plan=plan,
        n_steps=count_steps(len(rows["train"]), train.batch_size, plan.epochs),
        n_frozen=n_frozen,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_parameters=sum(p.numel() for p in model.parameters()),
        estimate=Estimate(
            n_tokens["test"] / speed.predict,
            training,
            n_tokens["test"] / speed.predict_again,
            OVERHEAD_SECONDS,
            memory,
        ),
        decisions=(*adapted, *decisions),
    )


def make_plan(
    recipe: TrainRecipe,
    hardware: Hardware,
    *,
    learning_rate: float,
    train_tokens: int,
    max_tokens: int,
    hidden_size: int,
    n_layers: int,
) -> tuple[Plan, list[Decision]]:
    """Fills in what the recipe leaves to us. learning_rate: the method's own; train_tokens: of one epoch."""
    decisions = []
    epochs = recipe.epochs
    if epochs == "auto":
        wanted = AUTO_TOKENS[hardware.device]
        epochs = float(min(AUTO_EPOCHS, max(1, round(wanted / max(1, train_tokens)))))
        why = f"{train_tokens:,} tokens an epoch; about {wanted:,} in all on {hardware.device}"
        decisions.append(Decision("epochs", f"{epochs:g}", why))
    rate = recipe.learning_rate
    if rate == "auto":
        rate = learning_rate
        decisions.append(Decision("learning rate", f"{rate:g}", f"the method's own at {hidden_size} hidden units"))
    # of the memory in all, not of what is free just now: the same machine makes the same passes, and the same sums
    fits, share = _tokens_that_fit(hidden_size, n_layers, hardware)
    memory_tokens = max(max_tokens, min(MEMORY_TOKENS[hardware.device], 1 << max(0, fits.bit_length() - 1)))
    if recipe.memory_tokens != "auto":
        memory_tokens = recipe.memory_tokens
    else:
        decisions.append(
            Decision("tokens per pass", f"{memory_tokens:,}", f"{fits:,} would fit in {share} of the memory")
        )
    checkpointing = recipe.gradient_checkpointing
    if checkpointing == "auto":
        checkpointing = memory_tokens > fits
        why = "does not fit" if checkpointing else "fits"
        why = f"a pass of {memory_tokens:,} tokens {why} in {share} of the memory"
        decisions.append(Decision("gradient checkpointing", "on" if checkpointing else "off", why))
    return Plan(epochs, rate, memory_tokens, checkpointing), decisions


def measure_speed(
    model: nn.Module,
    encoder: Encoder,
    rows: Mapping[str, Labelled],
    recipe: TrainRecipe,
    plan: Plan,
    hardware: Hardware,
    seed: int,
    cache: PrefixCache | None,
) -> Speed:
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
        batches = list(encoder.batches(test, MEMORY_TOKENS[hardware.device]))
        some = _spread(batches)
        predict = _speed(forward, some, test.lengths)
        loop = Loop(model, encoder, train, recipe, plan, hardware, 1)
        steps = epoch_steps(train.tokens.lengths, recipe.batch_size, np.random.default_rng(seed))
        train_speed = _mean_speed(step, steps, train, recipe)
        if not cache:
            return Speed(predict, predict, train_speed, train_speed)
        cache.attach(model)
        for batch in some:
            forward(batch)
        again = _speed(forward, some, test.lengths)
        if plan.epochs <= 1:
            return Speed(predict, again, train_speed, train_speed)
        for tokens, _ in reading(train, recipe):
            for batch in steps[:REPEATS]:
                step(tokens, batch)
        return Speed(predict, again, train_speed, _mean_speed(step, steps, train, recipe))


def memory_needed(model: nn.Module, hidden_size: int, n_layers: int, memory_tokens: int) -> float:
    """Bytes at the peak: weights, gradients and AdamW's two moments of what trains, kept activations."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    activations = memory_tokens * n_layers * hidden_size * BYTES_PER_ACTIVATION
    return RUNTIME_BYTES + weights + 3 * trained + activations


def _tokens_that_fit(hidden_size: int, n_layers: int, hardware: Hardware) -> tuple[int, str]:
    """Tokens whose activations take the share of the memory that is ours to plan with, and that share in words."""
    share, words = (0.5, "half") if hardware.device == "cuda" else (0.25, "a quarter")
    return int(hardware.memory * share / (n_layers * hidden_size * BYTES_PER_ACTIVATION)), words


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

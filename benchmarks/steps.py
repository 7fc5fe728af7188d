"""Training steps: tokens per second that are no padding, of each contender on the same reviews, epoch after epoch.

LoRA r = 8 on query and value of all blocks, texts of at most 512 tokens, 16 a step, but for "lightune top-2, cached":
the top two blocks alone, in the epochs after the first, when what leaves the lower blocks is known.

"of peak" counts what the plain network would have to compute for these tokens, 4P + 3a FLOPs each (6P + 3a where all
weights train; P: weights of the blocks, a: attention), per second, over the matrix peak measured in the same race. It
compares speeds, not the use of the machine: who computes less for the same tokens can be above 100 %.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import peers
import turns
from setting import RATE, Job, Setting, attention_targets, read_rows, reviews, token_lengths, write_rows

CACHED = "lightune top-2, cached"
CONTENDERS = ("tutorial", "best stock", "full", "lightune", CACHED)
PEAK = "matrix peak"
ENDLESS = 1000.0  # epochs; the race is over before


def measure(setting: Setting) -> dict[str, Any]:
    """The race on reviews."""
    sizes = setting.sizes
    rows = write_rows(setting.folder / "steps.csv", reviews(sizes.step_rows, tuning=setting.tuning)[0])
    job = Job(setting.model, str(rows), str(setting.folder), sizes.max_tokens)
    return race(job, setting.of(CONTENDERS), sizes.rounds, sizes.warm_up)


def race(job: Job, names: Sequence[str], n_rounds: int, warm_up: float = 0.0) -> dict[str, Any]:
    """Medians over the rounds for each contender; ratio: to the speed of the tutorial, else of the first."""
    commands = {name: [__file__, name, job.word()] for name in (*names, PEAK)}
    measured = turns.race(commands, n_rounds, warm_up)
    peak = turns.median(measured.pop(PEAK), "flops")
    contenders = {name: _medians(measured[name], peak) for name in names}
    base = "tutorial" if "tutorial" in contenders else names[0]
    for figures in contenders.values():
        figures["ratio"] = figures["tokens_per_second"] / contenders[base]["tokens_per_second"]
    return {"contenders": contenders, "ratio_to": base, "matrix_peak_flops": peak}


def _medians(measured: Sequence[turns.Turn], peak: float) -> dict[str, Any]:
    keys = ("tokens_per_second", "flops_per_token", "peak_bytes")
    figures: dict[str, Any] = {key: turns.median(measured, key) for key in keys}
    speeds = [turn["tokens_per_second"] for turn in measured]
    of_peak = figures["tokens_per_second"] * figures["flops_per_token"] / peak
    return figures | {"of_peak": of_peak, "lowest": min(speeds), "highest": max(speeds)}


def matrix_peak(job: Job) -> float:
    """FLOP/s in a process of its own, as in a race, the median of three readings."""
    contender = turns.Contender([__file__, PEAK, job.word()])
    try:
        return turns.median([contender.turn() for _ in range(3)], "flops")
    finally:
        contender.end()


def work(name: str, word: str) -> None:
    """One worker: takes its turns until it is stopped."""
    job = Job.of(word)
    if name == PEAK:
        for _ in turns.whistles():
            turns.report({"flops": turns.matrix_peak()})
    elif name in peers.PEERS:
        peers.PEERS[name](replace(job, epochs=ENDLESS), [_turns_of_trainer(name, job)])
    else:
        _take_turns(lightune_epoch(job, cached=name == CACHED), job, all_weights=False)


def _turns_of_trainer(name: str, job: Job) -> Any:
    from transformers import TrainerCallback

    report = _reporter(job, all_weights=name == "full")

    class Turns(TrainerCallback):  # type: ignore[misc]
        """An epoch is a turn."""

        whistles = turns.whistles()
        started = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            next(self.whistles)
            self.started = turns.now()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            report(turns.now() - self.started)

    return Turns()


def _take_turns(epoch: Callable[[], None], job: Job, *, all_weights: bool) -> None:
    report = _reporter(job, all_weights=all_weights)
    for _ in turns.whistles():
        started = turns.now()
        epoch()
        report(turns.now() - started)


def lightune_epoch(job: Job, *, cached: bool) -> Callable[[], None]:
    """An epoch in the loop of a run, made as `run` and `rehearse` make it; nothing is saved or evaluated.

    cached: adapters in the top two blocks, what leaves the others kept; its first epoch fills the cache.
    """
    import numpy as np

    from lightune.data.batching import Labelled, epoch_steps, make_encoder
    from lightune.hardware import choose_hardware, tune_process
    from lightune.model import methods
    from lightune.model.anatomy import inspect
    from lightune.model.backbones import load_base, locate
    from lightune.model.engine import quicken
    from lightune.recipe import TrainRecipe
    from lightune.training.plan import make_plan
    from lightune.training.prefix_cache import open_cache
    from lightune.training.train import Loop

    hardware = choose_hardware()
    tune_process(hardware)
    base = load_base(locate(job.model), ["neg", "pos"], seed=0)
    anatomy = inspect(base.model, base.missing_keys)
    encoder = make_encoder(base.tokenizer, min(job.max_tokens, base.max_tokens), "head", base.max_tokens)
    rows = read_rows(job.rows)
    labelled = Labelled(encoder.tokenise(rows.texts), np.array(rows.y))
    options = methods.check_options("lora", {"targets": attention_targets(job.model)})
    layers = 2 if cached else "all"
    network, _ = methods.apply(base.model, anatomy, "lora", options, layers=layers, train_pooler=False)
    network = network.to(hardware.device)
    choices = [decision.choice for decision in quicken(network, hardware.precision)]
    if hardware.device == "cpu" and not any(choice.startswith("written out") for choice in choices):
        raise SystemExit(f"lightune is on the plain path ({', '.join(choices)}): its figures would be void")
    recipe = TrainRecipe(batch_size=job.batch_size, epochs=ENDLESS, layers=layers)
    plan, _ = make_plan(
        recipe,
        hardware,
        learning_rate=RATE["adapter"],
        train_tokens=labelled.n_tokens,
        max_tokens=encoder.max_tokens,
        hidden_size=anatomy.hidden_size,
        n_layers=anatomy.n_layers,
    )
    if cached:
        splits = dict.fromkeys(("train", "dev", "test"), labelled)
        cache = open_cache(network, splits, recipe, plan.epochs, hardware.device)
        if cache is not None:
            cache.attach(network, hardware.precision)
    loop = Loop(network, encoder, labelled, recipe, plan, hardware, 100_000)
    rng = np.random.default_rng(0)

    def epoch() -> None:
        for step in epoch_steps(labelled.tokens.lengths, job.batch_size, rng):
            loop.step(step, labelled.tokens)

    return epoch


def _reporter(job: Job, *, all_weights: bool) -> Callable[[float], None]:
    """Says how fast an epoch of so many seconds was."""
    lengths = token_lengths(job.model, read_rows(job.rows).texts, job.max_tokens)
    flops = flops_per_token(job.model, lengths, all_weights=all_weights)

    def report(seconds: float) -> None:
        speed = sum(lengths) / seconds
        turns.report({"tokens_per_second": speed, "flops_per_token": flops, "peak_bytes": turns.peak_bytes()})

    return report


def flops_per_token(model: str, lengths: list[int], *, all_weights: bool = False) -> float:
    """FLOPs that a token which is no padding asks of the plain network: 4P + 3a, with weight gradients 6P + 3a.

    P: weights of the blocks; a = 4 S D L for attention over S tokens, S being the mean over tokens.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    depth, width = config.num_hidden_layers, config.hidden_size
    inner = config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size
    weights = depth * (4 * width**2 + 2 * width * inner)
    seen = sum(length**2 for length in lengths) / sum(lengths)
    return (6 if all_weights else 4) * weights + 3 * 4 * seen * width * depth


if __name__ == "__main__":
    work(*sys.argv[1:])

"""Training steps: tokens per second that are no padding, of each contender on the same reviews.

`python benchmarks/steps.py [ROUNDS] [REVIEWS]`; the workers are started as `python benchmarks/steps.py worker …`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import peers
import turns

CONTENDERS = ("tutorial", "best stock", "full", "lightune", "matrix peak")


def main(n_rounds: int = 3, n_reviews: int = 96) -> None:
    """Prints a table: medians over the rounds, and their ratio to the tutorial's."""
    from lightune.data.sources import read
    from lightune.model.backbones import locate

    table = next(iter(read("embedded:imdb").tables.values()))
    some = table.slice(0, 20 * n_reviews).take(list(range(0, 20 * n_reviews, 20)))
    names = sorted(set(some["label"].to_pylist()))
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.csv")
        turns.write_rows(rows, some["text"].to_pylist(), [names.index(name) for name in some["label"].to_pylist()])
        model = str(locate("minilm").folder)
        commands = {name: [__file__, "worker", name, model, str(rows), folder] for name in CONTENDERS}
        measured = turns.race(commands, n_rounds)
    peak = turns.median(measured["matrix peak"], "flops")
    base = turns.median(measured["tutorial"], "tokens_per_second")
    print(f"{'':<12} {'tokens/s':>9} {'ratio':>6} {'of peak':>8} {'peak memory':>12}")
    for name in CONTENDERS[:-1]:
        speed = turns.median(measured[name], "tokens_per_second")
        used = turns.median(measured[name], "flops_per_token") * speed / peak
        memory = turns.median(measured[name], "peak_bytes") / 2**20
        print(f"{name:<12} {speed:>9,.0f} {speed / base:>5.1f}x {used:>8.0%} {memory:>8,.0f} MiB")
    print(f"matrix peak {peak / 1e9:.0f} GFLOP/s")


def work(name: str, model: str, rows: str, folder: str) -> None:
    """One worker: takes its turns until it is stopped."""
    if name == "matrix peak":
        for _ in turns.whistles():
            turns.report({"flops": turns.matrix_peak()})
    elif name == "lightune":
        _lightune(model, peers.read_rows(Path(rows)))
    else:
        _trainer(name, model, peers.read_rows(Path(rows)), Path(folder))


def _trainer(name: str, model: str, rows: peers.Rows, folder: Path) -> None:
    from transformers import AutoTokenizer, TrainerCallback

    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = [len(ids) for ids in tokenizer(rows.texts, truncation=True, max_length=peers.MAX_TOKENS)["input_ids"]]
    n_tokens, flops = sum(lengths), flops_per_token(model, lengths, all_weights=name == "full")

    class Turns(TrainerCallback):  # type: ignore[misc]
        """An epoch is a turn."""

        whistles = turns.whistles()
        started = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            next(self.whistles)
            self.started = time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            report_speed(n_tokens, time.perf_counter() - self.started, flops)

    peers.PEERS[name](model, rows, folder, 1000, [Turns()])


def _lightune(model: str, rows: peers.Rows) -> None:
    """The loop of a run, adapters where the tutorial has them; nothing is saved or evaluated."""
    import numpy as np

    from lightune.data.batching import Labelled, epoch_steps, make_encoder
    from lightune.hardware import choose_hardware, keep_freed_memory
    from lightune.model import methods
    from lightune.model.anatomy import inspect
    from lightune.model.backbones import load_base, locate
    from lightune.model.engine import quicken
    from lightune.recipe import TrainRecipe
    from lightune.training.plan import make_plan
    from lightune.training.train import Loop

    hardware = choose_hardware()
    keep_freed_memory(hardware)
    base = load_base(locate(model), ["neg", "pos"], seed=0)
    anatomy = inspect(base.model, base.missing_keys)
    encoder = make_encoder(base.tokenizer, peers.MAX_TOKENS, "head", base.max_tokens)
    labelled = Labelled(encoder.tokenise(rows.texts), np.array(rows.y))
    options = methods.check_options("lora", {"targets": ["query", "value"]})
    network, _ = methods.apply(base.model, anatomy, "lora", options, layers="all", train_pooler=False)
    quicken(network, hardware.precision)
    recipe = TrainRecipe(batch_size=peers.BATCH, epochs=1.0)
    plan, _ = make_plan(
        recipe,
        hardware,
        learning_rate=peers.RATE["adapter"],
        train_tokens=labelled.n_tokens,
        max_tokens=encoder.max_tokens,
        hidden_size=anatomy.hidden_size,
        n_layers=anatomy.n_layers,
    )
    loop = Loop(network, encoder, labelled, recipe, plan, hardware, 100_000)
    lengths, rng = labelled.tokens.lengths, np.random.default_rng(0)
    flops = flops_per_token(model, lengths.tolist())
    for _ in turns.whistles():
        started = time.perf_counter()
        for step in epoch_steps(lengths, recipe.batch_size, rng):
            loop.step(step, labelled.tokens)
        report_speed(labelled.n_tokens, time.perf_counter() - started, flops)


def report_speed(n_tokens: int, seconds: float, flops: float) -> None:
    """One turn's tokens per second, with the peak memory of the process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    turns.report({"tokens_per_second": n_tokens / seconds, "flops_per_token": flops, "peak_bytes": peak})


def flops_per_token(model: str, lengths: list[int], *, all_weights: bool = False) -> float:
    """FLOPs that a token which is no padding asks of the plain network: 4P + 3a, with weight gradients 6P + 3a.

    P: weights of the blocks; a = 4 S D L for attention over S tokens, S being the mean over tokens.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    depth, width = config.num_hidden_layers, config.hidden_size
    weights = depth * (4 * width**2 + 2 * width * config.intermediate_size)
    seen = sum(length**2 for length in lengths) / sum(lengths)
    attention = 4 * seen * width * depth
    return (6 if all_weights else 4) * weights + 3 * attention


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
    else:
        main(*map(int, sys.argv[1:]))

"""How surely do short trainings tell recipes apart? Each recipe on few rows with several seeds, as a trial trains.

`python benchmarks/short_trainings.py ROWS[,ROWS…] SEEDS [SETTING,SETTING] …` trains the default recipe, and one with
each group of settings, on so many rows of the default data, or of --data ("all": all there are), with the seeds 0, 1
and so on, and prints the dev loss and accuracy of each. Two recipes are told apart by the mean difference of their
losses over its spread: where a seed makes both good or bad alike, the spread of differences at the same seed is below
that of losses of different seeds. Of several numbers of rows the last says what the others should have said.

    python benchmarks/short_trainings.py 1000 5 train.learning_rate=1e-3 train.epochs=2 train.layers=all
    python benchmarks/short_trainings.py 1000,4000,all 3 --dev 2000 --processes 4 train.epochs=2 data.max_tokens=512
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightune.search.bench import Bench

    Floats = NDArray[np.float64]

Training = tuple[str | None, int | None, int, tuple[str, ...], int]  # target, dev rows, rows, settings, seed


@cache
def bench_of(target: str | None, n_dev: int | None) -> Bench:
    """What all trainings of a process share."""
    from lightune.data.prepare import prepare, split_prepared
    from lightune.hardware import choose_hardware
    from lightune.search.bench import Bench
    from lightune.search.plan import pinned
    from lightune.settings import load_recipe

    dev = [f"data.dev_rows={n_dev}", "data.train_rows=all"] if n_dev else []
    recipe = load_recipe(target, None, dev).recipe
    hardware = choose_hardware(recipe.hardware.device, recipe.hardware.precision)
    data = prepare(recipe.data)
    splits = split_prepared(data, recipe.data, seed=recipe.seed, **hardware.speed)
    return Bench(data, pinned(recipe, splits), splits, hardware)


def trained(training: Training) -> tuple[float, float, float]:
    """The dev loss of a training, its accuracy, and its seconds; infinite and 0 where it diverged."""
    from lightune.errors import GateError
    from lightune.search.plan import pinned
    from lightune.settings import load_recipe

    target, n_dev, n_rows, settings, seed = training
    bench = bench_of(target, n_dev)
    recipe = pinned(load_recipe(target, None, list(settings)).recipe, bench.splits)
    began = time.monotonic()
    try:
        tried = bench.train(recipe, n_rows or len(bench.splits.train), seed=seed)
    except GateError as error:
        print(f"{', '.join(settings)}, seed {seed}: {error}", flush=True)
        return float("inf"), 0.0, time.monotonic() - began
    return tried.loss, tried.scores.get("accuracy", float("nan")), time.monotonic() - began


def all_trained(trainings: Sequence[Training], n_processes: int) -> Iterator[tuple[float, float, float]]:
    """What came of each, in their order."""
    if n_processes == 1:
        yield from map(trained, trainings)
        return
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        yield from pool.map(trained, trainings)


def summed_up(losses: Floats) -> list[tuple[float, float, float, float]]:
    """Of each recipe the mean, the spread over seeds, and of its difference to the first one the mean and spread."""
    with np.errstate(invalid="ignore"):  # of those that diverged
        apart = losses - losses[0]
        rows = zip(losses.mean(1), losses.std(1, ddof=1), apart.mean(1), apart.std(1, ddof=1), strict=True)
        return [tuple(map(float, row)) for row in rows]  # type: ignore[misc]


def tell(n_rows: int, names: Iterable[str], losses: Floats, accuracies: Floats, seconds: Floats) -> None:
    """Prints what so many rows say of each recipe; losses and the others: (recipes, seeds)."""
    head = f"{n_rows or 'all'} rows"
    print(
        f"\n{head:64} {'loss':>7} {'spread':>7} {'less the first':>15} {'spread':>7} {'accuracy':>9} {'seconds':>8}"
    )
    for name, row, right, took in zip(names, summed_up(losses), accuracies.mean(1), seconds.mean(1), strict=True):
        print(f"{name:64} {row[0]:7.4f} {row[1]:7.4f} {row[2]:+15.4f} {row[3]:7.4f} {right:9.4f} {took:8.1f}")


def main(
    sizes: Sequence[int],
    n_seeds: int,
    *groups: str,
    n_dev: int | None = None,
    n_processes: int = 1,
    target: str | None = None,
) -> dict[int, Any]:
    """Trains, prints what the losses say, and returns them by number of rows. Of sizes 0 is all rows."""
    from scipy.stats import spearmanr

    names = ["as it is", *groups]
    recipes = [(), *(tuple(group.split(",")) for group in groups)]
    trainings = [(target, n_dev, n, recipe, seed) for n in sizes for recipe in recipes for seed in range(n_seeds)]
    found = []
    for (_, _, n, recipe, seed), (loss, right, took) in zip(
        trainings, all_trained(trainings, n_processes), strict=True
    ):
        found.append((loss, right, took))
        told = f"{n or 'all'} rows, {', '.join(recipe) or 'as it is'}, seed {seed}: {loss:.4f}"
        print(f"{told}, accuracy {right:.4f}  ({took:.0f} s)", flush=True)
    table = np.array(found).reshape(len(sizes), len(recipes), n_seeds, 3)
    for i, n in enumerate(sizes):
        tell(n, names, *np.moveaxis(table[i], -1, 0))
    for i, n in enumerate(sizes[:-1]):
        order = spearmanr(table[i, ..., 0].mean(1), table[-1, ..., 0].mean(1)).statistic
        one = [spearmanr(table[i, :, seed, 0], table[-1, ..., 0].mean(1)).statistic for seed in range(n_seeds)]
        print(f"order by {n} rows against that by {sizes[-1] or 'all'}: {order:.2f}, of one seed {np.mean(one):.2f}")
    return {n: table[i, ..., 0] for i, n in enumerate(sizes)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="see the top of this file")
    parser.add_argument("rows", help="such as 1000, or 1000,4000,all")
    parser.add_argument("seeds", type=int, help="how many, two or more")
    parser.add_argument("groups", nargs="*", metavar="SETTING,SETTING")
    parser.add_argument("--dev", type=int, help="dev rows; the recipe's own number otherwise")
    parser.add_argument("--data", help="a recipe or data; the default recipe otherwise")
    parser.add_argument("--processes", type=int, default=1, help="that share a GPU")
    given = parser.parse_intermixed_args()
    if given.seeds < 2:
        parser.error("one seed has no spread")
    sizes = [0 if part == "all" else int(part) for part in given.rows.split(",")]
    main(sizes, given.seeds, *given.groups, n_dev=given.dev, n_processes=given.processes, target=given.data)

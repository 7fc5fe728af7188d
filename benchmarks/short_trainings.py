"""How surely do short trainings tell recipes apart? Each recipe on few rows with several seeds, as a trial trains.

`python benchmarks/short_trainings.py ROWS SEEDS [SETTING,SETTING] …` trains the default recipe, and one with each
group of settings, on so many rows of the default data, with the seeds 0, 1, … and prints the dev loss of each. Two
recipes are told apart by the mean difference of their losses over its spread: where a seed makes both good or bad
alike, the spread of differences at the same seed is below that of losses of different seeds.

    python benchmarks/short_trainings.py 1000 5 train.learning_rate=1e-3 train.epochs=2 train.layers=all
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET: str | None = None  # the default data


def losses_of(groups: list[list[str]], n_rows: int, n_seeds: int) -> NDArray[np.float64]:
    """(recipes, seeds) dev losses, the default recipe first; each is printed with its seconds."""
    from lightune.data.prepare import prepare, split_prepared
    from lightune.hardware import choose_hardware
    from lightune.search.bench import Bench
    from lightune.search.plan import pinned
    from lightune.settings import load_recipe

    recipe = load_recipe(TARGET).recipe
    hardware = choose_hardware(recipe.hardware.device, recipe.hardware.precision)
    data = prepare(recipe.data)
    splits = split_prepared(data, recipe.data, seed=recipe.seed, **hardware.speed)
    bench = Bench(data, pinned(recipe, splits), splits, hardware)
    found = np.zeros((1 + len(groups), n_seeds))
    for i, settings in enumerate([[], *groups]):
        tried = pinned(load_recipe(TARGET, None, settings).recipe, splits)
        for seed in range(n_seeds):
            began = time.monotonic()
            found[i, seed] = bench.train(tried, n_rows, seed=seed).loss
            told = f"{', '.join(settings) or 'as it is'}, seed {seed}: {found[i, seed]:.4f}"
            print(f"{told}  ({time.monotonic() - began:.0f} s)", flush=True)
    return found


def summed_up(losses: NDArray[np.float64]) -> list[tuple[float, float, float, float]]:
    """Of each recipe the mean, the spread over seeds, and of its difference to the first one the mean and spread."""
    apart = losses - losses[0]
    rows = zip(losses.mean(1), losses.std(1, ddof=1), apart.mean(1), apart.std(1, ddof=1), strict=True)
    return [tuple(map(float, row)) for row in rows]  # type: ignore[misc]


def main(n_rows: int, n_seeds: int, *groups: str) -> None:
    """Trains, and prints what the losses say."""
    found = summed_up(losses_of([group.split(",") for group in groups], n_rows, n_seeds))
    print(f"\n{'recipe':48} {'loss':>7} {'spread':>7} {'less the first':>15} {'spread':>7}")
    for name, row in zip(["as it is", *groups], found, strict=True):
        print(f"{name:48} {row[0]:7.4f} {row[1]:7.4f} {row[2]:+15.4f} {row[3]:7.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

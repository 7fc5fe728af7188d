"""From a base model to a tuned one: adapters in, fast paths on, frozen blocks kept, and the loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from lightune.data.batching import Encoder, Labelled
from lightune.hardware import Hardware
from lightune.journal import Journal
from lightune.model import methods
from lightune.model.anatomy import inspect
from lightune.model.backbones import Base
from lightune.model.engine import quicken
from lightune.recipe import Recipe
from lightune.records import History, Plan
from lightune.training.losses import start_from_shares
from lightune.training.prefix_cache import PrefixCache, open_cache
from lightune.training.train import train

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    Floats = NDArray[np.float64]


def fine_tune(
    recipe: Recipe,
    options: dict[str, Any],
    encoder: Encoder,
    rows: Mapping[str, Labelled],
    hardware: Hardware,
    journal: Journal,
    plan: Plan,
    base: Base,
    *,
    seed: int,
    find_cache: Callable[[nn.Module], PrefixCache | None] | None = None,
    on_log: Callable[[dict[str, float], int], None] = lambda values, step: None,
    looks: Collection[int] | None = None,
    on_dev: Callable[[Floats, int], None] = lambda logits, step: None,
) -> tuple[nn.Module, History, PrefixCache | None]:
    """The tuned network, on the device, in its best state on the dev rows; what happened; and what was kept.

    base: is used up. seed: of the order of rows. find_cache: of earlier trainings with the same frozen blocks, for
    the adapted network; None: a new one. looks: steps after which dev rows are answered, if not by the recipe. on_dev
    gets the logits (N, C) of the dev rows each time they are answered, and the step; what it raises ends it all.
    """
    anatomy = inspect(base.model, base.missing_keys)
    if rows["train"].y.ndim == 2:
        start_from_shares(base.model, anatomy.head_modules, rows["train"].y)
    model, _ = methods.apply(
        base.model, anatomy, recipe.method.name, options, layers=plan.layers, train_pooler=recipe.train.pooler
    )
    journal.decide(*quicken(model.to(hardware.device), hardware.precision))
    if find_cache is None:
        cache = open_cache(model, rows, recipe.train, plan.epochs, hardware.device, recipe.seeds)
    else:
        cache = find_cache(model)
    if cache:
        journal.decide(cache.attach(model, hardware.precision))
    history = train(
        model,
        encoder,
        rows["train"],
        rows["dev"],
        recipe.train,
        plan,
        hardware,
        seed=seed,
        journal=journal,
        head_modules=anatomy.head_modules + anatomy.pooler_modules,
        on_log=on_log,
        looks=looks,
        on_dev=on_dev,
    )
    return model, history, cache

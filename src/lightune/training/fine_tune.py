"""From a base model to a tuned one: adapters in, fast paths on, frozen blocks kept, and the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    from torch import nn


def fine_tune(
    recipe: Recipe,
    plan: Plan,
    options: dict[str, Any],
    encoder: Encoder,
    rows: Mapping[str, Labelled],
    hardware: Hardware,
    journal: Journal,
    base: Base,
    *,
    seed: int,
    cache: PrefixCache | None = None,
    on_log: Callable[[dict[str, float], int], None] = lambda values, step: None,
) -> tuple[nn.Module, History, PrefixCache | None]:
    """The tuned network, on the device, in its best state on the dev rows; what happened; and what was kept.

    base: is used up. seed: of the order of rows. cache: of an earlier training with the same frozen blocks.
    """
    anatomy = inspect(base.model, base.missing_keys)
    if rows["train"].y.ndim == 2:
        start_from_shares(base.model, anatomy.head_modules, rows["train"].y)
    model, _ = methods.apply(
        base.model, anatomy, recipe.method.name, options, layers=plan.layers, train_pooler=recipe.train.pooler
    )
    journal.decide(*quicken(model.to(hardware.device), hardware.precision))
    cache = cache or open_cache(model, rows, recipe.train, plan.epochs, hardware.device)
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
    )
    return model, history, cache

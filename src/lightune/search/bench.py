"""What all trials of a search share, from the data to what leaves the frozen blocks; and one training."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from lightune.data.batching import Encoder, Labelled, encode, make_encoder
from lightune.data.prepare import Prepared, split_prepared
from lightune.errors import UserError, first_line
from lightune.evidence.calibration import calibrate
from lightune.evidence.decisions import scale_of, task_of
from lightune.hardware import Hardware, in_fp32, is_out_of_memory
from lightune.journal import Journal
from lightune.model import methods
from lightune.model.anatomy import Anatomy, hidden_size, inspect, top_layers
from lightune.model.backbones import Base, copy_of, load_base, locate
from lightune.model.engine import bytes_of_a_number, can_compute, quicken
from lightune.model.methods import METHODS
from lightune.recipe import EvidenceRecipe, Recipe
from lightune.records import Plan, Scale, Splits
from lightune.search.study import REPORTS
from lightune.training.fine_tune import fine_tune
from lightune.training.losses import check_for_labels
from lightune.training.plan import Cost, make_plan
from lightune.training.prefix_cache import PrefixCache, frozen_blocks
from lightune.training.rehearsal import measure
from lightune.training.train import count_steps, reading, score_dev, training_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Floats = NDArray[np.float64]

T = TypeVar("T")
KEPT = 3  # of each shared thing, the latest


@dataclass(frozen=True)
class Tried:
    """How a training went: its dev logits (N, C), their lack of fit, and what people read."""

    logits: Floats
    loss: float
    scores: dict[str, float]
    seconds: float
    trained: int


class Stopped(Exception):
    """A trial that others have left behind."""


def lack_of_fit(y: NDArray[Any], logits: Floats, scale: Scale) -> float:
    """What trials are compared by: the mean surprise at the labels of dev rows, at the temperature that suits best.

    Of numbers, their mean absolute error. Hundreds of rows tell classifiers apart by it that have as many of them
    right, and the temperature leaves out what a run mends afterwards anyway. Lower is better.
    """
    task = task_of(y)
    proba = calibrate(y, logits, EvidenceRecipe(), scale).readout(task).probabilities(logits)
    if task == "regression":
        return float(np.abs(proba[:, 0] - y).mean())
    least = np.finfo(np.float64).tiny
    if task == "multi_label":
        return float(-np.log(np.maximum(np.where(y == 1, proba, 1 - proba), least)).mean())
    return float(-np.log(np.maximum(proba[np.arange(len(y)), y], least)).mean())


class Bench:
    """Trains recipes on parts of the training rows and scores them on the dev rows; never reads the test rows."""

    def __init__(self, data: Prepared, recipe: Recipe, splits: Splits, hardware: Hardware):
        self.data, self.recipe, self.splits, self.hardware = data, recipe, splits, hardware
        self._kept: dict[str, dict[Any, Any]] = {}
        base = self.base(recipe.model)
        self.decisions = list(base.decisions)
        model = copy_of(base, seed=recipe.seed).model.to(hardware.device)
        if refused := can_compute(model, hardware.precision):
            self.hardware = in_fp32(hardware, recipe.hardware.precision, refused)
            self.decisions.append(self.hardware.decisions[-1])

    def base(self, model: str) -> Base:
        """The base model of this name, loaded once; a copy of it is for use."""
        names, task = self.splits.class_names, self.splits.task
        return self._once("bases", model, lambda: load_base(locate(model), names, seed=self.recipe.seed, task=task))

    def part(self, n_rows: int) -> Splits:
        """The splits with so many training rows: those that a run would take with data.train_rows = n_rows."""
        if n_rows >= len(self.splits.train):
            return self.splits
        given = self.recipe.data.model_copy(update={"train_rows": n_rows})
        made = lambda: split_prepared(self.data, given, seed=self.recipe.seed, device=self.hardware.device)  # noqa: E731
        return self._once("parts", n_rows, made)

    def rows(self, recipe: Recipe, n_rows: int) -> tuple[Encoder, dict[str, Labelled]]:
        """The encoder of a recipe, and the training and dev rows as it reads them."""
        base, limit = self.base(recipe.model), self._limit(recipe)

        def made() -> tuple[Encoder, dict[str, Labelled]]:
            is_pair = self.data.pair is not None
            encoder = make_encoder(
                base.tokenizer, recipe.data.max_tokens, recipe.data.truncation, limit, pair=is_pair
            )
            return encoder, encode(encoder, self.part(n_rows), recipe.train.max_tokens, only=("train", "dev"))[0]

        return self._once("rows", _reading_of(recipe, limit, n_rows), made)

    def check(self, recipe: Recipe, *, builds: bool = False) -> None:
        """UserError for what cannot be trained: no such model, a length or layers that ours has not, other labels.

        builds: and for a method that does not suit the network, or an option of it that does not.
        """
        locate(recipe.model)
        check_for_labels(recipe.train, self.splits.task)
        if recipe.model != self.recipe.model:
            return
        base, data = self.base(recipe.model), recipe.data
        is_pair = self.data.pair is not None
        make_encoder(base.tokenizer, data.max_tokens, data.truncation, self._limit(recipe), pair=is_pair)
        if recipe.train.layers != "auto":
            top_layers(inspect(base.model, base.missing_keys), recipe.train.layers)
        if builds:
            method = recipe.method
            try:
                self._adapted(recipe, "all" if recipe.train.layers == "auto" else recipe.train.layers)
            except (ValueError, TypeError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                told = ", ".join(
                    f"method.{key} = {v!r}" for key, v in {"name": method.name, **method.options}.items()
                )
                raise UserError(f"{told}: {recipe.model} does not take it ({first_line(error)}).") from None

    def plan(self, recipe: Recipe, n_rows: int) -> Plan:
        """The plan of a recipe on so many rows, with the epochs that it would have on all of them."""
        encoder, rows = self.rows(recipe, n_rows)
        anatomy = inspect(self.base(recipe.model).model, self.base(recipe.model).missing_keys)
        tokens = training_tokens(rows["train"], recipe.train, 1.0) * len(self.splits.train) / len(rows["train"])
        plan, _ = make_plan(
            recipe.train,
            self.hardware,
            learning_rate=METHODS[recipe.method.name].rate_for(anatomy.hidden_size),
            train_tokens=round(tokens),
            max_tokens=encoder.max_tokens,
            hidden_size=anatomy.hidden_size,
            n_layers=anatomy.n_layers,
        )
        return plan

    def seconds(self, recipe: Recipe, n_rows: int) -> tuple[float, float]:
        """About how long a training on so many rows takes, by a few passes, and a look at the dev rows."""
        encoder, rows = self.rows(recipe, n_rows)
        plan, train = self.plan(recipe, n_rows), recipe.train
        model, anatomy = self._adapted(recipe, plan.layers)
        timed = {**rows, "test": rows["dev"]}
        quicken(model.to(self.hardware.device), self.hardware.precision)
        cost: Cost = measure(model, anatomy, encoder, timed, train, plan, self.hardware, recipe.seed)
        tokens = training_tokens(rows["train"], train, plan.epochs)
        return tokens * cost.step, rows["dev"].n_tokens * cost.forward

    def _adapted(self, recipe: Recipe, layers: int | Literal["all"]) -> tuple[nn.Module, Anatomy]:
        """A copy of the base with the recipe's method on it."""
        base = copy_of(self.base(recipe.model), seed=recipe.seed)
        anatomy, pooler = inspect(base.model, base.missing_keys), recipe.train.pooler
        name, options = recipe.method.name, methods.check_options(recipe.method.name, recipe.method.options)
        model, _ = methods.apply(base.model, anatomy, name, options, layers=layers, train_pooler=pooler)
        return model, anatomy

    def train(
        self, recipe: Recipe, n_rows: int, *, seed: int, on_stage: Callable[[int, float], bool] | None = None
    ) -> Tried:
        """Trains a recipe on so many rows.

        on_stage gets how much of it is over, of REPORTS, and how good it is; says whether to stop, by Stopped.
        Without it dev rows are answered at the end alone.
        """
        started = time.monotonic()
        encoder, rows = self.rows(recipe, n_rows)
        plan = self.plan(recipe, n_rows)
        n_steps = count_steps(len(rows["train"]), recipe.train.batch_size, plan.epochs)
        told = range(1 if on_stage else REPORTS, REPORTS + 1)
        stages = {math.ceil(stage * n_steps / REPORTS): stage for stage in told}
        train = recipe.train.model_copy(update={"patience": REPORTS})  # a trial ends as the search says
        scale, y = scale_of(rows["train"].y), rows["dev"].y

        last: list[Floats] = []

        def look(logits: Floats, step: int) -> None:
            last[:] = [logits]
            if on_stage and step in stages and on_stage(stages[step], lack_of_fit(y, logits, scale)):
                raise Stopped

        self.hardware.release()
        base = copy_of(self.base(recipe.model), seed=seed)
        options = methods.check_options(recipe.method.name, recipe.method.options)
        quiet = Journal(io.StringIO(), quiet=True)
        model, history, _ = fine_tune(
            recipe.model_copy(update={"train": train}),
            options,
            encoder,
            rows,
            self.hardware,
            quiet,
            plan,
            base,
            seed=seed,
            find_cache=lambda network: self._cache(network, recipe, n_rows),
            looks=stages,
            on_dev=look,
        )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        # at its end, as the finals are compared, not at the best of its looks; of no step, as it began
        logits = last[0] if last else history.dev_logits
        scores = score_dev(logits, rows["dev"], scale)
        return Tried(logits, lack_of_fit(y, logits, scale), scores, time.monotonic() - started, trained)

    def _cache(self, model: nn.Module, recipe: Recipe, n_rows: int) -> PrefixCache | None:
        """What leaves the blocks below those that this network trains, of all the trials that train no others."""
        n_blocks = frozen_blocks(model)
        if not recipe.train.cache or self.hardware.device != "cpu" or not n_blocks:
            return None
        _, rows = self.rows(recipe, n_rows)
        again = [rows["dev"].tokens, *(tokens for tokens, _ in reading(rows["train"], recipe.train))]
        n_bytes = bytes_of_a_number(model) * hidden_size(model)
        key = (_reading_of(recipe, self._limit(recipe), n_rows), n_blocks)
        return self._once("caches", key, lambda: PrefixCache(n_blocks, again, n_bytes))

    def _limit(self, recipe: Recipe) -> int:
        """The most tokens that a text may have."""
        return self.base(recipe.model).max_tokens - methods.extra_tokens(recipe.method.name, recipe.method.options)

    def _once(self, kind: str, key: Any, make: Callable[[], T]) -> T:
        """What was made for this key, or is made now; the latest few of a kind are kept."""
        kept = self._kept.setdefault(kind, {})
        found = kept.pop(key) if key in kept else make()
        kept[key] = found
        while len(kept) > KEPT:
            kept.pop(next(iter(kept)))
        return found  # type: ignore[no-any-return]


def _reading_of(recipe: Recipe, limit: int, n_rows: int) -> tuple[Any, ...]:
    """What decides which tokens a recipe reads."""
    return recipe.model, recipe.data.max_tokens, recipe.data.truncation, limit, recipe.train.max_tokens, n_rows


def with_plan(recipe: Recipe, plan: Plan) -> Recipe:
    """The recipe with the epochs and the layers that a plan found for it."""
    chosen = {"epochs": plan.epochs, "layers": plan.layers}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=chosen)})

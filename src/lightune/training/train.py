"""The one training loop: AdamW on what is trainable, on one process or many, the best state kept.

The network runs without dropout except in the adapters: noise in frozen layers slows the step and teaches
nothing that can be kept.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.batching import Encoder, Labelled, Tokens, epoch_steps, within_budget
from lightune.errors import GateError, UserError
from lightune.evidence.decisions import (
    best_thresholds,
    decide,
    f1_micro,
    in_units,
    on_scale,
    probabilities,
    scale_of,
    softmax,
)
from lightune.evidence.evaluate import predict_logits
from lightune.hardware import Hardware, to_device
from lightune.journal import Journal
from lightune.legible import figures
from lightune.model.adapters import adapter_dropout_modules
from lightune.model.anatomy import inside
from lightune.model.engine import is_written_out
from lightune.recipe import TrainRecipe
from lightune.records import History, Plan, Scale
from lightune.training.losses import balanced_draw, class_weights, find_loss
from lightune.training.recorded import Recorded, recording_pays

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from lightune.training.recorded import Inputs

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

CURVE_POINTS = 200


def train(
    model: nn.Module,
    encoder: Encoder,
    train_rows: Labelled,
    dev_rows: Labelled,
    recipe: TrainRecipe,
    plan: Plan,
    hardware: Hardware,
    *,
    seed: int,
    journal: Journal,
    head_modules: Sequence[str] = (),
    on_log: Callable[[dict[str, float], int], None] = lambda values, step: None,
    looks: Collection[int] | None = None,
    on_dev: Callable[[Floats, int], None] = lambda logits, step: None,
) -> History:
    """Fits the trainable parameters of `model` in place and leaves it in its best state on the dev rows.

    head_modules: what learns at recipe.head_rate where PEFT does not say it. on_log gets each point of the
    curves and its step, on_dev the logits (N, C) of the dev rows and the step. looks: the steps after which the dev
    rows are answered, in place of recipe.evaluations. Raises GateError if the loss stops being a number.
    """
    tokens = early = train_rows.short or train_rows.tokens
    n_steps = count_steps(len(train_rows), recipe.batch_size, plan.epochs)
    n_early = n_steps - whole_steps(train_rows, recipe, n_steps)
    history = History(np.empty((len(dev_rows), 0)), n_steps=n_steps)
    loop = Loop(model, encoder, train_rows, recipe, plan, hardware, n_steps, head_modules)
    best, clock, scale = Best(model), Clock(plan.seconds), scale_of(train_rows.y)
    log_every = max(1, n_steps // CURVE_POINTS)
    evaluate_every = max(1, round(n_steps / max(1.0, plan.epochs * recipe.evaluations)))
    losses: list[torch.Tensor] = []
    with journal.progress("training", training_tokens(train_rows, recipe, plan.epochs), "tokens") as progress:
        # grouped by whole lengths throughout: cutting keeps their order, and ties all the longer texts
        for step, rows in enumerate(_steps(train_rows, recipe, n_steps, seed), start=1):
            reads_whole = max(step / n_steps, clock.share) > n_early / n_steps
            if reads_whole and tokens is not train_rows.tokens:
                hardware.release()  # what is free was cut to the sizes of shorter texts
            tokens = train_rows.tokens if reads_whole else early
            losses.append(loop.step(rows, tokens))
            loop.keep_up(clock.share)
            n_tokens = int(tokens.lengths[rows].sum())
            history.tokens += n_tokens
            is_last = step == n_steps or clock.share >= 1
            where = {"step": step, "epoch": round(plan.epochs * step / n_steps, 4)}
            if step % log_every == 0 or is_last:
                point = where | {"train_loss": _mean(losses, step), "learning_rate": loop.learning_rate}
                history.curve.append(point)
                journal.event("step", **point)
                on_log(point, step)
                losses.clear()
            note = f"loss {history.curve[-1]['train_loss']:.3f}" if history.curve else ""
            progress.advance(n_tokens, note)
            is_due = step % evaluate_every == 0 and n_steps - step >= evaluate_every // 2
            if (is_due if looks is None else step in looks) or is_last:
                with clock.paused():
                    logits = predict_logits(model, encoder, dev_rows.tokens, hardware)
                point = where | score_dev(logits, dev_rows, scale)
                is_last = is_last or clock.share >= 1
                history.dev_curve.append(point)
                journal.event("dev", **point)
                on_log({f"dev_{name}": value for name, value in point.items() if name not in where}, step)
                told = ", ".join(f"{name} {figures(value)}" for name, value in point.items() if name not in where)
                journal.say(f"  step {step}: dev {told}")
                on_dev(logits, step)
                has_read_whole = reads_whole or n_early == n_steps
                if best.offer(point, logits, counts=has_read_whole) >= recipe.patience and not is_last:
                    history.stopped_early = True
                    break
            if is_last and step < n_steps:
                # half a step less: rounded up, it is this step again when the recipe is run again
                history.n_steps, history.epochs = step, plan.epochs * (step - 0.5) / n_steps
                break
    if loop.recorded and loop.recorded.refusal:
        journal.say(f"  launched kernel by kernel: {loop.recorded.refusal}")
    best.restore()
    history.best_step, history.seconds = best.step, clock.working
    answered = best.dev_logits  # None where there was no step
    history.dev_logits = predict_logits(model, encoder, dev_rows.tokens, hardware) if answered is None else answered
    return history


class Clock:
    """How much of a training's time is over, where it has an end: evaluations count there, but are no work.

    limit: seconds, or None for no end.
    """

    def __init__(self, limit: float | None):
        self.limit, self.started, self.idle = limit, time.monotonic(), 0.0

    @property
    def share(self) -> float:
        """0 at the start, 1 at the end; 0 throughout where there is no end."""
        return 0.0 if self.limit is None else (time.monotonic() - self.started) / self.limit

    @property
    def working(self) -> float:
        """Seconds of work so far."""
        return time.monotonic() - self.started - self.idle

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is no work."""
        began = time.monotonic()
        yield
        self.idle += time.monotonic() - began


class Loop:
    """One optimizer step after another; everything that differs between devices and process counts is here."""

    def __init__(
        self,
        model: nn.Module,
        encoder: Encoder,
        rows: Labelled,
        recipe: TrainRecipe,
        plan: Plan,
        hardware: Hardware,
        n_steps: int,
        head_modules: Sequence[str] = (),
    ):
        import torch
        from accelerate import Accelerator
        from transformers import get_scheduler

        # precision is ours, not Accelerator's: its state is one per process and refuses a second precision
        _let_go_of_other_devices(hardware.device)
        self.accelerator = Accelerator(cpu=hardware.device == "cpu", device_placement=False)
        if recipe.batch_size < self.accelerator.num_processes:
            n_processes = self.accelerator.num_processes
            raise UserError(f"train.batch_size = {recipe.batch_size}: {n_processes} processes need a text each.")
        self.model, self.encoder, self.plan, self.hardware = model, encoder, plan, hardware
        self.clip = recipe.clip
        if plan.checkpointing:
            enable_checkpointing(model)
        self.in_training = modules_in_training(model.eval(), plan.checkpointing)
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer(model, recipe, plan.learning_rate, head_modules)
        # the first step of a warm-up has a rate of 0: a run of one step would train nothing
        warmup = min(math.ceil(recipe.warmup * n_steps), n_steps - 1)
        schedule = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
        self.scheduler, self.n_steps = get_scheduler(schedule, optimizer, warmup, n_steps), n_steps
        self.scaler = torch.amp.GradScaler(hardware.device, enabled=hardware.precision == "fp16")
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.y, self.loss = on_scale(rows.y, scale_of(rows.y)), find_loss(recipe.loss, rows.y)
        self.weights: torch.Tensor | None = None
        if recipe.balance == "weights":
            self.weights = to_device(class_weights(rows.y), hardware.device)  # (C,)
        self.recorded: Recorded | None = None
        if self._can_record() and recording_pays(rows.tokens.lengths, n_steps):
            self.recorded = Recorded(self._forward_and_backward, self.trainable)
        self.learning_rate = 0.0  # of the adapters, at the step just made

    def step(self, rows: Ints, tokens: Tokens) -> torch.Tensor:
        """One optimizer step on `rows` of `tokens`, in as many passes as memory asks for; the mean loss, ()."""
        import torch

        mine, weight = self._my_share(rows)
        batches = within_budget(mine, tokens.lengths, self.plan.memory_tokens)
        forward_and_backward = self.recorded or self._forward_and_backward
        total = torch.zeros((), device=self.hardware.device)
        for batch in batches:
            waits = batch is not batches[-1]  # processes exchange gradients once a step, with its last batch
            inputs = self.encoder.batch(tokens, batch, self.hardware.device)
            inputs["labels"] = to_device(self.y[batch], self.hardware.device)  # (B,)
            inputs["weight"] = to_device(np.array(weight / len(rows), np.float32), self.hardware.device)  # ()
            exchange = self.accelerator.no_sync(self.wrapped) if waits else nullcontext()
            with exchange, _training(self.in_training):
                total += forward_and_backward(inputs)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.trainable, self.clip)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=self.recorded is None)  # recordings add to the gradients where they are
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        if self.scaler.get_scale() >= scale:  # a smaller one means that this step was skipped
            self.scheduler.step()
        return total

    def keep_up(self, share: float) -> None:
        """Moves the schedule on to where `share` of the training is over; it never moves back."""
        while self.scheduler.last_epoch < int(share * self.n_steps):
            self.scheduler.step()

    def _forward_and_backward(self, inputs: Inputs) -> torch.Tensor:
        """Adds a batch's gradients to those that are there; its share of the step's mean loss, ().

        inputs: the model's, `labels` (B,), and `weight` (), by which the sum of the losses is multiplied.
        """
        import torch

        loss = self._loss(**inputs)
        torch.autograd.backward(self.scaler.scale(loss))
        return loss.detach()

    def _loss(self, labels: torch.Tensor, weight: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        with self.hardware.autocast():
            logits = self.wrapped(**inputs).logits  # (B, C)
        losses = self.loss(logits.float(), labels)  # (B,)
        return weight * (losses if self.weights is None else self.weights[labels] * losses).sum()

    def _can_record(self) -> bool:
        """Whether passes only compute: on a GPU, in one process, in blocks that ask for nothing in between."""
        suits = self.hardware.device == "cuda" and self.accelerator.num_processes == 1
        return suits and not (self.scaler.is_enabled() or self.plan.checkpointing) and is_written_out(self.model)

    def _my_share(self, rows: Ints) -> tuple[Ints, int]:
        """This process's part of a step, and the factor that undoes the averaging of gradients."""
        world = self.accelerator.num_processes
        mine = rows[self.accelerator.process_index :: world]
        # the last step of an epoch can be smaller than the number of processes; all must still take part
        return (mine, world) if len(mine) else (rows[:1], 0)


class Best:
    """The trainable parameters at the best evaluation so far.

    That is the one of highest dev accuracy or F1, or lowest mean error of numbers; then of lowest dev loss.
    """

    def __init__(self, model: nn.Module):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.rank: tuple[float, float] | None = None
        self.step = self.waited = 0
        self.state: list[torch.Tensor] = []
        self.dev_logits: Floats | None = None

    def offer(self, point: dict[str, float], dev_logits: Floats, counts: bool = True) -> int:
        """Keeps the state, and what it answers, if `point` is the best so far.

        dev_logits (N, C): of the dev rows. Returns the evaluations since the best that count.
        """
        first = -point["mae"] if "mae" in point else point.get("accuracy", point.get("f1_micro", 0.0))
        rank = (first, -point["loss"])
        if self.rank is None or rank > self.rank:
            self.rank, self.step, self.waited, self.dev_logits = rank, int(point["step"]), 0, dev_logits
            self.state = [p.detach().clone() for p in self.parameters]
        else:
            self.waited += counts
        return self.waited

    def restore(self) -> None:
        """Puts the best state back."""
        import torch

        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.state, strict=bool(self.state)):
                parameter.copy_(value)


def _let_go_of_other_devices(device: str) -> None:
    """Accelerate keeps the device of the first training of a process for all that follow."""
    from accelerate.state import AcceleratorState, PartialState

    if PartialState._shared_state and PartialState().device.type != device:
        AcceleratorState._reset_state(reset_partial_state=True)


def count_steps(n_rows: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of a training; the last step of each epoch may be smaller than batch_size."""
    return math.ceil(epochs * math.ceil(n_rows / batch_size))


def whole_steps(rows: Labelled, recipe: TrainRecipe, n_steps: int) -> int:
    """Steps at the end that read whole texts: all of them, unless most of training is on shorter ones.

    Touvron et al. 2019, arXiv:1906.06423: a network that met small inputs in training needs a little of the
    full size before it is used on it.
    """
    return n_steps if rows.short is None else math.ceil(n_steps * recipe.whole_steps)


def reading(rows: Labelled, recipe: TrainRecipe) -> list[tuple[Tokens, float]]:
    """What a training reads, and in which share of its steps: short texts first, whole ones in the end."""
    if rows.short is None:
        return [(rows.tokens, 1.0)]
    return [(rows.short, 1.0 - recipe.whole_steps), (rows.tokens, recipe.whole_steps)]


def training_tokens(rows: Labelled, recipe: TrainRecipe, epochs: float) -> int:
    """Tokens that a training reads, padding not counted."""
    return int(epochs * sum(share * tokens.n_tokens for tokens, share in reading(rows, recipe)))


def make_optimizer(
    model: nn.Module, recipe: TrainRecipe, learning_rate: float, head_modules: Sequence[str] = ()
) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters: the head at its own rate, decay on matrices only."""
    import torch

    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = "modules_to_save" in name or inside(name, head_modules)
            # IA3 has its factors in columns of one number each
            is_matrix = parameter.ndim > 1 and min(parameter.shape) > 1
            groups.setdefault((is_head, is_matrix), []).append(parameter)
    if not groups:
        raise UserError("nothing to train: this method leaves no parameter trainable.")
    options = [
        {
            "params": parameters,
            "lr": learning_rate * (recipe.head_rate if is_head else 1.0),
            "weight_decay": recipe.weight_decay if is_matrix else 0.0,
        }
        for (is_head, is_matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    return torch.optim.AdamW(options, lr=learning_rate, fused=True)


def enable_checkpointing(model: nn.Module) -> None:
    """Blocks will be computed again in the backward pass instead of being kept. UserError if they cannot."""
    if not getattr(model, "supports_gradient_checkpointing", True):
        raise UserError("gradient checkpointing: this network cannot do it. Set train.gradient_checkpointing=false.")
    # transformers 5.23 renames it and warns about the old name; older ones have the old name only
    new = getattr(model, "activation_checkpointing_enable", None)
    enable = new or model.gradient_checkpointing_enable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        enable({"use_reentrant": False})  # type: ignore[operator]


def modules_in_training(model: nn.Module, checkpointing: bool) -> list[nn.Module]:
    """Those that are in training mode while all others are not: the adapters' dropout, and recomputed blocks."""
    found = adapter_dropout_modules(model)
    if checkpointing:
        # transformers recomputes a block only while the block itself says it is training
        blocks = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
        for block in blocks:
            for name, value in vars(block).items():  # BART's and OPT's blocks drop by themselves
                if "dropout" in name and isinstance(value, float):
                    setattr(block, name, 0.0)
        found += blocks
    return found


@contextmanager
def _training(modules: list[nn.Module]) -> Iterator[None]:
    """The modules are in training mode inside, and not in it outside, where the model may be asked for answers."""
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module in modules:
            module.training = False


def score_dev(logits: Floats, rows: Labelled, scale: Scale) -> dict[str, float]:
    """Accuracy and mean cross-entropy of the logits (N, C) of the dev rows.

    Of several labels a row, F1 of all labels together with the thresholds that are best here. Of numbers, which the
    logits tell on a scale, the mean absolute error, and on that scale the mean squared one.
    """
    if rows.y.dtype.kind == "f":
        errors = np.abs(in_units(logits[:, 0], scale) - rows.y)
        return {"mae": float(errors.mean()), "loss": float(((errors / scale.deviation) ** 2).mean())}
    if rows.y.ndim == 2:
        proba = probabilities(logits, "multi_label")
        f1 = f1_micro(rows.y, decide(proba, "multi_label", best_thresholds(rows.y, proba)))
        surprise = np.logaddexp(0, np.where(rows.y == 1, -logits, logits))
        return {"f1_micro": f1, "loss": float(surprise.mean())}
    own = softmax(logits)[np.arange(len(rows.y)), rows.y]
    accuracy = float((logits.argmax(axis=1) == rows.y).mean())
    return {"accuracy": accuracy, "loss": float(-np.log(np.maximum(own, 1e-12)).mean())}


def _steps(rows: Labelled, recipe: TrainRecipe, n_steps: int, seed: int) -> Iterator[Ints]:
    """The rows of each of n_steps steps, epoch after epoch in a new order."""
    rng = np.random.default_rng(seed)
    while n_steps > 0:
        order = balanced_draw(rows.y, rng) if recipe.balance == "sampling" else None
        for step in islice(epoch_steps(rows.tokens.lengths, recipe.batch_size, rng, order), n_steps):
            n_steps -= 1
            yield step


def _mean(losses: list[torch.Tensor], step: int) -> float:
    import torch

    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise GateError(
            f"the loss is {mean} at step {step}: training has diverged. Lower train.learning_rate "
            f"(a third is a good next try) or set hardware.precision=fp32."
        )
    return mean

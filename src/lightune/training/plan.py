"""The numbers a recipe leaves open: epochs, rate, passes, and, where time is short, how much of it all fits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lightune.errors import UserError
from lightune.evidence.baselines import FEWEST_PROBE_ROWS
from lightune.evidence.evaluate import MEMORY_TOKENS
from lightune.hardware import GIB, Hardware
from lightune.journal import duration
from lightune.recipe import TrainRecipe
from lightune.records import Decision, Estimate, Plan

if TYPE_CHECKING:
    from torch import nn

AUTO_TOKENS = {"cpu": 500_000, "mps": 2_000_000, "cuda": 5_000_000}  # seen in training where epochs are ours
AUTO_EPOCHS = 6
AUTO_LAYERS_SECONDS = 600.0  # what one pass over the rows may take before layers = "auto" leaves blocks out
OVERHEAD_SECONDS = 15.0  # the proof's fresh process, the pictures
LEAST_TRAINING = 0.2  # of what is left of a time budget; below it the evaluations are the job
PROBE_SHARE = 0.05  # of a time budget: what the probe's training rows may take, if they are not too few
MARGIN = 1.15  # steps planned beyond those that seem to fit: the clock ends the training, not the estimate
BYTES_PER_ACTIVATION = 4 * 34  # fp32 numbers a transformer block keeps per hidden unit (Korthikanti 2022, eq. 2)
RUNTIME_BYTES = 0.6 * GIB  # Python, torch and transformers themselves, measured on Linux


@dataclass(frozen=True)
class Besides:
    """What a run does beside training and answering: seconds, and training rows that the base reads for the probe."""

    seconds: float = OVERHEAD_SECONDS
    probe_rows: int = 0


@dataclass(frozen=True)
class Work:
    """Tokens of the training rows, of the dev rows, read `evaluations` times an epoch, and of the test rows.

    readings: the tokens of all training rows as they are read, short and whole, with each one's share of the steps.
    room: tokens whose way through the frozen blocks can be kept. probe: tokens of training rows that the base reads
    for the baseline that learns from it; rest: seconds of all that is no pass through the network. trainings: how
    many are made, each with an evaluation after it.
    """

    readings: tuple[tuple[int, float], ...]
    dev: float
    test: float
    evaluations: int
    room: float = math.inf
    probe: float = 0.0
    rest: float = OVERHEAD_SECONDS
    trainings: int = 1

    @property
    def train(self) -> float:
        """Tokens of an epoch."""
        return sum(n_tokens * share for n_tokens, share in self.readings)

    def looks(self, epochs: float) -> float:
        """How often the dev rows are scored in so many epochs."""
        return max(1.0, epochs * self.evaluations)

    def known(self, epochs: float, *, is_later: bool = False) -> tuple[float, float, float]:
        """Tokens of test, dev and training passes that find what was kept, in one training, in `open_cache`'s order.

        is_later: a training with another seed, after the first, which kept what it read.
        """
        n, looks = self.trainings, self.looks(epochs)
        # how often all trainings pass through a text, and how often this one finds what an earlier pass kept
        passes = [(self.test, 2.0, 1.0), (self.dev, n * looks, looks if is_later else looks - 1)]
        for n_tokens, share in self.readings:
            times = epochs * share
            found = times * min(1.0, times) if is_later else max(0.0, times - 1)
            passes.append((n_tokens, n * times, found))
        known, left = [], self.room
        for tokens, times, found in passes:
            is_kept = times > 1 and tokens <= left
            left -= tokens if is_kept else 0
            known.append(tokens * found if is_kept else 0.0)
        test, dev, *train = known
        return test, dev, sum(train)


@dataclass(frozen=True)
class Cost:
    """Seconds a token of a forward pass and of a training step, measured with the top `depth` of n_blocks trained.

    keeps: what leaves the blocks below is kept, so that a text which comes again skips them.
    """

    forward: float
    step: float
    depth: int
    n_blocks: int
    keeps: bool

    def with_depth(self, depth: int) -> Cost:
        """The same network with another number of blocks trained: only they need a backward pass."""
        backward = (self.step - self.forward) * depth / max(1, self.depth)
        return replace(self, step=self.forward + backward, depth=depth)

    @property
    def saved(self) -> float:
        """Seconds a token that a text saves when it comes again."""
        return self.forward * (self.n_blocks - self.depth) / self.n_blocks if self.keeps else 0.0

    def training(self, work: Work, epochs: float, *, is_later: bool = False) -> float:
        """Seconds of so many epochs and of the evaluations of the dev rows in them; is_later: as in `Work.known`."""
        if not epochs:
            return 0.0
        _, dev, train = work.known(epochs, is_later=is_later)
        all_of_it = work.train * epochs * self.step + work.dev * work.looks(epochs) * self.forward
        return all_of_it - (dev + train) * self.saved

    def trainings(self, work: Work, epochs: float) -> float:
        """Seconds of all trainings, of so many epochs each."""
        later = self.training(work, epochs, is_later=True)
        return self.training(work, epochs) + (work.trainings - 1) * later

    def epochs_in(self, work: Work, seconds: float) -> float:
        """The epochs for which so many seconds are enough; the inverse of `trainings`."""
        low, high = 0.0, 1.0
        while self.trainings(work, high) < seconds and high < 1e4:
            high *= 2
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.trainings(work, middle) <= seconds else (low, middle)
        return low

    def estimate(self, work: Work, epochs: float, memory: float) -> Estimate:
        """What a run will take from here on."""
        test, (again, _, _) = work.test * self.forward, work.known(epochs)
        before, after = test + work.probe * self.forward, test - again * self.saved
        return Estimate(before, self.trainings(work, epochs), work.trainings * after, work.rest, memory)


def choose_depth(cost: Cost, work: Work, epochs: float, budget: float | None) -> tuple[int, Decision]:
    """How many of the top blocks are adapted: the most with which one pass over the rows fits into the time."""
    choices = sorted({cost.n_blocks, math.ceil(cost.n_blocks / 2), min(2, cost.n_blocks)}, reverse=True)
    rooms = {k: math.inf if budget is None else _room(cost.with_depth(k), work, budget) for k in choices}
    limits = {k: AUTO_LAYERS_SECONDS if budget is None else rooms[k] / work.trainings for k in choices}
    takes = {k: cost.with_depth(k).trainings(work, min(1.0, epochs)) / work.trainings for k in choices}
    depth = next((k for k in choices if takes[k] <= limits[k]), choices[-1])
    told = ", ".join(f"{k}: {duration(takes[k])}" for k in choices)
    limit = duration(max(0.0, limits[depth]))
    why = f"of {cost.n_blocks} blocks; one pass over the rows takes, by blocks, {told}; there are {limit} for it"
    return depth, Decision("layers", f"top {depth}" if depth < cost.n_blocks else "all", why)


def fit(plan: Plan, is_auto: bool, cost: Cost, work: Work, budget: float) -> tuple[Plan, Decision]:
    """The plan for a run that ends `budget` seconds from now. is_auto: the epochs are ours.

    UserError if the evaluations alone leave no time for training.
    """
    n, last = work.trainings, work.dev * cost.forward  # the evaluation that follows the last step of each
    room = _room(cost, work, budget) - n * last
    if room < LEAST_TRAINING * budget:
        rest = duration(max(0.0, budget - room))
        raise UserError(
            f"time budget: of the {duration(max(0.0, budget))} that are left, everything but training takes {rest}. "
            f"Ask for more time, for fewer rows with data.test_rows or data.dev_rows, "
            f"{'for fewer seeds, ' if n > 1 else ''}or for no baselines."
        )
    fits, epochs = cost.epochs_in(work, room), float(AUTO_EPOCHS) if is_auto else plan.epochs
    # of the same length, but the first fills the cache that the others find full
    alike = min(fits, epochs)
    first = room * cost.training(work, alike) / cost.trainings(work, alike) if alike and n > 1 else room / n
    later = (room - first) / (n - 1) if n > 1 else None
    # the clock ends the training in any case; while the steps are ahead of it, it changes nothing
    plan = replace(plan, epochs=epochs, seconds=first, seconds_later=later)
    if fits >= plan.epochs:
        return plan, Decision("time budget", "enough", f"{plan.epochs:g} epochs need less")
    choice = f"{fits:.2f} epochs"
    ends = "training; the clock ends it" if n == 1 else f"{n} trainings; the clock ends each"
    why = f"{duration(room)} for {ends}, so that the same seed need not give the same bits"
    return replace(plan, epochs=min(plan.epochs, MARGIN * fits)), Decision("time budget", choice, why)


def probe_rows_in(cost: Cost, tokens_a_row: float, wanted: int, budget: float | None) -> int:
    """Of the training rows that the base is to read for the probe, those that a time budget has room for."""
    if budget is None:
        return wanted
    fit = int(PROBE_SHARE * max(0.0, budget) / (cost.forward * tokens_a_row))
    return min(wanted, max(FEWEST_PROBE_ROWS, fit))


def _room(cost: Cost, work: Work, budget: float) -> float:
    """Seconds for training in those of the whole run from here on."""
    return budget - cost.estimate(work, 0.0, 0.0).seconds


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
    layers = "all" if recipe.layers == "auto" else recipe.layers
    return Plan(epochs, rate, memory_tokens, checkpointing, layers), decisions


def memory_needed(
    model: nn.Module, hidden_size: int, n_layers: int, memory_tokens: int, copied_bytes: int = 0
) -> float:
    """Bytes at the peak: weights, gradients and AdamW's two moments of what trains, kept activations.

    copied_bytes: of weights that the fast paths keep a second time.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) + copied_bytes
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    activations = memory_tokens * n_layers * hidden_size * BYTES_PER_ACTIVATION
    return RUNTIME_BYTES + weights + 3 * trained + activations


def _tokens_that_fit(hidden_size: int, n_layers: int, hardware: Hardware) -> tuple[int, str]:
    """Tokens whose activations take the share of the memory that is ours to plan with, and that share in words."""
    share, words = (0.5, "half") if hardware.device == "cuda" else (0.25, "a quarter")
    return int(hardware.memory * share / (n_layers * hidden_size * BYTES_PER_ACTIVATION)), words

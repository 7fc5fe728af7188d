"""How much each token of a text speaks for a label: integrated gradients on the embeddings of the tokens.

On the way from the text with each of its own tokens replaced by a blank one to the text itself, the slopes of the
label's log-odds are summed up (Sundararajan, Taly, Yan 2017, arXiv:1703.01365). What is changed is what the table of
embeddings puts out: the network reads the same tokens, masks and positions as when it answers, adapted or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.batching import Encoder, Tokens, within_budget
from lightune.data.words import find_words
from lightune.errors import GateError
from lightune.evidence.decisions import ONE_LABEL, Readout
from lightune.hardware import Hardware, is_out_of_memory
from lightune.model.engine import plain_network
from lightune.recipe import Task
from lightune.records import Word

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# The trapezoidal rule on so many steps, doubled until what is missing is less than GAP of all weights. Doubling uses
# every slope again, and with MiniLM no other rule was nearer at 16 steps (docs/log.md).
FEWEST_STEPS, MOST_STEPS, GAP = 16, 256, 0.01
TOGETHER = 64  # texts whose slopes are kept at a time
MEMORY_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 16384}  # padded tokens per pass forward and backward


@dataclass(frozen=True)
class TokenWeights:
    """weights (n,) of a text's own tokens; the label's log-odds for the text and for the blank one."""

    weights: Floats
    log_odds: float
    blank: float
    n_steps: int

    @property
    def gap(self) -> float:
        """What the weights lack of the difference between the text and the blank one."""
        return float(self.log_odds - self.blank - self.weights.sum())

    @property
    def is_exact(self) -> bool:
        """Whether the gap is less than GAP of all weights, whatever their sign."""
        return abs(self.gap) <= GAP * float(np.abs(self.weights).sum()) + 1e-9


def attribute(
    model: nn.Module,
    encoder: Encoder,
    tokens: Tokens,
    labels: Sequence[int],
    hardware: Hardware,
    readout: Readout = ONE_LABEL,
) -> list[TokenWeights]:
    """The weights of the tokens of each of N texts for the label of its id, labels (N,), in fp32.

    readout: how logits are read; numbers are weighed in their own unit. GateError if the network's answers are NaN,
    if memory has no room for one text, or if the network does not read its tokens through one table.
    """
    model.eval()
    way = _Way(model, encoder, tokens, labels, hardware, readout).from_least_sure()
    every = np.arange(len(tokens))
    parts = (every[start : start + TOGETHER] for start in range(0, len(every), TOGETHER))
    return [each for rows in parts for each in _sums(way, rows)]


def _sums(way: _Way, rows: Ints) -> list[TokenWeights]:
    """The weights for these rows, each by as many steps as it needs."""
    found = [_first_sum(*each) for each in way.at(rows, np.linspace(0, 1, FEWEST_STEPS + 1))]
    n_steps = FEWEST_STEPS
    while n_steps < MOST_STEPS and (open_ := [i for i, each in enumerate(found) if not each.is_exact]):
        between = (np.arange(n_steps) + 0.5) / n_steps
        for i, (_, slopes) in zip(open_, way.at(rows[open_], between), strict=True):
            found[i] = _finer(found[i], slopes)
        n_steps *= 2
    return found


def weigh_words(text: str, spans: Ints, weights: Floats) -> list[Word]:
    """The words of a text, each with the sum of its tokens' weights; spans (n, 2), weights (n,) of those read."""
    words, of_token = find_words(text, spans)
    sums, n_tokens = np.zeros(len(words)), np.bincount(of_token, minlength=len(words))
    np.add.at(sums, of_token, weights[: len(spans)])  # an empty text may be read as a token of padding
    weighed = zip(words, sums.tolist(), n_tokens.tolist(), strict=True)
    return [Word(start, end, weight if n else None) for (start, end), weight, n in weighed]


def log_odds(logits: torch.Tensor, labels: torch.Tensor, task: Task = "single_label") -> torch.Tensor:
    """log p / (1 - p) of each row's label (B,), from logits (B, C): its logit less the log-sum-exp of the others.

    The logit alone may rise for all labels at once, and a probability near 1 hardly has a slope. Of several labels a
    text, each by itself, it is the logit, and so it is of a number.
    """
    chosen = labels[:, None]  # (B, 1)
    if task in ("multi_label", "regression"):
        return logits.gather(1, chosen)[:, 0]
    others = logits.scatter(1, chosen, float("-inf"))
    return logits.gather(1, chosen)[:, 0] - others.logsumexp(1)


def _first_sum(values: Floats, slopes: Floats) -> TokenWeights:
    """By values (S + 1,) and slopes (S + 1, n) at equal steps from the blank text to the text."""
    n_steps = len(values) - 1
    total = slopes.sum(0) - (slopes[0] + slopes[-1]) / 2
    return TokenWeights(total / n_steps, float(values[-1]), float(values[0]), n_steps)


def _finer(coarse: TokenWeights, between: Floats) -> TokenWeights:
    """With the slopes (S, n) in the middle of each step as well."""
    n_steps = 2 * coarse.n_steps
    return TokenWeights(coarse.weights / 2 + between.sum(0) / n_steps, coarse.log_odds, coarse.blank, n_steps)


@dataclass(frozen=True)
class _Way:
    """From the blank texts to the texts."""

    model: nn.Module
    encoder: Encoder
    tokens: Tokens
    labels: Sequence[int]
    hardware: Hardware
    readout: Readout
    blank_ids: Sequence[int] = ()  # (N,), what stands for each text's own tokens in its blank text

    def from_least_sure(self) -> _Way:
        """The way from those blank texts that leave the classifier least sure."""
        starts = self.encoder.blank_ids
        sure = [replace(self, blank_ids=[start] * len(self.tokens))._sureness() for start in starts]
        return replace(self, blank_ids=[starts[i] for i in np.argmin(sure, axis=0)])

    def _sureness(self) -> Floats:
        """How sure each blank text leaves the classifier (N,): the probability of its most probable label.

        Of numbers, how far from the mean of the training rows its answer is.
        """
        import torch

        softmax = partial(torch.softmax, dim=1)
        found = np.zeros(len(self.tokens))
        for rows in self.encoder.batches(self.tokens, MEMORY_TOKENS[self.hardware.device]):
            with torch.no_grad():
                logits = self._logits(rows, self._shares(rows, np.zeros(len(rows)))[0])
            sure = {"multi_label": torch.sigmoid, "regression": torch.abs}.get(self.readout.task, softmax)(logits)
            found[rows] = sure.amax(1).cpu().numpy()
        return found

    def at(self, rows: Ints, shares: Floats) -> Iterator[tuple[Floats, Floats]]:
        """For each row the log-odds (S,) and its slopes (S, n) at so many shares of the way."""
        lengths = np.repeat(self.tokens.lengths[rows], len(shares))
        places = [(int(row), float(share)) for row in rows for share in shares]
        found: dict[int, tuple[float, Floats]] = {}
        for batch in within_budget(np.arange(len(places)), lengths, MEMORY_TOKENS[self.hardware.device]):
            chosen = [places[i] for i in batch]
            found.update(zip(batch.tolist(), self._slopes(chosen), strict=True))
        for start in range(0, len(places), len(shares)):
            values, slopes = zip(*(found[start + i] for i in range(len(shares))), strict=True)
            yield np.array(values), np.array(slopes)

    def _slopes(self, places: Sequence[tuple[int, float]]) -> list[tuple[float, Floats]]:
        """Of each (row, share) the log-odds and its slopes (n,); where memory is short, in two halves."""
        try:
            return self._pass(places)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if len(places) == 1:
            raise GateError(f"out of memory: {self.hardware.device} has no room to explain one text of this model.")
        self.hardware.release()
        half = len(places) // 2
        return self._slopes(places[:half]) + self._slopes(places[half:])

    def _pass(self, places: Sequence[tuple[int, float]]) -> list[tuple[float, Floats]]:
        import torch

        rows = np.array([row for row, _ in places])
        share, own = self._shares(rows, [value for _, value in places])
        share.requires_grad_()
        chosen = torch.tensor([self.labels[row] for row in rows], device=self.hardware.device)
        with torch.enable_grad():
            values = log_odds(self._logits(rows, share), chosen, self.readout.task)  # (B,)
            (slopes,) = torch.autograd.grad(values.sum(), share, allow_unused=True)  # (B, T)
        if slopes is None:
            raise GateError("this network does not read its tokens through one table, so no word can be weighed.")
        if not torch.isfinite(values).all():
            raise GateError("the classifier's answers are no numbers, so no word can be weighed.")
        of_tokens = slopes.double().cpu().numpy()
        found = zip(values.double().detach().cpu().tolist(), of_tokens, own, strict=True)
        scale = self.readout.scale  # of numbers; of labels it changes nothing
        return [(scale.mean + scale.deviation * value, scale.deviation * row[at]) for value, row, at in found]

    def _shares(self, rows: Ints, values: Sequence[float] | Floats) -> tuple[torch.Tensor, list[Ints]]:
        """(B, T): a value for each row's own tokens, which are at these places, and 1 for those around them."""
        import torch

        width = self.encoder.width(self.tokens, rows)
        own = [self.encoder.own(self.tokens, int(row), width) for row in rows]
        share = torch.ones((len(rows), width), device=self.hardware.device)
        for i, value in enumerate(values):
            share[i, own[i]] = value
        return share, own

    def _logits(self, rows: Ints, share: torch.Tensor) -> torch.Tensor:
        """What the network answers (B, C), over the temperature, where a token is its own by `share` (B, T)."""
        import torch

        inputs = self.encoder.batch(self.tokens, rows, self.hardware.device)
        blank = torch.tensor([self.blank_ids[row] for row in rows], device=share.device)[:, None].expand(share.shape)
        with _blended(self.model, inputs["input_ids"], blank, share):
            return self.model(**inputs).logits.float() / self.readout.temperature  # type: ignore[no-any-return]


@contextmanager
def _blended(model: nn.Module, input_ids: torch.Tensor, blank: torch.Tensor, share: torch.Tensor) -> Iterator[None]:
    """While it lasts, a token's embedding is its own by its `share` (B, T), by the rest that of `blank` (B, T)."""
    import torch

    plain: Any = plain_network(model)
    weight = plain.get_input_embeddings().weight
    tables = [table for table in plain.modules() if isinstance(table, torch.nn.Embedding) and table.weight is weight]
    blend = partial(_blend, get_ident(), input_ids, blank, share)
    hooks = [table.register_forward_hook(blend) for table in tables]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _blend(
    thread: int,
    input_ids: torch.Tensor,
    blank: torch.Tensor,
    share: torch.Tensor,
    table: nn.Module,
    given: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> torch.Tensor:
    """A hook of a table of embeddings, whose output is (B, T, D), or (T, B, D) in XLNet, for one thread alone."""
    if get_ident() != thread:
        return output  # another one, which asks the same network for something else
    start = table.forward(_as_given(blank, input_ids, given[0]))
    return start + _as_given(share, input_ids, given[0]).unsqueeze(-1) * (output - start)  # type: ignore[no-any-return]


def _as_given(values: torch.Tensor, input_ids: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Values (B, T) of the tokens in the order in which a table is given them: theirs, turned, or one place later."""
    import torch

    if torch.equal(given, input_ids):
        return values
    if torch.equal(given, input_ids.T):  # XLNet
        return values.T
    if given.shape == input_ids.shape and torch.equal(given[:, 1:], input_ids[:, :-1]):  # the decoder of BART
        return torch.cat((torch.ones_like(values[:, :1]), values[:, :-1]), 1)
    raise GateError("this network reads its tokens in another order, so no word can be weighed.")

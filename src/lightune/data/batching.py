"""From texts to batches: tokenised once, cut to length, grouped so that little of a batch is padding.

The only maker of `input_ids (B, T)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lightune.data.files import MIB
from lightune.data.framing import SEPARATOR, Frame, find_frame, shares, token_lists, truncate
from lightune.data.scratch import joined
from lightune.data.targets import as_numbers
from lightune.data.values import Names
from lightune.errors import UserError
from lightune.hardware import to_device
from lightune.recipe import Truncation
from lightune.records import Decision, Splits

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Ints32 = NDArray[np.int32]

T = TypeVar("T")
# Batches of up to so many tokens a text -> the multiple to which that length is rounded up: every new shape costs
# kernels, which take time to make and memory to keep.
LENGTH_STEPS = {64: 8, 256: 16, 10**9: 32}
FEW_TOKENS = 64  # a text of no more that is alone is not padded: answered sooner, and in few shapes all the same
CHUNK_STEPS = 50  # optimizer steps whose texts are sorted by length together
TOKENISE_ROWS = 1024
MOST_UNKNOWN = 0.5  # share of the training tokens that the vocabulary may lack
MAX_TOKENS = 256  # where the recipe does not say
AUTOMATIC = {"auto": MAX_TOKENS, "most": 512}  # data.max_tokens in words


@dataclass(frozen=True)
class Pairs:
    """Tokens of both texts of N pairs, without special ones: whole (N, 2) before a cut, kept (N, 2) after it."""

    whole: Ints32
    kept: Ints32


@dataclass(frozen=True)
class Tokens:
    """N tokenised texts, one after the other: row i is ids[offsets[i]:offsets[i + 1]].

    n_truncated: texts that were cut; lost: tokens that were cut away, all texts together. pairs: None
    where there is one text a row.
    """

    ids: NDArray[np.int32]  # mapped from a file, and not to be written to, where it is large
    offsets: Ints
    n_truncated: int
    lost: int
    pairs: Pairs | None = None

    @cached_property
    def lengths(self) -> Ints:
        """(N,) tokens of each text, special ones included; asked for several times a step."""
        return np.diff(self.offsets)

    @property
    def n_tokens(self) -> int:
        """Tokens of all texts together, special ones included."""
        return len(self.ids)

    def __len__(self) -> int:
        return len(self.offsets) - 1


def tokenise(texts: Sequence[str], tokenizer: Any, frame: Frame, *, max_tokens: int, truncation: str) -> Tokens:
    """Tokens of every text, cut to max_tokens at its end, its start or its middle, special tokens kept."""
    room = _room(max_tokens, frame)
    whole = np.zeros((len(texts), frame.n_texts), dtype=np.int32)

    def chunks() -> Iterator[NDArray[np.int32]]:
        for start in range(0, len(texts), TOKENISE_ROWS):
            parts = token_lists(frame.apart(texts[start : start + TOKENISE_ROWS]), tokenizer)
            n_tokens = np.fromiter(map(len, parts), np.int32).reshape(-1, frame.n_texts)
            whole[start : start + TOKENISE_ROWS] = n_tokens
            yield _cut(parts, n_tokens, frame, room, truncation)

    return _tokens(joined(chunks(), np.int32), whole, frame, room)


def _cut(
    parts: Sequence[Sequence[int]], whole: Ints32, frame: Frame, room: int, truncation: str
) -> NDArray[np.int32]:
    """The ids of all rows from the tokens of their texts, which were so many at first: whole (N, 1 or 2)."""
    kept = shares(whole, room).ravel().tolist()
    cut = [truncate(ids, n, truncation) for ids, n in zip(parts, kept, strict=True)]
    return np.fromiter(chain.from_iterable(frame.around(cut)), np.int32)


def _tokens(ids: NDArray[np.int32], whole: Ints32, frame: Frame, room: int) -> Tokens:
    """Tokens of rows whose texts had so many (N, 1 or 2) and were cut to `room`."""
    kept = shares(whole, room)
    lost = (whole - kept).sum(axis=1, dtype=np.int64)
    lengths = np.maximum(kept.sum(axis=1, dtype=np.int64) + frame.n_special, 1)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    pairs = Pairs(whole, kept) if frame.n_texts == 2 else None
    return Tokens(ids, offsets, int(np.count_nonzero(lost)), int(lost.sum()), pairs)


def cut_shorter(tokens: Tokens, frame: Frame, *, max_tokens: int, truncation: str) -> Tokens:
    """The same texts cut to fewer tokens, as `tokenise` would have cut them: heads and tails of a cut are its own."""
    room = _room(max_tokens, frame)
    if tokens.pairs is not None:
        return _pairs_shorter(tokens, tokens.pairs, frame, room, truncation)
    head = {"head": room, "tail": 0}.get(truncation, room // 2) + len(frame.prefix)
    lengths = np.minimum(tokens.lengths, max_tokens)
    offsets = np.concatenate(([0], np.cumsum(lengths)))

    def chunks() -> Iterator[NDArray[np.int32]]:
        for start in range(0, len(tokens), TOKENISE_ROWS):
            rows = slice(start, start + TOKENISE_ROWS)
            place = np.arange(offsets[start], offsets[min(start + TOKENISE_ROWS, len(tokens))])
            place -= np.repeat(offsets[:-1][rows], lengths[rows])  # within the cut text
            missing = np.repeat((tokens.lengths - lengths)[rows], lengths[rows])
            place += np.repeat(tokens.offsets[:-1][rows], lengths[rows]) + np.where(place < head, 0, missing)
            yield tokens.ids[place]

    ids = joined(chunks(), np.int32)
    lost = tokens.lost + int(tokens.n_tokens - len(ids))
    return Tokens(ids, offsets, int((tokens.lengths > max_tokens).sum()), lost)


def _pairs_shorter(tokens: Tokens, pairs: Pairs, frame: Frame, room: int, truncation: str) -> Tokens:
    """By what both texts had before the first cut, which alone says which was the longer of two that were cut."""
    starts = tokens.offsets[:-1] + len(frame.prefix)
    seconds = starts + pairs.kept[:, 0] + len(frame.middle or ())
    edges = np.stack([starts, seconds], axis=1)  # (N, 2) where each text begins

    def chunks() -> Iterator[NDArray[np.int32]]:
        for start in range(0, len(tokens), TOKENISE_ROWS):
            rows = slice(start, start + TOKENISE_ROWS)
            places = zip(edges[rows].ravel().tolist(), pairs.kept[rows].ravel().tolist(), strict=True)
            parts = [tokens.ids[first : first + n].tolist() for first, n in places]
            yield _cut(parts, pairs.whole[rows], frame, room, truncation)

    return _tokens(joined(chunks(), np.int32), pairs.whole, frame, room)


def _room(max_tokens: int, frame: Frame) -> int:
    """Tokens of a text's own that fit. UserError if there are none."""
    room = max_tokens - frame.n_special
    if room < frame.n_texts:
        raise UserError(f"max_tokens = {max_tokens}: the special tokens alone are {frame.n_special}. Ask for more.")
    return room


def epoch_steps(
    lengths: Ints, batch_size: int, rng: np.random.Generator, order: Ints | None = None
) -> Iterator[Ints]:
    """One epoch of optimizer steps, each the rows of batch_size texts of similar length, in random order.

    order: the rows of the epoch, if they are not to be all of them once.
    """
    order = rng.permutation(len(lengths)) if order is None else order
    for start in range(0, len(order), batch_size * CHUNK_STEPS):
        chunk = order[start : start + batch_size * CHUNK_STEPS]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches = [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
        yield from (batches[i] for i in rng.permutation(len(batches)))


def within_budget(rows: Ints, lengths: Ints, max_tokens: int) -> list[Ints]:
    """`rows` sorted by length and cut into batches of at most max_tokens padded tokens each."""
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    batches: list[Ints] = []
    start = 0
    for stop in range(1, len(ordered) + 1):
        full = stop == len(ordered)
        if full or (stop + 1 - start) * padded_length(int(lengths[ordered[stop]])) > max_tokens:
            batches.append(ordered[start:stop])
            start = stop
    return batches


def padded_length(length: int) -> int:
    """`length` rounded up as LENGTH_STEPS says."""
    step = next(step for most, step in LENGTH_STEPS.items() if length <= most)
    return -(-length // step) * step


def collate(tokens: Tokens, rows: Ints, frame: Frame, width: int, device: str) -> dict[str, torch.Tensor]:
    """The model's inputs for `rows`: input_ids and attention_mask (B, T), token_type_ids where it uses them."""
    lengths = tokens.lengths[rows]
    ids = np.full((len(rows), width), frame.pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    types = np.full_like(ids, frame.pad_type)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        at = slice(width - length, width) if frame.pad_left else slice(0, length)
        ids[i, at] = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        mask[i, at] = 1
        if frame.types is not None:
            n_tokens = [length - frame.n_special] if tokens.pairs is None else tokens.pairs.kept[row].tolist()
            types[i, at] = frame.types_of(n_tokens)
    arrays = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if frame.types else {})
    return {name: to_device(array, device) for name, array in arrays.items()}


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with the length and the cut of one run; the contract stores what it needs to be made again."""

    tokenizer: Any
    frame: Frame
    max_tokens: int
    truncation: Truncation

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Tokens of `texts`."""
        return tokenise(texts, self.tokenizer, self.frame, max_tokens=self.max_tokens, truncation=self.truncation)

    def spans(self, texts: Sequence[str]) -> list[Ints]:
        """Where in each text or joined pair the tokens that are read stand, (n, 2) [start, end), special ones apart.

        UserError if the tokenizer cannot tell.
        """
        if not self.tokenizer.is_fast:
            kind = type(self.tokenizer).__name__
            raise UserError(f"{kind}: does not tell where its tokens stand in a text. Its words cannot be weighed.")
        wanted = {"add_special_tokens": False, "return_attention_mask": False, "return_offsets_mapping": True}
        parts = self.frame.apart(texts)
        found = self.tokenizer(parts, verbose=False, **wanted)["offset_mapping"]
        whole = np.fromiter(map(len, found), np.int32).reshape(-1, self.frame.n_texts)
        kept = shares(whole, _room(self.max_tokens, self.frame)).ravel().tolist()
        cut = [
            np.array(truncate(spans, n, self.truncation), dtype=np.int64).reshape(-1, 2)
            for spans, n in zip(found, kept, strict=True)
        ]
        if self.frame.n_texts == 1:
            return cut
        pairs = zip(parts[::2], cut[::2], cut[1::2], strict=True)
        return [np.concatenate([first, second + len(text) + len(SEPARATOR)]) for text, first, second in pairs]

    @property
    def blank_ids(self) -> list[int]:
        """Tokens that say little: the mask, where the model has one, the padding, the unknown token."""
        found = self.tokenizer.mask_token_id, self.frame.pad_id, self.tokenizer.unk_token_id
        return list(dict.fromkeys(int(token) for token in found if token is not None))

    def width(self, tokens: Tokens, rows: Ints) -> int:
        """Tokens a text, padding included, of a batch of `rows`; a short text keeps its length where it is alone."""
        if len(tokens) == 1 and tokens.n_tokens <= FEW_TOKENS:
            return tokens.n_tokens
        return min(padded_length(int(tokens.lengths[rows].max())), self.max_tokens)

    def own(self, tokens: Tokens, row: int, width: int) -> Ints:
        """The places (n,) of the texts' own tokens of a row of `tokens` in its row of a batch (B, width)."""
        length = int(tokens.lengths[row])
        start = (width - length if self.frame.pad_left else 0) + len(self.frame.prefix)
        if tokens.pairs is None:
            return np.arange(start, start + length - self.frame.n_special)
        n_first, n_second = tokens.pairs.kept[row].tolist()
        second = start + n_first + len(self.frame.middle or ())
        return np.concatenate([np.arange(start, start + n_first), np.arange(second, second + n_second)])

    def batch(self, tokens: Tokens, rows: Ints, device: str) -> dict[str, torch.Tensor]:
        """The model's inputs for `rows` of `tokens`."""
        return collate(tokens, rows, self.frame, self.width(tokens, rows), device)

    def batches(self, tokens: Tokens, memory_tokens: int) -> Iterator[Ints]:
        """All rows, longest first, in batches of at most memory_tokens padded tokens."""
        every = np.arange(len(tokens))
        # longest first: an out-of-memory error comes at the start, not after an hour
        yield from reversed(within_budget(every, tokens.lengths, memory_tokens))


@dataclass(frozen=True)
class Labelled:
    """Tokenised texts with their class ids, y (N,), label sets, y (N, C) of 0 and 1, or numbers, y (N,) float.

    short: the same texts cut shorter, for most of training.
    """

    tokens: Tokens
    y: Ints
    short: Tokens | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_tokens(self) -> int:
        """Tokens of all texts together, cut at the longest that is read at all."""
        return self.tokens.n_tokens


def make_encoder(
    tokenizer: Any, max_tokens: int | str, truncation: Truncation, limit: int, *, pair: bool = False
) -> Encoder:
    """The encoder of a run, of single texts or of pairs.

    limit: the most tokens the model reads. UserError if more are asked for.
    """
    chosen = min(AUTOMATIC[max_tokens], limit) if isinstance(max_tokens, str) else max_tokens
    if chosen > limit:
        raise UserError(f"data.max_tokens = {max_tokens}: this model reads {limit} tokens at most. Ask for fewer.")
    return Encoder(tokenizer, find_frame(tokenizer, pair=pair), chosen, truncation)


def encode(
    encoder: Encoder, splits: Splits, training_tokens: int | str, only: Sequence[str] = ("train", "dev", "test")
) -> tuple[dict[str, Labelled], list[Decision]]:
    """Every split as tokens and class ids, and what the length limits cost.

    training_tokens: a shorter limit for most training steps, or "auto" for none. only: the splits that are wanted.
    """
    rows = {
        name: Labelled(
            encoder.tokenise(part.texts), as_numbers(Names.of(part.labels or []), splits.class_names, splits.task)
        )
        for name, part in splits.parts().items()
        if name in only
    }
    limit = Decision("max tokens", str(encoder.max_tokens), "special tokens included")
    decisions = [limit, describe_cut("longer texts", rows["train"].tokens, encoder)]
    decisions += _describe_unknown(rows["train"].tokens, encoder) + _describe_between(encoder.frame)
    if training_tokens != "auto" and int(training_tokens) >= encoder.max_tokens:
        why = f"data.max_tokens, {encoder.max_tokens}, is no more than train.max_tokens, {training_tokens}"
        decisions.append(Decision("short texts first", "no", why))
    elif training_tokens != "auto":
        short = replace(encoder, max_tokens=int(training_tokens))
        tokens = rows["train"].tokens
        cut = cut_shorter(tokens, encoder.frame, max_tokens=short.max_tokens, truncation=short.truncation)
        rows["train"] = replace(rows["train"], short=cut)
        decisions.append(describe_cut(f"cut to {training_tokens} in most steps", cut, short))
    return rows, decisions


def _describe_unknown(tokens: Tokens, encoder: Encoder) -> list[Decision]:
    """The share of tokens that the vocabulary does not have. UserError if that is most of them."""
    frame, unknown = encoder.frame, encoder.tokenizer.unk_token_id
    # some tokenizers begin every text with what also stands for an unknown word
    parts = (tokens.ids[start : start + MIB] for start in range(0, tokens.n_tokens, MIB))
    n_unknown = sum(int(np.count_nonzero(part == unknown)) for part in parts)
    n_unknown -= frame.special.count(unknown) * len(tokens)
    share = n_unknown / max(1, tokens.n_tokens - frame.n_special * len(tokens))
    if share > MOST_UNKNOWN:
        raise UserError(
            f"the tokenizer of this model does not know {share:.0%} of the tokens of the training texts. Use a model "
            f"of their language, or, if it is, get its folder's tokenizer files again."
        )
    why = "no piece of the vocabulary stands for them; a model of the texts' language would know more"
    return [Decision("unknown tokens", f"{share:.0%}", why)] if share > 0.01 else []


def _describe_between(frame: Frame) -> list[Decision]:
    if frame.between is None:
        return []
    why = "the tokenizer itself puts nothing between two texts; its separator or end token tells them apart"
    return [Decision("between the two texts", frame.between, why)]


def describe_cut(what: str, tokens: Tokens, encoder: Encoder) -> Decision:
    """How much text the length limit costs, in words."""
    whole = tokens.n_tokens + tokens.lost
    mean = float(tokens.lengths.mean())
    why = f"{mean:.0f} tokens on average; {tokens.lost / whole:.0%} of all tokens are cut away"
    share = tokens.n_truncated / len(tokens)
    return Decision(what, f"{share:.0%}, cut by {encoder.truncation}", why)

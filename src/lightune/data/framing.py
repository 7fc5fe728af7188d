"""One text or the two of a pair, as a tokenizer frames them: what it puts around and between, and what stays of each.

Inside lightune a pair is one string, its texts joined by SEPARATOR, so that all that reads texts can read pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lightune.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints32 = NDArray[np.int32]

T = TypeVar("T")
SEPARATOR = "\x1f"  # U+001F, unit separator, between the two texts of a pair
WORDS = ("a", "b")  # that tell a frame


def join_pair(first: str, second: str) -> str:
    """The two texts of a pair as one string; a SEPARATOR in one of them becomes a space."""
    return SEPARATOR.join(text.replace(SEPARATOR, " ") for text in (first, second))


def split_pair(text: str) -> tuple[str, str]:
    """The two texts of a joined pair."""
    first, _, second = text.partition(SEPARATOR)
    return first, second


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around a text, or around and between two, and how its batches are padded.

    types: token types of prefix, text, suffix, or of prefix, first text, middle, second text, suffix; a text has one.
    middle: None where there is one text only; between: the token there, where the tokenizer itself puts none.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    types: tuple[tuple[int, ...], ...] | None
    pad_id: int
    pad_type: int
    pad_left: bool
    middle: tuple[int, ...] | None = None
    between: str | None = None

    @property
    def n_texts(self) -> int:
        """1, or 2 of a pair."""
        return 1 if self.middle is None else 2

    @property
    def special(self) -> tuple[int, ...]:
        """The tokens that are not the texts' own."""
        return self.prefix + (self.middle or ()) + self.suffix

    @property
    def n_special(self) -> int:
        """How many these are."""
        return len(self.special)

    def apart(self, texts: Iterable[str]) -> list[str]:
        """The texts, those of a pair one after the other."""
        return list(texts) if self.middle is None else list(chain.from_iterable(map(split_pair, texts)))

    def is_blank(self, text: str) -> bool:
        """Whether the text, or one of a pair, has nothing but white space."""
        return not all(map(str.strip, self.apart([text])))

    def around(self, parts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows of ids from the tokens of the texts, those of a pair one after the other."""
        if self.middle is None:
            # GPT-2 puts nothing around a text without a word, and a network cannot read no token at all
            return [[*self.prefix, *ids, *self.suffix] or [self.pad_id] for ids in parts]
        both = zip(parts[::2], parts[1::2], strict=True)
        return [[*self.prefix, *first, *self.middle, *second, *self.suffix] for first, second in both]

    def types_of(self, n_tokens: Iterable[int]) -> list[int]:
        """The token types of a row whose texts have so many tokens. Only where the network uses them."""
        assert self.types is not None
        first, *rest = self.types
        texts = zip(rest[::2], rest[1::2], n_tokens, strict=True)
        return [*first, *chain.from_iterable((*text * n, *after) for text, after, n in texts)]


def find_frame(tokenizer: Any, *, pair: bool = False) -> Frame:
    """The special tokens around a text or a pair, derived from the tokenizer's own output for one word or two.

    Where it puts nothing between two texts, as GPT-2's does, its separator or end token is put there. UserError if it
    has neither, or if its special tokens cannot be told.
    """
    words = WORDS if pair else WORDS[:1]
    framed = tokenizer(*words, return_token_type_ids=True)
    ids, types = framed["input_ids"], framed["token_type_ids"]
    edges = _edges(ids, [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words], tokenizer)
    pieces = [tuple(ids[start:stop]) for start, stop in pairwise(edges)]
    kinds = [tuple(types[start:stop]) for start, stop in pairwise(edges)]
    kinds[1::2] = [kind[:1] for kind in kinds[1::2]]
    between = _between(tokenizer) if pair and not pieces[2] else None
    if between is not None:
        pieces[2], kinds[2] = (tokenizer.convert_tokens_to_ids(between),), kinds[1]
    return Frame(
        prefix=pieces[0],
        suffix=pieces[-1],
        types=tuple(kinds) if "token_type_ids" in tokenizer.model_input_names else None,
        pad_id=tokenizer.pad_token_id,
        pad_type=tokenizer.pad_token_type_id,
        pad_left=tokenizer.padding_side == "left",
        middle=pieces[2] if pair else None,
        between=between,
    )


def _edges(ids: list[int], words: list[list[int]], tokenizer: Any) -> list[int]:
    """0, where each of the words starts and stops in `ids`, and its end."""
    edges = [0]
    for word in words:
        starts = [i for i in range(edges[-1], len(ids) - len(word) + 1) if ids[i : i + len(word)] == word]
        if not word or not starts:
            raise UserError(f"{type(tokenizer).__name__}: cannot tell its special tokens from its text tokens.")
        edges += [starts[0], starts[0] + len(word)]
    return [*edges, len(ids)]


def _between(tokenizer: Any) -> str:
    """The token between two texts, for a tokenizer that puts none there."""
    found = [token for token in (tokenizer.sep_token, tokenizer.eos_token) if token is not None]
    if not found:
        raise UserError(
            f"{type(tokenizer).__name__}: puts nothing between two texts, and has no separator or end token that "
            f"could stand there. Use another model, or make one text of the two with a template in data.text."
        )
    return str(found[0])


def token_lists(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """The tokens of each text; nothing else is asked for, since what a tokenizer makes besides takes time."""
    from transformers import PreTrainedTokenizerFast

    if getattr(type(tokenizer), "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus:
        # what transformers would call, but without the place of each token in its text: a fifth of the time
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = tokenizer.split_special_tokens
        return [encoded.ids for encoded in backend.encode_batch_fast(texts, add_special_tokens=False)]
    wanted = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    ids: list[list[int]] = tokenizer(texts, verbose=False, **wanted)["input_ids"]
    return ids


def shares(n_tokens: Ints32, room: int) -> Ints32:
    """How many of the tokens (N, 1) of a text or (N, 2) of a pair stay in `room`: the longer text is cut first.

    Of two that are both cut, the longer keeps the odd token, of equals the second: as `longest_first` does it in the
    library tokenizers.
    """
    if n_tokens.shape[1] == 1:
        return np.minimum(n_tokens, room, dtype=np.int32)
    shorter = np.minimum(n_tokens.min(axis=1), room // 2)
    longer = np.minimum(n_tokens.max(axis=1), room - shorter)
    first_is_longer = n_tokens[:, 0] > n_tokens[:, 1]
    places = [np.where(first_is_longer, longer, shorter), np.where(first_is_longer, shorter, longer)]
    return np.stack(places, axis=1).astype(np.int32)


def truncate(ids: Sequence[T], room: int, truncation: str) -> Sequence[T]:
    """At most `room` of `ids`: the first (head), the last (tail), or half of each (head+tail)."""
    if len(ids) <= room:
        return ids
    if truncation == "head":
        return ids[:room]
    head = 0 if truncation == "tail" else room // 2
    return [*ids[:head], *ids[len(ids) - (room - head) :]]

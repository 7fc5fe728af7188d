"""The tokens of texts by a base model's tokenizer alone: neither its network nor torch is loaded for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightune.data.batching import AUTOMATIC
from lightune.data.framing import find_frame, token_lists
from lightune.errors import UserError, first_line
from lightune.model.backbones import locate

TokenLists = list[list[int]]


@dataclass(frozen=True)
class Tokeniser:
    """tokens: texts -> the ids of each, uncut, no special ones; n_special: tokens that are put around them.

    limit: the most tokens that the model reads, as its files declare it.
    """

    tokens: Callable[[Sequence[str]], TokenLists]
    n_special: int
    limit: float

    def room(self, max_tokens: int) -> int:
        """Tokens of a text's own that fit."""
        return int(max(1, min(max_tokens, self.limit) - self.n_special))

    def max_tokens(self, asked: str = "auto") -> int:
        """What `data.max_tokens` in words comes to."""
        return int(min(AUTOMATIC[asked], self.limit))


def tokeniser_of(model: str) -> Tokeniser:
    """The tokenizer of a base model. UserError if there is no such model, or its tokenizer cannot be read."""
    folder = locate(model).folder
    make = _from_file if (folder / "tokenizer.json").is_file() else _by_transformers
    try:
        tokens, n_special = make(folder)
        return Tokeniser(tokens, n_special, _declared_limit(folder))
    except MemoryError:
        raise
    except Exception as error:  # somebody else's files, which the libraries trust to be right
        raise UserError(f"model = {model!r}: its tokenizer cannot be read: {first_line(error)}") from None


def _from_file(folder: Path) -> tuple[Callable[[Sequence[str]], TokenLists], int]:
    """By the library `tokenizers`: transformers would import torch, which takes seconds."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokens(texts: Sequence[str]) -> TokenLists:
        return [found.ids for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return tokens, tokenizer.num_special_tokens_to_add(False)


def _by_transformers(folder: Path) -> tuple[Callable[[Sequence[str]], TokenLists], int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return (lambda texts: token_lists(list(texts), tokenizer)), find_frame(tokenizer).n_special


def _declared_limit(folder: Path) -> float:
    """The smaller of what the configuration and the tokenizer declare; a run asks the network itself."""
    declared = [
        (folder / "config.json", "max_position_embeddings"),
        (folder / "tokenizer_config.json", "model_max_length"),
    ]
    values = [json.loads(path.read_text(encoding="utf-8")).get(key) for path, key in declared if path.is_file()]
    return min((value for value in values if isinstance(value, int | float) and value > 0), default=float("inf"))

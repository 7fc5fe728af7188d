"""The words of a text as a reader sees them, none of which ends within a token."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def find_words(text: str, spans: Ints) -> tuple[list[tuple[int, int]], Ints]:
    """The words of `text` as [start, end) in order, and for each token, spans (n, 2), which of them it is in, (n,).

    Words by Unicode's rules (UAX 29), whatever the script; joined where a token reaches over several. White space is
    none, unless a token is nothing else.
    """
    held = np.array([_trimmed(text, start, end) for start, end in spans.tolist()], dtype=np.int64).reshape(-1, 2)
    inner = np.zeros(len(text) + 1, dtype=bool)  # places within a token, where no word ends
    for start, end in held:
        inner[start + 1 : end] = True
    cuts = [cut for cut in _boundaries(text) if not inner[cut]]
    piece = np.searchsorted(cuts, held[:, 0], side="right") - 1
    piece = np.minimum(piece, len(cuts) - 2)  # of what a tokenizer adds at the end of a text, its last word
    pairs = list(pairwise(cuts))
    kept = [i for i, (start, end) in enumerate(pairs) if text[start:end].strip() or (piece == i).any()]
    return [pairs[i] for i in kept], np.searchsorted(kept, piece).astype(np.int64)


def _boundaries(text: str) -> list[int]:
    import regex

    # UAX 29 keeps example.com together; more often, a space was left out between two sentences
    ends = regex.finditer(r"(?w)\b|(?<=\p{L})(?=[.:]\p{L})|(?<=\p{L}[.:])(?=\p{L})", text)
    return sorted({0, len(text), *(found.start() for found in ends)})


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space around it; as it is if it is nothing else."""
    piece = text[start:end]
    if not piece.strip():
        return start, end
    return end - len(piece.lstrip()), start + len(piece.rstrip())

"""What a frozen network makes of a text as one row of numbers, picked up as it passes: no second pass is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightune.model.anatomy import find_layers
from lightune.model.engine import plain_network

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def embeddings_beside_logits(model: nn.Module) -> Iterator[None]:
    """While it lasts, what `model` puts out has `embeddings` (B, D) too: the mean of what its last block reads.

    What the last block puts out would not do: where the classifier reads the first token only, no other is made.
    A network that does not keep a place for each token has none, and puts out what it did.
    """
    plain = plain_network(model)
    last = plain.get_submodule(find_layers(plain)[-1])
    seen: list[torch.Tensor] = []

    def keep(block: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden = args[0] if args else named.get("hidden_states")
        seen[:] = [hidden] if hidden is not None else []

    def add(network: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        mask = named.get("attention_mask")
        if seen and mask is not None and seen[0].shape[:2] == mask.shape:
            weights = mask.unsqueeze(-1).float()  # (B, T, 1)
            output.embeddings = (seen[0].float() * weights).sum(1) / weights.sum(1).clamp(min=1)

    hooks = [
        last.register_forward_pre_hook(keep, with_kwargs=True),
        model.register_forward_hook(add, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

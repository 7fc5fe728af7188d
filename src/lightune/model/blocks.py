"""An encoder block written out, forward and backward: a few large products in the run's precision, little else.

For blocks that normalise after attention and after the feed-forward layer (BERT, RoBERTa, ELECTRA, DistilBERT),
frozen but for LoRA. Beside the same block made of modules it saves casts, copies and passes over memory:
LoRA's product is added to the frozen weight once a step, residuals are added in place, and nothing is kept in fp32
that the products read in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from lightune.model.attention import WAYS
from lightune.model.projections import Norm, Projection, is_simple_lora, matrices

if TYPE_CHECKING:
    import torch
    from torch import nn

    Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Parts:
    """What a block is made of: its linear layers (adapted or not), its normalisations, and the size of a head."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    norm: nn.Module
    up: nn.Module
    activation: Any
    down: nn.Module
    norm_after: nn.Module
    head_size: int

    def linears(self) -> list[nn.Module]:
        """Query, key, value, out, up and down."""
        return [self.query, self.key, self.value, self.out, self.up, self.down]


def find_parts(block: nn.Module) -> Parts | None:
    """The parts of a block of a known build; None for any other."""
    for names, parts in BUILDS:
        if all(hasattr(block, name) for name in names):
            try:
                return parts(block)
            except AttributeError:  # the same names, built otherwise: some normalise first and have no norm there
                return None
    return None


def _bert(block: Any) -> Parts:
    attention, output = block.attention.self, block.attention.output
    return Parts(
        attention.query,
        attention.key,
        attention.value,
        output.dense,
        output.LayerNorm,
        block.intermediate.dense,
        block.intermediate.intermediate_act_fn,
        block.output.dense,
        block.output.LayerNorm,
        attention.attention_head_size,
    )


def _distilbert(block: Any) -> Parts:
    attention, ffn = block.attention, block.ffn
    size = attention.attention_head_size
    projections = attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin
    return Parts(*projections, block.sa_layer_norm, ffn.lin1, ffn.activation, ffn.lin2, block.output_layer_norm, size)


# the attributes that tell a build, and where its parts are
BUILDS: list[tuple[tuple[str, ...], Callable[[Any], Parts]]] = [
    (("attention", "intermediate", "output", "feed_forward_chunk"), _bert),
    (("attention", "sa_layer_norm", "ffn", "output_layer_norm"), _distilbert),
]


MORE = ("past_key_values", "encoder_hidden_states")  # what a block may be given that the fast paths do not read


def is_given(*values: Any) -> bool:
    """Whether any of the values is there."""
    return any(value is not None for value in values)


def can_write_out(block: nn.Module, parts: Parts) -> bool:
    """Whether `FastBlock` knows everything that the block does, and gives gradients for everything that it trains."""
    import torch

    linears = parts.linears()
    adapted = [layer for layer in linears if is_simple_lora(layer)]
    known = {id(p) for layer in adapted for p in matrices(layer)[:2]}
    return (
        all(layer in adapted or type(layer) is torch.nn.Linear for layer in linears)
        and all(type(norm) is torch.nn.LayerNorm for norm in (parts.norm, parts.norm_after))
        and getattr(parts.activation, "act", parts.activation) is torch.nn.functional.gelu
        and all(id(p) in known for p in block.parameters() if p.requires_grad)
    )


class FastBlock:
    """The output (B, T, D) of a block from its input (B, T, D), or that of the first tokens alone, (B, 1, D)."""

    def __init__(self, block: nn.Module, parts: Parts, dtype: torch.dtype, *, first_only: bool):
        self.block, self.parts, self.dtype, self.first_only = block, parts, dtype, first_only
        way = WAYS[parts.query.weight.device.type]  # type: ignore[union-attr, index]
        self._attention = way(parts.query.out_features, parts.head_size)  # type: ignore[arg-type]
        self.q = Projection([parts.query], dtype)
        self.kv = Projection([parts.key, parts.value], dtype)
        self.out, self.up, self.down = (Projection([p], dtype) for p in (parts.out, parts.up, parts.down))
        self.trained = [m for p in (self.q, self.kv, self.out, self.up, self.down) for m in p.trained]
        self._adapted: list[Any] = [layer for layer in parts.linears() if is_simple_lora(layer)]
        self.is_used = False  # a block that is given more than it reads never is
        self.device = parts.query.weight.device  # type: ignore[union-attr]
        self._norm, self._norm_after = (Norm(norm, dtype) for norm in (parts.norm, parts.norm_after))

    @property
    def bytes(self) -> int:
        """Of the weights that are kept beside the block's own."""
        return sum(each.bytes for each in (self.q, self.kv, self.out, self.up, self.down))

    def __call__(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *others: Any, **named: Any
    ) -> Any:
        """hidden (B, T, D); attention_mask (B, 1, 1 or T, T), True or 0 where a token is read."""
        import torch

        # without autocast an answer in fp32 is wanted: a fingerprint, a comparison
        device = hidden.device.type
        wanted = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        # a block that is to be computed again in the backward pass does so in its class's forward
        recomputes = self.block.training and getattr(self.block, "gradient_checkpointing", False)
        is_plain = (
            recomputes
            or wanted != self.dtype
            or hidden.device != self.device  # the network was moved, and what is kept here beside it was not
            or any(layer.merged or layer.disable_adapters for layer in self._adapted)
        )
        if is_plain or is_given(*others, *map(named.get, MORE)):
            return type(self.block).forward(self.block, hidden, attention_mask, *others, **named)
        self.is_used = True
        mask = None if attention_mask is None else _additive(attention_mask[:, :, :1], self.dtype)
        if not torch.is_grad_enabled():
            with _without_autocast(device):
                return self.forward(hidden.to(self.dtype), mask, keeps=False)[0]
        return _differentiable()(hidden.to(self.dtype), mask, self, *self.trained)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, *, keeps: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The output, and what the backward pass needs, if that is kept. mask (B, 1, 1, T) is added to the scores."""
        import torch

        n_texts, _, width = hidden.shape
        x = hidden.reshape(-1, width)  # (N, D) of all tokens
        own = hidden[:, 0] if self.first_only else x  # (M, D) of those that are worked out
        q, kv = self.q.forward(own, packs=not keeps), self.kv.forward(x, packs=not keeps)  # (M, D), (N, 2 D)
        context, *of_attention = self._attention.forward(q, kv, mask, n_texts, keeps=keeps)
        attended = self.out.forward(context, packs=not keeps).add_(own)
        middle, *statistics = self._norm.forward(attended)
        wide = self.up.forward(middle, packs=not keeps)  # (M, F)
        active = torch.nn.functional.gelu(wide)
        summed = self.down.forward(active, packs=not keeps).add_(middle)
        y, *statistics_after = self._norm_after.forward(summed)
        kept = x, own, context, attended, *statistics, middle, wide, active, summed, *statistics_after, *of_attention
        return y.view(n_texts, -1, width), kept

    def backward(
        self, kept: Sequence[torch.Tensor], grad: torch.Tensor, to_input: bool
    ) -> tuple[torch.Tensor | None, Tensors]:
        """The gradients of the input (B, T, D), if it is asked for, and of `trained`, from that of the output."""
        import torch

        x, own, context, attended, mean, spread, middle, wide, active, summed, *others = kept
        statistics_after, of_attention = others[:2], others[2:]
        n_texts, width = len(grad), grad.shape[-1]
        g = self._norm_after.backward(grad.reshape(-1, width), summed, statistics_after)  # (M, D)
        of_down = self.down.to_adapters(active, g)
        g_wide = torch.ops.aten.gelu_backward(self.down.to_input(g), wide)  # (M, F)
        of_up = self.up.to_adapters(middle, g_wide)
        g = self._norm.backward(self.up.to_input(g_wide, onto=g), attended, (mean, spread))
        of_out = self.out.to_adapters(context, g)
        g_q, g_kv = self._attention.backward(of_attention, self.out.to_input(g), n_texts)  # (M, D), (N, 2 D)
        trained = [*self.q.to_adapters(own, g_q), *self.kv.to_adapters(x, g_kv), *of_out, *of_up, *of_down]
        if not to_input:
            return None, trained
        g_x = self.kv.to_input(g_kv).view(n_texts, -1, width)  # (B, T, D)
        (g_x[:, 0] if self.first_only else g_x.view(-1, width)).add_(self.q.to_input(g_q, onto=g))
        return g_x, trained


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    """Without it inside; nothing where it is off, which is told sooner than switched."""
    import torch

    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask that is added to scores, from one that says which tokens are read, or from one of any precision."""
    import torch

    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
    return mask.to(dtype).clamp(min=torch.finfo(dtype).min)


@cache
def _differentiable() -> Any:
    """`FastBlock` as a function for autograd, made when torch is first needed."""
    import torch

    class WrittenOut(torch.autograd.Function):
        @staticmethod
        def forward(  # type: ignore[override]
            ctx: Any, hidden: torch.Tensor, mask: torch.Tensor | None, block: FastBlock, *trained: torch.Tensor
        ) -> torch.Tensor:
            with _without_autocast(hidden.device.type):
                y, kept = block.forward(hidden, mask, keeps=True)
            ctx.block = block
            ctx.save_for_backward(*kept)
            return y

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
            with _without_autocast(grad.device.type):
                g_hidden, of_trained = ctx.block.backward(ctx.saved_tensors, grad, ctx.needs_input_grad[0])
            return g_hidden, None, None, *of_trained

    return WrittenOut.apply

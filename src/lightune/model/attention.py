"""Attention inside a written-out block, forward and backward: by plain products on a CPU, by fused kernels on a GPU.

Both take queries (M, D) and keys beside values (N, 2 D) of B texts, and give the context (M, D): N are all tokens,
M those that are worked out, D = H·d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensors = list[torch.Tensor]

# tokens a text for which torch's fused attention is the faster one on a CPU, forward: in bf16 up to SHORT, in fp32
# from LONG, and of a text alone
SHORT, LONG = 48, 64


class Fused:
    """By torch's own attention in one call, which leaves its gradients to autograd."""

    def __init__(self, width: int, head_size: int):
        self._heads = width // head_size, head_size

    def forward(
        self, q: torch.Tensor, kv: torch.Tensor, mask: torch.Tensor | None, n_texts: int, *, keeps: bool
    ) -> Tensors:
        """The context, and, if the backward pass will need it, what is behind it. mask (B, 1, 1, T) is added."""
        import torch

        if not keeps:
            return [self._attend(q, kv, mask, n_texts)]
        with torch.enable_grad():
            q, kv = q.detach().requires_grad_(), kv.detach().requires_grad_()
            context = self._attend(q, kv, mask, n_texts)
        return [context.detach(), q, kv, context]

    def backward(self, kept: Sequence[torch.Tensor], grad: torch.Tensor, n_texts: int) -> Sequence[torch.Tensor]:
        """The gradients of q and kv, from that of the context."""
        import torch

        q, kv, context = kept
        return torch.autograd.grad(context, (q, kv), grad)

    def _attend(self, q: torch.Tensor, kv: torch.Tensor, mask: torch.Tensor | None, n_texts: int) -> torch.Tensor:
        import torch

        heads = n_texts, -1, *self._heads
        k, v = (part.view(heads).transpose(1, 2) for part in kv.chunk(2, dim=1))
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(q.view(heads).transpose(1, 2), k, v, attn_mask=mask).transpose(1, 2).reshape(q.shape[0], -1)


class Products(Fused):
    """By products of matrices, which are faster on a CPU where gradients are wanted, and for many shapes without."""

    def __init__(self, width: int, head_size: int):
        super().__init__(width, head_size)
        self._width, self._size, self._scale = width, head_size, float(head_size**-0.5)

    def forward(
        self, q: torch.Tensor, kv: torch.Tensor, mask: torch.Tensor | None, n_texts: int, *, keeps: bool
    ) -> Tensors:
        """The context, and the scaled q, k, v (B·H, M / B or T, d) and weights p (B·H, M / B, T) behind it."""
        import torch

        n_tokens = kv.shape[0] // n_texts
        is_fp32 = q.dtype.itemsize == 4
        fused_is_faster = (n_tokens >= LONG or n_texts == 1) if is_fp32 else n_tokens <= SHORT
        if fused_is_faster and not keeps:
            return super().forward(q, kv, mask, n_texts, keeps=False)
        (q,), (k, v) = self._to_heads(q, n_texts), self._to_heads(kv, n_texts)
        scores = torch.bmm(q.mul_(self._scale), k.transpose(1, 2))  # (B·H, M / B, T)
        if mask is not None:
            scores.view(n_texts, -1, *scores.shape[1:]).add_(mask)
        p = scores.softmax(-1)
        return [self._to_rows([torch.bmm(p, v)], n_texts), q, k, v, p]

    def backward(self, kept: Sequence[torch.Tensor], grad: torch.Tensor, n_texts: int) -> Sequence[torch.Tensor]:
        """The gradients of q and kv, from that of the context."""
        import torch

        q, k, v, p = kept
        (g_context,) = self._to_heads(grad, n_texts)
        g_v = torch.bmm(p.transpose(1, 2), g_context)
        g_scores = torch.ops.aten._softmax_backward_data(torch.bmm(g_context, v.transpose(1, 2)), p, -1, p.dtype)
        g_q = self._to_rows([torch.bmm(g_scores, k).mul_(self._scale)], n_texts)
        return g_q, self._to_rows([torch.bmm(g_scores.transpose(1, 2), q), g_v], n_texts)

    def _to_heads(self, x: torch.Tensor, n_texts: int) -> torch.Tensor:
        """(P, B·H, T, d) of (B·T, P·D): P projections side by side, D = H·d."""
        width, size = self._width, self._size
        n_parts = x.shape[1] // width
        heads = x.view(n_texts, -1, n_parts, width // size, size).permute(2, 0, 3, 1, 4)
        return heads.reshape(n_parts, -1, x.shape[0] // n_texts, size)

    def _to_rows(self, heads: Tensors, n_texts: int) -> torch.Tensor:
        """(B·T, P·D) of P times (B·H, T, d)."""
        n_tokens, size = heads[0].shape[1:]
        rows = heads[0].new_empty(n_texts, n_tokens, len(heads), len(heads[0]) // n_texts, size)
        for at, part in enumerate(heads):
            rows[:, :, at] = part.reshape(n_texts, -1, n_tokens, size).transpose(1, 2)  # (B, T, H, d)
        return rows.view(n_texts * n_tokens, -1)


WAYS: dict[str, type[Fused]] = {"cpu": Products, "cuda": Fused}  # device -> the faster one there

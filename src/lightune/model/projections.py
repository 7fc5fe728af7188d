"""The pieces of a written-out block: linear layers with LoRA added to their weights, and frozen normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Tensors = list[torch.Tensor]

FEW = 256  # rows of a product of which keeping the weight packed saves something


def is_simple_lora(layer: Any) -> bool:
    """Whether a layer is LoRA's plain product on a plain linear layer: no dropout, no DoRA, no bias."""
    import torch
    from peft.tuners.lora.layer import Linear

    return (
        isinstance(layer, Linear)
        and type(layer.base_layer) is torch.nn.Linear
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and not layer.lora_bias["default"]
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
    )


class Projection:
    """x Wᵀ + b of one linear layer, or of several that read the same x, with LoRA's s B A added to W.

    The sum is made in fp32 and rounded to `dtype`: rounded after the addition, a small change still moves its share
    of the numbers. It is made again when A or B has changed.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype):
        import torch

        self._dtype = dtype
        self._adapted: list[tuple[slice, Any]] = []  # the outputs of a layer, the layer
        start = 0
        for layer in layers:
            if is_simple_lora(layer):
                self._adapted.append((slice(start, start + layer.out_features), layer))
            start += layer.out_features
        self.trained: Tensors = [matrix for _, layer in self._adapted for matrix in matrices(layer)[:2]]
        self._seen: Tensors = []  # their values when the sum was made
        self._low: list[Tensors] = []  # A and B of each layer in dtype
        plain = [getattr(layer, "base_layer", layer) for layer in layers]
        with torch.no_grad():
            self._weight = torch.cat([layer.weight for layer in plain]).to(dtype)  # (out, in)
            self._bias = None if plain[0].bias is None else torch.cat([layer.bias for layer in plain]).to(dtype)
        self._is_on_cpu = self._weight.device.type == "cpu"
        self._packs = not self._adapted and self._is_on_cpu and can_pack(dtype)
        self._packed: torch.Tensor | None = None  # the weight as the kernels read it, made when it is first needed

    @property
    def bytes(self) -> int:
        """Of the weight that is kept beside the layers' own, once, or twice where it is packed, too."""
        return int(self._weight.nbytes) * (1 + (self._packed is not None))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_packed": None}  # it has no bytes that could be copied; it is made again

    def forward(self, x: torch.Tensor, *, packs: bool = False) -> torch.Tensor:
        """(N, out), the outputs of the layers side by side, from x (N, in). packs: the weight may be kept packed."""
        import torch

        if packs and self._packs and x.shape[0] <= FEW:
            return self._packed_product(x)
        # to compare, the CPU would wait for a GPU: there the sum is made every time
        if self._adapted and not (self._is_on_cpu and self._seen and all(map(torch.equal, self.trained, self._seen))):
            self._refresh()
        return torch.nn.functional.linear(x, self._weight, self._bias)

    def to_input(self, grad: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """The gradient of x (N, in), from that of the output (N, out), added to `onto` if given: rounded once."""
        return grad @ self._weight if onto is None else onto.addmm_(grad, self._weight)

    def to_adapters(self, x: torch.Tensor, grad: torch.Tensor) -> Tensors:
        """The gradients of `trained`, A (r, in) and B (out, r) of each layer, from x and that of the output."""
        found: Tensors = []
        for (at, layer), (a, b) in zip(self._adapted, self._low, strict=True):
            part, scale = grad[:, at], matrices(layer)[2]
            # the thin side first in each product: up to five times as fast as the same the other way round
            found.append(((b.t() @ part.t()) @ x).float().mul_(scale))
            found.append(((a @ x.t()) @ part).t().float().mul_(scale))
        return found

    def _packed_product(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        kernels = torch.ops.mkldnn
        if self._packed is None:
            self._packed = kernels._reorder_linear_weight(self._weight, None)
        return kernels._linear_pointwise(x, self._packed, self._bias, "none", [], "")  # type: ignore[no-any-return]

    def _refresh(self) -> None:
        import torch

        # not by version counters: the fused optimizer changes a parameter without counting
        with torch.inference_mode(False), torch.no_grad():
            self._seen = []  # what fails below is made again
            seen = [matrix.clone() for matrix in self.trained] if self._is_on_cpu else []
            for at, layer in self._adapted:
                a, b, scale = matrices(layer)
                self._weight[at] = torch.addmm(layer.base_layer.weight, b, a, alpha=scale)
            self._low = [[m.to(self._dtype) for m in matrices(layer)[:2]] for _, layer in self._adapted]
            self._seen = seen


def can_pack(dtype: torch.dtype) -> bool:
    """Whether a weight can be kept in the order in which the kernels read it, into which each product puts it else.

    With few rows that is a third of the product's time in bf16, a quarter in fp32.
    """
    import torch

    kernels = torch.ops.mkldnn
    named = all(hasattr(kernels, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    return named and (dtype == torch.float32 or bool(kernels._is_mkldnn_bf16_supported()))


def matrices(layer: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    """LoRA's A (r, in) and B (out, r), and its scale."""
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]


class Norm:
    """A frozen layer normalisation."""

    def __init__(self, norm: Any, dtype: torch.dtype):
        self._shape, self._eps = norm.normalized_shape, norm.eps
        self._weight, self._bias = (None if p is None else p.detach().to(dtype) for p in (norm.weight, norm.bias))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The output, and mean and reciprocal deviation of each row."""
        import torch

        return torch.native_layer_norm(x, self._shape, self._weight, self._bias, self._eps)

    def backward(self, grad: torch.Tensor, x: torch.Tensor, statistics: Sequence[torch.Tensor]) -> torch.Tensor:
        """The gradient of x."""
        import torch

        norm_backward, wanted = torch.ops.aten.native_layer_norm_backward, [True, False, False]
        return norm_backward(grad, x, self._shape, *statistics, self._weight, self._bias, wanted)[0]  # type: ignore[no-any-return]

"""The fast paths: each gives the plain network's answers within rounding, and changes no parameter.

Each is tried on the network itself before it is used; what it does not suit keeps the plain path, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lightune.model.anatomy import find_layers, made_up_text, text_config
from lightune.records import Decision

if TYPE_CHECKING:
    import torch
    from torch import nn

    Forward = Callable[..., torch.Tensor]

TOLERANCE = 1e-4  # of logits and gradients, relative to the largest


def quicken(model: nn.Module, precision: str) -> list[Decision]:
    """Puts the network, adapted or not, on the fast paths that suit it; tells which, and why not the others.

    precision: of the run, fp32, bf16 or fp16. The network is changed in place: only how it computes,
    not what it holds. Calling it again adds nothing.
    """
    found = shorten_last_block("last block", model), fuse_adapters("LoRA", model, precision)
    return [decision for decision in found if decision]


def shorten_last_block(what: str, model: nn.Module) -> Decision | None:
    """The last block works out the first token only, where the classifier reads nothing else of it."""
    plain: Any = plain_network(model)
    layers = find_layers(plain)
    block = plain.get_submodule(layers[-1])
    was_short = "forward" in vars(block)
    if was_short:
        del block.forward  # to be compared again: an adapter may have been put in since
    if len(layers) < (getattr(text_config(plain), "num_hidden_layers", None) or 0):
        return Decision(what, "plain", "one block is used many times")
    row = next((row for row in FIRST_TOKEN_BLOCKS if all(hasattr(block, name) for name in row[0])), None)
    if row is None:
        return Decision(what, "plain", f"no fast path for {type(block).__name__} yet")
    if not _try(model, [block], row[1]):
        return Decision(what, "plain", "the classifier reads more than the first token, or its length changes it")
    if was_short:
        return None
    return Decision(what, "first token only", "the classifier reads no other; same answers, checked")


def fuse_adapters(what: str, model: nn.Module, precision: str) -> Decision | None:
    """LoRA's product is added to the frozen weight, not to its output: one large product instead of three.

    The gradients are those of the separate products (Cherniuk et al. 2023, arXiv:2312.03415, order them for cost).
    """
    layers = [layer for layer in _lora_layers(model) if "forward" not in vars(layer)]
    suited = [layer for layer in layers if _is_simple(layer)]
    if not layers:
        return None
    if precision != "fp32":
        return Decision(what, "plain", "in 16 bits the sum of a weight and a small change is the weight")
    with _away_from_start(suited):
        is_same = bool(suited) and _try(model, suited, _fused_forward)
    if not is_same:
        return Decision(what, "plain", "this network, or an option of LoRA, needs the separate products")
    return Decision(what, "added to the weights", f"{len(suited)} layers; same answers, checked")


def is_close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether answers or gradients are the same but for rounding."""
    scale = max(1e-3, float(expected.abs().max()))
    return got.shape == expected.shape and float((got - expected).abs().max()) <= TOLERANCE * scale


def plain_network(model: nn.Module) -> nn.Module:
    """The network of transformers itself, its layers adapted or not."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def _try(model: nn.Module, modules: list[Any], forward: Forward) -> bool:
    """Gives `forward` to the modules and keeps it if the model's answers and gradients stay what they were."""
    if getattr(text_config(plain_network(model)), "attention_type", None) == "block_sparse":
        return False  # BigBird turns into another network when it meets a short text, for good
    expected = _answers(model, modules)
    for module in modules:
        module.forward = partial(forward, module)
    try:
        same = all(map(is_close, _answers(model, modules), expected))
    except (RuntimeError, TypeError, AttributeError, IndexError):  # built otherwise than its parts' names say
        same = False
    if not same:
        for module in modules:
            del module.forward
    return same


def _answers(model: nn.Module, modules: list[Any]) -> list[torch.Tensor]:
    """Logits (1, C) of a made-up text, alone and with padding, and the gradients of what trains in `modules`."""
    import torch

    trained = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    was_training = model.training
    model.eval()
    logits = [model(**inputs).logits.float() for inputs in made_up_text(model)]
    loss = torch.cat(logits).square().sum()
    gradients = torch.autograd.grad(loss, trained, allow_unused=True) if trained else ()
    model.train(was_training)
    return [*(each.detach() for each in logits), *(each for each in gradients if each is not None)]


@contextmanager
def _away_from_start(layers: list[Any]) -> Iterator[None]:
    """LoRA starts with B = 0, where A has no gradient and the product is nothing: for a check, B is something."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weights = [layer.lora_B["default"].weight for layer in layers]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight += 0.02 * torch.randn(weight.shape, generator=generator).to(weight.device)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


# The last block


def _bert_block(
    block: Any,
    hidden: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    encoder_hidden_states: torch.Tensor | None = None,
    past_key_values: Any = None,
    **others: Any,
) -> torch.Tensor:
    """The first token (B, 1, D) of BERT's block, from hidden states (B, T, D)."""
    if past_key_values is not None or encoder_hidden_states is not None:
        others |= {"past_key_values": past_key_values, "encoder_hidden_states": encoder_hidden_states}
        return type(block).forward(block, hidden, attention_mask, **others)  # type: ignore[no-any-return]
    attention, first = block.attention.self, hidden[:, :1]
    q, k, v = attention.query(first), attention.key(hidden), attention.value(hidden)
    context = _attend(q, k, v, attention_mask, attention.attention_head_size)
    return block.feed_forward_chunk(block.attention.output(context, first))  # type: ignore[no-any-return]


def _distilbert_block(
    block: Any, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, **others: Any
) -> torch.Tensor:
    """The first token (B, 1, D) of DistilBERT's block, from hidden states (B, T, D)."""
    attention, first = block.attention, hidden[:, :1]
    q, k, v = attention.q_lin(first), attention.k_lin(hidden), attention.v_lin(hidden)
    context = _attend(q, k, v, attention_mask, attention.attention_head_size)
    attended = block.sa_layer_norm(attention.out_lin(context) + first)
    return block.output_layer_norm(block.ffn(attended) + attended)  # type: ignore[no-any-return]


# the parts a block is made of, and how it works out its first token from them
FIRST_TOKEN_BLOCKS: list[tuple[tuple[str, ...], Forward]] = [
    (("attention", "intermediate", "output", "feed_forward_chunk"), _bert_block),
    (("attention", "sa_layer_norm", "ffn", "output_layer_norm"), _distilbert_block),
]


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, head_size: int
) -> torch.Tensor:
    """Attention of q (B, 1, D) over k and v (B, T, D), mask (B, 1, T or 1, T); (B, 1, D)."""
    import torch

    q, k, v = (x.view(*x.shape[:2], -1, head_size).transpose(1, 2) for x in (q, k, v))  # (B, H, 1 or T, D / H)
    first = None if mask is None else mask[:, :, :1]
    context = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=first)
    return context.transpose(1, 2).flatten(2)


# LoRA


def _fused_forward(layer: Any, x: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
    """The output of a LoRA layer, (B, T, out), from x (B, T, in)."""
    import torch

    base = layer.base_layer
    low_precision = torch.is_autocast_enabled(x.device.type) or x.dtype != torch.float32
    if low_precision or layer.merged or layer.disable_adapters or others or named:
        return type(layer).forward(layer, x, *others, **named)  # type: ignore[no-any-return]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return _fused_linear()(x, base.weight, base.bias, a, b, layer.scaling["default"])  # type: ignore[no-any-return]


@cache
def _fused_linear() -> Any:
    """The differentiable x (W + s B A)ᵀ + bias, made when torch is first needed."""
    import torch

    class FusedLinear(torch.autograd.Function):
        @staticmethod
        def forward(  # type: ignore[override]
            ctx: Any,
            x: torch.Tensor,
            weight: torch.Tensor,
            bias: torch.Tensor | None,
            a: torch.Tensor,
            b: torch.Tensor,
            scale: float,
        ) -> torch.Tensor:
            ctx.save_for_backward(x, weight, a, b)
            ctx.scale = scale
            total = torch.addmm(weight, b, a, alpha=scale)  # (out, in)
            return torch.nn.functional.linear(x, total, bias)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
            x, weight, a, b = ctx.saved_tensors
            flat, out = x.flatten(0, -2), grad.flatten(0, -2)  # (N, in), (N, out)
            # the thin side first in each product: up to five times as fast as the same the other way round
            grad_a = (ctx.scale * (b.t() @ out.t())) @ flat
            grad_b = ((ctx.scale * (a @ flat.t())) @ out).t()
            grad_x = None
            if ctx.needs_input_grad[0]:
                # the sum again: kept from the forward pass, it would be a second copy of every weight
                grad_x = (out @ torch.addmm(weight, b, a, alpha=ctx.scale)).view_as(x)
            return grad_x, None, None, grad_a, grad_b, None

    return FusedLinear.apply


def _lora_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.lora.layer import Linear

    return [module for module in model.modules() if isinstance(module, Linear)]


def _is_simple(layer: Any) -> bool:
    """Whether a LoRA layer is the plain product on a plain linear layer: no dropout, no DoRA, no bias."""
    import torch

    return (
        type(layer.base_layer) is torch.nn.Linear
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and not layer.lora_bias["default"]
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
    )

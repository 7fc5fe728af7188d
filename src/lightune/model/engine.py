"""The fast paths: each gives the plain network's answers within rounding, and changes no parameter.

Each is tried on the network itself before it is used; what it does not suit keeps the plain path, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lightune.errors import first_line
from lightune.hardware import is_out_of_memory
from lightune.model.anatomy import find_layers, is_sparse, made_up_text, made_up_texts, n_positions, text_config
from lightune.model.attention import LONG, WAYS
from lightune.model.blocks import MORE, FastBlock, Parts, can_write_out, find_parts, is_given
from lightune.model.projections import is_simple_lora
from lightune.records import Decision

if TYPE_CHECKING:
    import torch
    from torch import nn

    Forwards = Mapping[nn.Module, Callable[..., Any]]
    Tensors = list[torch.Tensor]

TOLERANCE = 1e-4  # of logits and gradients in fp32, relative to the largest
# In 16 bits two ways of computing differ by their roundings. What counts is how far each is from fp32, in the norm of
# all numbers: the fast one may be so many times as far as autocast is, and so far in any case. On MiniLM autocast is
# 0.7 % away from fp32 in what a block puts out and up to 2.3 % in a gradient; written-out blocks are 1.3 and 3.2 %.
TIMES_AUTOCAST, TOLERANCE_16 = 4.0, 6e-2


def quicken(model: nn.Module, precision: str) -> list[Decision]:
    """Puts the network, adapted or not, on the fast paths that suit it; tells which, and why not the others.

    precision: of the run, fp32, bf16 or fp16. The network is changed in place: only how it computes,
    not what it holds. Calling it again looks at what was adapted since, and adds nothing else.
    """
    written_out = write_out_blocks("blocks", model, precision)
    if written_out and written_out.choice != PLAIN:
        return [written_out] if written_out.why else []
    found = written_out, shorten_last_block("last block", model), fuse_adapters("LoRA", model, precision)
    return [decision for decision in found if decision]


def write_out_blocks(what: str, model: nn.Module, precision: str) -> Decision | None:
    """All blocks computed by `FastBlock`, the last for the first token only where no more of it is read.

    None where it is no question: on Apple's GPUs, in fp16, and for other builds of block. The decision has no reason
    where nothing was left to do.
    """
    import torch

    blocks, parts = _blocks(model)
    if not can_be_written_out(model, precision):
        _forget(blocks)
        if not all(map(find_parts, blocks)) or not _suits(model, precision):
            return None
        return Decision(what, PLAIN, "more than LoRA's plain products trains in them, or a part is of another kind")
    choice, dtype = f"written out in {precision}", getattr(torch, DTYPES[precision])
    device = next(model.parameters()).device
    done = {block: (fast.parts, fast.dtype, fast.device) for block, fast in _fast(blocks).items()}
    changed = [block for block in blocks if done.get(block) != (parts[block], dtype, device)]
    if not changed:
        return Decision(what, choice, "")
    _forget(changed)
    refused = ""
    for last in (blocks[-1], None):  # the one that is worked out for the first token only
        # to the fourth digit in fp32: then what is left in 16 bits is rounding
        if refused := _difference(model, _written_out(changed, parts, torch.float32, last)):
            continue
        fast = _written_out(changed, parts, dtype, last)
        if precision != "fp32" and (refused := _difference(model, fast, precision)):
            return Decision(what, PLAIN, f"written out in {precision}, {refused}")
        for block, forward in fast.items():
            block.forward = block.fast = forward
        tokens = "; the last for the first token only, as the classifier reads no other" if last else ""
        return Decision(what, choice, f"forward and backward in few, large products{tokens}; same answers, checked")
    return Decision(what, PLAIN, f"written out, {refused}")


def shorten_last_block(what: str, model: nn.Module) -> Decision | None:
    """The last block works out the first token only, where the classifier reads nothing else of it."""
    plain = plain_network(model)
    layers = find_layers(plain)
    block = plain.get_submodule(layers[-1])
    was_short = "forward" in vars(block)
    if was_short:
        del block.forward  # to be compared again: an adapter may have been put in since
    if _is_shared(plain, layers):
        return Decision(what, PLAIN, "one block is used many times")
    if is_sparse(model):
        return Decision(what, PLAIN, "a short text changes this network: none is tried on it")
    parts = find_parts(block)
    if parts is None:
        return Decision(what, PLAIN, f"no fast path for {type(block).__name__} yet")
    short = FirstToken(block, parts)
    if _difference(model, {block: short}):
        return Decision(what, PLAIN, "the classifier reads more than the first token, or its length changes it")
    block.forward = short  # type: ignore[method-assign]
    if was_short:
        return None
    return Decision(what, "first token only", "the classifier reads no other; same answers, checked")


def fuse_adapters(what: str, model: nn.Module, precision: str) -> Decision | None:
    """LoRA's product is added to the frozen weight, not to its output: one large product instead of three.

    The gradients are those of the separate products (Cherniuk et al. 2023, arXiv:2312.03415, order them for cost).
    """
    layers = [layer for layer in _lora_layers(model) if "forward" not in vars(layer)]
    suited = {layer: partial(_fused_forward, layer) for layer in layers if is_simple_lora(layer)}
    if not layers:
        return None
    if precision != "fp32":
        return Decision(what, PLAIN, "in 16 bits, only blocks that are written out have it")
    if not suited or _difference(model, suited):
        return Decision(what, PLAIN, "this network, or an option of LoRA, needs the separate products")
    for layer, forward in suited.items():
        layer.forward = forward
    return Decision(what, "added to the weights", f"{len(suited)} layers; same answers, checked")


def can_compute(model: nn.Module, precision: str) -> str:
    """Why the network cannot answer in this precision; "" if it can. DeBERTa's mask, for one, overflows in bf16."""
    import torch

    device = next(model.parameters()).device.type
    if precision != "bf16" or is_sparse(model):
        return ""
    try:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            model(**made_up_text(model)[1])
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {first_line(error):.100}"
    return ""


def copied_bytes(model: nn.Module) -> int:
    """Of the weights that fast paths keep beside the network's own."""
    return sum(fast.bytes for fast in _fast(_blocks(model)[0]).values())


def is_close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether answers or gradients are the same but for rounding, in fp32 unless the tolerance says otherwise."""
    scale = max(1e-3, float(expected.abs().max()))
    return got.shape == expected.shape and float((got - expected).abs().max()) <= tolerance * scale


def plain_network(model: nn.Module) -> nn.Module:
    """The network of transformers itself, its layers adapted or not."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def can_be_written_out(model: nn.Module, precision: str) -> bool:
    """Whether all blocks are of a known build, passed through once, and train nothing but LoRA."""
    blocks, parts = _blocks(model)
    plain = plain_network(model)
    return len(parts) == len(blocks) and not _is_shared(plain, find_layers(plain)) and _suits(model, precision)


def is_written_out(model: nn.Module) -> bool:
    """Whether the fast path of all blocks was accepted and is in use."""
    blocks = _blocks(model)[0]
    return len(_fast(blocks)) == len(blocks)


def bytes_of_a_number(model: nn.Module) -> int:
    """Of what a block puts out: under autocast the plain one still puts out fp32."""
    return min((fast.dtype.itemsize for fast in _fast(_blocks(model)[0]).values()), default=4)


def _suits(model: nn.Module, precision: str) -> bool:
    """Whether blocks can be written out on this device, in this precision, at all."""
    return next(model.parameters()).device.type in WAYS and precision in DTYPES and not is_sparse(model)


def _blocks(model: nn.Module) -> tuple[list[Any], dict[Any, Parts]]:
    """The blocks of a network, and the parts of those that `FastBlock` knows."""
    plain = plain_network(model)
    blocks: list[Any] = [plain.get_submodule(name) for name in find_layers(plain)]
    found = {block: parts for block in blocks if (parts := find_parts(block))}
    return blocks, {block: parts for block, parts in found.items() if can_write_out(block, parts)}


PLAIN = "plain"
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # precisions in which blocks can be written out


def _is_shared(plain: nn.Module, layers: tuple[str, ...]) -> bool:
    """Whether a block is passed through many times (ALBERT)."""
    return len(layers) < (getattr(text_config(plain), "num_hidden_layers", None) or 0)


def _fast(blocks: Iterable[Any]) -> dict[Any, FastBlock]:
    """Those of the blocks that are written out."""
    return {block: vars(block)["fast"] for block in blocks if "fast" in vars(block)}


def _forget(blocks: list[Any]) -> None:
    """Blocks on the plain path again: something in them has changed since they were written out."""
    for block in _fast(blocks):
        del block.fast, block.forward


def _written_out(
    blocks: list[Any], parts: Mapping[Any, Parts], dtype: torch.dtype, last: Any
) -> dict[Any, FastBlock]:
    """What is to compute each of the blocks; the last one, if it is given, for the first token only."""
    return {block: FastBlock(block, parts[block], dtype, first_only=block is last) for block in blocks}


def _difference(model: nn.Module, forwards: Forwards, precision: str = "fp32") -> str:
    """What is wrong if each module has its new forward; "" if the network answers and learns what it did.

    It keeps none of them.
    """
    if is_sparse(model):
        return "nothing is tried on it"
    outcome = partial(_outcome, model, forwards, of_blocks=precision != "fp32")
    with _away_from_start(model):
        expected = outcome("fp32")
        rough = expected if precision == "fp32" else outcome(precision)
        for module, forward in forwards.items():
            module.forward = forward  # type: ignore[method-assign]
        try:
            got = outcome(precision)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            # built otherwise than its parts' names say
            return f"they fail: {type(error).__name__}: {first_line(error):.100}"
        finally:
            for module in forwards:
                del module.forward
    if not all(getattr(forward, "is_used", True) for forward in forwards.values()):
        return "they are given more than they read"
    if _are_close(got, expected, rough, precision):
        return ""
    return "they give other answers than the plain ones" if precision == "fp32" else "they are too far from fp32"


def _are_close(got: Tensors, expected: Tensors, rough: Tensors, precision: str) -> bool:
    """Whether answers and gradients are as near to those in fp32 as the precision allows.

    rough: the plain network's in the precision of the run.
    """
    if len(got) != len(expected):
        return False
    if precision == "fp32":
        return all(map(is_close, got, expected))
    far = [_distance(each, exact) for each, exact in zip(rough, expected, strict=True)]
    near = [_distance(each, exact) for each, exact in zip(got, expected, strict=True)]
    return all(mine <= max(TOLERANCE_16, TIMES_AUTOCAST * usual) for mine, usual in zip(near, far, strict=True))


def _distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference, relative to that of what was expected."""
    return float((got - expected).norm() / expected.norm().clamp(min=1e-6))


def _outcome(model: nn.Module, modules: Iterable[nn.Module], precision: str, *, of_blocks: bool) -> Tensors:
    """What comes of made-up texts, one alone and some that are padded, and the gradients of what trains in `modules`.

    What comes of them are the logits (B, C), or, of_blocks, what each of the modules puts out for the first tokens:
    an untrained head may put out next to nothing, of which rounding is a large part. It comes with gradients and
    without: blocks that are written out take other ways then. The gradients are those of one output less the next,
    and so on, so that they do not vanish where the outputs happen to.
    """
    import torch

    outputs: Tensors = []
    watched = list(modules) if of_blocks else [model]
    hooks = [module.register_forward_hook(partial(_keep, outputs)) for module in watched]
    trained = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device.type
    added = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0  # before each text
    try:
        for with_gradients in (True, False):
            texts = [made_up_text(model)[0], made_up_texts(model)]
            if not with_gradients and n_positions(model) - added >= LONG:  # attention takes another way then
                texts.append(made_up_texts(model, 2, LONG))
            for inputs in texts:
                autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
                with torch.set_grad_enabled(with_gradients), autocast:
                    model(**inputs)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    contrast = torch.stack([_contrast(output) for output in outputs]).sum()
    gradients = torch.autograd.grad(contrast, trained, allow_unused=True) if trained else ()
    return [each.detach() for each in (*outputs, *gradients) if each is not None]


def _keep(outputs: Tensors, module: nn.Module, inputs: Any, output: Any) -> None:
    """A hook: the logits of a model, or what a block puts out for the first token of each text."""
    hidden = output[0] if isinstance(output, tuple) else output
    outputs.append((output.logits if hasattr(output, "logits") else hidden[:, 0]).float())


def _contrast(output: torch.Tensor) -> torch.Tensor:
    """The sum of every other number in the last dimension less that of those between."""
    return output[..., ::2].sum() - output[..., 1::2].sum()


@contextmanager
def _away_from_start(model: nn.Module) -> Iterator[None]:
    """LoRA starts with B = 0, where A has no gradient and the product is nothing: for a check, B is something."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weights: list[Any] = [layer.lora_B["default"].weight for layer in _lora_layers(model) if is_simple_lora(layer)]
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


# The last block, of modules


class FirstToken:
    """The first token (B, 1, D) of a block's output, from hidden states (B, T, D)."""

    def __init__(self, block: Any, parts: Parts):
        self.block, self.parts = block, parts
        self.is_used = False  # a block that is given more than it reads never is

    def __call__(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *others: Any, **named: Any
    ) -> torch.Tensor:
        """attention_mask (B, 1, 1 or T, T), as torch's attention takes it."""
        if is_given(*others, *map(named.get, MORE)):
            return type(self.block).forward(self.block, hidden, attention_mask, *others, **named)  # type: ignore[no-any-return]
        self.is_used = True
        first, parts = hidden[:, :1], self.parts
        q, k, v = parts.query(first), parts.key(hidden), parts.value(hidden)
        attended = parts.norm(parts.out(_attend(q, k, v, attention_mask, parts.head_size)) + first)
        return parts.norm_after(parts.down(parts.activation(parts.up(attended))) + attended)  # type: ignore[no-any-return]


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, head_size: int
) -> torch.Tensor:
    """Attention of q (B, 1, D) over k and v (B, T, D), mask (B, 1, T or 1, T); (B, 1, D)."""
    import torch

    q, k, v = (x.view(*x.shape[:2], -1, head_size).transpose(1, 2) for x in (q, k, v))  # (B, H, 1 or T, D / H)
    first = None if mask is None else mask[:, :, :1]
    context = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=first)
    return context.transpose(1, 2).flatten(2)


# LoRA, in networks whose blocks are not written out


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

"""What a network is made of, found by looking at it and at what its checkpoint lacked, never at its name."""

from __future__ import annotations

import inspect as python_inspect
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lightune.errors import UserError
from lightune.records import Decision

if TYPE_CHECKING:
    import torch
    from torch import nn

# Words that name the role of a projection; a fused layer carries all three of them, or one of these names.
ROLES = {"q": "query", "query": "query", "k": "key", "key": "key", "v": "value", "value": "value"}
FUSED = {"qkv", "wqkv"}
FUSED_IN_ATTENTION = {"c_attn", "in_proj"}


@dataclass(frozen=True)
class Anatomy:
    """The parts of a sequence classifier; every name is a full dotted module name of the plain model.

    head_modules: the largest modules that hold nothing but weights the checkpoint lacked.
    pooler_modules: pretrained linear parts between the last block and the head (BERT's pooler).
    linears: name -> (in, out) features of each linear layer inside the blocks.
    attention_inputs: query, key and value projections, or the fused one; feed_forward_outputs: the layers
    that lead back from the wide hidden layer. norm_modules: in the blocks and after the last one.
    layers: the repeated blocks, from the input up; n_layers: how many a text passes through (ALBERT passes
    through one of them many times). transposed: the linear layers are Conv1D, weights (in, out).
    hidden_size: width of the hidden states; embedding_size: of a token's embedding (ALBERT's is smaller).
    is_decoder: classifies by the last token that is not padding. accepts_prefix: its forward takes
    past_key_values.
    """

    head_modules: tuple[str, ...]
    pooler_modules: tuple[str, ...]
    linears: dict[str, tuple[int, int]]
    attention_inputs: tuple[str, ...]
    feed_forward_outputs: tuple[str, ...]
    norm_modules: tuple[str, ...]
    layers: tuple[str, ...]
    n_layers: int
    n_heads: int
    hidden_size: int
    embedding_size: int
    is_decoder: bool
    accepts_prefix: bool
    transposed: bool


def inspect(model: nn.Module, missing_keys: set[str]) -> Anatomy:
    """The anatomy of a model made by `AutoModelForSequenceClassification.from_pretrained`.

    missing_keys: what its checkpoint lacked (`output_loading_info`), with keys dropped for their size.
    Raises UserError if the network has no repeated blocks, or lacks a weight that has no module of its own.
    """
    layers = find_layers(model)
    head = head_modules(model, missing_keys)
    linears = {name: size for name, size in linear_sizes(model).items() if inside(name, layers)}
    return Anatomy(
        head_modules=head,
        pooler_modules=pooler_modules(model, layers, head),
        linears=linears,
        attention_inputs=tuple(name for name in linears if role(name)),
        feed_forward_outputs=feed_forward_outputs(linears, hidden_size(model)),
        norm_modules=norm_modules(model, layers, head),
        layers=layers,
        n_layers=int(getattr(text_config(model), "num_hidden_layers", None) or len(layers)),
        n_heads=int(getattr(text_config(model), "num_attention_heads", 1)),
        hidden_size=hidden_size(model),
        embedding_size=int(embeddings(model).embedding_dim),
        is_decoder=pools_last_token(model),
        accepts_prefix=accepts_prefix(model),
        transposed=any(is_transposed(model.get_submodule(name)) for name in linears),
    )


def top_layers(anatomy: Anatomy, layers: int | Literal["all"]) -> Anatomy:
    """The same anatomy with nothing below the top `layers` blocks; "all" keeps everything.

    Raises UserError if there are not that many blocks, or one block is used many times (ALBERT).
    """
    if layers == "all" or layers == len(anatomy.layers):
        return anatomy
    _check_layers(anatomy, layers)
    dropped = anatomy.layers[: len(anatomy.layers) - layers]
    kept = {name: size for name, size in anatomy.linears.items() if not inside(name, dropped)}
    return replace(
        anatomy,
        linears=kept,
        attention_inputs=tuple(name for name in anatomy.attention_inputs if name in kept),
        feed_forward_outputs=tuple(name for name in anatomy.feed_forward_outputs if name in kept),
        norm_modules=tuple(name for name in anatomy.norm_modules if not inside(name, dropped)),
        layers=anatomy.layers[len(dropped) :],
    )


def ensure_pad_token(tokenizer: Any, model: nn.Module) -> Decision | None:
    """Give the tokenizer and the model the same padding token; None if they already agree.

    A decoder refuses batches without one, and reads the last token that is not padding: the model's own
    number must be the tokenizer's. Raises UserError if no special token could serve.
    """
    seen = tokenizer.pad_token
    if seen is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    if tokenizer.pad_token is None:
        raise UserError(
            "the tokenizer has no padding token and no end, unknown or start token to use in its place. "
            "Add a pad_token to its tokenizer_config.json."
        )
    if seen is not None and text_config(model).pad_token_id == tokenizer.pad_token_id:
        return None
    _config(model).pad_token_id = text_config(model).pad_token_id = tokenizer.pad_token_id
    why = "the tokenizer has none" if seen is None else "the model did not know the tokenizer's"
    return Decision("padding token", repr(tokenizer.pad_token), why)


def find_layers(model: nn.Module) -> tuple[str, ...]:
    """The repeated blocks from the input up: the elements of the outermost module lists that hold linears."""
    from torch import nn

    found: list[str] = []
    for name, module in model.named_modules():
        if inside(name, found) or not isinstance(module, nn.ModuleList):
            continue
        found += [f"{name}.{i}" for i, block in enumerate(module) if _is_block(block)]
    if not found:
        raise UserError(
            f"{type(model).__name__}: no repeated transformer blocks found, so nothing says where "
            "adapters go. Use another base model."
        )
    return tuple(found)


def check_backbone(model: nn.Module, missing_keys: set[str]) -> None:
    """UserError if the checkpoint lacked a weight of the blocks or of what comes before them.

    It would be drawn at random, be no part of what an adapter saves, and be another one at every load.
    """
    layers, names = find_layers(model), list(model.state_dict())
    if lost := sorted(missing_keys & set(names[: _end_of_blocks(names, layers)])):
        raise UserError(
            f"its weights lack {len(lost)} of the network its config.json describes, such as {lost[0]!r} in the "
            f"right shape. Copy or download it again, or use another base model."
        )


def head_modules(model: nn.Module, missing_keys: set[str]) -> tuple[str, ...]:
    """The largest modules made only of weights the checkpoint lacked; if none, those outside the backbone.

    Raises UserError if a missing weight sits directly in a module that also holds pretrained layers.
    """
    names = set(model.state_dict())
    missing = missing_keys & names or _outside_backbone(model, names)
    owners = owning_modules(missing, names)
    for owner in owners:
        if owner == "" or (holds_children(model, owner) and not all_inside(owner, names, missing)):
            lost = sorted(key for key in missing if key.rpartition(".")[0] == owner)
            raise UserError(
                f"the base checkpoint lacks {lost}, which sits among pretrained layers and cannot be "
                "saved with an adapter. Use a base model that has it."
            )
    return owners


def pooler_modules(model: nn.Module, layers: tuple[str, ...], head: tuple[str, ...]) -> tuple[str, ...]:
    """The pretrained modules with a linear layer that come after the last block and are not the head.

    They exist in the checkpoint but were trained for another purpose (BERT: which sentence comes next).
    """
    names = [name for name in model.state_dict() if not inside(name, head)]
    owners = owning_modules(set(names[_end_of_blocks(names, layers) :]), set(model.state_dict()))
    return tuple(owner for owner in owners if any(inside(name, (owner,)) for name in linear_sizes(model)))


def _end_of_blocks(names: list[str], layers: tuple[str, ...]) -> int:
    """The place in the state's `names` after the last weight of a block."""
    return 1 + max(i for i, name in enumerate(names) if inside(name, layers))


def linear_sizes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Name -> (in, out) features of every nn.Linear and transformers Conv1D of the model."""
    from torch import nn

    sizes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            sizes[name] = (module.in_features, module.out_features)
        elif is_transposed(module):
            sizes[name] = (module.nx, module.nf)  # type: ignore[assignment]
    return sizes


def norm_modules(model: nn.Module, layers: tuple[str, ...], head: tuple[str, ...]) -> tuple[str, ...]:
    """The normalisation layers inside the blocks and after the last one, those of the head left out."""
    names = [name for name, _ in model.named_modules()]
    first = min(names.index(layer) for layer in layers)
    norms = {name for name, module in model.named_modules() if _is_norm(module) and "embed" not in name}
    return tuple(name for name in names[first:] if name in norms and not inside(name, head))


def feed_forward_outputs(linears: dict[str, tuple[int, int]], hidden: int) -> tuple[str, ...]:
    """The linear layers outside attention that lead from another width back to the hidden size."""
    return tuple(
        name
        for name, (n_in, n_out) in linears.items()
        if n_out == hidden and n_in != hidden and not in_attention(name)
    )


def role(name: str) -> str | None:
    """'query', 'key', 'value' or 'fused' for a projection that feeds attention, None for any other layer."""
    leaf = name.rpartition(".")[2].lower()
    words = [word for word in re.split(r"[_\d]+", leaf) if word]
    if FUSED & set(words) or {"query", "key", "value"} <= set(words):
        return "fused"
    if in_attention(name) and leaf in FUSED_IN_ATTENTION:
        return "fused"
    return ROLES.get(words[0]) if words else None


def in_attention(name: str) -> bool:
    """Whether a part of the dotted name says attention ("attn", "self_attention", "SelfAttention")."""
    return any("attn" in part or "attention" in part for part in name.lower().split("."))


def pools_last_token(model: nn.Module) -> bool:
    """Whether the classifier looks for the last token that is not padding, as causal models do."""
    try:
        source = python_inspect.getsource(type(model).forward)
    except OSError:  # no source: a zipped or compiled install
        return bool(getattr(_config(model), "is_decoder", False))
    return "pad_token_id" in source


def accepts_prefix(model: nn.Module) -> bool:
    """Whether the classifier's forward, or else its backbone's, takes past_key_values.

    The way PEFT looks for it; a forward may still ignore or refuse them: `methods.apply` tries it.
    """
    backbone = getattr(model, "base_model", model)
    forwards = (type(model).forward, type(backbone).forward)
    return any("past_key_values" in python_inspect.signature(forward).parameters for forward in forwards)


def owning_modules(keys: set[str], every_key: set[str]) -> tuple[str, ...]:
    """The largest modules all of whose weights are in `keys`; a key without one gives its own module."""
    owners = {_largest_owner(key, keys, every_key) for key in sorted(keys)}
    return tuple(sorted(owner for owner in owners if not inside(owner, owners - {owner})))


def inside(name: str, modules: Any) -> bool:
    """Whether a dotted name is one of the modules or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def all_inside(module: str, every_key: set[str], keys: set[str]) -> bool:
    """Whether every weight of the module is in `keys`."""
    return all(key in keys for key in every_key if key.startswith(f"{module}."))


def holds_children(model: nn.Module, name: str) -> bool:
    """Whether the module has modules of its own."""
    return any(True for _ in model.get_submodule(name).children())


def is_transposed(module: nn.Module) -> bool:
    """Whether the module is a Conv1D of transformers: a linear layer whose weight is (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def hidden_size(model: nn.Module) -> int:
    """The width of the hidden states, D."""
    return int(text_config(model).hidden_size)


def text_config(model: nn.Module) -> Any:
    """The part of the model's configuration that describes its text network."""
    return _config(model).get_text_config()


def is_sparse(model: nn.Module) -> bool:
    """Whether a short text turns it, adapted or not, into another network for good, as BigBird."""
    return getattr(text_config(model), "attention_type", None) == "block_sparse"


def n_positions(model: nn.Module) -> float:
    """Tokens that the network has positions for; infinite if it counts them in another way."""
    from torch import nn

    limits = [math.inf]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(("position_embeddings", "wpe")):
            # RoBERTa counts positions from its padding id + 1
            limits.append(module.num_embeddings - (-1 if module.padding_idx is None else module.padding_idx) - 1)
    declared = getattr(model.config, "max_position_embeddings", None)
    return min(limits + ([declared] if isinstance(declared, int) and declared > 0 else []))


def made_up_text(model: nn.Module, first_id: int = 5) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """One text of a few tokens (1, T), numbered from first_id, alone and with two padding tokens after it."""
    import torch

    settings = text_config(model)
    pad = settings.pad_token_id or 0
    end = [settings.eos_token_id] if settings.eos_token_id not in (None, pad) else []
    ids = [token for token in range(first_id, first_id + 7) if token not in (pad, *end)] + end
    rows = [(ids, [1] * len(ids)), ([*ids, pad, pad], [1] * len(ids) + [0, 0])]
    device = next(model.parameters()).device
    alone, padded = [[torch.tensor([part], device=device) for part in row] for row in rows]
    return (
        {"input_ids": alone[0], "attention_mask": alone[1]},
        {"input_ids": padded[0], "attention_mask": padded[1]},
    )


def made_up_texts(model: nn.Module, n_texts: int = 8, n_tokens: int = 16) -> dict[str, torch.Tensor]:
    """Texts of n_tokens and fewer, (n_texts, T), from any part of the vocabulary; they end as its texts do."""
    import torch

    settings = text_config(model)
    pad = settings.pad_token_id or 0
    end = settings.eos_token_id if settings.eos_token_id != pad else None
    known = torch.tensor([token for token in range(5, embeddings(model).num_embeddings) if token not in (pad, end)])
    ids = known[torch.randint(len(known), (n_texts, n_tokens), generator=torch.Generator().manual_seed(0))]
    mask = torch.ones_like(ids)
    for row in range(n_texts):
        stop = ids.shape[1] - row
        if end is not None:
            ids[row, stop - 1] = end
        ids[row, stop:], mask[row, stop:] = pad, 0
    device = next(model.parameters()).device
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def embeddings(model: nn.Module) -> Any:
    """The table of token embeddings."""
    return model.get_input_embeddings()  # type: ignore[operator]


def _config(model: nn.Module) -> Any:
    return model.config


def _is_block(module: nn.Module) -> bool:
    return bool(linear_sizes(module))


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and getattr(weight, "ndim", 0) == 1


def _outside_backbone(model: nn.Module, names: set[str]) -> set[str]:
    backbone = str(getattr(model, "base_model_prefix", ""))
    return {name for name in names if not inside(name, (backbone,))}


def _largest_owner(key: str, keys: set[str], every_key: set[str]) -> str:
    owner = key.rpartition(".")[0]
    parent = owner.rpartition(".")[0]
    while parent and all_inside(owner, every_key, keys) and all_inside(parent, every_key, keys):
        owner, parent = parent, parent.rpartition(".")[0]
    return owner


def _check_layers(anatomy: Anatomy, layers: int) -> None:
    if anatomy.n_layers > len(anatomy.layers) == 1:
        raise UserError(
            f"train.layers = {layers}: this network passes {anatomy.n_layers} times through one shared "
            "block. Use train.layers = 'all'."
        )
    if not 1 <= layers <= len(anatomy.layers):
        raise UserError(
            f"train.layers = {layers}: the network has {len(anatomy.layers)} blocks. "
            f"Use a number from 1 to {len(anatomy.layers)}, or 'all'."
        )

"""The PEFT model: made from a configuration, tried, saved, loaded back and merged.

What `save` writes is a plain PEFT folder (or the whole model) that gives the same logits on the original base.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightune.errors import UserError
from lightune.model.anatomy import inside, is_sparse, made_up_text

if TYPE_CHECKING:
    import torch
    from torch import nn

Config = Any  # a peft.PeftConfig; None for a method that trains the plain model

# PEFT adapts no layer at all under this name, and loads such a folder like any other
NO_TARGETS = "dummy-target-modules"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What PEFT 0.21 says about itself with transformers 5, or about things that are meant
HARMLESS = (
    "`is_gradient_checkpointing` is deprecated",
    "Unsupported layer type .*[Nn]orm",  # LN tuning looks for the (in, out) features of a norm
    "Detected that the base layer has no bias term",  # `merge` says so to whoever tries
)


def save(model: nn.Module, folder: str | Path) -> None:
    """Write what `load` needs for the same logits on the original base: a PEFT folder, or the whole model.

    The one way to save: it also turns PiSSA and OLoRA, which change the base weights, into plain LoRA.
    """
    from peft import PeftModel

    Path(folder).mkdir(parents=True, exist_ok=True)
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder)  # type: ignore[operator]
        return
    # False: with "auto" PEFT asks the Hub whether the vocabulary was resized
    model.save_pretrained(str(folder), save_embedding_layers=False)
    start = getattr(model, "lora_at_start", None)
    if start:
        _save_as_plain_lora(model, Path(folder), start)


def load(base_model: nn.Module, folder: str | Path) -> nn.Module:
    """The frozen model, in evaluation mode, whose adapter is in `folder`; base_model is changed in place.

    Raises UserError if the folder has no safetensors weights or lacks some of them.
    """
    from peft import PeftModel

    folder = Path(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise UserError(f"{folder}: no {ADAPTER_CONFIG}. Give the adapter folder of a run.")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{folder}: no {ADAPTER_WEIGHTS}. Other formats can run code and are never opened.")
    with _quiet():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(base_model, str(folder), is_trainable=False)
        except (UserWarning, KeyError, RuntimeError) as error:
            raise UserError(
                f"{folder}: this adapter does not fit the base model: {str(error)[:300]}. "
                "Load it on the base it was trained on, with the same number of classes."
            ) from error
    return adapted.eval().requires_grad_(False)  # PEFT leaves prompts trainable


def fingerprint(model: nn.Module) -> list[float]:
    """The logits (C,) of a made-up text, in fp32: weights, configuration and code all have a part in them.

    Empty for BigBird, which a short text turns into another network.
    """
    import torch

    if is_sparse(model):
        return []
    with torch.no_grad():
        alone, _ = made_up_text(model)
        return [float(logit) for logit in model(**alone).logits[0].float().cpu()]


def can_merge(model: nn.Module) -> bool:
    """Whether the plain model can hold what the adapter does: no prompts, and no biases where it has none."""
    from peft import PeftModel

    is_prompt = isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning
    return not is_prompt and not _has_new_biases(model)


def merge(model: nn.Module) -> nn.Module:
    """The plain model with the adapter folded into its weights; the adapted model is used up.

    Raises UserError for prompts and prefixes, and for new biases in layers that have none.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    if not can_merge(model):
        raise UserError(
            f"{model.active_peft_config.peft_type.value}: cannot be merged into this base model. "
            "Keep the adapter, or use method.name = 'lora'."
        )
    base: Any = model.get_base_model()
    # before PEFT merges: several of its methods fail on a wrapped module made of more than one layer
    for name, wrapper in _wrapped(base).items():
        parent, _, child = name.rpartition(".")
        setattr(base.get_submodule(parent), child, wrapper.modules_to_save["default"])
    return model.merge_and_unload()  # type: ignore[operator, no-any-return]


def adapter_dropout_modules(model: nn.Module) -> list[nn.Module]:
    """The dropout modules of the adapters alone: the only ones to switch to training mode."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    found = [part for layer in layers for name, part in layer.named_modules() if not inside(name, ("base_layer",))]  # type: ignore[attr-defined]
    return [part for part in found if "dropout" in type(part).__name__.lower()]


def _save_as_plain_lora(model: Any, folder: Path, start: dict[str, torch.Tensor]) -> None:
    """Rewrite the folder as LoRA of twice the rank on the original base: B A - B0 A0 = [B, -B0] [A; A0].

    As it was, every load would decompose the base's weights again, change them, and trust that the result is
    the same. PEFT's own conversion (path_initial_model_for_weight_conversion) leaves the head out of the file.
    """
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / ADAPTER_WEIGHTS)
    for name, first in start.items():
        parts = (tensors[name], first) if ".lora_A" in name else (tensors[name], -first)
        tensors[name] = torch.cat(parts, dim=0 if ".lora_A" in name else 1).contiguous()
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config["default"])
    config.lora_alpha *= 2**0.5 if config.use_rslora else 2
    config.r, config.init_lora_weights, config.inference_mode = 2 * config.r, True, True
    config.save_pretrained(str(folder))


def _has_new_biases(model: nn.Module) -> bool:
    """Whether BitFit gave a bias to a layer that has none, which the base's configuration has no room for."""
    from peft.tuners.beft import BeftLayer

    layers = [module for module in model.modules() if isinstance(module, BeftLayer)]
    return any(layer.get_base_layer().bias is None for layer in layers)


# From a configuration to the adapted model


def adapt(model: nn.Module, config: Config, saved: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """The PEFT model and the full names of its adapted modules, which are those asked for or it is a bug."""
    from peft import get_peft_model

    asked = _targets_of(config)
    config.task_type = "SEQ_CLS"
    config.modules_to_save = list(saved)
    with _quiet():
        adapted: Any = get_peft_model(model, config)  # type: ignore[arg-type]
    targets = tuple(getattr(adapted.base_model, "targeted_module_names", ()))
    if asked != set(targets):
        raise RuntimeError(f"PEFT adapted {sorted(targets)}, not {sorted(asked)}")
    _freeze_guessed(adapted, saved)
    _make_reproducible(config, saved)
    if getattr(config, "init_lora_weights", None) in ("pissa", "olora"):
        adapted.lora_at_start = _lora_tensors(adapted)
    return adapted, targets


def _targets_of(config: Config) -> set[str]:
    names = getattr(config, "target_modules", None)
    return set() if names is None or names == NO_TARGETS else set(names)


def _freeze_guessed(adapted: Any, saved: Sequence[str]) -> None:
    """Freeze what PEFT wrapped only for a name that ends in "classifier" or "score"; saved unchanged."""
    wrapped = _wrapped(adapted.get_base_model())
    if lost := set(saved) - set(wrapped):
        raise RuntimeError(f"PEFT did not make {sorted(lost)} trainable")
    for name in set(wrapped) - set(saved):
        wrapped[name].requires_grad_(False)


def _wrapped(model: Any) -> dict[str, Any]:
    """Module name -> the wrapper in which PEFT trains a copy of the module."""
    from peft.utils import ModulesToSaveWrapper

    return {name: module for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper)}


def _make_reproducible(config: Config, saved: Sequence[str]) -> None:
    """The lists of the configuration in a fixed order: PEFT keeps sets, and repeats its own guesses."""
    config.modules_to_save = list(saved)
    for field in ("target_modules", "feedforward_modules"):
        names = getattr(config, field, None)
        if isinstance(names, (set, list)):
            setattr(config, field, sorted(names))


def _lora_tensors(adapted: Any) -> dict[str, torch.Tensor]:
    """Name in the adapter file -> a copy of each LoRA matrix, on the CPU."""
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items() if ".lora_" in name}


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        yield


# A prompt is tried before it is trained: some models ignore or refuse it


def try_prompt(adapted: Any, name: str) -> None:
    """Answer one text with and without padding, and without the prompt.

    Raises UserError if the model cannot, if padding changes the answer, or if the prompt does not.
    """
    import torch

    was_training = adapted.training
    inputs, padded = made_up_text(adapted)
    try:
        with torch.no_grad():
            adapted.eval()
            answers = [model(**inputs).logits for model in (adapted, adapted.base_model)]
            in_batch = adapted(**padded).logits
    except (TypeError, ValueError, NotImplementedError, RuntimeError, IndexError, AttributeError) as error:
        raise UserError(f"method.name = {name!r}: this model refuses it ({error}). Use 'lora'.") from error
    finally:
        adapted.train(was_training)
    if torch.equal(*answers):
        raise UserError(f"method.name = {name!r}: this model ignores it. Use 'lora'.")
    if not torch.allclose(answers[0], in_batch, atol=1e-4):
        raise UserError(f"method.name = {name!r}: with it this model's answers depend on padding. Use 'lora'.")

"""A saved adapter, loaded on the base it was trained on, or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightune.artifact.contract import FILE, Contract, check_files, read_contract
from lightune.artifact.folder import ADAPTER
from lightune.data.batching import Encoder
from lightune.data.framing import find_frame
from lightune.errors import UserError
from lightune.model import adapters, methods
from lightune.model.backbones import Reference, load_base, locate

if TYPE_CHECKING:
    from torch import nn

FINGERPRINT_TOLERANCE = 1e-3  # of logits, relative to the largest above 1; between machines in fp32


@dataclass(frozen=True)
class Loaded:
    """A saved classifier, ready to answer: the model on the CPU in fp32, eval mode."""

    model: nn.Module
    encoder: Encoder
    contract: Contract


def adapter_folder(path: str | Path) -> Path:
    """The adapter folder of a run folder, or of itself. UserError if it is neither."""
    folder = Path(path)
    try:
        found = [candidate for candidate in (folder, folder / ADAPTER) if (candidate / FILE).exists()]
    except OSError as error:  # a name that is too long
        raise UserError(f"{str(path)[:80]}: cannot be opened ({error.strerror}). Give the folder of a run.") from None
    if found:
        return found[0]
    if folder.is_file():
        raise UserError(f"{folder}: a file. Give the folder of a finished run first, then the data.")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give the folder of a finished run.")
    partial = folder.name.endswith(".partial")
    why = "the run was not finished" if partial else f"no {FILE} in it or in its adapter folder"
    raise UserError(f"{folder}: {why}. Give the folder of a finished run.")


def load_adapter(path: str | Path, *, base: str | None = None, seed: int | None = None) -> Loaded:
    """The classifier in a run or adapter folder, on the base it was trained on.

    base: where the base model is, if it moved. UserError if its weights are not the ones of the contract.
    """
    import torch
    from transformers import AutoTokenizer

    adapter = adapter_folder(path)
    contract = read_contract(adapter)
    check_files(contract, adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
    frame = find_frame(tokenizer, pair=contract.pair is not None)
    encoder = Encoder(tokenizer, frame, contract.max_tokens, contract.truncation)
    # heads and adapters are drawn before they are loaded: that is no business of the caller's random numbers
    with torch.random.fork_rng(devices=[], enabled=seed is None):
        model = _load_model(contract, adapter, base, seed)
    check_fingerprint(model.eval(), contract, adapter)
    return Loaded(model.eval(), encoder, contract)


def _load_model(contract: Contract, adapter: Path, base: str | None, seed: int | None) -> nn.Module:
    if not methods.METHODS[contract.method].is_peft:
        whole = Reference(str(adapter), adapter, None, "local folder")
        made = load_base(whole, contract.labels, seed=seed, task=contract.task)
        if made.missing_keys:
            raise UserError(f"{adapter}: its weights lack {sorted(made.missing_keys)[:3]}. The file was changed.")
        return made.model
    reference = _find_base(contract, adapter, base)
    made = load_base(reference, contract.labels, seed=seed, task=contract.task)
    _check_digest(made.digest, contract, reference)
    if contract.max_tokens > made.max_tokens:
        raise UserError(f"{adapter}: its texts have {contract.max_tokens} tokens; this base takes {made.max_tokens}.")
    return adapters.load(made.model, adapter)


def _find_base(contract: Contract, adapter: Path, base: str | None) -> Reference:
    if base is not None:
        return locate(base)
    beside = contract.base.beside
    if beside is not None:
        for folder in (adapter / beside, Path(contract.base.name)):
            if folder.is_dir():
                return Reference(contract.base.name, folder, None, "local folder")
        raise UserError(f"{adapter}: its base model {contract.base.name!r} is not there. Give it with --base.")
    at = f"@{contract.base.revision}" if contract.base.revision else ""
    return locate(contract.base.name + at)


def check_fingerprint(model: nn.Module, contract: Contract, adapter: Path) -> None:
    """UserError unless the network answers a fixed text as it did when the run ended."""
    if not has_fingerprint(model, contract):
        raise UserError(
            f"{adapter}: loaded, it answers a fixed text otherwise than when the run ended. The base's config.json "
            f"or the contract was changed, or a library computes otherwise. Give the right base with --base."
        )


def has_fingerprint(model: nn.Module, contract: Contract) -> bool:
    """Whether the network answers a fixed text as the contract says."""
    answers = adapters.fingerprint(model)
    scale = max(1.0, *map(abs, contract.fingerprint)) if contract.fingerprint else 1.0
    differences = [abs(now - then) for now, then in zip(answers, contract.fingerprint, strict=False)]
    return len(answers) == len(contract.fingerprint) and all(d <= FINGERPRINT_TOLERANCE * scale for d in differences)


def _check_digest(digest: str, contract: Contract, reference: Reference) -> None:
    if digest != contract.base.digest:
        raise UserError(
            f"{reference.name}: its weights have sha256 {digest[:12]}…, but this adapter was trained on "
            f"{contract.base.digest[:12]}…. Give the right base with --base."
        )

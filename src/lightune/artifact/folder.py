"""The run folder: what is in it, and how it comes to be all or nothing.

    recipe.toml           the recipe with every choice filled in and each value's origin as a comment
    adapter/              a plain PEFT folder (for `full`: a plain transformers folder) with the tokenizer,
                          contract.json and a README.md card
    results.json          every number of the run; its schema is schemas/results.schema.json
    doctor.json           what was wrong with the data; its schema is schemas/doctor.schema.json
    results.png           before and after, the learning curve, two confusion matrices
    report.html           the whole report, one file that opens without a network; no text of the data
    predictions.parquet   test rows: row number, label, answers before, after and of baselines, probabilities; no text
    environment.json      versions, device and why it was chosen
    events.jsonl          what happened when, a line of JSON each
    trackers/             what the chosen experiment trackers wrote

A run is built in `<folder>.partial` and takes the folder's name once it is complete and proved: an earlier
run under that name stays as it is until then.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightune.artifact.contract import CARD, FILE, Contract, read_contract, write_contract
from lightune.data.batching import Encoder
from lightune.errors import GateError, UserError
from lightune.model import adapters

if TYPE_CHECKING:
    from torch import nn

ADAPTER = "adapter"
RESULTS = "results.json"
RECIPE = "recipe.toml"
PICTURE = "results.png"
PAGE = "report.html"
DOCTOR = "doctor.json"
PREDICTIONS = "predictions.parquet"
ENVIRONMENT = "environment.json"
MARK = "events.jsonl"  # the first file of a run that is being written
PARTS = {RECIPE, ADAPTER, RESULTS, PICTURE, PAGE, DOCTOR, PREDICTIONS, ENVIRONMENT, MARK, "trackers", ".DS_Store"}
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@dataclass(frozen=True)
class RunFolder:
    """A run that is being written: files go to `partial`, `publish` gives it its name.

    numbered: the name that a number is added to where it is taken; None where the user chose the folder.
    """

    final: Path
    overwrite: bool = False
    numbered: Path | None = None

    @property
    def partial(self) -> Path:
        """Where the files are until the run is complete."""
        return self.final.with_name(self.final.name + ".partial")

    @property
    def adapter(self) -> Path:
        """The adapter folder of the run that is being written."""
        return self.partial / ADAPTER

    @contextmanager
    def being_written(self) -> Iterator[RunFolder]:
        """Inside, the folder is empty and no other run writes to it; a numbered one may get another number.

        UserError if another run writes there by now, GateError if it cannot be written or the disk is full.
        """
        taken, held = self._take()
        try:
            with disk_errors(taken.partial):
                yield taken
        finally:
            os.close(held)

    def _take(self) -> tuple[RunFolder, int]:
        """The folder that is ours now, and the descriptor that keeps others out of it."""
        if self.numbered and self.final.exists():  # another run has ended there meanwhile
            return replace(self, final=_next_free(self.numbered))._take()
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            held = lock(self.partial)
        except BlockingIOError:
            if self.numbered is None:
                raise UserError(_busy(self.final)) from None
            return replace(self, final=_next_free(self.numbered))._take()
        except OSError as error:
            raise GateError(f"{self.final}: cannot be written ({error.strerror}). Choose another --output.") from None
        try:
            self._check_final()
            _check_partial(self.partial)
            with disk_errors(self.partial):
                (self.partial / MARK).write_bytes(b"")
                _empty(self.partial)
        except BaseException:
            os.close(held)
            raise
        return self, held

    def _check_final(self) -> None:
        """GateError if something is in the run's place that it may not replace."""
        if self.final.exists() and (_foreign(self.final) if self.overwrite else any(self.final.iterdir())):
            raise GateError(f"{self.final}: something was put there meanwhile. What is done is in {self.partial}.")

    def publish(self) -> None:
        """Replaces an earlier run of this name, if there is one, by the finished one."""
        self._check_final()
        # a fresh name of our own: whatever else lies beside the run is not ours to touch
        earlier = Path(tempfile.mkdtemp(prefix=f".{self.final.name}.", dir=self.final.parent))
        if self.final.exists():
            os.replace(self.final, earlier / "earlier")
        os.replace(self.partial, self.final)
        shutil.rmtree(earlier, ignore_errors=True)


def choose_run_folder(output: str | Path | None, name: str, *, overwrite: bool) -> RunFolder:
    """The folder the user asked for, or the next free runs/NAME. UserError if that cannot be.

    Writes nothing: a mistake found later leaves no trace.
    """
    numbered = None if output else Path("runs") / name
    final = _next_free(numbered) if numbered else _absolute(str(output))
    shown = output or final
    _check_writable(final, str(shown))
    if final.exists() and (not final.is_dir() or (any(final.iterdir()) and not _is_run(final))):
        raise UserError(f"{shown}: exists and is not a run of lightune. Choose another --output.")
    if _is_run(final) and not overwrite:
        raise UserError(f"{shown}: holds a finished run. Choose another --output, or add --overwrite.")
    if foreign := _foreign(final) if final.exists() else []:
        raise UserError(
            f"{shown}: holds {foreign[:3]} beside the run, which --overwrite would delete. Move it, or choose "
            f"another --output."
        )
    folder = RunFolder(final, overwrite, numbered)
    if is_locked(folder.partial):
        raise UserError(_busy(shown))
    _check_partial(folder.partial)
    return folder


def folder_typed(output: str | Path) -> Path:
    """A folder of long work, as it was typed but for a ~. UserError or GateError if nothing can be kept there."""
    if not isinstance(output, str | Path):
        raise UserError(f"output = {output!r}: give the path of a folder.")
    final, shown = _absolute(str(output)), str(output)
    _check_writable(final, shown)
    if final.is_dir() and not os.access(final, os.R_OK | os.W_OK | os.X_OK):
        raise GateError(f"{shown}: cannot be written to. Choose another --output.")
    return Path(output).expanduser()


def _absolute(output: str) -> Path:
    try:
        final = Path(output).expanduser().resolve()
        str(final).encode()  # it is written into files
    except (OSError, RuntimeError, ValueError) as error:  # a stranger's home, a loop of links, half a character
        raise UserError(f"{output[:80]!r}: cannot be a folder ({error}). Choose another --output.") from None
    if not final.name:
        raise UserError(f"{output}: the root of a disk cannot be a run. Choose another --output.")
    return final


def _check_partial(partial: Path) -> None:
    """UserError if something lies where the run will be built that no run of lightune left there."""
    if not partial.exists() or (partial.is_dir() and not any(partial.iterdir())):
        return
    if not partial.is_dir() or not (partial / MARK).exists() or _foreign(partial):
        raise UserError(f"{partial}: is in the way and is not lightune's. Move it or choose another --output.")


def _foreign(folder: Path) -> list[str]:
    """What is in a run's folder, or in the adapter folder of a finished one, and did not come from a run."""
    found = [path.name for path in folder.iterdir() if path.name.removesuffix(".part") not in PARTS]
    if _is_run(folder):
        with suppress(UserError):  # a damaged contract, or one of another version, says nothing of its folder
            ours = {FILE, CARD, *read_contract(folder / ADAPTER).files}
            found += [f"{ADAPTER}/{path.name}" for path in (folder / ADAPTER).iterdir() if path.name not in ours]
    return sorted(found)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full or broken disk is one message, wherever it shows."""
    from safetensors import SafetensorError

    try:
        yield
        return
    except OSError as error:
        if error.errno not in DISK:
            raise
        reason = str(error.strerror)
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        reason = str(error)
    raise GateError(
        f"{folder}: could not be written to its end ({reason}). Make room on its disk and in the temporary "
        f"folder, or choose another --output."
    )


def _check_writable(final: Path, shown: str) -> None:
    """UserError or GateError now instead of after the work, if the folder could not be made."""
    try:
        there = next(parent for parent in final.parents if parent.exists())
        final.with_name(f".{final.name}.12345678").exists()  # the longest name it has on its way
    except OSError as error:  # a name that is too long, a file in the way
        raise UserError(f"{shown[:80]}: cannot be a folder ({error.strerror}). Choose another --output.") from None
    if not there.is_dir():
        raise UserError(f"{shown}: {there} is a file, not a folder. Choose another --output.")
    if not os.access(there, os.W_OK):
        raise GateError(f"{shown}: {there} cannot be written to. Choose another --output.")


@contextmanager
def alone(path: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside, no other process is inside for this file; waits is called once if there is one to wait for."""
    try:
        held = lock(path)
    except BlockingIOError:
        waits()
        held = lock(path, wait=True)
    try:
        yield
    finally:
        os.close(held)


def lock(path: Path, *, wait: bool = False) -> int:
    """A descriptor that keeps others out until it is closed or its process dies. OSError if another has it.

    path: a folder, or a file, which is made if there is none. wait: until it is free.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == MARK:  # the folder stays recognisable, however soon this is killed
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _busy(shown: str | Path) -> str:
    return f"{shown}: another run is writing there now. Choose another --output, or wait for it."


def is_locked(path: Path) -> bool:
    """Whether a living process holds this folder or file."""
    if not path.exists():
        return False
    try:
        os.close(lock(path))
    except OSError:
        return True
    return False


def _is_run(folder: Path) -> bool:
    return (folder / RESULTS).is_file() and (folder / ADAPTER / FILE).is_file()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what is to take the place of `path` in one step: a kill leaves nothing half done there."""
    part = path.with_name(f"{path.name}.part")
    yield part
    os.replace(part, path)


def write_json(path: Path, values: Any) -> None:
    """`values` as JSON that a strict parser accepts (NaN is an error), in one step."""
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def save_adapter(model: nn.Module, encoder: Encoder, contract: Contract, adapter: Path) -> Contract:
    """Writes weights, tokenizer and contract; returns the contract with the digests of what was written."""
    for config in getattr(model, "peft_config", {}).values():
        config.revision = contract.base.revision  # of the base: PEFT's own loader asks the Hub for it
    adapters.save(model, adapter)
    encoder.tokenizer.save_pretrained(adapter)
    answers = adapters.fingerprint(model.eval())
    sealed = write_contract(contract.model_copy(update={"fingerprint": answers}), adapter)
    for path in adapter.iterdir():
        # safetensors writes files that only their owner can read
        path.chmod(0o666 & ~_umask())
    return sealed


def _next_free(path: Path) -> Path:
    candidates = [path, *(path.with_name(f"{path.name}-{i}") for i in range(2, 10_000))]
    return next(c for c in candidates if not c.exists() and not c.with_name(c.name + ".partial").exists())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

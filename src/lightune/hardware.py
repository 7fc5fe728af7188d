"""Which parts of the machine to use, each choice with its reason. Knows neither model nor data."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lightune.errors import GateError, UserError, first_line, near_match
from lightune.records import Decision

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

GIB = 1024**3
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Hardware:
    """The machine as a run uses it. memory: bytes of the GPU, or of RAM, in all; free: those that nobody uses."""

    device: str
    precision: str
    memory: int
    free: int
    decisions: tuple[Decision, ...]

    @property
    def speed(self) -> dict[str, str]:
        """What decides how many rows it can read in a time."""
        return {"device": self.device, "precision": self.precision}

    def autocast(self) -> torch.autocast:
        """The context in which every forward pass of this run happens."""
        import torch

        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device, dtype=dtype, enabled=self.precision != "fp32")

    def release(self) -> None:
        """Gives back the memory of models that nobody holds any more, and what torch, Arrow and glibc keep of it."""
        import pyarrow as pa
        import torch

        gc.collect()  # a network on the fast paths refers to itself
        pa.default_memory_pool().release_unused()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        elif trim := _of_libc("malloc_trim"):
            trim(0)


def choose_hardware(device: str = "auto", precision: str = "auto") -> Hardware:
    """Device, precision, optimizer and memory for this machine. UserError if what was asked is not there."""
    import torch

    for what, asked, known in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if asked not in known:
            raise UserError(f"hardware.{what} = {asked!r}:{near_match(asked, known)} Choose from {', '.join(known)}.")
    device, device_why = _pick_device(device)
    precision, precision_why = _pick_precision(device, precision)
    memory, free = _memory(device)
    decisions = [
        Decision("device", device, device_why),
        Decision("precision", precision, precision_why),
        Decision("optimizer", "AdamW, fused", "one kernel for all parameters"),
        Decision("memory", f"{memory / GIB:.1f} GiB", f"{free / GIB:.1f} GiB of it free"),
    ]
    if device == "cpu":
        threads = str(torch.get_num_threads())
        decisions.append(Decision("threads", threads, "one for each core torch may use"))
    return Hardware(device, precision, memory, free, tuple(decisions))


def in_fp32(hardware: Hardware, asked: str, why: str) -> Hardware:
    """The same for a network that cannot compute in its precision. UserError if that is what was asked for."""
    if asked != "auto":
        raise UserError(f"hardware.precision = {asked!r}: this network cannot compute in it ({why}). Set it to fp32.")
    return fp32_instead(hardware, f"this network cannot compute in {hardware.precision} ({why})")


def fp32_instead(hardware: Hardware, why: str) -> Hardware:
    """The same in fp32."""
    instead = Decision("precision", "fp32", why)
    kept = (decision for decision in hardware.decisions if decision.what != "precision")
    return replace(hardware, precision="fp32", decisions=(*kept, instead))


def to_device(array: NDArray[Any], device: str) -> torch.Tensor:
    """The array as a tensor there. For a GPU by way of pinned memory, so that the CPU need not wait for the copy."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor.to(device)


def tune_process(hardware: Hardware) -> list[Decision]:
    """Settings of the whole process, for good: for one that trains, or answers and ends, not for a server's.

    On a CPU it asks glibc to keep large blocks, which it gives back to the kernel at every step and pays for again.
    On a GPU it leaves attention to torch's own kernels: cuDNN's are planned anew for each shape of batch.
    """
    if hardware.device == "cuda":
        import torch

        torch.backends.cuda.enable_cudnn_sdp(False)
        return [Decision("attention", "torch's own kernels", "cuDNN's are planned anew for each shape of batch")]
    if hardware.device != "cpu":
        return []
    # kernels that oneDNN keeps, one for each shape of a product; its own 1,024 take a quarter of a gibibyte
    n_kept = os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    kernels = Decision("kernels", f"{n_kept} kept", "one for each shape of a product, if oneDNN has not yet begun")
    mallopt = _of_libc("mallopt")
    if mallopt is None:
        return [kernels, Decision("allocator", "as it is", "not glibc")]
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # the parameter numbers of malloc.h
    # one arena: each thread's own would keep what it once needed, the tokenizer's threads above all
    done = mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1) and mallopt(arena_max, 1)
    choice = "keeps freed memory" if done else "as it is"
    why = "glibc; saves page faults at every step" if done else "glibc refused"
    return [kernels, Decision("allocator", choice, why)]


def _of_libc(name: str) -> Any:
    """A function of the C library; None where it has no such one, as outside glibc."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None


def refuse_several_processes() -> None:
    """UserError under torchrun or `accelerate launch` with more than one process, which a run cannot be yet."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        raise UserError(
            f"started as {world} processes: a run is one process in this version. Start it without torchrun."
        )


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, and asks torch for deterministic kernels where it has them."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        # cuBLAS is deterministic only with a fixed workspace, chosen before its first call
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _demand_determinism(True)


def _demand_determinism(wanted: bool) -> None:
    """Deterministic kernels where torch has them, or its own defaults again."""
    import torch

    torch.use_deterministic_algorithms(wanted, warn_only=wanted)
    # it would also fill every new tensor, against code that reads what it never wrote; 1 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = not wanted  # type: ignore[attr-defined]


def _demand_torchs_defaults() -> None:
    import torch

    _demand_determinism(False)
    torch.backends.cuda.enable_cudnn_sdp(True)


@contextmanager
def own_randomness() -> Iterator[None]:
    """What a run draws and demands inside leaves the caller's random numbers and torch's settings as they were."""
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    was_loaded = "torch" in sys.modules
    try:
        with _torch_as_it_is() if was_loaded else nullcontext():
            yield
    finally:
        if not was_loaded and "torch" in sys.modules:
            _demand_torchs_defaults()
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _torch_as_it_is() -> Iterator[None]:
    import torch

    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
            torch.backends.cuda.enable_cudnn_sdp(cudnn)


@contextmanager
def told_when_full(fix: str) -> Iterator[None]:
    """GateError, ending in `fix`, where the device or the machine has no memory left for what happens inside."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not is_out_of_memory(error):
            raise
        raise GateError(f"out of memory: {first_line(error):.200} {fix}") from None


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch found no memory; only CUDA has an exception of its own for it."""
    import torch

    said = ("can't allocate memory", "out of memory")  # the CPU's allocator, Apple's
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def environment(hardware: Hardware | None = None) -> dict[str, Any]:
    """Versions, machine and device, for environment.json and `lightune env`. Names no user, host or path."""
    from importlib.metadata import PackageNotFoundError, version

    names = ["lightune", "torch", "transformers", "peft", "accelerate", "datasets", "evaluate", "tokenizers"]
    versions = {}
    for name in [*names, "safetensors", "scikit-learn", "numpy", "pyarrow"]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    machine = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    values: dict[str, Any] = {"python": platform.python_version(), "versions": versions, "machine": machine}
    if hardware is not None:
        why = {decision.what: {"choice": decision.choice, "why": decision.why} for decision in hardware.decisions}
        values["hardware"] = why | {"processor": _processor(hardware.device)}
    return values


def git_commit() -> str | None:
    """The commit of the repository that the run was started in; None outside one."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def peak_memory_bytes(hardware: Hardware) -> int:
    """The most that this process has held of the memory that `hardware` names: the GPU's, or RAM."""
    import resource

    if hardware.device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    # Linux counts in KiB, macOS in bytes
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _pick_device(asked: str) -> tuple[str, str]:
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked != "auto":
        if not available[asked]:
            usable = ", ".join(name for name, there in available.items() if there)
            raise UserError(f"hardware.device = {asked!r}: not on this machine. Usable: {usable}.")
        return asked, "as asked"
    if available["cuda"]:
        return "cuda", torch.cuda.get_device_name()
    return ("mps", "Apple GPU") if available["mps"] else ("cpu", "no GPU that torch can use")


def _pick_precision(device: str, asked: str) -> tuple[str, str]:
    import torch

    if asked != "auto":
        if asked == "fp16" and device == "cpu":
            raise UserError("hardware.precision = 'fp16': no fast path on a CPU. Use bf16, fp32 or auto.")
        return asked, "as asked"
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16; fp32 master weights"
        return "fp16", "this GPU has no bf16; loss scaled against underflow"
    if device == "cpu":
        return _cpu_precision()
    return "fp32", "the one precision every MPS kernel has"


def _cpu_precision() -> tuple[str, str]:
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    found = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if capabilities.get(name)]
    if found:
        return "bf16", f"the CPU has {found[0]}"
    # measured on Zen 3: matrix products in emulated bf16 run at a seventh of fp32
    return "fp32", "the CPU has no bf16 instructions, and emulating them is slower"


def _memory(device: str) -> tuple[int, int]:
    """Bytes in all and bytes free."""
    import psutil
    import torch

    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return total, free
    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


def _processor(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()

"""Which parts of the machine to use, each choice with its reason. Knows neither model nor data."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightune.errors import UserError, near_match
from lightune.records import Decision

if TYPE_CHECKING:
    import torch

GIB = 1024**3
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Hardware:
    """The machine as a run uses it. memory: bytes the network may take (free GPU memory, or free RAM)."""

    device: str
    precision: str
    memory: int
    decisions: tuple[Decision, ...]

    def autocast(self) -> torch.autocast:
        """The context in which every forward pass of this run happens."""
        import torch

        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device, dtype=dtype, enabled=self.precision != "fp32")


def choose_hardware(device: str = "auto", precision: str = "auto") -> Hardware:
    """Device, precision, optimizer and memory for this machine. UserError if what was asked is not there."""
    import torch

    if device not in DEVICES:
        raise UserError(
            f"device = {device!r}: {near_match(device, DEVICES).strip()} Choose from {', '.join(DEVICES)}."
        )
    device, device_why = _pick_device(device)
    precision, precision_why = _pick_precision(device, precision)
    memory = _free_memory(device)
    decisions = [
        Decision("device", device, device_why),
        Decision("precision", precision, precision_why),
        Decision("optimizer", "AdamW, fused", "one kernel for all parameters"),
        Decision("memory", f"{memory / GIB:.1f} GiB free", "activations may take half of it"),
    ]
    if device == "cpu":
        threads = str(torch.get_num_threads())
        decisions += [Decision("threads", threads, "one for each core torch may use"), _keep_freed_memory()]
    return Hardware(device, precision, memory, tuple(decisions))


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
    torch.use_deterministic_algorithms(True, warn_only=True)


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


def peak_memory_bytes() -> int:
    """The most memory this process has held."""
    import resource

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


def _free_memory(device: str) -> int:
    import psutil
    import torch

    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else int(psutil.virtual_memory().available)


def _keep_freed_memory() -> Decision:
    """glibc gives large blocks back to the kernel at every step and pays for them again; ask it to keep them."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return Decision("allocator", "as it is", "not glibc")
    trim_threshold, mmap_max = -1, -4  # the parameter numbers of malloc.h
    done = mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1)
    choice = "keeps freed memory" if done else "as it is"
    return Decision("allocator", choice, "glibc; saves page faults at every step" if done else "glibc refused")


def _processor(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()

"""Saving is proved: another process, under another seed, reloads the adapter and must give the same logits.

The other process starts from the raw texts, so labels, truncation and tokenizer are proved along with weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightune.artifact.loading import load_adapter
from lightune.errors import GateError
from lightune.evidence.evaluate import predict_logits
from lightune.hardware import Hardware, choose_hardware
from lightune.model.engine import quicken
from lightune.records import Proof

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Of logits, relative to the largest where that is above 1. In fp32 the other process takes the plain path, this one
# the fast path (`model/engine.py`), so that even on one machine the last digits differ. In 16 bits both take the fast
# one: a sensitive network rounds its way to other logits on another path, as near to those in fp32 as the first.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}


def prove(adapter: Path, texts: Sequence[str], logits: Floats, hardware: Hardware, *, seed: int) -> Proof:
    """Compares `logits` (N, C), the trained model's on `texts`, with those of a fresh process.

    Raises GateError if they differ by more than the tolerance or the adapter does not load.
    """
    request = {"texts": list(texts), "seed": seed, "device": hardware.device, "precision": hardware.precision}
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "question.json"), Path(folder, "answer.npy")
        question.write_text(json.dumps(request), encoding="utf-8")
        # -P: no module is taken from the folder the user stands in
        command = [sys.executable, "-P", "-m", __name__, str(adapter), str(question), str(answer)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            reason = process.stderr.strip().splitlines()[-1:] or ["no message"]
            raise GateError(f"{adapter}: a fresh process cannot load this adapter: {reason[0]}")
        reloaded = np.load(answer, allow_pickle=False)
    proof = compare(logits, reloaded, TOLERANCE[hardware.precision])
    if not proof.passed:
        raise GateError(
            f"{adapter}: reloaded in a fresh process, the logits differ by {proof.max_logit_difference:.2g} "
            f"(allowed: {proof.tolerance:.0e}) on {proof.rows} texts. The adapter is not complete; do not use it."
        )
    return proof


def compare(logits: Floats, reloaded: Floats, tolerance: float) -> Proof:
    """The largest difference between two sets of logits (N, C)."""
    if logits.shape != reloaded.shape:
        raise GateError(f"the reloaded model gives logits of shape {reloaded.shape}, not {logits.shape}.")
    difference = float(np.abs(logits - reloaded).max())
    tolerance *= max(1.0, float(np.abs(logits).max()))
    return Proof(len(logits), difference, tolerance, bool(difference <= tolerance))


def answer_request(adapter: Path, question: Path, answer: Path) -> None:
    """The fresh process's part: loads the adapter under another seed and writes its logits."""
    request = json.loads(question.read_text(encoding="utf-8"))
    loaded = load_adapter(adapter, seed=request["seed"] + 1)
    hardware = choose_hardware(request["device"], request["precision"])
    model = loaded.model.to(hardware.device)
    if hardware.precision != "fp32":
        quicken(model, hardware.precision)
    np.save(answer, predict_logits(model, loaded.encoder, loaded.encoder.tokenise(request["texts"]), hardware))


if __name__ == "__main__":
    answer_request(*map(Path, sys.argv[1:]))

"""Lightweight fine-tuning of foundation models for text classification.

import lightune
result = lightune.run("reviews.csv")
lightune.Classifier.load(result.folder).predict(["Great value."])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Classifier", "Explanation", "GateError", "Prediction", "UserError", "check", "compare", "run", "tune"]

if TYPE_CHECKING:
    from lightune.checkup import check
    from lightune.compare import compare
    from lightune.errors import GateError, UserError
    from lightune.run import run
    from lightune.tune import tune
    from lightune.use.classifier import Classifier, Explanation, Prediction

_HOMES = {
    "Classifier": "lightune.use.classifier",
    "Explanation": "lightune.use.classifier",
    "Prediction": "lightune.use.classifier",
    "GateError": "lightune.errors",
    "UserError": "lightune.errors",
    "check": "lightune.checkup",
    "compare": "lightune.compare",
    "run": "lightune.run",
    "tune": "lightune.tune",
}


def __getattr__(name: str) -> Any:
    # importing the package must stay cheap: `lightune --help` does not wait for torch
    if name not in _HOMES:
        raise AttributeError(f"module 'lightune' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

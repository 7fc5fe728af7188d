"""How the libraries under us behave: no telemetry, no chatter, no network when offline. Call before using them."""

from __future__ import annotations

import logging
import os
import sys
import warnings


def settle_libraries(*, offline: bool = False) -> None:
    """Sets what Hugging Face's libraries read from the environment, and silences the notes they print.

    offline: no request leaves the machine; also where the user has set HF_HUB_OFFLINE=1 himself.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        _tell_loaded_hub()
    for name in ("transformers", "datasets", "evaluate", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def is_offline() -> bool:
    """Whether the Hub may be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def silence_known_warnings() -> None:
    """For the command line: what third-party code says about itself is no help to the person who reads it."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|peft|transformers|accelerate)\b")


def _tell_loaded_hub() -> None:
    # the Hub's client reads its environment once, at import
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]

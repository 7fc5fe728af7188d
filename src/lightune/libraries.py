"""How the libraries under us behave: no telemetry, no chatter, no network when offline. Call before using them."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def settle_libraries(*, offline: bool = False) -> None:
    """Sets what Hugging Face's libraries read from the environment, and silences the notes they print.

    offline: no request leaves the machine; also where the user has set HF_HUB_OFFLINE=1 himself.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "TOKENIZERS_PARALLELISM" not in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        # a forked child has none of the tokenizer's threads, and would wait for them for ever
        os.register_at_fork(after_in_child=_tokenise_alone)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        _tell_loaded_hub(True)
    for name in ("transformers", "datasets", "evaluate", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _tokenise_alone() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def is_offline() -> bool:
    """Whether the Hub must not be asked."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""  # as huggingface_hub
    return said.upper() in ("1", "ON", "YES", "TRUE")


@contextmanager
def network_off(off: bool) -> Iterator[None]:
    """No request leaves the machine inside, if `off`; afterwards it is as it was."""
    before = os.environ.get("HF_HUB_OFFLINE")
    constants = sys.modules.get("huggingface_hub.constants")
    was_offline = getattr(constants, "HF_HUB_OFFLINE", is_offline())
    settle_libraries(offline=off)
    try:
        yield
    finally:
        if off:
            os.environ.pop("HF_HUB_OFFLINE") if before is None else os.environ.update(HF_HUB_OFFLINE=before)
            _tell_loaded_hub(was_offline)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and no load reports: every new head would be reported as a loss."""
    from transformers.utils import logging as chatter

    verbosity, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()  # type: ignore[no-untyped-call]
    chatter.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        chatter.set_verbosity(verbosity)
        if bars:
            chatter.enable_progress_bar()  # type: ignore[no-untyped-call]


def silence_known_warnings() -> None:
    """For the command line: what third-party code says about itself is no help to the person who reads it."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|peft|transformers|accelerate)\b")


def _tell_loaded_hub(offline: bool) -> None:
    # both read the environment once, at import
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]

"""Modules that can be called: `lightune.run(…)` works although `lightune.run` is also the module that holds it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any


def let_be_called(name: str, call: Callable[..., Any]) -> None:
    """Makes a call of the imported module `name` a call of the function: importing it makes the name stand for it."""
    module = sys.modules[name]
    kind = type("CallableModule", (types.ModuleType,), {"__call__": staticmethod(call), "__doc__": module.__doc__})
    module.__class__ = kind

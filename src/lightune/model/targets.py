"""Which linear layers of a network the word or the list in method.targets means."""

from __future__ import annotations

from collections.abc import Sequence

from lightune.errors import UserError, near_match
from lightune.model.anatomy import Anatomy, role


def pick_targets(anatomy: Anatomy, targets: str | list[str]) -> list[str]:
    """The full names of the linear layers meant by "all", "attention", "qv" or a list of name endings.

    Raises UserError naming the endings that match nothing.
    """
    if isinstance(targets, list):
        return _ending_with(anatomy, targets)
    wanted = {"attention": ("query", "key", "value", "fused"), "qv": ("query", "value", "fused")}
    named = [name for name in anatomy.linears if targets == "all" or role(name) in wanted[targets]]
    if not named:
        raise UserError(
            f"method.targets = {targets!r}: no such layers found. Use 'all', or a list of {_endings(anatomy)}."
        )
    return named


def _ending_with(anatomy: Anatomy, endings: Sequence[str]) -> list[str]:
    matches = {end: [n for n in anatomy.linears if f".{n}".endswith(f".{end}")] for end in endings}
    for ending, names in matches.items():
        if not names:
            close = near_match(ending, _endings(anatomy))
            raise UserError(
                f"method.targets: no linear layer's name ends with {ending!r}.{close} "
                f"The blocks have: {', '.join(_endings(anatomy))}."
            )
    return [name for name in anatomy.linears if any(name in names for names in matches.values())]


def _endings(anatomy: Anatomy) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[2] for name in anatomy.linears))

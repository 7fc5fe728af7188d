"""What can go wrong for a reason that is not a bug: one message, one exit code, no traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class LightuneError(Exception):
    """Base of the errors that the command line turns into one message; `exit_code` is what it returns."""

    exit_code = 1


class UserError(LightuneError):
    """The input or the recipe is wrong. The message says what happened, what was seen and what to do."""

    exit_code = 2


class GateError(LightuneError):
    """A check said no (the proof failed, a limit was passed) or the environment did (disk, permission)."""

    exit_code = 3


def near_match(word: str, options: Iterable[str]) -> str:
    """' Did you mean …?' with the options closest to `word`, or '' if none is close."""
    matches = get_close_matches(word, list(options), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""


def first_line(error: BaseException) -> str:
    """What an exception says, without the lines that follow; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]

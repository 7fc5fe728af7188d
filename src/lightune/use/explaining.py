"""`lightune explain`: how much each word of a text spoke for a label, on the terminal or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightune.data.framing import SEPARATOR
from lightune.data.sources import Options
from lightune.errors import UserError
from lightune.journal import Journal
from lightune.legible import figures, in_a_line
from lightune.libraries import is_offline
from lightune.report.marks import Piece, balance, pieces, told
from lightune.use.classifier import Classifier, Explanation, NumberPrediction, Prediction
from lightune.use.files import load_alone, text_columns, words_of_options
from lightune.use.inputs import open_input

if TYPE_CHECKING:
    from rich.text import Text

# blue and orange: told apart by nearly everybody, on a light ground and on a dark one
STYLES = {1: "bright_blue underline", -1: "dark_orange italic"}
SIGNS = {1: ("{+", "+}"), -1: ("[-", "-]")}  # as `git diff --word-diff` marks what it has no colour for
STRONG = 0.5  # of the strongest word, from which on a word is bold


def explain_texts(
    run: str,
    texts: Sequence[str],
    *,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    base: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    journal: Journal,
    is_shown: bool = True,
) -> list[dict[str, Any]]:
    """Explains texts, or without one what standard input holds, and returns that as printed by --json.

    is_shown: each explanation is told to the journal as soon as it is there.
    """
    done = []
    with ExitStack() as stack:
        stack.enter_context(words_of_options())
        classifier = load_alone(run, base, device, precision)
        how = Options(encoding, delimiter, offline=is_offline())
        for some in [list(texts)] if texts else _standard_input(classifier, how, journal, stack):
            with journal.progress("explaining", len(some)) as progress:
                for text in some:
                    (found,) = classifier.explain([_given(text, classifier)], label)
                    if is_shown:
                        show(journal, found)
                    done.append(asdict(found))
                    progress.advance(1)
    return done


def _given(text: str, classifier: Classifier) -> str | tuple[str, str]:
    """The text; for a classifier of pairs the two in it, with a tab between them where they were typed."""
    if classifier.contract.pair is None:
        return text
    parts = text.split(SEPARATOR if SEPARATOR in text else "\t")
    if len(parts) != 2:
        raise UserError(f"{in_a_line(text, 60)!r}: no pair. Write the first text, a tab, and the second text.")
    return parts[0], parts[1]


def _standard_input(classifier: Classifier, how: Options, journal: Journal, stack: ExitStack) -> Iterator[list[str]]:
    """The texts on standard input, read as `predict` reads them."""
    source = stack.enter_context(open_input("-", text_columns(classifier), how, given=False))
    for note in source.notes:
        journal.say(note)
    for _, some in source.chunks(source.kind):
        yield some


def show(journal: Journal, found: Explanation) -> None:
    """The label, the text with its words marked, the strongest words in figures, and how exact that is."""
    console, answer = journal.console, found.prediction
    is_coloured = console.color_system is not None and not console.no_color
    journal.say(_in_words(answer))
    journal.show(marked(pieces(found), is_coloured=is_coloured))
    journal.say(f"  {told(found, '-')}")
    journal.say(f"  {balance(found, '-')}")


def _in_words(answer: Prediction | NumberPrediction) -> str:
    if isinstance(answer, Prediction):
        return f"{answer.label or 'no label'} {answer.score:.3f}"
    around = (
        "" if answer.low is None or answer.high is None else f" ({figures(answer.low)} to {figures(answer.high)})"
    )
    return f"{figures(answer.value)}{around}"


def marked(parts: Sequence[Piece], *, is_coloured: bool) -> Text:
    """The text in one line: marked words in colours, or between signs; in brackets what was not read."""
    from rich.text import Text

    line = Text("  ")
    for piece in parts:
        side = 1 if piece.share > 0 else -1
        if not piece.share:
            line.append(piece.text if piece.is_read else f"[{piece.text.strip()}]", "" if piece.is_read else "dim")
        elif is_coloured:
            line.append(piece.text, STYLES[side] + " bold" * (abs(piece.share) >= STRONG))
        else:
            line.append(piece.text.join(SIGNS[side]))
    return line

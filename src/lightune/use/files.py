"""A finished run used on data: score labelled rows, label others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from lightune.artifact.contract import Contract
from lightune.artifact.promises import goal_kept, intervals_kept, sets_kept
from lightune.data.batching import Labelled
from lightune.data.columns import TextColumns, choose_columns
from lightune.data.examples import examples
from lightune.data.framing import split_pair
from lightune.data.sources import Options, read, training_split
from lightune.data.targets import as_numbers, classes_in, find_task
from lightune.data.values import Names
from lightune.errors import UserError
from lightune.evidence.evaluate import evaluate
from lightune.evidence.score import headline_of
from lightune.hardware import choose_hardware, tune_process
from lightune.journal import Journal
from lightune.libraries import is_offline
from lightune.model.engine import PLAIN
from lightune.records import Decision, Evaluation
from lightune.report.screen import promises_in_words, show_scores, units_in
from lightune.use.classifier import Classifier, NumberPrediction, Prediction
from lightune.use.inputs import Row, open_input, scored_split
from lightune.use.outputs import added_columns, check_output, ending_of, free_names, open_output


def evaluate_file(
    run: str,
    data: str,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    base: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    journal: Journal,
) -> dict[str, Any]:
    """Scores of a finished run on labelled data it has not seen, as printed by --json; seed: of the intervals.

    UserError if the data has a class that the classifier does not know.
    """
    with words_of_options():
        classifier = load_alone(run, base, device, precision)
        wanted = text_columns(classifier, text, pair)
        corpus = read(data, encoding=encoding, delimiter=delimiter, offline=is_offline())
        name = scored_split(corpus, label or classifier.contract.label)
        table = corpus.tables[name]
        label = label or _true_label(data, classifier, table.column_names)
        text, label, decisions, pair = choose_columns(table, text=wanted.text, label=label, pair=wanted.pair)
        names = corpus.class_names.get(label)
        task = classifier.contract.task
        if task != "multi_label" and find_task(table, label, "auto") == "multi_label":
            raise UserError(f"{data}: {label!r} holds several labels a row; this classifier was trained on one each.")
        rows, dropped = examples(
            table, text=text, label=label, pair=pair, class_names=names, fewest_classes=1, task=task
        )
    journal.decide(*plain_paths(classifier), *decisions, *dropped)
    if corpus.digest == classifier.contract.trained_on and name == training_split(corpus):
        journal.warn(f"{data}: is what this classifier was trained on; its scores there say nothing about new texts")
    labels = Names.of(rows.labels or [])
    unknown = sorted(classes_in(labels, task).keys() - set(classifier.labels))
    if unknown:
        known = ", ".join(map(repr, classifier.labels[:20]))
        raise UserError(f"{data}: labels {unknown[:5]} are unknown to this classifier. It knows {known}.")
    labelled = Labelled(classifier.encoder.tokenise(rows.texts), as_numbers(labels, classifier.labels, task))
    with journal.progress("evaluating", labelled.n_tokens, "tokens") as progress:
        found = evaluate(
            classifier.model,
            classifier.encoder,
            labelled,
            classifier.hardware,
            seed=seed,
            readout=classifier.contract.readout,
            advance=progress.advance,
        )
    scores = {n: {"value": s.value, "low": s.low, "high": s.high} for n, s in found.scores.items()}
    journal.say(f"\n{len(rows):,} rows of {data}\n")
    show_scores(journal, {"score": scores}, headline_of(task), units_in({"task": task}))
    kept = _kept(classifier.contract, found)
    for line in promises_in_words(kept, "the rows"):
        journal.say(line)
    return {
        "data": {"source": data, "digest": corpus.digest, "split": name, "text": text, "pair": pair, "label": label},
        "task": task,
        "labels": classifier.labels,
        "n_rows": len(rows),
        "scores": scores,
        **kept,
        "confusion": found.confusion,
        "tokens_per_second": found.tokens_per_second,
    }


def _kept(contract: Contract, found: Evaluation) -> dict[str, Any]:
    """What came of the contract's goal, sets of labels and intervals; None of what it does not promise."""
    promised = contract.calibration
    records = {
        "goal": goal_kept(promised, found, contract.labels),
        "conformal": sets_kept(promised, found),
        "intervals": intervals_kept(promised, found),
    }
    return {name: None if record is None else record.model_dump() for name, record in records.items()}


def predict_file(
    run: str,
    data: str,
    output: str,
    *,
    text: str | None = None,
    pair: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    base: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    say: Callable[[str], None] = lambda note: None,
) -> dict[str, Any]:
    """Labels every row of `data` (- is stdin) into `output` (- is stdout): label, score and p_<name> beside it.

    Of a source with several splits, those of its test split. Input columns are kept as they are. A file appears
    under its name only when it is complete. say: told how the input is read, before it is, and which fast paths do
    not suit the network. Returns what was done: the numbers of rows and of rows without a text, and the same notes.
    """
    with ExitStack() as stack:
        stack.enter_context(words_of_options())
        check_output(output, data)
        classifier = load_alone(run, base, device, precision)
        wanted = text_columns(classifier, text, pair)
        how = Options(encoding, delimiter, offline=is_offline())
        source = stack.enter_context(open_input(data, wanted, how, given=text is not None or pair is not None))
        notes = [*source.notes, *(f"{path.what}: {path.choice} ({path.why})" for path in plain_paths(classifier))]
        for note in notes:
            say(note)
        kept = free_names(source.columns, classifier)
        write = stack.enter_context(open_output(output, source, kept, classifier))
        n_rows = n_empty = 0
        for rows, texts in source.chunks(ending_of(output) or source.kind):
            answers = classifier.predict(texts if wanted.pair is None else map(split_pair, texts))
            renamed = [{kept.get(name, name): value for name, value in row.items()} for row in rows]
            write([row | _answer(answer) for row, answer in zip(renamed, answers, strict=True)])
            n_rows += len(rows)
            n_empty += sum(map(classifier.encoder.frame.is_blank, texts))
    return {"rows": n_rows, "empty": n_empty, "output": output, "labels": classifier.labels, "notes": notes}


def text_columns(classifier: Classifier, text: str | None = None, pair: str | None = None) -> TextColumns:
    """Those that were named, else as in training. UserError for a second text that the classifier does not read."""
    contract = classifier.contract
    if pair is not None and contract.pair is None:
        raise UserError(
            f"a second text, {pair!r}: this classifier was trained on single texts, of {contract.text!r}. "
            f"Leave out data.pair."
        )
    return TextColumns(text or contract.text, pair or contract.pair)


def load_alone(run: str, base: str | None, device: str, precision: str) -> Classifier:
    """The classifier, in a process that does nothing else."""
    tune_process(choose_hardware(device))  # first: kernels are made, and their number read, as it is loaded
    return Classifier.load(run, base=base, device=device, precision=precision)


def plain_paths(classifier: Classifier) -> list[Decision]:
    """What of the network is computed as transformers does it, since no fast path suits it."""
    return [decision for decision in classifier.decisions if decision.choice == PLAIN]


@contextmanager
def words_of_options() -> Iterator[None]:
    """In a message, the names of the command line's options instead of the recipe's keys."""
    try:
        yield
    except UserError as error:
        keys = r"(?<= )data\.(text|pair|label|encoding|delimiter)|\bhardware\.(device|precision)"
        message = re.sub(rf"(?:{keys})\b(?!\.\w)( =)?", r"--\1\2", str(error))
        raise UserError(message) from None


def _answer(prediction: Prediction | NumberPrediction) -> Row:
    if isinstance(prediction, NumberPrediction):
        return {name: value for name, value in asdict(prediction).items() if value is not None}
    probabilities = {f"p_{name}": round(p, 6) for name, p in prediction.probabilities.items()}
    sets = {} if prediction.label_set is None else {"label_set": prediction.label_set}
    return {"label": prediction.label, "score": round(prediction.score, 6)} | sets | probabilities


def _true_label(data: str, classifier: Classifier, columns: Sequence[str]) -> str | None:
    """The column that held the class in training, if it is here; never the one that `predict` wrote."""
    label, answers = classifier.contract.label, set(added_columns(classifier))
    # a column of numbers may be called as the one that `predict` writes, where it writes no other
    answered = answers <= set(columns) and (len(answers) > 1 or f"input_{label}" in columns)
    if answered and label in answers:
        label = f"input_{label}"
        if label not in columns:
            raise UserError(
                f"{data}: its column {classifier.contract.label!r} is the answer of `lightune predict`, "
                f"not the truth. Name the true one with --label."
            )
    parts = [part.strip() for part in label.split(",")]
    return label if label in columns or answered or set(parts) <= set(columns) else None

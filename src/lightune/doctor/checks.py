"""CHECKS: what the doctor looks for. A new check is one function, from an `Exam` to `Symptom`s, and one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lightune.doctor import copies, giveaways, label_errors, labels, numbers, rows, truncation
from lightune.doctor.exam import Exam, Symptom
from lightune.doctor.findings import Finding
from lightune.errors import UserError, near_match


@dataclass(frozen=True)
class Check:
    """A row: what it looks for, why that matters, what to do about it, and how it looks."""

    summary: str
    why: str
    do: str
    look: Callable[[Exam], list[Symptom]]
    by_sample: bool = False  # whether some rows show it as well as all
    drops: bool = False  # whether --fix drops rows for it
    of_one_label: bool = False  # whether it can only look at rows of one label each
    of_classes: bool = False  # whether it has nothing to look at where labels are numbers


def chosen(only: str | Sequence[str] | None) -> list[str]:
    """All checks, or those named, each once, in the order of CHECKS. UserError for one that is not there."""
    if only is None:
        return list(CHECKS)
    names = [only] if isinstance(only, str) else list(only)
    if not names:
        raise UserError(f"--only: names no check. There are {', '.join(CHECKS)}.")
    for name in names:
        if name not in CHECKS:
            raise UserError(f"check {name!r}: not known.{near_match(name, CHECKS)} There are {', '.join(CHECKS)}.")
    return [name for name in CHECKS if name in names]


def dropping(names: Iterable[str]) -> list[str]:
    """Those for which --fix drops rows, in the order of CHECKS."""
    asked = set(names)
    return [name for name, row in CHECKS.items() if row.drops and name in asked]


def look(exam: Exam, names: Sequence[str]) -> Iterator[tuple[str, Symptom]]:
    """What the checks of these names find, in their order."""
    for name in names:
        row, task = CHECKS[name], exam.patient.task
        if row.of_one_label and task == "multi_label":
            exam.left_out[name] = "rows have several labels"
            continue
        if (row.of_one_label or row.of_classes) and task == "regression":
            exam.left_out[name] = "labels are numbers"
            continue
        for symptom in CHECKS[name].look(exam):
            yield name, symptom


def finding(check: str, symptom: Symptom, rows: dict[str, list[int]]) -> Finding:
    """A symptom as it is written down; rows: split -> numbers of those that it is about."""
    row = CHECKS[check]
    return Finding(
        check=check,
        severity=symptom.severity,
        count=symptom.count,
        what=symptom.what,
        why=row.why,
        do=row.do,
        rows=rows,
        fix=symptom.fix,
    )


CHECKS: dict[str, Check] = {
    "encoding": Check(
        summary="Text that is not UTF-8",
        why="read in a wrong encoding, letters become others, and the same word two words",
        do="save it as UTF-8, or name its encoding with --encoding",
        look=rows.encoding,
    ),
    "empty": Check(
        summary="Rows without a text or without a label",
        why="nothing can be learned from them; a run leaves them out",
        do="fill them in, or remove them",
        look=rows.empty,
        drops=True,
    ),
    "garbage": Check(
        summary="Texts with hardly a letter",
        why="their label cannot follow from the text",
        do="look at them, and remove those that say nothing",
        look=rows.flagged("garbage", "warning", "have hardly a letter or a digit"),
        by_sample=True,
    ),
    "duplicates": Check(
        summary="Texts that are there more than once, exactly or but for case, white space and Unicode form",
        why="copies in training and test make a score that no new text will repeat; a run keeps one of each",
        do="remove the copies, unless they are to count more",
        look=copies.duplicates,
        drops=True,
    ),
    "leaks": Check(
        summary="Training texts that are in another split, too",
        why="the score on that split is then in part for memory",
        do="remove them from the training rows",
        look=copies.leaks,
        drops=True,
    ),
    "near_duplicates": Check(
        summary="Texts that are nearly the same, by MinHash and their words, within and across splits",
        why="a split at random puts near copies on both sides, and the score is too high",
        do="look at some pairs; keep one of each, or split by what they have in common",
        look=copies.near_duplicates,
    ),
    "contradictions": Check(
        summary="The same text under several labels",
        why="no classifier can have all of them right, and each teaches against the other",
        do="decide for one label, or remove them",
        look=copies.contradictory,
        drops=True,
    ),
    "label_twins": Check(
        summary="Labels that differ in case, white space, Unicode form, a number's spelling, punctuation or a letter",
        why="one class as two: both are learned worse, and half of the right answers count as wrong",
        do="write the label in one way, if it is one class; --fix does where case, white space, Unicode form or the "
        "spelling of a number alone differ",
        look=labels.alike,
        of_classes=True,
    ),
    "missing_labels": Check(
        summary="Labels that programs write for no value: NaN, None, null",
        why="rows without a label become a class of their own",
        do="empty these cells, unless it is the name of a class",
        look=labels.missing,
        of_classes=True,
    ),
    "not_numbers": Check(
        summary="Labels that are no numbers, where numbers or grades are to be predicted",
        why="a run ends at the first of them",
        do="correct them, or empty these cells",
        look=numbers.unlike,
    ),
    "far_numbers": Check(
        summary="Numbers to predict that are far from all others",
        why="a few of them decide what is learned, how wide the intervals are and what the verdict is",
        do="correct them if they are mistakes; else predict their logarithm, or leave them out and say so",
        look=numbers.far_off,
    ),
    "single_class": Check(
        summary="Training rows of one class only, or without any label",
        why="there is nothing to tell apart",
        do="add rows of another class, or name the right column with --label",
        look=labels.single,
        of_classes=True,
    ),
    "rare_classes": Check(
        summary="Classes with few rows",
        why="they can hardly be learned, and their score is luck",
        do="label more of them, or put them together with another class",
        look=labels.rare,
        of_classes=True,
    ),
    "absent_classes": Check(
        summary="Classes that one split has and another lacks",
        why="what was never seen in training is never predicted; what the test lacks is not tested",
        do="split again so that each class is everywhere",
        look=labels.absent,
        of_classes=True,
    ),
    "groups": Check(
        summary="Rows that belong together on both sides of a split: a given column, or neighbours in the file",
        why="texts about one thing know each other: a split at random makes the score too high",
        do="name the column that says what they are about (--group), and split by it",
        look=giveaways.groups,
    ),
    "giveaway_token": Check(
        summary="A token whose presence alone says the class",
        why="the classifier will learn it instead of the text, and fail where it is missing",
        do="find out how it came into the texts, and remove it unless new texts will have it, too",
        look=giveaways.tokens,
        of_one_label=True,
        by_sample=True,
    ),
    "giveaway_column": Check(
        summary="Another column from which alone the label follows",
        why="it may have been made from the label; in a template, it would be all that is learned",
        do="keep it out of the text, unless it is known before the label is",
        look=giveaways.columns,
        of_one_label=True,
        by_sample=True,
    ),
    "mojibake": Check(
        summary="Texts that were decoded in a wrong encoding",
        why="their words are not the words of new texts",
        do="get the texts again in the right encoding; --fix mends what can be mended",
        look=rows.flagged("mojibake", "warning", "look decoded in a wrong encoding", "retext"),
        by_sample=True,
    ),
    "controls": Check(
        summary="Texts with control characters",
        why="they come from a faulty export, and say nothing",
        do="remove the characters; --fix does",
        look=rows.flagged("control characters", "note", "hold control characters", "retext"),
        by_sample=True,
    ),
    "markup": Check(
        summary="Texts with HTML or XML tags",
        why="tags take the room of words; new texts may come without them",
        do="remove the tags, unless new texts will have them, too",
        look=rows.flagged("markup", "note", "hold HTML or XML tags"),
        by_sample=True,
    ),
    "languages": Check(
        summary="Texts in another language than most, in a sample",
        why="a base model that does not know the language learns nothing from them",
        do="take a multilingual base model, or remove them",
        look=rows.languages,
        by_sample=True,
    ),
    "truncation": Check(
        summary="Text that is cut away as longer than a run reads, in tokens of the base model, in a sample",
        why="what is cut away is neither learned from nor judged by",
        do='set data.max_tokens higher ("most" is up to 512) if that part matters; data.truncation says what stays',
        look=truncation.unread,
    ),
    "label_errors": Check(
        summary="Labels that the other rows speak against: confident learning on words and embeddings, in a sample",
        why="a wrong label teaches what is wrong, and in the test rows it counts a right answer as a mistake",
        do="look at the rows, the surest first; some will be right, and only hard",
        look=label_errors.wrong_labels,
        of_one_label=True,
    ),
    "personal_data": Check(
        summary="What looks like personal data",
        why="a classifier that was trained on it may be subject to its protection, and so are logs and cards",
        do="look at the rows, and replace it before training",
        look=rows.personal,
        by_sample=True,
    ),
}

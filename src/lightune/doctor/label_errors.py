"""Labels that the other rows speak against: confident learning on out-of-fold probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.values import Texts
from lightune.doctor.exam import SHOWN, Exam, Symptom, quoted
from lightune.errors import UserError, first_line
from lightune.evidence.baselines import TOKEN, Lesson, on_embeddings, on_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Ints = NDArray[np.int64]
    Codes = NDArray[np.int64] | NDArray[np.int32]  # class ids

FOLDS = 5
LEAST_GAIN = 0.1  # in balanced accuracy over chance, of a classifier that may speak against a label
WORD_STRENGTH, EMBEDDING_STRENGTH = 10.0, 0.03  # of logistic regression, C
LABEL_ROWS, FEWEST_LABEL_ROWS = 2000, 100  # that are looked at for wrong labels
MOST_SECONDS = 15.0  # that a run spends on it
# on one Zen 3 core, all folds: 2,000 reviews of 1,300 characters 4.1 s by words; 2,000 of 77 classes 7.0 s by words
# and 2.9 s by 384 numbers
SECONDS_PER_CHARACTER, SECONDS_PER_CLASS, SECONDS_PER_NUMBER = 1.6e-6, 4.5e-5, 5e-8
USUAL_COLUMNS = 768  # of embeddings, before they are there


@dataclass(frozen=True)
class Doubt:
    """Rows whose label is likely wrong, by their places among those looked at, the surest first.

    likelier: the class id that each is likelier of; accuracy: of the classifier that says so, out of fold.
    """

    places: Ints
    likelier: Ints
    n_looked_at: int
    accuracy: float


def wrong_labels(exam: Exam) -> list[Symptom]:
    labels = exam.patient.labels
    places = exam.sample(LABEL_ROWS)
    places = places[in_all_folds(labels.codes[places])]
    if reason := _too_few(labels.codes[places]):
        exam.left_out["label_errors"] = reason
        return []
    texts = exam.patient.texts.take(places)
    found = doubt(texts, labels.codes[places], _embeddings(exam, texts), seed=exam.seed)
    if isinstance(found, str):
        exam.left_out["label_errors"] = found
        return []
    return _symptoms(found, places, labels.codes[places], labels.names)


def wrong_labels_in_run(lesson: Lesson, numbers: Ints, names: Sequence[str], *, seed: int) -> list[Symptom] | str:
    """Among the training rows of which a run has embeddings, or why none can be named.

    numbers (N,) of the training rows in the source, which the symptom names; names: of the classes by id.
    """
    seen = lesson.embeddings
    if seen is None:
        return "the run had no embeddings of training rows; `lightune check` does it"
    texts = Texts.of(lesson.train).take(seen.rows)
    most = int(MOST_SECONDS / seconds_a_row(texts, len(names), seen.train.shape[1]))
    kept = np.sort(np.random.default_rng(seed).permutation(len(texts))[: min(most, LABEL_ROWS)])
    kept = kept[in_all_folds(seen.y[kept])]
    if reason := _too_few(seen.y[kept]):
        return reason
    found = doubt(texts.take(kept), seen.y[kept], seen.train[kept], seed=seed)
    return found if isinstance(found, str) else _symptoms(found, numbers[seen.rows[kept]], seen.y[kept], names)


def seconds_a_row(texts: Texts, n_classes: int, n_columns: int = USUAL_COLUMNS) -> float:
    """About how long it takes to judge one of these texts by its words and n_columns numbers, on one core."""
    n_characters = float(texts.lengths().mean()) if len(texts) else 0.0
    by_class = SECONDS_PER_CLASS + SECONDS_PER_NUMBER * n_columns
    return SECONDS_PER_CHARACTER * n_characters + by_class * n_classes


def seconds_in_run(lesson: Lesson, n_rows: int) -> float:
    """About how long a run takes to look for wrong labels among n_rows of its training rows."""
    return min(MOST_SECONDS, seconds_a_row(Texts.of(lesson.train), lesson.n_classes) * min(n_rows, LABEL_ROWS))


def in_all_folds(codes: Codes) -> Ints:
    """Places of the rows whose class, of codes (N,), has a row for each fold."""
    return np.flatnonzero(np.bincount(codes)[codes] >= FOLDS) if len(codes) else np.zeros(0, np.int64)


def _too_few(codes: Codes) -> str:
    if len(codes) >= FEWEST_LABEL_ROWS and len(np.unique(codes)) > 1:
        return ""
    return f"fewer than {FEWEST_LABEL_ROWS} training rows, or than 2 classes, of {FOLDS} rows a class and more"


def doubt(texts: Texts, codes: Codes, embeddings: Floats | None, *, seed: int) -> Doubt | str:
    """The labels (N,) that texts and embeddings (N, D) speak against, or why they can speak against none.

    By the words of the texts and, where there is a base model, by what it makes of them: by both, more is found.
    """
    present, own = np.unique(codes, return_inverse=True)
    fold = stratified_folds(own, np.random.default_rng(seed))
    proba = by_words(texts, own, len(present), fold, seed)
    if embeddings is not None:
        proba = (proba + by_embeddings(embeddings, own, len(present), fold)) / 2
    if reason := knows_too_little(proba, own):
        return reason
    wrong, likelier = likely_errors(proba, own)
    return Doubt(wrong, present[likelier].astype(np.int64), len(own), float((proba.argmax(axis=1) == own).mean()))


def _symptoms(found: Doubt, numbers: Ints, codes: Codes, names: Sequence[str]) -> list[Symptom]:
    """What was found in words, and where; numbers (N,) of the rows looked at, codes (N,) their labels."""
    wrong = found.places
    if not len(wrong):
        return []
    shown = ", ".join(
        f"row {numbers[row]} ({quoted(names[codes[row]])}, rather {quoted(names[other])})"
        for row, other in zip(wrong[:SHOWN], found.likelier[:SHOWN], strict=True)
    )
    what = (
        f"up to {len(wrong):,} of {found.n_looked_at:,} labels looked at are likely wrong, by a classifier that has "
        f"{found.accuracy:.0%} of them right; the surest: {shown}"
    )
    return [Symptom("note", len(wrong), what, numbers[wrong])]


def stratified_folds(codes: Ints, rng: np.random.Generator) -> Ints:
    """(N,) the fold of each row, drawn by chance, with rows of each class in as many of them as there are."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), np.int64)
    fold[order] = np.arange(len(codes)) % FOLDS
    return fold


def knows_too_little(proba: Floats, codes: Ints) -> str:
    """Why a classifier cannot speak against labels; "" if it can. Classes count alike: the largest is no skill."""
    is_right = proba.argmax(axis=1) == codes
    by_chance = 1 / proba.shape[1]
    balanced = float(np.mean([is_right[codes == code].mean() for code in range(proba.shape[1])]))
    if balanced >= by_chance + LEAST_GAIN:
        return ""
    return (
        f"by the texts, a classifier finds {balanced:.0%} of the rows of a class on average, and by chance "
        f"{by_chance:.0%}: too little to speak against a label"
    )


def _embeddings(exam: Exam, texts: Texts) -> Floats | None:
    """What the base model makes of the texts, (N, D); None, and a note, if there is none that could."""
    if exam.embed is None:
        exam.left_out["label_errors"] = "by the words alone: no base model was named"
        return None
    try:
        found = exam.embed(texts)
    except UserError as error:
        exam.left_out["label_errors"] = f"by the words alone: {first_line(error)}"
        return None
    if found is None:
        exam.left_out["label_errors"] = "by the words alone: the base model gives no embeddings"
    return found


def by_words(texts: Sequence[str], codes: Ints, n_classes: int, fold: Ints, seed: int) -> Floats:
    """(N, C) probabilities by TF-IDF and logistic regression, of each text by those of the other folds (N,)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=TOKEN, dtype=np.float32)
    try:
        x = words.fit_transform(texts)
    except ValueError:  # hardly a word is there twice
        return np.tile(np.bincount(codes, minlength=n_classes) / len(codes), (len(codes), 1))
    return _out_of_fold(x, codes, n_classes, fold, lambda: on_words(WORD_STRENGTH, seed))


def by_embeddings(x: Floats, codes: Ints, n_classes: int, fold: Ints) -> Floats:
    """(N, C) probabilities by logistic regression on embeddings (N, D), of each row by those of other folds (N,)."""
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(x)
    return _out_of_fold(scaled, codes, n_classes, fold, lambda: on_embeddings(EMBEDDING_STRENGTH))


def _out_of_fold(x: Any, codes: Ints, n_classes: int, fold: Ints, make: Callable[[], Any]) -> Floats:
    proba = np.zeros((len(codes), n_classes))
    for i in range(FOLDS):
        model = make().fit(x[fold != i], codes[fold != i])
        proba[np.ix_(fold == i, model.classes_)] = model.predict_proba(x[fold == i])
    return proba


def likely_errors(proba: Floats, codes: Ints) -> tuple[Ints, Ints]:
    """Places of rows whose label is likely wrong, the surest first, and the class that each is likelier of.

    proba (N, C) out of fold; codes (N,) labels. How many rows of label i are of class j is estimated from those that
    are as probable of j as rows labelled j are on average; so many are named, by how much likelier j is than i.
    Source: Northcutt, Jiang and Chuang 2021, J. Artif. Intell. Res. 70:1373, sections 3.1 and 3.2 (by noise rate).
    """
    n_classes = proba.shape[1]
    own = proba[np.arange(len(codes)), codes]
    joint = _joint(proba, codes, own)
    margins: dict[int, tuple[float, int]] = {}
    for i, j in zip(*np.nonzero(joint.round() * (1 - np.eye(n_classes))), strict=True):
        places = np.flatnonzero(codes == i)
        margin = proba[places, j] - own[places]
        surest = np.argsort(-margin, kind="stable")[: int(joint[i, j].round())]
        for place, value in zip(places[surest].tolist(), margin[surest].tolist(), strict=True):
            if value > margins.get(place, (0.0, 0))[0]:
                margins[place] = value, int(j)
    order = sorted(margins, key=lambda place: (-margins[place][0], place))
    return np.array(order, np.int64), np.array([margins[place][1] for place in order], np.int64)


def _joint(proba: Floats, codes: Ints, own: Floats) -> Floats:
    """(C, C) how many rows of label i are of class j, by the rows that are surely of one; rows sum to the sizes."""
    n_classes = proba.shape[1]
    sizes = np.bincount(codes, minlength=n_classes)
    usual = np.full(n_classes, np.inf)
    usual[sizes > 0] = np.bincount(codes, own, n_classes)[sizes > 0] / sizes[sizes > 0]
    sure = np.where(proba >= usual, proba, 0.0)
    is_sure = sure.max(axis=1) > 0
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (codes[is_sure], sure[is_sure].argmax(axis=1)), 1)
    return np.asarray(counts / np.maximum(counts.sum(axis=1), 1)[:, None] * sizes[:, None])

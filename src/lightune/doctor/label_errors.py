"""Labels that the other rows speak against: confident learning on out-of-fold probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.values import Texts
from lightune.doctor.exam import SHOWN, Exam, Symptom, quoted
from lightune.errors import UserError, first_line
from lightune.evidence.baselines import TOKEN, on_embeddings, on_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Ints = NDArray[np.int64]

FOLDS = 5
LEAST_GAIN = 0.1  # in balanced accuracy over chance, of a classifier that may speak against a label
WORD_STRENGTH, EMBEDDING_STRENGTH = 10.0, 0.03  # of logistic regression, C
LABEL_ROWS, FEWEST_LABEL_ROWS = 2000, 100  # that are looked at for wrong labels


def wrong_labels(exam: Exam) -> list[Symptom]:
    places = exam.sample(LABEL_ROWS)
    sizes = np.bincount(exam.patient.labels.codes[places])
    places = places[sizes[exam.patient.labels.codes[places]] >= FOLDS]
    present, codes = np.unique(exam.patient.labels.codes[places], return_inverse=True)
    if len(places) < FEWEST_LABEL_ROWS or len(present) < 2:
        few = f"fewer than {FEWEST_LABEL_ROWS} training rows, or than 2 classes, of {FOLDS} rows a class and more"
        exam.left_out["label_errors"] = few
        return []
    proba = _out_of_fold_proba(exam, exam.patient.texts.take(places), codes, len(present))
    if reason := _knows_too_little(proba, codes):
        exam.left_out["label_errors"] = reason
        return []
    wrong, likelier = likely_errors(proba, codes)
    if not len(wrong):
        return []
    names = exam.patient.labels.names
    shown = ", ".join(
        f"row {places[row]} ({quoted(names[present[codes[row]]])}, rather {quoted(names[present[other]])})"
        for row, other in zip(wrong[:SHOWN], likelier[:SHOWN], strict=True)
    )
    right = float((proba.argmax(axis=1) == codes).mean())
    what = (
        f"up to {len(wrong):,} of {len(places):,} labels looked at are likely wrong, by a classifier that has "
        f"{right:.0%} of them right; the surest: {shown}"
    )
    return [Symptom("note", len(wrong), what, places[wrong])]


def _out_of_fold_proba(exam: Exam, texts: Texts, codes: Ints, n_classes: int) -> Floats:
    """(N, C) by the words of the texts and, where there is a base model, by what it makes of them."""
    fold = stratified_folds(codes, exam.rng)
    proba = by_words(texts, codes, n_classes, fold, exam.seed)
    embeddings = _embeddings(exam, texts)
    if embeddings is None:
        return proba
    return (proba + by_embeddings(embeddings, codes, n_classes, fold)) / 2


def stratified_folds(codes: Ints, rng: np.random.Generator) -> Ints:
    """(N,) the fold of each row, drawn by chance, with rows of each class in as many of them as there are."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), np.int64)
    fold[order] = np.arange(len(codes)) % FOLDS
    return fold


def _knows_too_little(proba: Floats, codes: Ints) -> str:
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

"""Labels that the other rows speak against: confident learning on out-of-fold probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightune.doctor.exam import SHOWN, Exam, Symptom
from lightune.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Ints = NDArray[np.int64]

FOLDS = 5
LABEL_ROWS, FEWEST_LABEL_ROWS = 2000, 100  # that are looked at for wrong labels


def wrong_labels(exam: Exam) -> list[Symptom]:
    places = exam.sample(LABEL_ROWS)
    sizes = np.bincount(exam.patient.labels.codes[places])
    places = places[sizes[exam.patient.labels.codes[places]] >= FOLDS]
    present, codes = np.unique(exam.patient.labels.codes[places], return_inverse=True)
    if len(places) < FEWEST_LABEL_ROWS or len(present) < 2:
        return []
    if exam.embed is None:
        exam.left_out["label_errors"] = "no base model was named"
        return []
    try:
        x = exam.embed(exam.patient.texts.take(places))
    except UserError as error:  # no such model here: all other checks are made without
        exam.left_out["label_errors"] = str(error).splitlines()[0]
        return []
    if x is None:
        exam.left_out["label_errors"] = "the base model gives no embeddings"
        return []
    proba = out_of_fold(x, codes, len(present), exam.rng)
    wrong, likelier = likely_errors(proba, codes)
    if not len(wrong):
        return []
    names = exam.patient.labels.names
    shown = ", ".join(
        f"row {places[row]} ({names[present[codes[row]]]!r}, rather {names[present[other]]!r})"
        for row, other in zip(wrong[:SHOWN], likelier[:SHOWN], strict=True)
    )
    right = float((proba.argmax(axis=1) == codes).mean())
    what = (
        f"up to {len(wrong):,} of {len(places):,} labels looked at are likely wrong, by a classifier that has "
        f"{right:.0%} of the others right; the surest: {shown}"
    )
    return [Symptom("note", len(wrong), what, places[wrong])]


def out_of_fold(x: Floats, codes: Ints, n_classes: int, rng: np.random.Generator) -> Floats:
    """(N, C) probabilities of logistic regression for rows (N, D) that it has not learned from."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    fold = rng.permutation(len(x)) % FOLDS
    proba = np.zeros((len(x), n_classes))
    for i in range(FOLDS):
        learned, asked = fold != i, fold == i
        scale = StandardScaler().fit(x[learned])
        model = LogisticRegression(C=0.03, max_iter=300, tol=1e-3).fit(scale.transform(x[learned]), codes[learned])
        proba[np.ix_(asked, model.classes_)] = model.predict_proba(scale.transform(x[asked]))
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

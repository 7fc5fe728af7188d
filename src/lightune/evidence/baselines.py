"""BASELINES: what fine-tuning has to beat, learned from the same training rows and asked the same test rows.

To add one, write a function from a `Lesson` to an `Answer` and one row in BASELINES. Its scores, its comparison with
the tuned classifier, its place in the table, the docs and the gate follow.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.batching import Encoder, Labelled
from lightune.data.values import Texts
from lightune.errors import UserError, near_match
from lightune.evidence.decisions import best_thresholds, decide, f1_micro, task_of
from lightune.evidence.evaluate import predict
from lightune.hardware import Hardware
from lightune.journal import duration
from lightune.recipe import Task
from lightune.records import Decision, Evaluation, Splits

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# strengths of logistic regression, C, that held-out rows choose from, and of ridge regression, alpha
WORD_STRENGTHS, EMBEDDING_STRENGTHS = (1.0, 3.0, 10.0, 30.0), (0.003, 0.01, 0.03, 0.1, 0.3)
WORD_PENALTIES, EMBEDDING_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0), (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
MOST_CHARACTERS = 30_000_000  # of the training texts that TF-IDF reads
# that TF-IDF takes, each of its regressions, and each of the probe's for a row; on one Zen 3 core, where 29 million
# characters of 2 classes took 13 s, 0.8 million of 28 labels a row 6 s, and 1,500 rows of 28 labels a probe of 21 s
SECONDS_PER_CHARACTER, SECONDS_PER_FIT_CHARACTER, SECONDS_PER_FIT_ROW = 0.2e-6, 0.07e-6, 8e-5
TOKEN = r"\w+|[^\w\s]"  # words, and punctuation marks
HASHES = 2**23  # columns of words and pairs before those that are not there are left out
MOST_WEIGHTS = 20_000_000  # of a linear model, classes times words: 160 MB each of a few copies


@dataclass(frozen=True)
class Embeddings:
    """What the frozen network makes of some training rows, (M, D) of classes y (M,), and of the test rows, (N, D).

    rows (M,): their places among the training texts.
    """

    train: NDArray[np.floating]
    y: Ints
    rows: Ints
    test: NDArray[np.floating]


@dataclass(frozen=True)
class Lesson:
    """Texts to learn from, to choose on and to answer; embeddings: maybe none.

    y: class ids (N,) in [0, n_classes), label sets (N, n_classes) of 0 and 1, or numbers (N,) float.
    """

    train: Sequence[str]
    y_train: Ints
    dev: Sequence[str]
    y_dev: Ints
    test: Sequence[str]
    n_classes: int
    embeddings: Embeddings | None = None

    @classmethod
    def of(cls, splits: Splits, rows: Mapping[str, Labelled]) -> Lesson:
        """The texts of the splits with the class ids that the network learns."""
        texts = {name: part.texts for name, part in splits.parts().items()}
        y_train, y_dev = rows["train"].y, rows["dev"].y
        return cls(texts["train"], y_train, texts["dev"], y_dev, texts["test"], len(splits.class_names))


@dataclass(frozen=True)
class Answer:
    """Probabilities (N, C) of the test rows, or numbers (N, 1); n_train: rows learned from; chosen: by held-out rows.

    thresholds: of several labels a row, from which on each is given. answers: as `decide` gives them.
    """

    proba: Floats
    n_train: int
    chosen: dict[str, float] = field(default_factory=dict)
    thresholds: Sequence[float] = ()
    answers: NDArray[np.generic] = field(default_factory=lambda: np.zeros(0))
    seconds: float = 0.0


@dataclass(frozen=True)
class Baseline:
    """A row: its name in sentences, what it does, and how it answers; titles: its name for other kinds of labels."""

    title: str
    summary: str
    answer: Callable[[Lesson, np.random.Generator], Answer]
    needs_embeddings: bool = False
    titles: Mapping[Task, str] = field(default_factory=dict)


# training rows that the frozen network reads: a share of the number of test rows, but not fewer than
PROBE_PART, FEWEST_PROBE_ROWS, PROBE_ROWS_A_CLASS = 0.5, 200, 10


def probe_rows(names: Sequence[str], lesson: Lesson) -> int:
    """Training rows that the frozen network is to read: so many that they cost half of what the test rows do."""
    if not any(BASELINES[name].needs_embeddings for name in names):
        return 0
    fewest = max(FEWEST_PROBE_ROWS, PROBE_ROWS_A_CLASS * lesson.n_classes)
    return min(len(lesson.train), max(fewest, round(PROBE_PART * len(lesson.test))))


def embed(
    lesson: Lesson,
    seen: Evaluation,
    model: nn.Module,
    encoder: Encoder,
    n_rows: int,
    hardware: Hardware,
    *,
    seed: int,
) -> Lesson:
    """The lesson with what the frozen `model` makes of the test rows, which it has `seen`, and of n_rows others.

    The same lesson if n_rows is 0, or if the network gives no embeddings.
    """
    if not n_rows or seen.embeddings is None:
        return lesson
    rows = np.sort(np.random.default_rng(seed).permutation(len(lesson.train))[:n_rows])
    tokens = encoder.tokenise(Texts.of(lesson.train).take(rows))
    embeddings = predict(model, encoder, tokens, hardware).embeddings
    if embeddings is None:
        return lesson
    return replace(lesson, embeddings=Embeddings(embeddings, lesson.y_train[rows], rows, seen.embeddings))


def title_of(name: str, task: Task) -> str:
    """What a baseline is called in sentences."""
    row = BASELINES[name]
    return row.titles.get(task, row.title)


def seconds(names: Sequence[str], lesson: Lesson) -> float:
    """About how long the baselines take; each of several labels or classes is a regression of its own."""
    n_each = 1 if lesson.n_classes <= 2 and lesson.y_train.ndim == 1 else lesson.n_classes
    total = n_each * (len(EMBEDDING_STRENGTHS) + 1) * SECONDS_PER_FIT_ROW * probe_rows(names, lesson)
    if "tfidf" in names:
        n_train = min(int(Texts.of(lesson.train).lengths().sum()), MOST_CHARACTERS)
        n_others = sum(int(Texts.of(texts).lengths().sum()) for texts in (lesson.dev, lesson.test))
        total += SECONDS_PER_CHARACTER * (n_train + n_others)
        total += SECONDS_PER_FIT_CHARACTER * len(WORD_STRENGTHS) * n_each * n_train
    return total


def markdown_table() -> str:
    """The documentation's table of BASELINES."""
    rows = [["Baseline", "In sentences", "What it does"], ["---"] * 3]
    rows += [
        [f"`{name}`", "; ".join(dict.fromkeys([row.title, *row.titles.values()])), row.summary]
        for name, row in BASELINES.items()
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def check(names: Sequence[str]) -> list[str]:
    """The same names, each once. Raises UserError for one that is no row of BASELINES."""
    for name in names:
        if name not in BASELINES:
            hint = near_match(name, BASELINES)
            raise UserError(f"evidence.baselines: no baseline {name!r}.{hint} There are {', '.join(BASELINES)}.")
    return list(dict.fromkeys(names))


def answer(names: Sequence[str], lesson: Lesson, *, seed: int, tell: Callable[[Decision], None]) -> dict[str, Answer]:
    """Name -> answers of each baseline that can answer here; `tell` hears of each as it is done."""
    answers: dict[str, Answer] = {}
    task = task_of(lesson.y_train)
    for name in names:
        row, title = BASELINES[name], title_of(name, task)
        if row.needs_embeddings and lesson.embeddings is None:
            tell(Decision(title, "left out", "this network gives no embeddings"))
            continue
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that stops early is what it is: held-out rows choose
            given = row.answer(lesson, np.random.default_rng(seed))
        found = given.answers
        if not len(found):
            found = decide(given.proba, task, given.thresholds)
        answers[name] = replace(given, answers=found, seconds=time.monotonic() - started)
        chosen = "".join(f"; {key} = {value:g}, chosen on held-out rows" for key, value in given.chosen.items())
        why = f"learned from {given.n_train:,} of {len(lesson.train):,} training rows{chosen}"
        tell(Decision(title, duration(answers[name].seconds), why))
    return answers


# ---- the baselines


def _majority(lesson: Lesson, rng: np.random.Generator) -> Answer:
    """The shares of the classes among the training rows, whatever the text; the most frequent of label sets.

    Of numbers the median, from which they are nearest on average.
    """
    n_test, n_train = len(lesson.test), len(lesson.y_train)
    if task_of(lesson.y_train) == "regression":
        return Answer(np.full((n_test, 1), np.median(lesson.y_train)), n_train)
    if lesson.y_train.ndim == 1:
        shares = np.bincount(lesson.y_train, minlength=lesson.n_classes) / n_train
        return Answer(np.tile(shares, (n_test, 1)), n_train)
    sets, counts = np.unique(lesson.y_train, axis=0, return_counts=True)
    most_frequent = np.tile(sets[counts.argmax()] == 1, (n_test, 1))
    return Answer(np.tile(lesson.y_train.mean(axis=0), (n_test, 1)), n_train, answers=most_frequent)


def _tfidf(lesson: Lesson, rng: np.random.Generator) -> Answer:
    """Words and pairs of neighbouring words, weighed by how rare they are, into logistic regression."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    rows = _affordable(lesson.train, rng)
    texts, y = Texts.of(lesson.train).take(rows), lesson.y_train[rows]
    if _is_one_class(y):
        return _majority(lesson, rng)
    # by hash: a vocabulary of all pairs would take three times the memory and twice the time of all the rest
    words = HashingVectorizer(
        ngram_range=(1, 2),
        n_features=HASHES,
        alternate_sign=False,
        norm=None,
        token_pattern=TOKEN,
        dtype=np.float32,
    )
    counts = words.transform(texts)  # (N, HASHES)
    kept = _columns(counts, 2 if len(y) >= 1000 else 1, MOST_WEIGHTS // lesson.n_classes)
    if not len(kept):  # no text has a word
        return _majority(lesson, rng)
    weights = TfidfTransformer(sublinear_tf=True).fit(counts[:, kept])
    x, x_dev, x_test = (
        weights.transform(each[:, kept], copy=False)
        for each in (counts, words.transform(lesson.dev), words.transform(lesson.test))
    )
    if task_of(y) == "regression":
        penalties = {alpha: partial(ridge, alpha, solver="sparse_cg") for alpha in WORD_PENALTIES}
        penalty, found, _ = _fit_on_dev(penalties, x, y, x_dev, lesson.y_dev, 1)
        return Answer(found.predict(x_test)[:, None], len(y), {"alpha": penalty})
    makes = {c: partial(on_words, c, seed=int(rng.integers(2**31))) for c in WORD_STRENGTHS}
    strength, model, thresholds = _fit_on_dev(makes, x, y, x_dev, lesson.y_dev, lesson.n_classes)
    return Answer(_proba(model, x_test, lesson.n_classes), len(y), {"C": strength}, thresholds)


def _columns(counts: Any, fewest: int, most: int) -> Ints:
    """The columns of counts (N, V), sparse, that are in `fewest` rows at least, of which the `most` frequent."""
    n_rows = np.bincount(counts.indices, minlength=counts.shape[1])
    kept = np.flatnonzero(n_rows >= fewest)
    if len(kept) > most:
        kept = np.sort(kept[np.argsort(-n_rows[kept], kind="stable")[:most]])
    return kept


def _affordable(texts: Sequence[str], rng: np.random.Generator) -> Ints:
    """Places of as many texts, drawn at random, as hold MOST_CHARACTERS."""
    lengths = Texts.of(texts).lengths()
    if lengths.sum() <= MOST_CHARACTERS:
        return np.arange(len(texts))
    order = rng.permutation(len(texts))
    n_rows = int(np.searchsorted(np.cumsum(lengths[order]), MOST_CHARACTERS))
    return np.sort(order[: max(2, n_rows)])


def _probe(lesson: Lesson, rng: np.random.Generator) -> Answer:
    """Logistic regression on what the frozen network makes of the texts."""
    from sklearn.preprocessing import StandardScaler

    embeddings = lesson.embeddings
    assert embeddings is not None
    scale = StandardScaler().fit(embeddings.train)
    x, y = scale.transform(embeddings.train), embeddings.y
    if _is_one_class(y):
        return _majority(lesson, rng)
    held_out = np.zeros(len(y), dtype=bool)
    held_out[rng.permutation(len(y))[: len(y) // 5]] = True
    if _is_one_class(y[~held_out]):
        held_out[:] = False
    parts, x_test = (x[~held_out], y[~held_out], x[held_out], y[held_out]), scale.transform(embeddings.test)
    if task_of(y) == "regression":
        penalties = {alpha: partial(ridge, alpha) for alpha in EMBEDDING_PENALTIES}
        penalty, _, _ = _fit_on_dev(penalties, *parts, 1)
        return Answer(ridge(penalty).fit(x, y).predict(x_test)[:, None], len(y), {"alpha": penalty})
    makes = {c: partial(on_embeddings, c, each_label=y.ndim == 2) for c in EMBEDDING_STRENGTHS}
    strength, _, thresholds = _fit_on_dev(makes, *parts, lesson.n_classes)
    proba = _proba(makes[strength]().fit(x, y), x_test, lesson.n_classes)
    return Answer(proba, len(y), {"C": strength}, thresholds)


def _is_one_class(y: Ints) -> bool:
    return bool((y == y[0]).all())


def _fit_on_dev(
    makes: Mapping[float, Callable[[], Any]], x: Any, y: Ints, x_dev: Any, y_dev: Ints, n_classes: int
) -> tuple[float, Any, Sequence[float]]:
    """The strength whose model is best on the dev rows, the first of equals, that model, and its thresholds.

    The best has most rows right or, of several labels a row, the highest F1 of all labels together, or, of numbers,
    the smallest mean error.
    """
    fitted = {strength: make().fit(x, y) for strength, make in makes.items()}
    if not len(y_dev):
        best = next(iter(fitted))
        return best, fitted[best], ()
    if y.ndim == 1:
        is_numbers = task_of(y) == "regression"
        scores = {
            c: -float(np.abs(told - y_dev).mean()) if is_numbers else float((told == y_dev).sum())
            for c, model in fitted.items()
            for told in [model.predict(x_dev)]
        }
        best = max(scores, key=lambda strength: scores[strength])
        return best, fitted[best], ()
    proba = {c: _proba(model, x_dev, n_classes) for c, model in fitted.items()}
    thresholds = {c: best_thresholds(y_dev, p) for c, p in proba.items()}
    scores = {c: f1_micro(y_dev, decide(p, "multi_label", thresholds[c])) for c, p in proba.items()}
    best = max(scores, key=lambda strength: scores[strength])
    return best, fitted[best], thresholds[best]


def on_words(strength: float, seed: int) -> Any:
    """Logistic regression for many sparse columns, class against rest; its dual is four times as fast as lbfgs."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model = LogisticRegression(C=strength, solver="liblinear", dual=True, tol=0.1, max_iter=300, random_state=seed)
    return OneVsRestClassifier(model)


def ridge(penalty: float, solver: str = "auto") -> Any:
    """Linear regression with a penalty on the squares of its weights."""
    from sklearn.linear_model import Ridge

    return Ridge(penalty, solver=solver)


def on_embeddings(strength: float, *, each_label: bool = False) -> Any:
    """Logistic regression for a few hundred columns of scale 1; each_label: one for each of several labels a row."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    return OneVsRestClassifier(model) if each_label else model


def _proba(model: Any, x: Any, n_classes: int) -> Floats:
    """(N, C) of all classes; those that the model has not met have 0."""
    proba = np.zeros((x.shape[0], n_classes))
    proba[:, model.classes_] = model.predict_proba(x)
    return proba


# ---- the table

BASELINES: dict[str, Baseline] = {
    "majority": Baseline(
        title="the most frequent class",
        summary="Answers every text with the shares of the classes among the training rows, or their median number",
        answer=_majority,
        titles={"multi_label": "the most frequent label set", "regression": "the median"},
    ),
    "tfidf": Baseline(
        title="TF-IDF + logistic regression",
        summary="Words and pairs of words weighed by TF-IDF, logistic (of numbers: ridge) regression of a strength "
        "chosen on dev rows",
        answer=_tfidf,
        titles={"regression": "TF-IDF + ridge regression"},
    ),
    "probe": Baseline(
        title="the frozen-embedding probe",
        summary="Logistic (of numbers: ridge) regression on the mean of what the base model's last block reads, "
        "nothing fine-tuned",
        answer=_probe,
        needs_embeddings=True,
    ),
}

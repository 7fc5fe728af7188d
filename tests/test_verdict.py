"""The verdict is seldom wrong: simulated classifiers of which the truth is known, and references by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

from lightune.errors import GateError, UserError
from lightune.evidence import gate
from lightune.evidence import verdict as verdicts
from lightune.evidence.metrics import METRICS
from lightune.evidence.score import paired_difference_of, score_all
from lightune.evidence.statistics import detectable_gain, holm, mcnemar
from lightune.evidence.verdict import Comparison, in_words, verdict
from lightune.records import Score

TRIALS = 1000


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@dataclass(frozen=True)
class Given:
    """Probabilities (N, 2) and the answers by them."""

    proba: np.ndarray

    @property
    def answers(self):
        return self.proba.argmax(axis=1)


def compare(y_true, ours, others, *, seed):
    return verdicts.compare(y_true, ours.answers, {name: each.answers for name, each in others.items()}, seed=seed)


def difference(name, y_true, ours, theirs, **options):
    return paired_difference_of(name, y_true, *((each.proba, each.answers) for each in (ours, theirs)), **options)


def answers(rng, n_rows, rates, shared=0.6):
    """y_true (N,) and the probabilities (N, 2) of classifiers that are right at `rates`, on shared rows alike."""
    y_true = rng.integers(0, 2, n_rows)
    is_shared, luck = rng.random(n_rows) < shared, rng.random(n_rows)
    made = []
    for rate in rates:
        right = np.where(is_shared, luck, rng.random(n_rows)) < rate
        made.append(Given(np.eye(2)[np.where(right, y_true, 1 - y_true)] * 0.8 + 0.1))
    return y_true, made


# ---- how often the verdict is wrong


@pytest.mark.parametrize("n_rows", [100, 400, 2000])
def test_equal_classifiers_are_called_better_in_at_most_one_of_twenty(n_rows, rng):
    outcomes = []
    for trial in range(TRIALS):
        y_true, (ours, theirs) = answers(rng, n_rows, [0.85, 0.85])
        outcomes.append(compare(y_true, ours, {"tfidf": theirs}, seed=trial)["tfidf"].outcome)
    assert outcomes.count("better") + outcomes.count("worse") <= 0.05 * TRIALS
    assert len(set(outcomes)) > 1 or n_rows == 100  # a test that never finds anything would pass, too


def test_the_better_of_two_is_called_so_and_the_worse_as_well(rng):
    y_true, (one, other) = answers(rng, 1000, [0.9, 0.7])
    better, worse = compare(y_true, one, {"x": other}, seed=0)["x"], compare(y_true, other, {"x": one}, seed=0)["x"]
    assert (better.outcome, worse.outcome) == ("better", "worse")
    assert better.gain.low > 0 > worse.gain.high
    assert (better.fixed, better.broken) == (worse.broken, worse.fixed)


def test_four_equal_rivals_together_are_beaten_in_at_most_one_of_twenty(rng):
    """Without Holm's correction one of four is beaten in one of ten."""
    n_found = n_uncorrected = 0
    for trial in range(TRIALS):
        y_true, (ours, *theirs) = answers(rng, 1000, [0.8] * 5, shared=0.0)
        found = compare(y_true, ours, dict(zip("abcd", theirs, strict=True)), seed=trial).values()
        n_found += any(each.outcome == "better" for each in found)
        n_uncorrected += any(each.p_value <= 0.05 and each.fixed > each.broken for each in found)
    assert n_found <= 0.05 * TRIALS
    assert n_uncorrected > n_found


@pytest.mark.parametrize(("n_rows", "rates"), [(300, (0.85, 0.85)), (1000, (0.9, 0.85)), (2000, (0.7, 0.75))])
def test_intervals_of_the_gain_cover_it_in_95_percent_of_test_sets(n_rows, rates, rng):
    gains = []
    for trial in range(TRIALS):
        y_true, (ours, theirs) = answers(rng, n_rows, rates)
        gains.append(compare(y_true, ours, {"x": theirs}, seed=trial)["x"].gain)
    true = rates[0] - rates[1]
    covered = np.mean([gain.low - 1e-9 <= true <= gain.high + 1e-9 for gain in gains])
    assert 0.93 <= covered <= 0.97


def test_the_detectable_gain_is_detected_four_times_in_five(rng):
    """Rows on which the two differ are a fifth of the rows, and 60 % or so of them are fixed."""
    n_rows, changed = 1000, 0.2
    gain = detectable_gain(n_rows, changed)
    fixed = rng.multinomial(n_rows, [(changed + gain) / 2, (changed - gain) / 2, 1 - changed], size=TRIALS)
    p_values = [mcnemar(*_rows(f, b, n_rows)).p_value for f, b, _ in fixed]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.8, abs=0.05)  # the exact test is a little strict


def _rows(fixed, broken, n_rows):
    before, after = np.ones(n_rows, dtype=bool), np.ones(n_rows, dtype=bool)
    before[:fixed] = after[fixed : fixed + broken] = False
    return before, after


# ---- references


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03, 0.005], [0.5, 0.9], [1e-9], [0.04, 0.04, 0.04], []])
def test_holm_is_that_of_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    np.testing.assert_allclose(holm(p_values), expected)


@pytest.mark.parametrize(("fixed", "broken"), [(12, 3), (40, 41), (0, 5), (300, 210)])
def test_mcnemar_is_that_of_statsmodels(fixed, broken):
    found = mcnemar(*_rows(fixed, broken, 1000))
    expected = mcnemar_of_statsmodels([[500, broken], [fixed, 500 - fixed - broken]], exact=True)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.fixed, found.broken) == (fixed, broken)


def test_the_detectable_gain_by_hand():
    """Connor's equation: n = (z sqrt(c) + z' sqrt(c - g²))² / g² with 1.95996 and 0.84162."""
    gain = detectable_gain(500, 0.1)
    assert (1.959964 * math.sqrt(0.1) + 0.841621 * math.sqrt(0.1 - gain**2)) ** 2 / gain**2 == pytest.approx(500)
    assert math.isnan(detectable_gain(5, 0.2))  # one row of five cannot show anything
    assert math.isnan(detectable_gain(1, 1.0))
    with pytest.raises(UserError, match="0 were given"):
        detectable_gain(0, 0.1)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.direction == "higher"])
def test_a_paired_difference_is_that_of_the_two_values_and_narrower_than_apart(name, rng):
    y_true, (ours, theirs) = answers(rng, 400, [0.9, 0.8], shared=0.9)
    gain = difference(name, y_true, ours, theirs, seed=3)
    one, two = (score_all(y_true, given.proba, names=[name], seed=3)[name] for given in (ours, theirs))
    assert gain.value == pytest.approx(one.value - two.value)
    assert gain.low < gain.value < gain.high
    assert gain.high - gain.low < math.hypot(one.high - one.low, two.high - two.low)


@pytest.mark.parametrize("name", METRICS)
def test_a_classifier_is_no_better_than_itself(name, rng):
    y_true, (ours,) = answers(rng, 100, [0.8])
    assert difference(name, y_true, ours, ours, seed=0) == Score(0, 0, 0)


def test_a_paired_difference_of_accuracy_agrees_with_the_rows(rng):
    y_true, (ours, theirs) = answers(rng, 800, [0.9, 0.85])
    found = compare(y_true, ours, {"x": theirs}, seed=0)["x"].gain
    general = difference("accuracy", y_true, ours, theirs, seed=0, n_resamples=2000)
    assert general.value == pytest.approx(found.value)
    assert general.low == pytest.approx(found.low, abs=0.003)
    assert general.high == pytest.approx(found.high, abs=0.003)


# ---- words


def comparison(gain, fixed, broken, p, detectable=0.038):
    return Comparison(Score(gain, gain - 0.012, gain + 0.012), fixed, broken, p, p, detectable)


def test_better_says_by_how_much_and_how_sure():
    words = in_words("TF-IDF", comparison(0.031, 90, 28, 0.0001), 2000)
    assert words == "better than TF-IDF by 3.1 points (95 % CI 1.9 to 4.3); by chance once in 10,000"


def test_worse_is_said_plainly():
    words = in_words("TF-IDF", comparison(-0.02, 10, 50, 2e-9), 2000)
    assert words == "worse than TF-IDF by 2.0 points (95 % CI 0.8 to 3.2); by chance less than once in a million"


def test_what_cannot_be_told_apart_says_what_could_have_been():
    words = in_words("TF-IDF", comparison(0.005, 22, 20, 0.874), 400)
    assert words == (
        "not distinguishable from TF-IDF on 400 rows (+0.5 points, 95 % CI -0.7 to +1.7, adjusted p = 0.87); "
        "the smallest gain that you could have seen, four times in five, is 3.8 points"
    )
    assert in_words("x", comparison(0, 0, 0, 1.0), 9).endswith("; both have the same rows right")
    assert in_words("x", comparison(0.1, 1, 0, 1.0, math.nan), 9).endswith(
        "; they differ on 1 rows, too few to show any gain"
    )


def test_the_verdict_is_about_the_strongest_rival():
    found = {"before": comparison(0.4, 800, 9, 1e-9), "tfidf": comparison(-0.02, 10, 50, 2e-9)}
    assert verdict(found, {"before": "nothing", "tfidf": "TF-IDF"}, 2000).startswith("worse than TF-IDF by 2.0")


def test_the_verdict_is_about_a_rival_that_is_not_beaten_before_one_that_is():
    found = {"a": comparison(0.020, 60, 20, 0.001), "b": comparison(0.021, 200, 158, 0.06)}
    assert verdict(found, {"a": "A", "b": "B"}, 2000).startswith("not distinguishable from B")


def test_comparisons_are_corrected_by_holm_and_the_detectable_gain_with_them(rng):
    y_true, (ours, *theirs) = answers(rng, 1000, [0.9, 0.87, 0.88, 0.6])
    found = compare(y_true, ours, dict(zip("abc", theirs, strict=True)), seed=0)
    expected = multipletests([each.p_value for each in found.values()], method="holm")[1]
    assert [each.p_adjusted for each in found.values()] == pytest.approx(expected)
    for each in found.values():
        changed = (each.fixed + each.broken) / 1000
        assert each.detectable == detectable_gain(1000, changed, 1 - 0.05 / 3)


@pytest.mark.parametrize(("p", "once"), [(0.05, "20"), (0.031, "32"), (0.0001, "10,000"), (0.00058, "1,700")])
def test_a_p_value_as_a_frequency(p, once):
    assert in_words("x", comparison(0.1, 9, 1, p), 100).endswith(f"by chance once in {once}")


# ---- gates

OTHERS = ("before", "tfidf")


@pytest.mark.parametrize(
    ("typed", "metric", "sign", "than"),
    [
        ("accuracy>tfidf", "accuracy", ">", "tfidf"),
        (" f1_macro >= 0.8 ", "f1_macro", ">=", 0.8),
        ("log_loss<.5", "log_loss", "<", 0.5),
        ("mcc>=-1e-3", "mcc", ">=", -0.001),
    ],
)
def test_what_a_gate_may_say(typed, metric, sign, than):
    assert gate.parse([typed], OTHERS) == [gate.Requirement(metric, sign, than)]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("accuracy", r"require 'accuracy': not understood. Write METRIC>NUMBER or METRIC>NAME"),
        ("acuracy>0.9", r"no metric 'acuracy'. Did you mean 'accuracy'\?"),
        ("accuracy>tfdif", r"'tfdif' is no number and nobody here. Did you mean 'tfidf'\? There are before, tfidf"),
        ("accuracy>nan", r"'nan' is no number"),
        ("accuracy==1", "not understood"),
        ("", "not understood"),
        ("f1_macro>=2", "require 'f1_macro>=2': can never be, f1_macro lies between 0 and 1"),
        ("accuracy<0", "can never be, accuracy lies between 0 and 1"),
        ("log_loss<0", "can never be, log_loss lies between 0 and inf"),
        ("accuracy>1", "can never be"),
    ],
)
def test_what_a_gate_may_not_say(typed, message):
    with pytest.raises(UserError, match=message):
        gate.parse([typed], OTHERS)


@pytest.mark.parametrize(
    ("typed", "rates", "holds"),
    [
        ("accuracy>0.85", (0.9, 0.7), True),
        ("accuracy>0.95", (0.9, 0.7), False),
        ("accuracy>tfidf", (0.9, 0.7), True),
        ("accuracy>tfidf", (0.8, 0.8), False),  # no difference beyond chance
        ("accuracy>=tfidf", (0.8, 0.8), True),
        ("accuracy>=tfidf", (0.7, 0.9), False),
        ("log_loss<tfidf", (0.9, 0.7), True),
        ("log_loss<tfidf", (0.7, 0.9), False),
        ("log_loss<=tfidf", (0.8, 0.8), True),
    ],
)
def test_a_gate_holds_or_says_why_not(typed, rates, holds, rng):
    y_true, (ours, theirs) = answers(rng, 1000, rates)
    (required,) = gate.parse([typed], OTHERS)
    why = gate.shortfall(required, y_true, ours, {"tfidf": theirs}, seed=0)
    assert (why == "") == holds, why


def test_a_gate_on_accuracy_agrees_with_the_verdict():
    """Four rows fixed of 1,000 and none broken: the interval leaves 0 out, McNemar's test does not."""
    y_true = np.zeros(1000, int)
    ours = Given(np.tile([0.9, 0.1], (1000, 1)))
    theirs = Given(ours.proba.copy())
    theirs.proba[:4] = [0.1, 0.9]
    found = compare(y_true, ours, {"tfidf": theirs}, seed=0)["tfidf"]
    assert found.outcome == "not distinguishable"
    for typed, holds in (("accuracy>tfidf", False), ("accuracy>=tfidf", True), ("accuracy<=tfidf", True)):
        (required,) = gate.parse([typed], OTHERS)
        why = gate.shortfall(required, y_true, ours, {"tfidf": theirs}, seed=0)
        assert (why == "") == holds, why


def test_a_metric_without_a_value_keeps_the_gate_shut():
    (required,) = gate.parse(["roc_auc>0.5"], OTHERS)
    why = gate.shortfall(required, np.zeros(3, int), Given(np.full((3, 2), 0.5)), {}, seed=0)
    assert why == "roc_auc has no value here (1 of 2 classes have no row here)"


def test_a_shut_gate_ends_with_exit_code_3_and_says_where_the_run_is(tmp_path):
    records = [{"what": "a", "passed": True, "why": ""}, {"what": "b", "passed": False, "why": "too low"}]
    with pytest.raises(GateError, match=r"^required and not so: b: too low\. The run is kept in .*\.$") as error:
        gate.keep(records, tmp_path)
    assert error.value.exit_code == 3

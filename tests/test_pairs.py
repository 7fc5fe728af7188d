"""Pairs of texts from the table to the answers: columns, a run that needs both, and every way to use it."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import lightune
from lightune.artifact.contract import read_contract, seal_of
from lightune.artifact.folder import ADAPTER
from lightune.checkup import check
from lightune.cli import main
from lightune.data.columns import choose_columns
from lightune.data.examples import examples
from lightune.data.framing import join_pair, split_pair
from lightune.data.prepare import prepare
from lightune.errors import UserError
from lightune.journal import Journal
from lightune.recipe import DataRecipe
from lightune.report.answers import shortened
from lightune.reporting import make_report
from lightune.settings import load_recipe
from lightune.use.explaining import explain_texts
from lightune.use.files import evaluate_file, predict_file
from tests import tiny

FIRST = ["lamp", "kettle", "chair", "lovely", "broken", "cheap"]
REST = ["is", "very", "quick", "today", "i", "think", "my", "new"]
PAIRS = [("the lamp is lovely", "lamp"), ("kettle", "a cheap kettle , i think"), ("chair", "lamp")]
SETTINGS = {
    "train.epochs": 1.0,
    "data.max_tokens": 32,
    "data.truncation": "head",
    "hardware.precision": "fp32",
    "evidence.baselines": ["tfidf"],
    "evidence.calibrate": False,  # of a temperature, plain transformers knows nothing
}


def table(**columns) -> pa.Table:
    return pa.table(columns)


def chosen(data: pa.Table, **given):
    text, label, decisions, pair = choose_columns(data, **{"text": None, "label": None} | given)
    return text, pair, label, {decision.what: decision for decision in decisions}


# ---- columns


SENTENCES = [f"a lamp of the {i}th kind is here" for i in range(20)]
OTHERS = [f"the chair of the {i}th row" for i in range(20)]
LABELS = ["yes", "no"] * 10


@pytest.mark.parametrize(
    "names", [("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("Query", "Passage")]
)
def test_two_columns_with_the_names_of_a_pair_are_one(names):
    data = table(**{names[1]: OTHERS, "label": LABELS, names[0]: SENTENCES})
    text, pair, label, told = chosen(data)
    assert (text, pair, label) == (*names, "label")
    assert told["text columns"].choice == f"{names[0]} and {names[1]}"
    assert "--text" in told["text columns"].why


def test_a_named_text_alone_stays_one_text():
    data = table(premise=SENTENCES, hypothesis=OTHERS, label=LABELS)
    assert chosen(data, text="premise")[:2] == ("premise", None)
    assert chosen(data, pair="premise")[:2] == ("hypothesis", "premise")


def test_a_longer_text_beside_the_names_of_a_pair_stays_the_text():
    data = table(question=OTHERS, answer=SENTENCES, review=[f"{each} " * 9 for each in SENTENCES], label=LABELS)
    assert chosen(data)[:2] == ("review", None)


def test_a_class_is_no_second_text():
    data = table(question=SENTENCES, answer=LABELS)
    assert chosen(data)[:3] == ("question", None, "answer")


WRONG = {
    "not there": ({"text": "premise", "pair": "hypotesis"}, r"no column 'hypotesis'.*Did you mean.*Set data\.pair"),
    "template": ({"text": "premise", "pair": "{hypothesis"}, r"data\.pair is '\{hypothesis'"),
    "twice": ({"text": "premise", "pair": "premise"}, r"'premise' is named as both texts of a pair"),
    "the label": ({"text": "premise", "pair": "label"}, r"column 'label' is named as text and as label"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_second_text_is_one_message(case):
    given, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        chosen(table(premise=SENTENCES, hypothesis=OTHERS, label=LABELS), label="label", **given)


def test_both_texts_are_needed_and_no_separator_is_kept():
    data = table(a=["x", "y\x1fz", " ", "v", None], b=["1", "2", "3", "", "5"], c=list("pqrst"), y=list("ababa"))
    with pytest.raises(UserError, match="0 of 5 rows have no label in 'y' and 3 more lack one of their two texts"):
        examples(data, text="a", pair="b", label="y")
    more = pa.concat_tables([data, table(a=["k"] * 5, b=["l"] * 5, c=["m"] * 5, y=["b"] * 5)])
    found, decisions = examples(more, text="a", pair="{b}-{c}", label="y")
    assert list(map(split_pair, found.texts[:3])) == [("x", "1-p"), ("y z", "2-q"), ("v", "-s")]
    assert [(d.what, d.choice) for d in decisions] == [
        ("rows without both texts of the pair", "dropped"),
        ("unit separators (U+001F)", "made spaces"),
    ]
    assert "1 of 10 rows" in decisions[1].why


def test_a_pair_without_one_text_keeps_the_other_where_every_row_is_answered():
    found, _ = examples(table(a=["x", None], b=["", "w"]), text="a", pair="b", label=None)
    assert list(map(split_pair, found.texts)) == [("x", ""), ("", "w")]


# ---- a run


def made(n_rows: int) -> list[dict[str, str]]:
    """Rows whose label is whether both texts begin with the same word; each text alone says nothing of it."""
    rng = random.Random(0)
    starts = itertools.cycle(itertools.product(FIRST, FIRST))
    same = itertools.cycle((word, word) for word in FIRST)
    rows = []
    for i in range(n_rows):
        first, second = next(same) if i % 2 else next(pair for pair in starts if pair[0] != pair[1])
        texts = [" ".join([word, *rng.sample(REST, 3)]) for word in (first, second)]
        rows.append({"premise": texts[0], "hypothesis": texts[1], "label": "same" if first == second else "other"})
    return rows


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def pairs_csv(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pairs") / "pairs.csv", made(240))


@pytest.fixture(scope="module")
def pair_run(pairs_csv, tiny_bert, tmp_path_factory):
    settings = SETTINGS | {"model": str(tiny_bert)}
    folder = tmp_path_factory.mktemp("runs") / "run"
    return lightune.run(pairs_csv, settings=settings, output=folder, journal=Journal(quiet=True))


@pytest.fixture(scope="module")
def classifier(pair_run):
    return lightune.Classifier.load(pair_run.folder)


def test_what_neither_text_tells_alone_is_learned_from_both(tiny_bert, tmp_path):
    """By all weights of a tiny network: it is given the two texts apart, and where each of them begins."""
    settings = SETTINGS | {"model": str(tiny_bert), "method": "full", "train.learning_rate": 3e-3}
    settings |= {"train.epochs": 10.0, "train.patience": 10, "evidence.baselines": []}
    rows = write(tmp_path / "rows.csv", made(600))
    options = {"settings": settings, "journal": Journal(quiet=True)}
    result = lightune.run(rows, output=tmp_path / "both", **options)
    assert result.results["after"]["accuracy"]["value"] > 0.9
    one = lightune.run(rows, text="premise", output=tmp_path / "one", **options)
    assert one.results["after"]["accuracy"]["value"] < 0.65


def test_a_run_says_that_it_reads_pairs(pair_run):
    results = pair_run.results
    assert (results["data"]["text"], results["data"]["pair"]) == ("premise", "hypothesis")
    assert results["recipe"]["data"]["pair"] == "hypothesis"
    assert "premise and hypothesis" in {decision["choice"] for decision in results["decisions"]}
    assert "between the two texts" not in {decision["what"] for decision in results["decisions"]}
    folder = Path(pair_run.folder)
    assert 'pair = "hypothesis"' in (folder / "recipe.toml").read_text()
    assert json.loads((folder / "doctor.json").read_text())["pair"] == "hypothesis"
    contract = read_contract(folder / ADAPTER)
    assert (contract.text, contract.pair, contract.between) == ("premise", "hypothesis", None)


def test_the_recipe_of_a_run_reads_the_same_rows_again(pair_run, pairs_csv):
    recipe = load_recipe(str(Path(pair_run.folder) / "recipe.toml")).recipe
    again, first = prepare(recipe.data), prepare(DataRecipe(source=str(pairs_csv)))
    assert (again.text, again.pair, again.source) == (first.text, first.pair, first.source)
    assert first.source.texts[0].count("\x1f") == 1


def logits_of(classifier, pairs):
    return np.log([list(each.probabilities.values()) for each in classifier.predict(pairs)])


def test_the_order_of_the_texts_matters(classifier):
    there = logits_of(classifier, PAIRS)
    swapped = logits_of(classifier, [(second, first) for first, second in PAIRS])
    assert np.abs(there - swapped).max() > 1e-4


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_plain_peft_on_the_tokenizers_pair_gives_the_same_answers(pair_run, classifier, tiny_bert, monkeypatch):
    import torch
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    monkeypatch.chdir(tiny_bert.parent)  # the adapter names its base by the last part of the path
    adapter = Path(pair_run.folder) / ADAPTER
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=2).eval()
    inputs = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    with torch.no_grad():
        proba = model(**inputs).logits.softmax(-1).numpy()
    np.testing.assert_allclose(np.exp(logits_of(classifier, PAIRS)), proba, atol=1e-5)


def test_the_cards_lines_give_the_same_answer(pair_run, classifier):
    assert_card(pair_run.folder, classifier)


def test_the_cards_lines_hold_where_the_tokenizer_puts_nothing_between(pairs_csv, tmp_path):
    settings = SETTINGS | {"model": str(tiny.make("gpt2", tmp_path / "gpt2")), "train.epochs": 0.2}
    run = lightune.run(pairs_csv, settings=settings, output=tmp_path / "run", journal=Journal(quiet=True))
    assert read_contract(Path(run.folder) / ADAPTER).between == "<|endoftext|>"
    told = {decision["what"]: decision["choice"] for decision in run.results["decisions"]}
    assert told["between the two texts"] == "<|endoftext|>"
    assert_card(run.folder, lightune.Classifier.load(run.folder))


def assert_card(folder, classifier):
    """The lines of the card that need no lightune answer as the classifier does, in a process of their own."""
    card = (Path(folder) / ADAPTER / "README.md").read_text()
    lines = card.split("```python")[2].split("```")[0]
    for place, text in zip(("first", "second"), PAIRS[1], strict=True):
        lines = lines.replace(f"A {place} text.", text)
    command = [sys.executable, "-W", "ignore", "-c", lines]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    expected = classifier.predict([PAIRS[1]])[0]
    label, score = re.search(r"'label': '(\w+)', 'score': ([\d.]+)", process.stdout).groups()
    assert (label, float(score)) == (expected.label, pytest.approx(expected.score, abs=1e-5))
    assert 'predict([("A first text.", "A second text.")])' in card


# ---- its use


@pytest.mark.parametrize("texts", [["a b"], ("a", "b"), [("a",)], [("a", "b", "c")], [None]])
def test_a_single_text_is_refused_where_pairs_are_needed(classifier, texts):
    with pytest.raises(UserError, match=r"text 0 is .*no pair.*trained on pairs.*predict\(\[\(first, second\)\]\)"):
        classifier.predict(texts)
    with pytest.raises(UserError, match=r"list of pairs of texts and got one string"):
        classifier.predict("a b")
    with pytest.raises(UserError, match="text 0 is int, not a string"):
        classifier.predict([("a", 1)])


def test_a_pair_is_refused_where_texts_are_needed(tiny_run):
    with pytest.raises(UserError, match=r"text 0 is \('a', 'b'\), no single text: .*trained on single texts"):
        lightune.Classifier.load(tiny_run.folder).predict([("a", "b")])


def test_lists_of_two_will_do(classifier):
    assert classifier.predict(map(list, PAIRS)) == classifier.predict(PAIRS)


def answers(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_is_labelled_by_both_its_columns(pair_run, classifier, tmp_path):
    rows = [{"hypothesis": second, "premise": first} for first, second in [*PAIRS, ("only one", "")]]
    write(tmp_path / "in.csv", rows)
    told = predict_file(pair_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    found = answers(tmp_path / "out.csv")
    expected = classifier.predict([*PAIRS, ("only one", "")])
    assert [float(row["score"]) for row in found] == pytest.approx([each.score for each in expected], abs=1e-4)
    assert (told["rows"], told["empty"]) == (4, 1)
    write(tmp_path / "swapped.csv", [{"a": row["hypothesis"], "b": row["premise"]} for row in rows])
    predict_file(pair_run.folder, str(tmp_path / "swapped.csv"), str(tmp_path / "b.csv"), text="b", pair="a")
    assert answers(tmp_path / "b.csv")[0]["score"] == found[0]["score"]


def test_a_file_without_the_second_column_is_one_message(pair_run, tiny_run, tmp_path):
    write(tmp_path / "in.csv", [{"premise": "a b", "label": "same"}])
    with pytest.raises(UserError, match=r"no column 'hypothesis'.*Set --pair"):
        predict_file(pair_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    with pytest.raises(UserError, match=r"'label': this classifier was trained on single texts.* out --pair\."):
        predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), pair="label")


class Stdin:
    def __init__(self, content: str):
        self.buffer = io.BytesIO(content.encode())


PIPED = {
    "tab": "".join(f"{first}\t{second}\n" for first, second in PAIRS) + "\n",
    "json": "".join(json.dumps({"hypothesis": second, "premise": first}) + "\n" for first, second in PAIRS),
    "csv": "hypothesis;premise\n" + "".join(f"{second};{first}\n" for first, second in PAIRS),
}


@pytest.mark.parametrize("kind", PIPED)
def test_pairs_can_be_piped(kind, pair_run, classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(PIPED[kind]))
    told = predict_file(pair_run.folder, "-", str(tmp_path / "out.csv"))
    found = answers(tmp_path / "out.csv")
    names = ("text", "text_pair") if kind == "tab" else ("premise", "hypothesis")
    given = [*PAIRS, ("", "")] if kind == "tab" else PAIRS  # a blank line has blank texts
    assert ([tuple(row[name] for name in names) for row in found], told["empty"]) == (given, len(given) - 3)
    expected = classifier.predict(given)
    assert [float(row["score"]) for row in found] == pytest.approx([each.score for each in expected], abs=1e-4)
    assert ("a pair a line" if kind == "tab" else "with the columns") in told["notes"][0]


@pytest.mark.parametrize("line", ["no tab", "two\ttabs\there"])
def test_a_line_that_is_no_pair_is_refused(line, pair_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(f"a\tb\n{line}\n"))
    with pytest.raises(UserError, match=r"standard input:2: [02] tabs in .*reads pairs"):
        predict_file(pair_run.folder, "-", str(tmp_path / "out.csv"))


def test_a_run_is_scored_on_other_pairs(pair_run, tiny_run, pairs_csv, tmp_path):
    rows = [{"a": row["premise"], "b": row["hypothesis"], "label": row["label"]} for row in made(60)]
    write(tmp_path / "more.csv", rows)
    found = evaluate_file(
        pair_run.folder, str(tmp_path / "more.csv"), text="a", pair="b", journal=Journal(quiet=True)
    )
    assert (found["n_rows"], found["data"]["pair"]) == (60, "b")
    with pytest.raises(UserError, match=r"this classifier was trained on single texts"):
        evaluate_file(tiny_run.folder, str(pairs_csv), pair="premise", journal=Journal(quiet=True))


def test_a_contract_that_knows_nothing_of_pairs_still_loads(tiny_run, tmp_path):
    adapter = Path(tiny_run.folder) / ADAPTER
    values = json.loads((adapter / "contract.json").read_text())
    old = {key: value for key, value in values.items() if key not in ("pair", "between")}
    old["seal"] = seal_of(json.dumps(old))
    (tmp_path / "contract.json").write_text(json.dumps(old))
    assert read_contract(tmp_path).pair is None


# ---- the doctor and the page


def test_the_doctor_reads_pairs(tmp_path):
    rows = [*made(60), {"premise": "the chair", "hypothesis": " ", "label": "same"}]
    rows += [rows[0] | {"label": "other" if rows[0]["label"] == "same" else "same"}, rows[1]]
    source = write(tmp_path / "rows.csv", rows)
    found = check(source, model=None)
    assert (found.text, found.pair) == ("premise", "hypothesis")
    by_check = {each.check: each for each in found.findings}
    assert by_check["empty"].rows == {"train": [60]}
    assert by_check["contradictions"].rows == {"train": [0, 61]}
    assert by_check["duplicates"].rows["train"] == [61, 62]
    assert "control_characters" not in by_check
    assert not {"giveaway_column"} & by_check.keys()
    single = check(source, text="premise", model=None, only="empty")
    assert (single.pair, single.findings) == (None, [])


def test_a_repaired_copy_keeps_both_columns(tmp_path):
    rows = [*made(60), {"premise": "a b\x07c", "hypothesis": "d\x1fe", "label": "same"}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check(source, model=None, fix=True, output=tmp_path / "clean.jsonl")
    last = json.loads((tmp_path / "clean.jsonl").read_text().splitlines()[-1])
    assert last["premise"] == "a bc"


def test_a_page_shows_both_texts(pair_run, pairs_csv, tmp_path):
    make_report(pair_run.folder, output=tmp_path / "page.html", show_texts=True)
    page = (tmp_path / "page.html").read_text()
    assert "\\x1f" not in page
    assert any(f"{row['premise']} | {row['hypothesis']}" in page for row in made(240))


def test_a_long_first_text_leaves_room_for_the_second():
    shown = shortened(join_pair("word " * 200, "the second"))
    assert shown.endswith("… | the second")
    assert len(shown) < 170


def test_the_words_of_both_texts_are_weighed(pair_run, classifier):
    pair = ("the lamp is new", "a kettle and a chair")
    (found,) = classifier.explain([pair])
    assert found.text == "|".join(pair)
    shown = [found.text[word.start : word.end] for word in found.words if word.weight is not None]
    assert [word for word in shown if word != "|"] == " ".join(pair).split()
    assert abs(found.gap) <= 0.01 * sum(abs(word.weight) for word in found.words if word.weight is not None) + 1e-6
    with pytest.raises(UserError, match="no pair"):
        classifier.explain(["the lamp is new"])
    told = explain_texts(pair_run.folder, ["\t".join(pair)], journal=Journal(io.StringIO()), is_shown=False)
    assert told[0]["words"] == [asdict(word) for word in found.words]


def test_the_command_line_takes_a_pair(pair_run, pairs_csv, tiny_bert, tmp_path, capsys):
    out = str(tmp_path / "out.csv")
    assert main(["predict", pair_run.folder, str(pairs_csv), "-o", out, "--pair", "{hypothesis}"]) == 0
    assert (
        main(["check", str(pairs_csv), "--text", "premise", "--pair", "hypothesis", "--model", str(tiny_bert)]) == 0
    )
    assert "text 'premise', pair 'hypothesis', label 'label'" in capsys.readouterr().out
    assert main(["evaluate", pair_run.folder, "--data", str(pairs_csv), "--pair", "hypotheses"]) == 2
    assert "Set --pair to" in capsys.readouterr().err

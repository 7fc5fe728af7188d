"""Word attributions: exact where they are known by hand, complete on every network, none for what is not read."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lightune
from lightune import cli
from lightune.data.batching import make_encoder
from lightune.data.words import find_words
from lightune.errors import GateError, UserError
from lightune.evidence import attribution
from lightune.evidence.attribution import attribute, log_odds, weigh_words
from lightune.evidence.decisions import ONE_LABEL, Readout
from lightune.hardware import choose_hardware
from lightune.model import adapters, anatomy, engine, methods
from lightune.report.marks import Piece
from lightune.use.explaining import marked
from tests import tiny

CPU = choose_hardware("cpu", "fp32")
TEXTS = ["the lamp is lovely", "a useless kettle , i think", "my new chair feels very quick today"]
NAMES = list(tiny.ARCHITECTURES)


def encoder_of(tokenizer: Any, **settings: Any) -> Any:
    return make_encoder(tokenizer, **{"max_tokens": 32, "truncation": "head", "limit": 64, **settings})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    for name in NAMES:
        tiny.make(name, root / name)
    return root


def adapted(root: Any, name: str, method: str = "lora", **options: Any) -> tuple[Any, Any]:
    """A classifier whose adapter does something, as it stands after a training, and its encoder."""
    import torch

    model, missing = tiny.load_base(root / name, 3, seed=1)
    tokenizer = tiny.load_tokenizer(root / name)
    anatomy.ensure_pad_token(tokenizer, model)
    model = methods.apply(model, anatomy.inspect(model, missing), method, options)[0]
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False), encoder_of(tokenizer)


def blanks_of(model: Any, encoder: Any, tokens: Any) -> list[int]:
    return list(
        attribution._Way(model, encoder, tokens, [0] * len(tokens), CPU, ONE_LABEL).from_least_sure().blank_ids
    )


def odds(model: Any, inputs: dict[str, Any], labels: list[int]) -> list[float]:
    """What log_odds is, by the definition."""
    import torch

    with torch.no_grad():
        p = model(**inputs).logits.double().softmax(1)
    return [float(torch.log(row[y] / (1 - row[y]))) for row, y in zip(p, labels, strict=True)]


def test_log_odds_are_those_of_the_probability():
    import torch

    logits = torch.tensor([[1.0, 2.0, -0.5], [0.0, 40.0, 1.0]], dtype=torch.float64)
    p = logits.softmax(1)
    expected = torch.log(p[0, 0] / (1 - p[0, 0])), 40 - torch.logsumexp(torch.tensor([0.0, 1.0]), 0)
    assert log_odds(logits, torch.tensor([0, 1])).tolist() == pytest.approx([float(each) for each in expected])


def test_the_sum_of_slopes_is_the_trapezoidal_rule_and_doubling_uses_each_again():
    """Of t squared, by hand: (0 / 2 + 1 / 4 + 1 / 2) / 2, and with 1 / 16 and 9 / 16 between them."""
    two = attribution._first_sum(np.array([0.0, 1 / 24, 1 / 3]), np.array([[0.0], [0.25], [1.0]]))
    four = attribution._finer(two, np.array([[1 / 16], [9 / 16]]))
    assert (two.weights.tolist(), two.n_steps) == ([0.375], 2)
    assert (four.weights.tolist(), four.n_steps) == ([0.34375], 4)
    assert four.gap == pytest.approx(1 / 3 - 0.34375)


def mean_model(n_words: int) -> Any:
    """Logits that are linear in the mean of the embeddings, so that integrated gradients are known by hand."""
    import torch

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            self.table, self.head = torch.nn.Embedding(n_words, 4), torch.nn.Linear(4, 2)
            for weight in self.parameters():
                weight.data = torch.randn(weight.shape, generator=generator)

        def get_input_embeddings(self) -> Any:
            return self.table

        def forward(self, input_ids: Any, attention_mask: Any, **others: Any) -> Any:
            mask = attention_mask[..., None].float()
            return SimpleNamespace(logits=self.head((self.table(input_ids) * mask).sum(1) / mask.sum(1)))

    return Mean()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_linear_model_gets_what_is_computed_by_hand(root, temperature):
    encoder = encoder_of(tiny.load_tokenizer(root / "bert"))
    model, tokens = mean_model(300), encoder.tokenise(TEXTS)
    found = attribute(model, encoder, tokens, [1, 0, 1], CPU, Readout(temperature=temperature))
    table, weight = model.table.weight.detach().numpy(), model.head.weight.detach().numpy()
    blanks = blanks_of(model, encoder, tokens)
    for row, (label, each) in enumerate(zip([1, 0, 1], found, strict=True)):
        ids = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        direction = (weight[label] - weight[1 - label]) / len(ids) / temperature
        assert each.weights == pytest.approx((table[ids[1:-1]] - table[blanks[row]]) @ direction, abs=1e-5)
        assert each.gap == pytest.approx(0, abs=1e-5)


def test_bert_gets_what_many_steps_on_its_input_embeddings_give(root):
    """The definition, dimension by dimension, without a hook: 400 steps in the middle rule."""
    import torch

    model, encoder = adapted(root, "bert")
    tokens = encoder.tokenise(TEXTS[:1])
    inputs = encoder.batch(tokens, np.array([0]), "cpu")
    table = model.get_input_embeddings().weight.detach()
    n, ids = int(tokens.lengths[0]), inputs.pop("input_ids")
    blank_ids = ids.clone()
    (blank_ids[0, 1 : n - 1],) = blanks_of(model, encoder, tokens)
    total = torch.zeros(1, ids.shape[1], table.shape[1])
    for step in range(400):
        mixed = table[blank_ids] + (step + 0.5) / 400 * (table[ids] - table[blank_ids])
        mixed.requires_grad_()
        p = model(inputs_embeds=mixed, **inputs).logits.softmax(1)[0, 2]
        total += torch.autograd.grad(torch.log(p / (1 - p)), mixed)[0] / 400
    expected = ((table[ids] - table[blank_ids]) * total).sum(-1)[0, 1 : n - 1]
    (found,) = attribute(model, encoder, tokens, [2], CPU)
    assert found.weights == pytest.approx(expected.numpy(), abs=0.02 * float(expected.abs().sum()))
    assert np.abs(found.weights).max() > 0.05


@pytest.mark.parametrize("form", ["adapted", "merged", "quickened"])
@pytest.mark.parametrize("name", NAMES)
def test_weights_sum_to_the_difference_from_a_blank_text(root, name, form):
    model, encoder = adapted(root, name)
    model = adapters.merge(model) if form == "merged" else model
    if form == "quickened":
        engine.quicken(model, "fp32")
    tokens, labels = encoder.tokenise(TEXTS), [0, 1, 2]
    rows = np.arange(3)
    inputs = encoder.batch(tokens, rows, "cpu")
    found = attribute(model, encoder, tokens, labels, CPU)
    assert [each.log_odds for each in found] == pytest.approx(odds(model, inputs, labels), abs=1e-4)
    assert all(each.is_exact for each in found)
    assert all(np.abs(each.weights).sum() > 1e-3 for each in found)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("gpt2", "llama", "qwen2", "qwen3")])
def test_at_the_start_of_the_way_every_word_is_a_mask(root, name):
    """As if it were typed: with the same positions and, in BART, one place later in the decoder."""
    model, encoder = adapted(root, name)
    tokens, labels, mask = encoder.tokenise(TEXTS), [0, 1, 2], encoder.tokenizer.mask_token_id
    way = attribution._Way(model, encoder, tokens, labels, CPU, ONE_LABEL, [mask] * 3)
    found = [float(values[0]) for values, _ in way.at(np.arange(3), np.zeros(1))]
    inputs = encoder.batch(tokens, np.arange(3), "cpu")
    for row in range(len(tokens)):
        inputs["input_ids"][row, encoder.own(tokens, row, inputs["input_ids"].shape[1])] = mask
    assert found == pytest.approx(odds(model, inputs, labels), abs=1e-4)


def test_the_blank_text_is_the_one_that_leaves_the_classifier_least_sure(root):
    import torch

    model, encoder = adapted(root, "bert")
    tokens = encoder.tokenise(TEXTS)
    found = blanks_of(model, encoder, tokens)
    assert encoder.blank_ids == [4, 0, 1]  # [MASK], [PAD], [UNK]
    for row, chosen in enumerate(found):
        inputs = encoder.batch(tokens, np.array([row]), "cpu")
        sure = {}
        for blank in encoder.blank_ids:
            inputs["input_ids"][0, encoder.own(tokens, int(row), inputs["input_ids"].shape[1])] = blank
            with torch.no_grad():
                sure[blank] = float(model(**inputs).logits.softmax(1).max())
        assert chosen == min(sure, key=sure.__getitem__)


@pytest.mark.parametrize("method", list(methods.METHODS))
def test_every_method_can_be_explained(root, method):
    options = {"init": "random"} if method == "prompt" else {}
    model, encoder = adapted(root, "bert", method, **options)
    engine.quicken(model, "fp32")
    tokens = encoder.tokenise(TEXTS)
    found = attribute(model, encoder, tokens, [0, 1, 2], CPU)
    expected = odds(model, encoder.batch(tokens, np.arange(3), "cpu"), [0, 1, 2])
    assert [each.log_odds for each in found] == pytest.approx(expected, abs=1e-4)
    assert all(each.is_exact for each in found)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoder_with_a_prefix_can_be_explained(root, name):
    model, encoder = adapted(root, name, "prefix")
    found = attribute(model, encoder, encoder.tokenise(TEXTS), [0, 1, 2], CPU)
    assert all(each.is_exact and np.abs(each.weights).sum() > 1e-3 for each in found)


def test_a_network_that_reads_its_tokens_otherwise_is_refused(root):
    encoder = encoder_of(tiny.load_tokenizer(root / "bert"))
    tokens, model = encoder.tokenise(TEXTS), mean_model(300)
    plain = type(model).forward
    model.forward = lambda input_ids, **others: plain(model, input_ids.flip(1), **others)
    with pytest.raises(GateError, match="reads its tokens in another order"):
        attribute(model, encoder, tokens, [0, 0, 0], CPU)
    model.forward = lambda input_ids, **others: SimpleNamespace(
        logits=model.head(model.table.weight[input_ids].sum(1))
    )
    with pytest.raises(GateError, match="does not read its tokens through one table"):
        attribute(model, encoder, tokens, [0, 0, 0], CPU)


def test_more_steps_are_taken_until_the_gap_is_small(root, monkeypatch):
    model, encoder = adapted(root, "bert")
    tokens = encoder.tokenise(TEXTS)
    monkeypatch.setattr(attribution, "FEWEST_STEPS", 2)
    monkeypatch.setattr(attribution, "GAP", 1.0)
    coarse = attribute(model, encoder, tokens, [0, 1, 2], CPU)
    monkeypatch.setattr(attribution, "GAP", 1e-3)
    fine = attribute(model, encoder, tokens, [0, 1, 2], CPU)
    assert {each.n_steps for each in coarse} == {2}
    assert len({each.n_steps for each in fine}) > 1  # each text takes as many as it needs
    assert all(abs(each.gap) < 2e-3 * np.abs(each.weights).sum() for each in fine)
    assert sum(abs(each.gap) for each in fine) < sum(abs(each.gap) for each in coarse)
    monkeypatch.setattr(attribution, "GAP", 0.0)
    monkeypatch.setattr(attribution, "MOST_STEPS", 8)
    assert {each.n_steps for each in attribute(model, encoder, tokens, [0, 1, 2], CPU)} == {8}


def test_where_memory_is_short_passes_are_halved(root, monkeypatch):
    model, encoder = adapted(root, "bert")
    tokens = encoder.tokenise(TEXTS)
    expected = attribute(model, encoder, tokens, [0, 1, 2], CPU)
    whole, sizes = attribution._Way._pass, []

    def cramped(way: Any, places: Any) -> Any:
        sizes.append(len(places))
        if len(places) > most:
            raise RuntimeError("CUDA out of memory")
        return whole(way, places)

    monkeypatch.setattr(attribution._Way, "_pass", cramped)
    most = 3
    found = attribute(model, encoder, tokens, [0, 1, 2], CPU)
    assert max(sizes) > 3 >= min(sizes)
    for each, other in zip(found, expected, strict=True):
        assert each.weights == pytest.approx(other.weights, abs=1e-5)
    most = 0
    with pytest.raises(GateError, match="no room to explain one text"):
        attribute(model, encoder, tokens, [0, 1, 2], CPU)


# Words


def words_of(text: str, *spans: tuple[int, int]) -> tuple[list[str], list[int]]:
    found, of_token = find_words(text, np.array(spans, dtype=np.int64).reshape(-1, 2))
    return [text[start:end] for start, end in found], of_token.tolist()


@pytest.mark.parametrize(
    ("text", "spans", "words", "of_token"),
    [
        ("unfair, no", [(0, 2), (2, 6), (6, 7), (8, 10)], ["unfair", ",", "no"], [0, 0, 1, 2]),
        ("so good", [(0, 2), (2, 7)], ["so", "good"], [0, 1]),  # GPT's tokens hold the space before them
        ("it's 3.14", [(0, 2), (2, 3), (3, 4), (5, 9)], ["it's", "3.14"], [0, 0, 0, 1]),
        ("fine.It's", [(0, 4), (4, 5), (5, 9)], ["fine", ".", "It's"], [0, 1, 2]),
        ("a,b", [(0, 3)], ["a,b"], [0]),  # a token over several words joins them
        ("東京タワー", [(0, 1), (1, 2), (2, 5)], ["東", "京", "タワー"], [0, 1, 2]),
        ("東京", [(0, 2)], ["東京"], [0]),
        ("a\n\nb", [(0, 1), (1, 3), (3, 4)], ["a", "\n\n", "b"], [0, 1, 2]),  # white space that is a token
        ("a 🎉", [(0, 1), (2, 3), (2, 3)], ["a", "🎉"], [0, 1, 1]),  # bytes of one character
        ("ab cd ef", [(0, 2)], ["ab", "cd", "ef"], [0]),  # the others were cut off
        ("ab", [(0, 0), (0, 2), (2, 2)], ["ab"], [0, 0, 0]),  # what a tokenizer adds
        ("", [], [], []),
    ],
)
def test_words_are_whole_and_hold_whole_tokens(text, spans, words, of_token):
    assert words_of(text, *spans) == (words, of_token)


def test_a_words_weight_is_the_sum_of_its_tokens_and_none_where_nothing_was_read():
    spans = np.array([[0, 2], [2, 6], [7, 9]])
    found = weigh_words("unfair so bad", spans, np.array([0.25, 0.5, -1.0]))
    assert [(word.start, word.end, word.weight) for word in found] == [(0, 6, 0.75), (7, 9, -1.0), (10, 13, None)]


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "xlnet", "gpt2"])
def test_spans_stand_where_the_tokens_came_from(root, name):
    tokenizer = tiny.load_tokenizer(root / name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encoder = encoder_of(tokenizer)
    text = "My  lamp, is lovely today"
    (spans,), tokens = encoder.spans([text]), encoder.tokenise([text])
    assert len(spans) == tokens.lengths[0] - encoder.frame.n_special
    words = [text[word.start : word.end] for word in weigh_words(text, spans, np.ones(len(spans)))]
    assert [word for word in words if word.strip()] == ["My", "lamp", ",", "is", "lovely", "today"]


# The classifier


@pytest.fixture(scope="module")
def classifier(tiny_run):
    return lightune.Classifier.load(tiny_run.folder)


def weights_of(explanation: Any) -> dict[str, float | None]:
    return {explanation.text[word.start : word.end]: word.weight for word in explanation.words}


def test_the_word_that_decides_weighs_most(classifier):
    texts = [text for text, _ in tiny.EXAMPLES[2]]
    deciding = {word for words in list(tiny._OPINIONS.values())[:2] for word in words}
    found = classifier.explain(texts)
    assert [each.prediction for each in found] == classifier.predict(texts)
    assert all(each.label == each.prediction.label for each in found)
    told = [weights_of(each) for each in found if each.blank < 0]  # else a blank text has the label by itself
    assert len(told) > len(texts) / 3
    assert np.mean([max(weights, key=weights.__getitem__) in deciding for weights in told]) > 0.9
    assert all(each.gap_share < 0.03 for each in found)


def test_log_odds_are_those_of_the_printed_probability(classifier):
    for each in classifier.explain(TEXTS):
        assert each.log_odds == pytest.approx(np.log(each.prediction.score / (1 - each.prediction.score)), abs=1e-3)
        total = sum(word.weight for word in each.words)
        assert total == pytest.approx(each.log_odds - each.blank - each.gap, abs=1e-6)


def test_of_two_labels_one_word_speaks_for_one_as_much_as_against_the_other(classifier):
    (one,), (other,) = classifier.explain(TEXTS[:1], "positive"), classifier.explain(TEXTS[:1], label="negative")
    assert (one.label, other.label) == ("positive", "negative")
    assert weights_of(one)["lovely"] > 0.1
    for word, weight in weights_of(one).items():
        assert weights_of(other)[word] == pytest.approx(-weight, abs=1e-4)


@pytest.mark.parametrize("options", [{"merge": False}, {"precision": "bf16"}])
def test_however_it_is_loaded_the_words_weigh_the_same(classifier, tiny_run, options):
    other = lightune.Classifier.load(tiny_run.folder, **options)
    other.predict(TEXTS)  # what is kept for answers is no hindrance
    for one, two in zip(classifier.explain(TEXTS), other.explain(TEXTS), strict=True):
        for a, b in zip(one.words, two.words, strict=True):
            assert a.weight == pytest.approx(b.weight, abs=1e-3)


def test_a_text_in_company_weighs_what_it_does_alone(classifier):
    for text, together in zip(TEXTS, classifier.explain(TEXTS), strict=True):
        (alone,) = classifier.explain([text])
        assert list(weights_of(alone).values()) == pytest.approx(list(weights_of(together).values()), abs=1e-4)


@pytest.mark.parametrize(
    ("truncation", "read"), [("head", range(6)), ("tail", range(4, 10)), ("head+tail", [0, 1, 2, 7, 8, 9])]
)
def test_words_that_were_cut_off_have_no_weight(classifier, truncation, read, monkeypatch):
    words = ["the", "lamp", "is", "lovely", "my", "new", "chair", "feels", "very", "quick"]
    encoder = encoder_of(classifier.encoder.tokenizer, max_tokens=8, truncation=truncation)
    monkeypatch.setattr(classifier, "encoder", encoder)
    (found,) = classifier.explain([" ".join(words)])
    assert [found.text[word.start : word.end] for word in found.words] == words
    assert [i for i, word in enumerate(found.words) if word.weight is not None] == list(read)


def test_a_text_without_a_word_and_no_text_at_all(classifier):
    empty, blank = classifier.explain(["", " \n "])
    assert (empty.words, blank.words) == ([], [])
    assert empty.gap == pytest.approx(0, abs=1e-6)
    assert empty.log_odds == pytest.approx(empty.blank)
    assert classifier.explain([]) == []


def test_one_thread_explains_while_others_ask_for_answers(classifier):
    texts = ["the lamp is lovely", "a broken kettle , i think"]
    expected = classifier.predict_proba(texts)
    found, done = [], threading.Event()

    def ask():
        while not done.is_set():
            found.append(classifier.predict_proba(texts))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(5):
            classifier.explain(texts)
    finally:
        done.set()
        asking.join()
    assert found
    assert all(np.allclose(each, expected, atol=1e-6) for each in found)


def test_a_decoder_reads_an_empty_text_as_padding(root):
    model, encoder = adapted(root, "gpt2")
    (found,) = attribute(model, encoder, encoder.tokenise([""]), [0], CPU)
    assert weigh_words("", encoder.spans([""])[0], found.weights) == []
    assert found.gap == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("texts", "label", "message"),
    [
        (["a"], "positiv", r"label 'positiv': unknown. Did you mean 'positive'\? It knows 'negative', 'positive'."),
        ("one string", None, r"explain takes a list of texts and got one string. Write explain\(\[text\]\)"),
        ([1], None, "text 0 is int"),
    ],
)
def test_what_cannot_be_explained_is_refused(classifier, texts, label, message):
    with pytest.raises(UserError, match=message):
        classifier.explain(texts, label)


def test_a_tokenizer_that_cannot_tell_places_is_refused(classifier, monkeypatch):
    monkeypatch.setattr(type(classifier.encoder.tokenizer), "is_fast", False)
    with pytest.raises(UserError, match="does not tell where its tokens stand in a text"):
        classifier.explain(TEXTS)


# The command


def call(*arguments: str) -> int:
    return cli.main(["explain", *arguments])


def test_the_command_marks_words_by_signs_where_there_is_no_colour(tiny_run, capsys):
    assert call(tiny_run.folder, "the lamp is \x1b lovely", "--label", "positive") == 0
    out = capsys.readouterr().out
    assert out.startswith("positive 0.9")
    assert "{+lovely+}" in out
    assert "for positive: lovely +" in out
    assert "\x1b" not in out
    assert r"\x1b" in out


def test_the_command_marks_words_by_colours_where_there_are_some():
    parts = [Piece("a "), Piece("lovely", 2.0, 1.0), Piece(" [b]", is_read=False), Piece("dull", -0.4, -0.2)]
    line = marked(parts, is_coloured=True)
    assert line.plain == "  a lovely[[b]]dull"
    assert [span.style for span in line.spans] == ["bright_blue underline bold", "dim", "dark_orange italic"]
    assert marked(parts, is_coloured=False).plain == "  a {+lovely+}[[b]][-dull-]"


def test_the_command_reads_lines_and_prints_json(tiny_run, classifier, monkeypatch, capsys):
    texts = ["the lamp is lovely", "a useless kettle , i think"]
    stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO("\n".join(texts).encode())))
    monkeypatch.setattr("sys.stdin", stdin)
    assert call(tiny_run.folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = json.loads(json.dumps([asdict(each) for each in classifier.explain(texts)]))
    assert [each["text"] for each in found] == texts
    assert found[0].keys() == expected[0].keys() >= {"label", "words", "log_odds", "blank", "gap", "prediction"}
    for each, other in zip(found, expected, strict=True):
        weights = [word["weight"] for word in each["words"]]
        assert weights == pytest.approx([word["weight"] for word in other["words"]], abs=1e-3)


def test_a_wrong_label_is_one_message(tiny_run, capsys):
    assert call(tiny_run.folder, "a text", "--label", "positiv") == 2
    assert capsys.readouterr().err == (
        "lightune: label 'positiv': unknown. Did you mean 'positive'? It knows 'negative', 'positive'.\n"
    )

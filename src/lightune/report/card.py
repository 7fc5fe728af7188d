"""The model card in the adapter folder: what it is, how good it is, and the lines that load it."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from lightune.artifact.contract import Contract
from lightune.legible import figures, visible
from lightune.report.screen import headline_in, measure_in, trust_in_words, units_in

# of a base whose own head has another size, too
HEAD = "num_labels=len(labels), id2label=names, ignore_mismatched_sizes=True"
OF_TASK = {  # without it a pipeline would take one label for all, or a number for the logit of a label
    "multi_label": ', problem_type="multi_label_classification"',
    "regression": ', problem_type="regression"',
}
ONE_TEXT, TWO_TEXTS = '"A text to classify."', '("A first text.", "A second text.")'  # in Python


def write_card(results: dict[str, Any], contract: Contract, *, is_peft: bool) -> str:
    """The card's text, a Hub model card with metadata, from results.json and the contract."""
    return "\n".join([_metadata(results, contract, is_peft), _facts(results), _loading(contract, is_peft)])


def _metadata(results: dict[str, Any], contract: Contract, is_peft: bool) -> str:
    """The card's head, by which the Hub finds, sorts and compares models."""
    from huggingface_hub import EvalResult, ModelCardData

    names = [name for name in headline_in(results) if name in results["after"]]
    data, task = public_name(**results["data"]), "text-classification"
    where: dict[str, Any] = {"task_type": task, "dataset_type": data, "dataset_name": data, "dataset_split": "test"}
    values = ModelCardData(
        base_model=contract.base.name,
        library_name="peft" if is_peft else "transformers",
        pipeline_tag=task,
        tags=["lightune", task, contract.method],
        metrics=names,
        model_name=f"{data}-{contract.method}",
        eval_results=[
            EvalResult(
                **where,
                metric_type=name,
                metric_value=_rounded(results["after"][name]["value"], name in units_in(results)),
            )
            for name in names
        ],
    )
    return f"---\n{values.to_yaml()}\n---"


def _rounded(value: float, in_units: bool) -> float:
    """To four decimals; what is of any size to four figures."""
    return float(f"{value:.4g}") if in_units else round(value, 4)


def _facts(results: dict[str, Any]) -> str:
    units = units_in(results)
    rows = [
        f"| {name} | " + " | ".join(_score(results[when][name], name in units) for when in ("before", "after")) + " |"
        for name in headline_in(results)
        if name in results["after"]
    ]
    return f"""
# {_kind(results)} on {results["model"]["name"]}

Fine-tuned with `{results["recipe"]["method"]["name"]}` by lightune {results["lightune"]}:
{results["trainable_parameters"]:,} of {results["total_parameters"]:,} parameters were trained on
{results["n_train"]:,} rows of `{public_name(**results["data"])}`.

On {results["n_test"]:,} test rows that share no text with the training rows, with 95 % intervals:

| metric | before | after |
|---|---|---|
{chr(10).join(rows)}

{_comparisons(results)}

{_trust(results)}

Reloaded in a fresh process, it gave the same logits within {results["proof"]["max_logit_difference"]:.1e} on
{results["proof"]["rows"]} texts.
"""


def _kind(results: dict[str, Any]) -> str:
    if results.get("task") == "regression":
        return "Text regression model"
    n_labels = len(results["labels"])
    kinds = {"multi_label": f"Multi-label ({n_labels} labels)", "ordinal": f"{n_labels}-grade"}
    return kinds.get(results.get("task", ""), f"{n_labels}-class") + " text classifier"


def _comparisons(results: dict[str, Any]) -> str:
    """What learned from the same rows, and the verdict."""
    measure = measure_in(results)
    is_off = measure in units_in(results)
    rows = [
        f"| {baseline['title']} | {_score(baseline['scores'][measure], is_off)} | {baseline['n_train']:,} | "
        f"{results['comparisons'][name]['words']} |"
        for name, baseline in results["baselines"].items()
    ]
    head = [f"| on the same rows | {measure} | training rows | the tuned one is |", "|---|---|---|---|"]
    table = [*head, *rows, ""] if rows else []
    return "\n".join([*table, f"Verdict: {_plain(results['verdict'])}."])


def _plain(text: str) -> str:
    """Somebody's names in a line of Markdown that stay text: neither markup nor invisible."""
    return re.sub(r"([\[\]`*|\\])", r"\\\1", visible(text)).replace("<", "&lt;")


def _trust(results: dict[str, Any]) -> str:
    """What its probabilities are worth, and where it is worse."""
    lines = trust_in_words(results)
    if results["worst_slice"]:
        lines.append(f"worst slice: {results['worst_slice']}")
    return "\n".join(f"- {_plain(line[:1].upper() + line[1:])}." for line in lines)


def public_name(source: str, revision: str | None = None, **_: Any) -> str:
    """A Hub id, which alone has a revision, as it is; of a path, the last part: folders may name customers."""
    return source if revision else PureWindowsPath(source).name  # knows both kinds of slashes


def base_name(name: str) -> str:
    """The last part of an absolute path, since pages are passed around; anything else as it is."""
    if PureWindowsPath(name).is_absolute():
        return PureWindowsPath(name).name
    return PurePosixPath(name).name if PurePosixPath(name).is_absolute() else name


def without_folders(text: str) -> str:
    """A text with the last part alone of every absolute path in it: pages are passed around."""
    return re.sub(r"(?<![\w.~-])(?:/[^\s/:,;'\"]+)+", lambda path: base_name(path[0]), text)


def _score(score: dict[str, float], in_units: bool = False) -> str:
    if in_units:
        return f"{figures(score['value'])} ({figures(score['low'])} to {figures(score['high'])})"
    return f"{score['value']:.4f} ({score['low']:.4f} to {score['high']:.4f})"


def _loading(contract: Contract, is_peft: bool) -> str:
    return f"""## Use it

With lightune, which obeys labels, template, length and truncation by itself:

```python
import lightune

classifier = lightune.Classifier.load("adapter")
print(classifier.predict([{ONE_TEXT if contract.pair is None else TWO_TEXTS}]))
```

{_plain_loading(contract, is_peft)}
{_outputs(contract)} Texts are made as
{_made_as(contract)}, read up to {contract.max_tokens} tokens, and cut by `{contract.truncation}`; a pipeline cuts
by head only, and knows neither temperature nor thresholds.
"""


def _outputs(contract: Contract) -> str:
    """What the numbers mean that the network puts out."""
    if contract.scale is None:
        return f"Labels, in the order of the logits: {_plain(json.dumps(contract.labels, ensure_ascii=False))}."
    scale = f"{contract.scale.mean!r} + {contract.scale.deviation!r} * score"
    return f"The network, and so a pipeline's score, is on a scale of its own: the number is {scale}."


def _made_as(contract: Contract) -> str:
    return f"`{contract.text}`" if contract.pair is None else f"pairs of `{contract.text}` and `{contract.pair}`"


def _plain_loading(contract: Contract, is_peft: bool) -> str:
    loads = _peft_lines(contract) if is_peft else _whole_lines()
    top = ", top_k=None" if contract.task == "multi_label" else ""
    return f"""Without lightune, with the libraries it is made of, from the folder that holds `adapter`:

```python
import json
{loads[0]}
from transformers import AutoTokenizer, pipeline

labels = json.load(open("adapter/contract.json"))["labels"]
names = dict(enumerate(labels))
{loads[1]}
tokenizer = AutoTokenizer.from_pretrained("adapter")
classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
print(classify({_plain_input(contract)}, truncation=True, max_length={contract.max_tokens}{top}))
```
"""


def _plain_input(contract: Contract) -> str:
    """What a pipeline is given, in Python: a text, a pair, or a pair as one text with a special token in it."""
    if contract.pair is None:
        return ONE_TEXT
    if contract.between is not None:
        return json.dumps(f"A first text.{contract.between}A second text.", ensure_ascii=False)
    return '{"text": "A first text.", "text_pair": "A second text."}'


def _peft_lines(contract: Contract) -> tuple[str, str]:
    """The import and the loading of a PEFT folder; a local base is named relative to the adapter."""
    if contract.base.beside is None:
        name = "AutoPeftModelForSequenceClassification"
        call = f'model = {name}.from_pretrained("adapter", {_head(contract)})'
        return f"from peft import {name}", call
    path = json.dumps(f"adapter/{contract.base.beside}")
    name = "AutoModelForSequenceClassification"
    base = f"base = {name}.from_pretrained({path}, {_head(contract)})"
    imports = f"from peft import PeftModel\nfrom transformers import {name}"
    return imports, f'{base}\nmodel = PeftModel.from_pretrained(base, "adapter")'


def _head(contract: Contract) -> str:
    return HEAD + OF_TASK.get(contract.task, "")


def _whole_lines() -> tuple[str, str]:
    name = "AutoModelForSequenceClassification"
    return f"from transformers import {name}", f'model = {name}.from_pretrained("adapter")'

"""Tiny random models of many architectures as local folders: a headless checkpoint and a fast tokenizer.

Every folder holds what a real pretrained checkpoint holds and no classification head, so that loading it as a
classifier lacks the same weights as the real one does. Deterministic; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SEED = 7

_OPINIONS = {
    0: ["awful", "broken", "useless", "cheap", "noisy", "slow", "dirty"],
    1: ["lovely", "sturdy", "useful", "splendid", "quiet", "quick", "clean"],
    2: ["average", "plain", "ordinary", "passable", "common", "usual", "medium"],
}
_FRAMES = ["the lamp is {}", "a {} kettle , i think", "my new chair feels very {} today"]


def _sentences(n_classes: int) -> list[tuple[str, int]]:
    words = [(word, label) for i in range(7) for label in range(n_classes) for word in [_OPINIONS[label][i]]]
    return [(frame.format(word), label) for frame in _FRAMES for word, label in words][: 21 * n_classes]


# n_classes -> (text, class id); one word in each text decides, so a tiny model learns it in a few steps
EXAMPLES: dict[int, list[tuple[str, int]]] = {2: _sentences(2), 3: _sentences(3)}


def make(name: str, folder: Path) -> Path:
    """Write the tiny model and tokenizer `name` into `folder` and return it; the weights are seeded."""
    ARCHITECTURES[name](folder)
    return folder


def load_base(folder: Path, n_classes: int = 2, *, seed: int) -> tuple[Any, set[str]]:
    """The classifier in evaluation mode, its head made under `seed`, and the keys its checkpoint lacked."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=n_classes, output_loading_info=True, local_files_only=True, trust_remote_code=False
    )
    return model.eval(), set(info["missing_keys"])


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer saved beside the tiny model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def batch(tokenizer: Any, n_classes: int = 2, n_rows: int | None = None) -> tuple[dict[str, Any], Any]:
    """EXAMPLES as tensors: the model's inputs (B, T) and the class ids (B,)."""
    import torch

    rows = EXAMPLES[n_classes][:n_rows]
    inputs = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
    return dict(inputs), torch.tensor([label for _, label in rows])


def _write(folder: Path, model_type: str, tokenizer: Any, **config: Any) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    # ten times the usual spread: at 0.02 a network this narrow learns nothing in a few steps
    spread = {"initializer_range": 0.2, "init_std": 0.2}
    settings = {"vocab_size": len(tokenizer), **special, **spread, **config}
    torch.manual_seed(SEED)
    AutoModel.from_config(AutoConfig.for_model(model_type, **settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _words() -> list[str]:
    texts = " ".join(text for text, _ in EXAMPLES[3])
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    return [*dict.fromkeys([*texts.split(), *pieces])]


def _wrap(core: Any, inputs: list[str], **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, **special)


def _inputs(token_types: bool) -> list[str]:
    return ["input_ids", "token_type_ids", "attention_mask"] if token_types else ["input_ids", "attention_mask"]


def _wordpiece(token_types: bool = True) -> Any:
    """WordPiece with [CLS] and [SEP], as BERT has; 300 entries, the last ones never used."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_words()]
    entries += [f"[unused{i}]" for i in range(300 - len(entries))]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    return _wrap(core, _inputs(token_types), cls_token="[CLS]", sep_token="[SEP]", **marks)


def _byte_level(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator([text for text, _ in EXAMPLES[3]], trainer)
    return core


def _roberta_bpe() -> Any:
    """Byte-level BPE with <s> … </s>, as RoBERTa and BART have."""
    from tokenizers import processors

    core = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    marks = {"cls_token": "<s>", "sep_token": "</s>", "bos_token": "<s>", "eos_token": "</s>"}
    return _wrap(core, _inputs(False), pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", **marks)


def _gpt_bpe() -> Any:
    """Byte-level BPE without a padding token, as GPT-2 and Llama come."""
    end = "<|endoftext|>"
    return _wrap(_byte_level([end]), _inputs(False), bos_token=end, eos_token=end, unk_token=end)


def _unigram(template: str, pair: str, side: str = "right") -> Any:
    """Unigram with templates of a text and of two, as ALBERT, DeBERTa-v2 and XLNet (which pads on the left) have."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    entries = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "</s>"]
    entries += [f"▁{word}" for word in _words() if "#" not in word] + [w for w in _words() if len(w) == 1]
    entries += [f"<unused{i}>" for i in range(300 - len(entries))]
    core = Tokenizer(models.Unigram([(entry, -float(i)) for i, entry in enumerate(entries)], unk_id=1))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.post_processor = processors.TemplateProcessing(template, pair, [("[CLS]", 2), ("[SEP]", 3)])
    marks = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "eos_token": "</s>"}
    return _wrap(core, _inputs(True), pad_token="<pad>", unk_token="<unk>", padding_side=side, **marks)


def _bert_like(folder: Path, *, model_type: str, token_types: bool = True, **config: Any) -> None:
    settings = {**SIZES, "max_position_embeddings": 64, **config}
    _write(folder, model_type, _wordpiece(token_types), **settings)


def _distilbert(folder: Path) -> None:
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
    _write(folder, "distilbert", _wordpiece(token_types=False), **sizes)


def _roberta(folder: Path) -> None:
    _write(folder, "roberta", _roberta_bpe(), **SIZES, max_position_embeddings=130, type_vocab_size=1)


def _unigram_like(folder: Path, *, model_type: str, **config: Any) -> None:
    settings = {**SIZES, "max_position_embeddings": 64, **config}
    _write(folder, model_type, _unigram("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"), **settings)


def _xlnet(folder: Path) -> None:
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "d_head": 8}
    templates = ("$A:0 [SEP]:0 [CLS]:2", "$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2")
    _write(folder, "xlnet", _unigram(*templates, side="left"), **sizes)


def _gpt2(folder: Path) -> None:
    _write(folder, "gpt2", _gpt_bpe(), n_embd=32, n_layer=2, n_head=4, n_inner=64, n_positions=64)


def _llama_like(folder: Path, *, model_type: str, **config: Any) -> None:
    settings = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64, **config}
    _write(folder, model_type, _gpt_bpe(), **settings)


def _bart(folder: Path) -> None:
    layers = {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    widths = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64}
    start = {"decoder_start_token_id": 2, "forced_eos_token_id": 2}
    _write(folder, "bart", _roberta_bpe(), **layers, **widths, **start)


def _modernbert(folder: Path) -> None:
    attention = {"global_attn_every_n_layers": 2, "local_attention": 32, "cls_token_id": 2, "sep_token_id": 3}
    _bert_like(folder, model_type="modernbert", token_types=False, **attention)


ARCHITECTURES: dict[str, Callable[[Path], None]] = {
    "bert": partial(_bert_like, model_type="bert"),
    "distilbert": _distilbert,
    "roberta": _roberta,
    "electra": partial(_bert_like, model_type="electra", embedding_size=16),
    "mpnet": partial(_bert_like, model_type="mpnet", token_types=False),
    "modernbert": _modernbert,
    "albert": partial(_unigram_like, model_type="albert", embedding_size=16),
    "deberta": partial(_bert_like, model_type="deberta", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "deberta-v2": partial(_unigram_like, model_type="deberta-v2", relative_attention=True, share_att_key=True),
    "xlnet": _xlnet,
    "gpt2": _gpt2,
    "llama": partial(_llama_like, model_type="llama"),
    "qwen2": partial(_llama_like, model_type="qwen2"),
    "qwen3": partial(_llama_like, model_type="qwen3", head_dim=8),
    "bart": _bart,
}

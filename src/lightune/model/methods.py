"""The fine-tuning methods: which few parameters of a network are trained.

A method is one function and one row of METHODS: its keyword arguments are its options, their types hold the
checks, and its docstring holds their help.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lightune.errors import UserError, near_match
from lightune.model.adapters import NO_TARGETS, Config, adapt, try_prompt
from lightune.model.anatomy import Anatomy, inside, role, top_layers
from lightune.model.targets import pick_targets
from lightune.records import Decision

if TYPE_CHECKING:
    from torch import nn

WIDTH = 768  # of BERT-base, which published learning rates are for

Rank = Annotated[int, Field(ge=1, le=1024)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Tokens = Annotated[int, Field(ge=1, le=256)]
Width = Annotated[int, Field(ge=1, le=8192)]
Seed = Annotated[int, Field(ge=0)]
Targets = Literal["all", "attention", "qv"] | Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True)
class Method:
    """A row of METHODS. noop_at_start: untrained, it leaves the model's answers as they are.

    mergeable: its change fits into the base weights. is_peft: saved as a PEFT folder, not as a whole model.
    by_layers: it can be kept to the top blocks.
    learning_rate: where to start, at WIDTH hidden units where follows_width says that wider networks want less;
    `build(anatomy, **options)` returns the PEFT configuration.
    """

    summary: str
    build: Callable[..., Config]
    learning_rate: float
    source: str
    noop_at_start: bool = True
    mergeable: bool = True
    is_peft: bool = True
    follows_width: bool = False
    by_layers: bool = True

    def rate_for(self, width: int) -> float:
        """The learning rate to start from in a network of `width` hidden units."""
        factor = min(2.0, WIDTH / width) if self.follows_width else 1.0
        return float(f"{factor * self.learning_rate:.1g}")


def apply(
    model: nn.Module,
    anatomy: Anatomy,
    name: str,
    options: dict[str, Any],
    *,
    layers: int | Literal["all"] = "all",
    train_pooler: bool = True,
) -> tuple[nn.Module, list[Decision]]:
    """The model with the parameters of the method, its head and its pooler trainable, everything else frozen.

    In eval mode: what drops out in training is for the loop to say. The given model is changed in place. layers: only
    the top blocks are adapted. New parameters draw from torch's global generator. Raises UserError for a wrong option
    or a model that the method does not suit.
    """
    given = check_options(name, options)
    if name == "head" and layers != "all":
        raise UserError(f"train.layers = {layers}: method 'head' adapts no layers. Leave it out.")
    scope = top_layers(anatomy, layers)
    saved = anatomy.head_modules + (anatomy.pooler_modules if train_pooler else ())
    config = METHODS[name].build(scope, **given)
    if config is not None and config.is_prompt_learning and scope is not anatomy:
        raise UserError(f"train.layers = {layers}: {name} works on the whole network. Use train.layers = 'all'.")
    adapted, targets = (model, ()) if config is None else adapt(model, config, saved)
    if config is None:
        _train_only(model, () if scope is anatomy else scope.layers + scope.norm_modules + saved)
        for pooler in () if train_pooler else anatomy.pooler_modules:
            model.get_submodule(pooler).requires_grad_(False)
    elif config.is_prompt_learning:
        try_prompt(adapted, name)
    return adapted.eval(), _decisions(name, given, _blocks_in_words(anatomy, scope), targets, saved, adapted)


def extra_tokens(name: str, options: dict[str, Any]) -> int:
    """How many of the model's positions the method uses itself: a text may have that many tokens fewer."""
    return int(check_options(name, options).get("virtual_tokens", 0))


def options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a method: name -> parameter with its default and its type. UserError if unknown."""
    if name not in METHODS:
        raise UserError(
            f"method.name = {name!r}: no such method.{near_match(name, METHODS)} Choose from {', '.join(METHODS)}."
        )
    parameters = inspect.signature(METHODS[name].build, eval_str=True).parameters.values()
    return {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def option_help(name: str) -> dict[str, str]:
    """Option -> its line of help, taken from the method's docstring."""
    lines = inspect.cleandoc(METHODS[name].build.__doc__ or "").splitlines()
    found = dict(line.split(": ", 1) for line in lines if re.match(r"\w+: ", line))
    return {option: found[option] for option in options(name)}


def check_options(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All options of the method, those given checked, the others at their default.

    Raises UserError for an unknown method or option, a wrong type, or a value out of range.
    """
    known = options(name)
    for key in given:
        if key not in known:
            has = f"Its options: {', '.join(known)}." if known else "It has no options."
            raise UserError(f"method.{key}: {name} has no such option.{near_match(key, known)} {has}")
    checked = {key: _checked(name, known[key], value) for key, value in given.items()}
    return {key: checked.get(key, parameter.default) for key, parameter in known.items()}


def markdown_table() -> str:
    """The table of methods for the documentation, one row each, generated from METHODS."""
    head = "| method | what it trains, beside the head | options | rate | merges | source |"
    rows = [
        f"| `{name}` | {method.summary} | {_options_in_words(name)} | {rate_in_words(method)} | "
        f"{'yes' if method.mergeable else 'no'} | {method.source} |"
        for name, method in METHODS.items()
    ]
    return "\n".join([head, "|---|---|---|---|---|---|", *rows]) + "\n"


def rate_in_words(method: Method) -> str:
    """The method's learning rate, at a few widths where it follows the width."""
    rates = {width: method.rate_for(width) for width in (WIDTH // 2, WIDTH, 1024)}
    if not method.follows_width:
        return f"{method.learning_rate:g}"
    return ", ".join(f"{rate:g} at width {width}" for width, rate in rates.items())


def lora(
    anatomy: Anatomy,
    *,
    rank: Rank = 8,
    alpha: Positive | None = None,
    dropout: Share = 0.0,
    targets: Targets = "all",
    use_rslora: bool = False,
    use_dora: bool = False,
    init: Literal["default", "gaussian", "pissa", "olora"] = "default",
) -> Config:
    """LoRA: a product of two thin matrices is added to linear layers.

    rank: width of the two matrices; more is more capacity, and rarely better
    alpha: strength of the update, which is scaled by alpha / rank; left out, it is 2 * rank
    dropout: share of a layer's inputs hidden from the adapter while training
    targets: "all" linear layers, "attention" (query, key, value), "qv", or a list of name endings
    use_rslora: scale by alpha / sqrt(rank), which keeps high ranks learning
    use_dora: train the length of each weight column apart from its direction; slower
    init: start values; "pissa" and "olora" start from the base weights, saved as LoRA of twice the rank
    """
    from peft import LoraConfig

    if init in ("pissa", "olora") and use_dora:
        raise UserError(f"method.init = {init!r} cannot be combined with use_dora. Set use_dora = false.")
    if anatomy.transposed and init == "olora":
        raise UserError("method.init = 'olora' does not suit this network's Conv1D layers. Use 'pissa' or 'default'.")
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=pick_targets(anatomy, targets),
        use_rslora=use_rslora,
        use_dora=use_dora,
        init_lora_weights=True if init == "default" else init,
        fan_in_fan_out=anatomy.transposed,
    )


def ia3(anatomy: Anatomy) -> Config:
    """IA3: keys, values and the inner feed-forward activations are rescaled, one factor each."""
    from peft import IA3Config

    scaled = [name for name in anatomy.attention_inputs if role(name) in ("key", "value", "fused")]
    inner = list(anatomy.feed_forward_outputs)
    _require(scaled + inner, "ia3", "keys, values or feed-forward outputs")
    return IA3Config(target_modules=scaled + inner, feedforward_modules=inner, fan_in_fan_out=anatomy.transposed)


def vera(
    anatomy: Anatomy,
    *,
    rank: Rank = 256,
    d_initial: Positive = 0.1,
    dropout: Share = 0.0,
    targets: Targets = "all",
    projection_seed: Seed = 0,
) -> Config:
    """VeRA: LoRA whose two matrices are random, frozen and shared; only scaling vectors are trained.

    rank: width of the shared matrices; larger than LoRA's, as they are not trained
    d_initial: start value of the scaling vector between the two matrices
    dropout: share of a layer's inputs hidden from the adapter while training
    targets: "all" linear layers, "attention" (query, key, value), "qv", or a list of name endings
    projection_seed: makes the shared matrices, which are saved as well
    """
    from peft import VeraConfig

    return VeraConfig(
        r=rank,
        d_initial=d_initial,
        vera_dropout=dropout,
        target_modules=pick_targets(anatomy, targets),
        projection_prng_key=projection_seed,
        fan_in_fan_out=anatomy.transposed,
    )


def oft(anatomy: Anatomy, *, block_size: Rank = 32, dropout: Share = 0.0, targets: Targets = "all") -> Config:
    """OFT: the inputs of linear layers are rotated, block by block.

    block_size: features rotated together; must divide the input width of every layer
    dropout: share of the blocks left unrotated while training
    targets: "all" linear layers, "attention" (query, key, value), "qv", or a list of name endings
    """
    from peft import OFTConfig

    _refuse_transposed(anatomy, "oft")
    names = pick_targets(anatomy, targets)
    odd = sorted({n_in for name in names for n_in in [anatomy.linears[name][0]] if n_in % block_size})
    if odd:
        raise UserError(
            f"method.block_size = {block_size} does not divide the layers' input widths {odd}. "
            "Use a number that divides them, such as 4, 8 or 16, or method.name = 'lora'."
        )
    # exact: PEFT's default is a short series, which is no longer a rotation far from where it started
    return OFTConfig(
        oft_block_size=block_size, module_dropout=dropout, target_modules=names, use_cayley_neumann=False
    )


def ln_tuning(anatomy: Anatomy) -> Config:
    """The scale and shift of the normalisation layers."""
    from peft import LNTuningConfig

    _require(list(anatomy.norm_modules), "ln_tuning", "normalisation layers")
    return LNTuningConfig(target_modules=list(anatomy.norm_modules))


def bitfit(anatomy: Anatomy, *, targets: Targets = "all") -> Config:
    """The biases of linear layers, each as a vector added to the layer's output.

    An added vector is a bias, but the base stays untouched, so that several adapters can share it. With one
    on every linear layer, those of the norms add nothing: the biases of the next layers absorb them.
    targets: "all" linear layers, "attention" (query, key, value), "qv", or a list of name endings
    """
    from peft import BeftConfig

    _refuse_transposed(anatomy, "bitfit")
    return BeftConfig(target_modules=pick_targets(anatomy, targets))


def prompt(
    anatomy: Anatomy,
    *,
    virtual_tokens: Tokens = 20,
    init: Literal["vocabulary", "random"] = "vocabulary",
) -> Config:
    """Embeddings of virtual tokens put before each text.

    virtual_tokens: how many; texts may be that much shorter
    init: start from embeddings drawn from the "vocabulary", or "random"
    """
    from peft import PromptTuningConfig, PromptTuningInit

    _refuse_decoder(anatomy, "prompt")
    start = PromptTuningInit.SAMPLE_VOCAB if init == "vocabulary" else PromptTuningInit.RANDOM
    return PromptTuningConfig(num_virtual_tokens=virtual_tokens, prompt_tuning_init=start, **_prompt_sizes(anatomy))


def prefix(anatomy: Anatomy, *, virtual_tokens: Tokens = 20, projection: bool = False) -> Config:
    """Keys and values of virtual tokens put before those of each text, in every layer.

    virtual_tokens: how many; texts may be that much shorter
    projection: train them through a small network, which is dropped when saving
    """
    from peft import PrefixTuningConfig

    if not anatomy.accepts_prefix:
        raise UserError(
            "method.name = 'prefix': this model's forward does not take past_key_values. Use 'prompt' or 'lora'."
        )
    return PrefixTuningConfig(num_virtual_tokens=virtual_tokens, prefix_projection=projection)


def p_tuning(
    anatomy: Anatomy,
    *,
    virtual_tokens: Tokens = 20,
    encoder: Literal["mlp", "lstm"] = "mlp",
    hidden_size: Width | None = None,
) -> Config:
    """Virtual tokens before each text, made by a small network that is dropped when saving.

    virtual_tokens: how many; texts may be that much shorter
    encoder: the small network, "mlp" or "lstm"
    hidden_size: its width; left out, that of the token embeddings
    """
    from peft import PromptEncoderConfig

    _refuse_decoder(anatomy, "p_tuning")
    return PromptEncoderConfig(
        num_virtual_tokens=virtual_tokens,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=hidden_size or anatomy.embedding_size,  # type: ignore[arg-type]
        **_prompt_sizes(anatomy),
    )


def _prompt_sizes(anatomy: Anatomy) -> dict[str, Any]:
    """What PEFT would look for in the model's configuration, under names that DistilBERT's does not have."""
    return {
        "token_dim": anatomy.embedding_size,
        "num_layers": anatomy.n_layers,
        "num_attention_heads": anatomy.n_heads,
    }


def head(anatomy: Anatomy) -> Config:
    """Nothing but the head: a PEFT folder without adapters, loaded as any other."""
    from peft import LoraConfig

    return LoraConfig(target_modules=NO_TARGETS)


def full(anatomy: Anatomy) -> Config:
    """Every parameter of the model, which is saved whole."""
    return None


METHODS: dict[str, Method] = {
    "lora": Method("two thin matrices beside each linear layer", lora, 5e-4, "arXiv:2106.09685", follows_width=True),
    "ia3": Method("factors on keys, values and feed-forward activations", ia3, 1e-2, "arXiv:2205.05638"),
    "vera": Method("scaling vectors between shared random matrices", vera, 1e-2, "arXiv:2310.11454"),
    "oft": Method("rotations of the inputs of each linear layer", oft, 1e-3, "arXiv:2306.07280"),
    "ln_tuning": Method("scale and shift of the normalisation layers", ln_tuning, 3e-3, "arXiv:2312.11420"),
    "bitfit": Method("biases of the linear layers", bitfit, 1e-3, "arXiv:2106.10199", follows_width=True),
    "prompt": Method(
        "virtual tokens before the text", prompt, 1e-2, "arXiv:2104.08691", False, False, by_layers=False
    ),
    "prefix": Method(
        "virtual keys and values in every layer", prefix, 1e-2, "arXiv:2101.00190", False, False, by_layers=False
    ),
    "p_tuning": Method(
        "virtual tokens made by a small network", p_tuning, 1e-3, "arXiv:2103.10385", False, False, by_layers=False
    ),
    "head": Method("nothing", head, 1e-3, "arXiv:1610.01644", by_layers=False),
    "full": Method("everything", full, 5e-5, "arXiv:1810.04805", is_peft=False),
}


def _require(names: Sequence[str], method: str, what: str) -> None:
    if not names:
        raise UserError(f"method.name = {method!r}: no {what} found in this model. Use 'lora' or 'full'.")


def _refuse_transposed(anatomy: Anatomy, method: str) -> None:
    if anatomy.transposed:
        raise UserError(f"method.name = {method!r} does not suit this model's Conv1D layers. Use 'lora' or 'ia3'.")


def _refuse_decoder(anatomy: Anatomy, method: str) -> None:
    # given embeddings in place of token ids, a decoder takes the last position, padding or not
    if anatomy.is_decoder:
        raise UserError(
            f"method.name = {method!r}: with virtual tokens this model cannot tell padding from text, so its "
            "answers would depend on the batch. Use 'prefix' or 'lora'."
        )


def _train_only(model: nn.Module, modules: Sequence[str]) -> None:
    """Make what is inside the modules trainable and freeze the rest; no modules: everything trains."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not modules or inside(name, modules))


def _checked(name: str, parameter: inspect.Parameter, value: Any) -> Any:
    try:
        return TypeAdapter(parameter.annotation).validate_python(value, strict=True)
    except ValidationError as error:
        reasons = " or ".join(dict.fromkeys(detail["msg"].lower() for detail in error.errors()))
        help_line = option_help(name)[parameter.name]
        raise UserError(f"method.{parameter.name} = {value!r}: {reasons}. It is {help_line}.") from None


def _options_in_words(name: str) -> str:
    words = [f"`{key}` = {parameter.default!r}".replace("'", '"') for key, parameter in options(name).items()]
    return ", ".join(words) or "none"


def _decisions(
    name: str,
    given: dict[str, Any],
    blocks: str,
    targets: Sequence[str],
    saved: Sequence[str],
    model: nn.Module,
) -> list[Decision]:
    """What is trained, in words: the method and its layers, the modules trained whole, and how much it is."""
    told = {key: value for key, value in given.items() if key != "targets" and value not in (None, False)}
    settings = ", ".join(f"{key} {value}" for key, value in told.items())
    parts = sorted({re.sub(r"^.*\.\d+\.", "", target) for target in targets})
    where = f" on {len(targets)} layers of {blocks}: {', '.join(parts)}" if targets else ""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trained, total = sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
    return [
        Decision("method", f"{name}{f' ({settings})' if settings else ''}{where}", METHODS[name].summary),
        Decision("trained whole", ", ".join(saved) or "nothing", "what the checkpoint lacks, and what leads to it"),
        Decision("trainable", f"{trained:,} of {total:,} parameters", f"{trained / total:.2%}"),
    ]


def _blocks_in_words(anatomy: Anatomy, scope: Anatomy) -> str:
    total = len(anatomy.layers)
    if scope is not anatomy:
        return f"the top {len(scope.layers)} of {total} blocks"
    return f"all {total} blocks" if total > 1 else "the one block"

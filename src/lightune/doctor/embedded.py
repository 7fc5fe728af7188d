"""What a base model makes of some of the rows, for the checks that need to know what a text says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightune.data.batching import make_encoder
from lightune.evidence.evaluate import predict
from lightune.hardware import choose_hardware, in_fp32
from lightune.model.backbones import load_base, locate
from lightune.model.embeddings import embeddings_beside_logits
from lightune.model.engine import can_compute, quicken

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Embed = Callable[[Sequence[str]], NDArray[np.floating] | None]

MAX_TOKENS = 128  # of a text: what it is about stands in its beginning and its end


def embedder(model: str, seed: int = 0, *, pair: bool = False) -> Embed:
    """A function from texts to embeddings (N, D), by a base model that is loaded when it is first asked.

    seed: of the weights that the base model lacks; pair: each text is two, joined. It gives None if the network has
    no embeddings, and raises UserError if there is no such model.
    """

    def embed(texts: Sequence[str]) -> NDArray[np.floating] | None:
        hardware = choose_hardware()
        base = load_base(locate(model), ["no", "yes"], seed=seed)
        most = min(MAX_TOKENS, base.max_tokens)
        encoder = make_encoder(base.tokenizer, most, "head+tail", base.max_tokens, pair=pair)
        network = base.model.to(hardware.device)
        if refused := can_compute(network, hardware.precision):
            hardware = in_fp32(hardware, "auto", refused)
        quicken(network, hardware.precision)
        with embeddings_beside_logits(network):
            return predict(network, encoder, encoder.tokenise(texts), hardware).embeddings

    return embed

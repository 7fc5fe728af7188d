"""Training passes recorded once for each shape of batch and launched as one.

On a GPU, launching the kernels of a small network takes longer than computing them. A recording is a CUDA graph;
it is compared with the pass that it stands for before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.batching import padded_length

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Inputs = dict[str, torch.Tensor]
    Shape = tuple[tuple[str, tuple[int, ...]], ...]

# A recording costs about as much as so many passes that are launched kernel by kernel
PAYS_FROM = 12
TOLERANCE = 2e-2  # of loss and gradients, in norm: fused attention adds up in no fixed order, in bf16


def recording_pays(lengths: NDArray[np.int64], n_steps: int) -> bool:
    """Whether texts of such lengths give few enough shapes for so many steps."""
    return n_steps >= PAYS_FROM * len({padded_length(int(length)) for length in np.unique(lengths)})


@dataclass(frozen=True)
class Recording:
    """A pass that can be launched again: `graph` reads `inputs` and writes `loss` and the gradients."""

    graph: Any
    inputs: Inputs
    loss: torch.Tensor


class Recorded:
    """The same as `run`, which adds gradients to those of `parameters` and returns a loss that needs none, ()."""

    def __init__(self, run: Callable[[Inputs], torch.Tensor], parameters: Sequence[torch.nn.Parameter]):
        import torch

        self._run, self._parameters = run, parameters
        self._met: set[Shape] = set()
        self._recordings: dict[Shape, Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()  # of one memory, as no two recordings run at the same time
        self.refusal = ""  # why nothing is recorded any more
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)  # recordings add to these very tensors

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """The loss. It holds until the next call."""
        shape = tuple((name, tuple(tensor.shape)) for name, tensor in inputs.items())
        if shape in self._recordings:
            recording = self._recordings[shape]
            for name, tensor in inputs.items():
                recording.inputs[name].copy_(tensor)
            recording.graph.replay()
            return recording.loss
        if shape not in self._met or self.refusal:
            self._met.add(shape)
            return self._run(inputs)
        return self._record(shape, inputs)

    def _record(self, shape: Shape, inputs: Inputs) -> torch.Tensor:
        """The loss of a pass as it is, once it has been recorded and the recording been compared with it."""
        import torch

        before = self._gradients()
        expected = self._run(inputs).clone()
        gradients = self._gradients()
        self._put_back(before)
        static = {name: tensor.clone() for name, tensor in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                loss = self._run(static)
            graph.replay()
        except RuntimeError as error:
            self.refusal = f"{type(error).__name__}: {str(error).splitlines()[0]:.100}"
        else:
            got = torch.cat([loss.view(1), self._gradients() - before])
            wanted = torch.cat([expected.view(1), gradients - before])
            if float((got - wanted).norm()) <= TOLERANCE * float(wanted.norm()):
                self._recordings[shape] = Recording(graph, static, loss)
            else:
                self.refusal = "a recording gave other gradients"
        self._put_back(gradients)
        return expected

    def _gradients(self) -> torch.Tensor:
        import torch

        return torch.cat([parameter.grad.reshape(-1) for parameter in self._parameters if parameter.grad is not None])

    def _put_back(self, gradients: torch.Tensor) -> None:
        at = 0
        for parameter in self._parameters:
            assert parameter.grad is not None
            parameter.grad.copy_(gradients[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()

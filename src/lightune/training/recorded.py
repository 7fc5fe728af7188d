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
from lightune.errors import first_line
from lightune.hardware import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Inputs = dict[str, torch.Tensor]
    Pass = Callable[[Inputs], torch.Tensor]

# A recording costs about as much as so many passes that are launched kernel by kernel
PAYS_FROM = 12
TOLERANCE = 2e-2  # of loss and gradients, in norm: fused attention adds up in no fixed order, in bf16


def recording_pays(lengths: NDArray[np.int64], n_steps: int) -> bool:
    """Whether texts of such lengths give few enough shapes for so many steps."""
    return n_steps >= PAYS_FROM * len({padded_length(int(length)) for length in np.unique(lengths)})


@dataclass(frozen=True)
class Recording:
    """A pass that can be launched again: `graph` reads `inputs`, writes `loss` and adds to the gradients."""

    graph: Any
    inputs: Inputs
    loss: torch.Tensor

    def replay(self, inputs: Inputs) -> torch.Tensor:
        """The loss of these inputs. It holds until the next replay."""
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        return self.loss


class Recorded:
    """The same as `run`, which adds gradients to those of `parameters` and returns a loss that needs none, ().

    A shape that is met again is recorded. refusal: why nothing is recorded any more, or "".
    """

    def __init__(self, run: Pass, parameters: Sequence[torch.nn.Parameter]):
        import torch

        self._run, self._parameters = run, parameters
        self._met: set[tuple[tuple[int, ...], ...]] = set()
        self._recordings: dict[tuple[tuple[int, ...], ...], Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()  # of one memory, as no two recordings run at the same time
        self.refusal = ""
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)  # recordings add to these very tensors

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """The loss. It holds until the next call."""
        shape = tuple(tuple(tensor.shape) for tensor in inputs.values())
        if shape in self._met and not self.refusal and shape not in self._recordings:
            self._record(shape, inputs)
        self._met.add(shape)
        return self._recordings[shape].replay(inputs) if shape in self._recordings else self._run(inputs)

    def _record(self, shape: tuple[tuple[int, ...], ...], inputs: Inputs) -> None:
        """Keeps a recording of the pass if it gives the same loss and gradients, else the refusal."""
        import torch

        static = {name: tensor.clone() for name, tensor in inputs.items()}
        # where nothing is masked a pass takes another kernel, and a recording never does
        static["attention_mask"][0, -1] = 0
        before = self._gradients()
        expected = self._outcome(lambda: self._run(static), before)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                loss = self._run(static)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.refusal = f"{type(error).__name__}: {first_line(error):.100}"
            return
        recording = Recording(graph, static, loss)
        got = self._outcome(lambda: recording.replay({}), before)
        off = float((got - expected).norm() / expected.norm())
        if off <= TOLERANCE:
            self._recordings[shape] = recording
        else:
            self.refusal = f"a recording was {off:.1%} off"

    def _outcome(self, run: Callable[[], torch.Tensor], before: torch.Tensor) -> torch.Tensor:
        """The loss and what it adds to the gradients, which are put back to what they were `before`."""
        import torch

        loss = run()
        found = torch.cat([loss.view(1), self._gradients() - before])
        self._put_back(before)
        return found

    def _gradients(self) -> torch.Tensor:
        import torch

        return torch.cat([parameter.grad.reshape(-1) for parameter in self._parameters if parameter.grad is not None])

    def _put_back(self, gradients: torch.Tensor) -> None:
        at = 0
        for parameter in self._parameters:
            assert parameter.grad is not None
            parameter.grad.copy_(gradients[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()

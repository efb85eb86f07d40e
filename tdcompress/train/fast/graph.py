"""How a step is run: as it is, or captured once in a CUDA graph and replayed."""

import torch

from tdcompress.train.fast.program import StepProgram

WARM_UP = 3  # steps before the capture: compiling, choosing convolution algorithms, allocating


class Direct:
    """Runs the step as it is.

    Args:
        program: the step.
    """

    def __init__(self, program: StepProgram) -> None:
        self._program = program

    def run(self) -> None:
        """One step."""
        self._program.step()


class CapturedStep:
    """Captures the step on the current stream's device and replays it.

    The generators are registered with the graph: each replay draws from the seed that they have then.

    Args:
        program: the step; its state is as before afterwards.
    """

    def __init__(self, program: StepProgram) -> None:
        before = [tensor.clone() for tensor in program.state.tensors()]
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        # One thread for the backward pass: what another thread launches would not be captured in order.
        with torch.cuda.stream(stream), torch.autograd.set_multithreading_enabled(False):
            for _ in range(WARM_UP):
                program.state.position.zero_()
                program.step()
        torch.cuda.current_stream().wait_stream(stream)
        for generator in program.generators.values():
            self._graph.register_generator_state(generator)
        program.state.position.zero_()
        with (
            torch.autograd.set_multithreading_enabled(False),
            torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"),
        ):
            program.step()
        for tensor, value in zip(program.state.tensors(), before, strict=True):
            tensor.copy_(value)

    def run(self) -> None:
        """One step."""
        self._graph.replay()

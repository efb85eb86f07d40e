"""onnxruntime, on any execution provider that is really there."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tdcompress.bench.backends.base import CPU_PROVIDER, Inputs
from tdcompress.errors import ModelError, UnsupportedError, one_line
from tdcompress.limits import UNKNOWN

# Denormals stay as the runtime's default has them (slow, not flushed), for the baseline and for every candidate.
CONFIG: Mapping[str, str] = {
    "session.set_denormal_as_zero": "0",
    # Idle threads of one session must not spin while its partner is timed; they sleep after the last call returns.
    "session.force_spinning_stop": "1",
    "session.record_ep_graph_assignment_info": "1",
}


class OnnxRuntimeSession:
    """An `onnxruntime.InferenceSession` with its inputs.

    Args:
        session: the model, ready to run.
        provider: that was asked for.
        inputs: of a call, by name.
        options: what a report says of it, but for where nodes run.
    """

    pid: int | None = None

    def __init__(self, session: Any, provider: str, inputs: Inputs, options: Mapping[str, str]) -> None:
        self.network = session
        self._inputs = dict(inputs)
        placement = placed_nodes(session)
        self.provider = provider
        self.options: Mapping[str, str] = {
            **options,
            "nodes": ", ".join(f"{count} on {name}" for name, count in placement.items()) or UNKNOWN,
        }
        self.notes: tuple[str, ...] = placement_notes(provider, placement)

    def run(self) -> object:
        """One call as a user makes it: arrays in, arrays out, copies to and from a device included."""
        return self.network.run(None, self._inputs)


class OnnxRuntimeBackend:
    """onnxruntime with all graph optimisations, one operator after the other, `threads` inside an operator."""

    name: ClassVar[str] = "onnxruntime"
    varies: ClassVar[bool] = True

    def __init__(self, provider: str, threads: int) -> None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise UnsupportedError(
                f"onnxruntime {onnxruntime.__version__} has no provider {provider!r}; it has {', '.join(available)}"
            )
        self._runtime = onnxruntime
        self._provider = provider
        self._threads = threads

    def open(self, path: Path, inputs: Inputs) -> OnnxRuntimeSession:
        """Create the session, and refuse it when onnxruntime chose another provider than asked for.

        Raises:
            ModelError: onnxruntime cannot load the file.
            UnsupportedError: another provider would run it.
        """
        runtime = self._runtime
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = self._threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.log_severity_level = 3
        for key, value in CONFIG.items():
            settings.add_session_config_entry(key, value)
        try:
            session = runtime.InferenceSession(str(path), settings, providers=[self._provider])
        except Exception as error:  # onnxruntime's exceptions share no base class but this one
            from tdcompress.onnxfile.refused import why_refused  # here, since onnx takes memory that is not the runtime's

            raise ModelError(f"{path}: onnxruntime cannot load it: {why_refused(error, path) or last_line(error)}") from error
        refuse_fallback(path, self._provider, session.get_providers()[0], placed_nodes(session))
        options = {
            "intra_op_num_threads": str(self._threads),
            "inter_op_num_threads": "1",
            "execution_mode": "sequential",
            "graph_optimization_level": "all",
            **CONFIG,
        }
        return OnnxRuntimeSession(session, self._provider, inputs, options)


def placed_nodes(session: Any) -> dict[str, int]:
    """Nodes of the optimised graph by execution provider; empty where this onnxruntime cannot tell (before 1.24)."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts = Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def placement_notes(asked: str, placement: Mapping[str, int]) -> tuple[str, ...]:
    """What a reader has to know about where nodes ran.

    Args:
        asked: provider asked for.
        placement: provider -> number of nodes it runs; empty = not known.
    """
    if not placement:
        said = "this onnxruntime does not say where nodes run (1.24 does): some may have run on the CPU"
        return () if asked == CPU_PROVIDER else (said,)
    elsewhere = sum(placement.values()) - placement.get(asked, 0)
    return (f"{elsewhere} of {sum(placement.values())} nodes ran on another provider",) if elsewhere else ()


def refuse_fallback(path: Path, asked: str, used: str, placement: Mapping[str, int]) -> None:
    """Check that a session runs where it was asked to: a provider can be listed first and still get no node.

    Args:
        path: the file, for messages.
        asked: provider asked for.
        used: the session's first provider.
        placement: provider -> number of nodes it runs; empty = not known.

    Raises:
        UnsupportedError: the session's first provider is another, or the provider asked for runs no node.
    """
    if used != asked:
        raise UnsupportedError(
            f"{path}: onnxruntime fell back from {asked} to {used}; check that provider's libraries and drivers"
        )
    if placement and asked not in placement:
        raise UnsupportedError(
            f"{path}: onnxruntime placed no node on {asked}, all {sum(placement.values())} on {', '.join(placement)}"
        )


def last_line(error: BaseException) -> str:
    """The part of a runtime's message that names the cause, on one line."""
    lines = str(error).strip().splitlines()
    return one_line(lines[-1] if lines else error)

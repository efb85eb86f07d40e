"""onnxruntime with the engine as its plugin, for child processes: a crash there is a failed test, not the end of pytest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime

from tdcompress.engine import PROVIDER_NAME

Feed = Mapping[str, np.ndarray]


def register(library: str) -> None:
    """Once per process. Warnings are errors from here on."""
    warnings.simplefilter("error")
    onnxruntime.register_execution_provider_library("tdcompress", library)


def _session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER_NAME]
    assert [device.device.type.name for device in devices] == ["CPU"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_provider_for_devices(devices, {})
    session = onnxruntime.InferenceSession(model, options)
    assert session.get_providers()[0] == PROVIDER_NAME
    return session


def outputs(model: bytes, feeds: Sequence[Feed], threads: int = 1) -> list[list[np.ndarray]]:
    """What one session gives for each feed, first to last."""
    session = _session(model, threads)
    return [list(session.run(None, dict(feed))) for feed in feeds]


def together(models: Sequence[bytes], feeds: Sequence[Feed], callers: int, repeats: int) -> list[list[list[np.ndarray]]]:
    """Per model and feed the outputs, while a session of each model is called by all callers at the same time."""
    sessions = [_session(model, threads=2) for model in models]
    jobs = [(session, feed) for _ in range(repeats) for session in sessions for feed in feeds]
    with ThreadPoolExecutor(callers) as pool:
        found = list(pool.map(lambda job: job[0].run(None, dict(job[1])), jobs))
    per_round = len(sessions) * len(feeds)
    for number, each in enumerate(found):
        for again, first in zip(each, found[number % per_round], strict=True):
            np.testing.assert_array_equal(again, first)
    return [found[start : start + len(feeds)] for start in range(0, per_round, len(feeds))]


def refusal(model: bytes, feed: Feed | None = None) -> str:
    """What is said against a model when its session is made, or against a feed when it runs. Nothing is said: an error."""
    try:
        session = _session(model)
    except Exception as error:  # onnxruntime's errors are not of one class
        return f"session: {error}"
    if feed is not None:
        try:
            session.run(None, dict(feed))
        except Exception as error:
            return f"run: {error}"
    raise AssertionError("it was taken")


def facts(model: bytes) -> dict[str, Any]:
    """What a session says of a model."""
    session = _session(model)
    values = {
        kind: [(value.name, value.shape, value.type) for value in listed]
        for kind, listed in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
    }
    return {**values, "metadata": session.get_modelmeta().custom_metadata_map}


def library_comes_and_goes(library: str, model: bytes, feed: Feed) -> list[np.ndarray]:
    """Unregistered and registered again; the second time it gives the same as the first."""
    first = outputs(model, [feed])[0]
    onnxruntime.unregister_execution_provider_library("tdcompress")
    assert PROVIDER_NAME not in {device.ep_name for device in onnxruntime.get_ep_devices()}
    onnxruntime.register_execution_provider_library("tdcompress", library)
    for again, before in zip(outputs(model, [feed])[0], first, strict=True):
        np.testing.assert_array_equal(again, before)
    return first

"""A CPU engine that makes zeros fast: it runs ONNX files whose pruned weights are zeros, skipping them.

`Session("model.onnx").run(None, {"input": x})` is the same call as onnxruntime's; `explain` says per layer which
kernel runs and why. How it works: docs/engine.md. `compile_model` writes a file for the C library (docs/c.md), or one for
onnxruntime with that library as its plugin, `PROVIDER_NAME` (docs/provider.md); `emit_c` writes C source for boards
(docs/boards.md).
"""

from tdcompress.engine.compile import CompiledModel, compile_model, copy_library
from tdcompress.engine.emit import EmittedModel, emit_c
from tdcompress.engine.lower.state import LayerRecord
from tdcompress.engine.provider import PROVIDER_NAME
from tdcompress.engine.session import NodeArg, Session, explain, unavailable_reason

__all__ = [
    "PROVIDER_NAME",
    "CompiledModel",
    "EmittedModel",
    "LayerRecord",
    "NodeArg",
    "Session",
    "compile_model",
    "copy_library",
    "emit_c",
    "explain",
    "unavailable_reason",
]

"""A CPU engine that makes zeros fast: it runs ONNX files whose pruned weights are zeros, skipping them.

`Session("model.onnx").run(None, {"input": x})` is the same call as onnxruntime's; `explain` says per layer which
kernel runs and why. How it works: docs/engine.md.
"""

from tdcompress.engine.lower.state import LayerRecord
from tdcompress.engine.session import NodeArg, Session, explain, unavailable_reason

__all__ = ["LayerRecord", "NodeArg", "Session", "explain", "unavailable_reason"]

"""tdcompress: from training with targeted dropout to a verified, measured, compact ONNX file.

The names below are the public interface. They are imported when they are first used, so that the deployment half (``benchmark``,
``pack_onnx``, ``unpack_onnx``, ``verify``, ``load_sparse``, ``engine``, ``Translator``) works where torch is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdcompress import engine as engine
    from tdcompress.bench.benchmark import benchmark as benchmark
    from tdcompress.export.to_onnx import export_onnx as export_onnx
    from tdcompress.interface import freeze as freeze
    from tdcompress.interface import narrow as narrow
    from tdcompress.interface import narrow_state as narrow_state
    from tdcompress.interface import prune as prune
    from tdcompress.interface import run as run
    from tdcompress.interface import save_sparse as save_sparse
    from tdcompress.interface import shrink as shrink
    from tdcompress.models.registry import build_model as build_model
    from tdcompress.models.weights import load_weights as load_weights
    from tdcompress.onnxfile.pack import pack_onnx as pack_onnx
    from tdcompress.onnxfile.pack import unpack_onnx as unpack_onnx
    from tdcompress.own_loop import TargetedDropout as TargetedDropout
    from tdcompress.runs.translator import Translator as Translator
    from tdcompress.runs.verification import verify_path as verify
    from tdcompress.sparsity.schedule import Cubic as Cubic
    from tdcompress.sparsity.schedule import Ramp as Ramp
    from tdcompress.sparsity.schedule import Schedule as Schedule
    from tdcompress.storage.csr import load_sparse as load_sparse
    from tdcompress.train.recalibrate import recalibrate as recalibrate

__version__ = "0.1.0"

_HOME = {
    "Cubic": "tdcompress.sparsity.schedule",
    "Ramp": "tdcompress.sparsity.schedule",
    "Schedule": "tdcompress.sparsity.schedule",
    "TargetedDropout": "tdcompress.own_loop",
    "Translator": "tdcompress.runs.translator",
    "benchmark": "tdcompress.bench.benchmark",
    "build_model": "tdcompress.models.registry",
    "export_onnx": "tdcompress.export.to_onnx",
    "freeze": "tdcompress.interface",
    "load_sparse": "tdcompress.storage.csr",
    "load_weights": "tdcompress.models.weights",
    "narrow": "tdcompress.interface",
    "narrow_state": "tdcompress.interface",
    "pack_onnx": "tdcompress.onnxfile.pack",
    "prune": "tdcompress.interface",
    "recalibrate": "tdcompress.train.recalibrate",
    "run": "tdcompress.interface",
    "save_sparse": "tdcompress.interface",
    "shrink": "tdcompress.interface",
    "unpack_onnx": "tdcompress.onnxfile.pack",
}

__all__ = [*sorted(_HOME), "engine", "verify"]


def __getattr__(name: str) -> Any:
    if name == "engine":
        return import_module("tdcompress.engine")
    if name == "verify":
        return import_module("tdcompress.runs.verification").verify_path
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tdcompress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The packages of the optional parts, asked for before anything begins."""

from importlib.util import find_spec

from tdcompress.errors import UserError

TRAINING = ("torch", "torchvision", "safetensors")
REPORTING = ("onnxscript", "sklearn", "matplotlib", "tomli_w")
TRANSLATING = ("onnxruntime", "sentencepiece")
CLUSTER = ("ray",)


def require_parts(*names: str, extra: str = "train") -> None:
    """Say what to install where an optional part is missing.

    Args:
        names: the packages that are needed.
        extra: which of tdcompress's extras brings them.

    Raises:
        UserError: one of them cannot be found.
    """
    missing = [name for name in names if not find_spec(name)]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: {install(extra)}")


def install(extra: str) -> str:
    """What to type for an extra."""
    return f"pip install '.[{extra}]' in tdcompress's checkout"

"""The packages of an extra, asked for before anything begins."""

from importlib.util import find_spec

from tdcompress.errors import UserError

TRAINING = ("torch", "torchvision", "safetensors")
REPORTING = ("onnxscript", "sklearn", "matplotlib", "tomli_w")
CLUSTER = ("ray",)


def require_parts(*names: str, extra: str = "train") -> None:
    """Say what to install where a part of the package is missing.

    Args:
        names: the packages that are needed.
        extra: what installs them.

    Raises:
        UserError: one of them cannot be found.
    """
    missing = [name for name in names if not find_spec(name)]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: pip install '.[{extra}]' in tdcompress's checkout")

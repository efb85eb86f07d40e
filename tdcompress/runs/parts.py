"""The packages of the training half, asked for before anything begins."""

from importlib.util import find_spec

from tdcompress.errors import UserError

TRAINING = ("torch", "torchvision", "safetensors")
REPORTING = ("onnxscript", "sklearn", "matplotlib", "tomli_w")


def require_parts(*names: str) -> None:
    """Say what to install where the training half is missing.

    Args:
        names: the packages that are needed.

    Raises:
        UserError: one of them cannot be found.
    """
    missing = [name for name in names if not find_spec(name)]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: pip install '.[train]' in tdcompress's checkout")

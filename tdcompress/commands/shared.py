"""What verbs have in common: how they are added, options that several take, the packages they need, JSON."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from tdcompress.errors import UserError

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a verb adds its parser."""

TRAINING = ("torch", "torchvision", "safetensors")
REPORTING = ("onnxscript", "sklearn", "matplotlib", "tomli_w")


def add_verb(verbs: Verbs, name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    """Add a verb.

    Args:
        verbs: where to.
        name: what is typed.
        function: does it; what goes wrong it raises as a ``TdcompressError``, which knows its exit code.
        text: what it is for.

    Returns:
        Its parser, still without arguments.
    """
    parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(verb=function)
    return parser


def add_artifacts(parser: argparse.ArgumentParser) -> None:
    """Add ``--artifacts``."""
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR", help="where runs are kept")


def add_external_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--external-data``."""
    parser.add_argument("--external-data", action="store_true", help="accept weights in files beside the ONNX file")


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A parser of numbers above 0."""

    def number(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def print_json(value: Any) -> None:
    """What ``--json`` prints."""
    print(json.dumps(value, indent=1))


def require_training_parts(*names: str) -> None:
    """Say what to install where the training half is missing.

    Args:
        names: the packages that are needed.

    Raises:
        UserError: one of them cannot be found.
    """
    from importlib.util import find_spec

    missing = [name for name in names if not find_spec(name)]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: pip install '.[train]' in tdcompress's checkout")

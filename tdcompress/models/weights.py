"""Given weights in a file, put into a network whose head may have another number of classes."""

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tdcompress.arguments import checked
from tdcompress.errors import ModelError, one_line
from tdcompress.files import StrPath
from tdcompress.sparsity.units import is_matrix, output_axis, require_changeable, require_module, require_values, unwrapped

NESTED = ("state_dict", "model_state_dict", "model", "module")  # where training scripts put the weights in a checkpoint
PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel and its like, torch.compile, TargetedDropout
_SAVE = "torch.save(model.state_dict(), path)"
_STATE = "_extra_state"  # of wrappers, which holds no weights
_log = logging.getLogger(__name__)


@checked
def load_weights(model: nn.Module, path: StrPath) -> tuple[str, ...]:
    """Put the weights of a file into a network, in place; all of them, but for a head with another number of classes.

    The head is the last convolution or linear layer. If the file's head has as many inputs but another number of outputs, the
    network's head keeps its weights, and the log says so. The same holds for auxiliary heads: layers with the same two numbers of
    outputs, here and in the file. Any other difference of shape, and any tensor that the file lacks, is an error. A tensor that
    the network has under several names may have one of them in the file. What the file holds besides is named in the log.

    Args:
        model: any module, or one in ``TargetedDropout``, DistributedDataParallel or torch.compile.
        path: safetensors; or torch's .pth or .pt with a state_dict, bare or under one of the usual keys of a checkpoint
            ("state_dict", "model", ...), its names with or without the "module." of DataParallel. Nothing else that such a file
            can hold is read: torch's loader for weights alone runs no code.

    Returns:
        Names of the tensors that start anew; none where all were loaded.

    Raises:
        ModelError: a file that holds no weights, or those of another network, or values that are not finite in it or in the
            network's type; a network made in ``torch.inference_mode``. The model is unchanged.
    """
    require_module(model)
    model = unwrapped(model)
    require_values(model)
    require_changeable(model)
    path = Path(path)
    state = model.state_dict(keep_vars=True)
    wanted = {name: value for name, value in state.items() if isinstance(value, Tensor) and not _is_state(name)}
    found = _named_as(wanted, read_weights(path))
    there: dict[Tensor, str] = {}  # of each tensor's names the first that the file has
    for name, tensor in wanted.items():
        if name in found:
            there.setdefault(tensor, name)
    # counted batches are younger than many files, and no forward pass with a set momentum reads them
    missing = [name for name, tensor in wanted.items() if tensor not in there and not name.endswith("num_batches_tracked")]
    if missing:
        raise ModelError(f"{path} lacks {_some(missing)} of this {type(model).__name__}; it has {_some(list(found))}")
    fresh = _fresh_heads(model, wanted, found, path)
    loaded = {name: value for name, value in found.items() if name in wanted and name not in fresh}
    for name, value in loaded.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            raise ModelError(f"{path}: {name} is {value.dtype}, here {wanted[name].dtype}: quantised weights are not read")
        if not bool(value.isfinite().all()):
            raise ModelError(f"{path}: {name} has values that are NaN or infinite; the file is damaged, or its training failed")
        own = value.to(wanted[name].dtype)
        if not bool((own.isfinite() if own.is_floating_point() or own.is_complex() else own == value).all()):
            wide = "float32" if own.is_floating_point() else value.dtype
            raise ModelError(f"{path}: {name} has values beyond {own.dtype}, which it has here; load them into {wide}")
        if not torch.equal(found[first := there[wanted[name]]], value):
            what = f"{first} and {name} differ, and are one tensor of this {type(model).__name__}"
            raise ModelError(f"{path}: {what}: the weights are of a network that does not share them")
    model.load_state_dict(loaded, strict=False)
    if fresh:
        old, new = found[fresh[0]], wanted[fresh[0]]
        sizes = next((a, b) for a, b in zip(old.shape, new.shape, strict=True) if a != b)
        _log.warning("%s: its head has %d outputs, this one %d: %s start anew", path.name, *sizes, ", ".join(fresh))
    if unused := [name for name in found if name not in wanted]:
        _log.warning("%s: not of this %s, and left out: %s", path.name, type(model).__name__, _some(unused))
    return fresh


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        ModelError: it cannot be read, or holds no weights.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if start[8:9] == b"{":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is no whole safetensors file: {one_line(error, 200)}") from error
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise ModelError(f"{path} holds no weights, neither safetensors nor torch's: it begins with {start!r}")
    try:
        if _is_program(path):
            raise ModelError(f"{path} is a TorchScript program. Where it was made, save the weights alone: {_SAVE}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        held = f"a {named[1]}" if named else one_line(error, 200)
        raise ModelError(
            f"{path} is damaged, or holds more than weights, which is not read since that could run code: {held}."
            f" Where it was made, save the weights alone: {_SAVE}"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # a damaged archive raises anything
        raise ModelError(f"{path} is no whole file of weights: {one_line(error, 200)}") from error
    return _state_dict(content, path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The weights in what torch.load gave, which may be a checkpoint with more in it."""
    if isinstance(content, Mapping):
        for key in NESTED:
            if isinstance(inner := content.get(key), Mapping):
                return _state_dict(inner, path)
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        others = [str(name) for name, value in content.items() if not isinstance(value, Tensor) and not _is_state(str(name))]
        if tensors and not others:
            return {name: value.detach() for name, value in tensors.items() if not _is_state(name)}
        held = f"it holds {_some([str(name) for name in content])}" if content else "it is empty"
    else:
        held = f"it holds a {type(content).__name__}"
    raise ModelError(f"{path} is no state_dict: {held}, where names with tensors, or one of {', '.join(NESTED)}, are expected")


def _is_state(name: str) -> bool:
    return name.rpartition(".")[2] == _STATE


def _named_as(wanted: Mapping[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the prefix that a wrapper gave to all names, and with that of the wrapper that they go into."""
    while not set(wanted) & set(found):
        prefix = next((p for p in PREFIXES if found and all(name.startswith(p) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    own = next((p for p in PREFIXES if wanted and all(name.startswith(p) for name in wanted)), "")
    return found if set(wanted) & set(found) else {own + name: value for name, value in found.items()}


def _fresh_heads(model: nn.Module, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> tuple[str, ...]:
    """The tensors of heads with another number of classes.

    Raises:
        ModelError: a shape differs in another way.
    """
    other = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    if not other:
        return ()
    matrices = {name: module for name, module in model.named_modules(remove_duplicate=False) if is_matrix(module)}
    last = list(dict.fromkeys(matrices.values()))[-1] if matrices else None
    heads, classes = [], set()
    for layer, module in matrices.items():
        weight = f"{layer}.weight" if layer else "weight"
        if weight not in other:
            continue
        axis = output_axis(module)
        old, new = tuple(found[weight].shape), tuple(wanted[weight].shape)
        if len(old) == len(new) and all(a == b for index, (a, b) in enumerate(zip(old, new, strict=True)) if index != axis):
            heads.append(layer)
            classes.add((old[axis], new[axis]))
    fresh = [name for name in other if name.rpartition(".")[0] in heads]
    wrong = [name for name in other if name not in fresh]
    if wrong or len(classes) != 1 or last not in [matrices[layer] for layer in heads]:
        name = other[0]
        raise ModelError(
            f"{path}: {name} is {tuple(found[name].shape)}, here {tuple(wanted[name].shape)}: the weights are of another network"
            " (only a head with another number of classes starts anew)"
        )
    return tuple(fresh)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())

"""Decide the encoding and the stored element type of each weight of one graph."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tdcompress.onnxfile.choose import choose
from tdcompress.onnxfile.cost import alone_bytes, own_bytes, shared_bytes
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import Encoding, SectionKey, Weight
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.reports import PackValues, Prefer
from tdcompress.onnxfile.rounding import MOST_LOST, lost_share
from tdcompress.onnxfile.tensors import Array

FOLDED_BYTES = 1 << 30
"""Results of a node that are larger than this onnxruntime computes on every call, not once when it loads the file."""
_LEAST_BYTES = 4  # the decoders' own numbers are int32
_SLACK = 1 << 16  # places before and after the weights
_FEWEST_KEPT = 16  # values of a weight that are rounded to a form: a table for fewer would be larger than they are

_FLOAT32, _FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


Price = Callable[[int], float]
"""Elements of a weight -> what a byte of it counts; infinite where the encoding is not for one of this size."""


def byte_prices(prefer: Prefer, strict: bool) -> dict[str, Price]:
    """Encodings that may be used, with their prices.

    Args:
        prefer: "speed" adds what an encoding's slower loading is worth, and leaves out what loads too slowly.
        strict: only encodings that pass onnx's strict shape inference.
    """
    usable = {name: encoding for name, encoding in ENCODINGS.items() if encoding.infers or not strict}
    if prefer == "size":
        return dict.fromkeys(usable, same_price)
    return {name: _with_handicap(encoding) for name, encoding in usable.items()}


def same_price(elements: int) -> float:
    """Bytes alone count, whatever the weight's size."""
    return 1.0


def _with_handicap(encoding: Encoding) -> Price:
    return lambda elements: 1 + encoding.handicap(elements)


@dataclass(frozen=True, kw_only=True)
class PackingPlan:
    """How the weights of a graph are to be written.

    Attributes:
        sections: key -> its weights in their order, rounded ones where that was asked for.
        kept_float32: name -> reason, for matrices that could not be rounded.
    """

    sections: dict[SectionKey, list[Weight]]
    kept_float32: dict[str, str]


def plan(weights: Sequence[Weight], graph: int, values: PackValues, prices: Mapping[str, Price]) -> PackingPlan:
    """Decide the encoding and the stored element type of each weight.

    Every set of weights with the same element types shares decoders, so these are decided together.

    Args:
        weights: of one graph.
        graph: its number in the model.
        values: number format of the weights.
        prices: of the encodings that may be used.
    """
    by_type: dict[SectionKey, list[Weight]] = {}
    planned, kept_float32 = _in_form(weights, graph, values, prices) if values in FORMS else ({}, {})
    formed = {weight.name for members in planned.values() for weight in members}
    for weight in weights:
        if weight.name in formed:
            continue
        key = SectionKey(graph=graph, encoding="dense", dtype=weight.array.dtype, stored=weight.array.dtype)
        if values == "float16" and can_be_rounded(weight):
            half = _halved(weight, key)
            if isinstance(half, str):
                kept_float32[weight.name] = half
            else:
                weight, key = half
        by_type.setdefault(key, []).append(weight)
    for key, members in by_type.items():
        keys = {name: replace(key, encoding=name) for name in prices}
        own = [_costs(weight, keys, prices) for weight in members]
        picks = choose(own, _shared_costs(members, keys, prices))
        for weight, pick in zip(members, picks, strict=True):
            planned.setdefault(keys[pick], []).append(weight)
    return PackingPlan(sections=_in_parts(planned), kept_float32=kept_float32)


def _in_form(
    weights: Sequence[Weight], graph: int, form: str, prices: Mapping[str, Price]
) -> tuple[dict[SectionKey, list[Weight]], dict[str, str]]:
    """Sections of the weights that are rounded to a form, and name -> reason for matrices that are not.

    Rounded and exact sections are chosen together, since a decoder that nobody needs any more pays for another.
    """
    exact = SectionKey(graph=graph, encoding="dense", dtype=_FLOAT32, stored=_FLOAT32)
    plain = {name: replace(exact, encoding=name) for name in prices}
    formed = {name: replace(key, form=form) for name, key in plain.items() if ENCODINGS[name].holds(form)}
    labels = {name: f"{form} {name}" for name in formed}
    kept: dict[str, str] = {}
    rounded: list[Weight] = []
    own: list[dict[str, float]] = []
    for weight in filter(can_be_rounded, weights):
        unrounded = _costs(weight, plain, prices)
        few_zeros = min(unrounded, key=unrounded.__getitem__) == "dense"
        formed_or_why = _no_form(weight.array, form) or ("its zeros are too few to pack" if few_zeros else _formed(weight, form))
        if isinstance(formed_or_why, str):
            kept[weight.name] = formed_or_why
            continue
        rounded.append(formed_or_why)
        own.append(unrounded | {labels[name]: cost for name, cost in _costs(rounded[-1], formed, prices).items()})
    shared = _shared_costs(rounded, plain, prices)
    shared |= {labels[name]: cost for name, cost in _shared_costs(rounded, formed, prices).items()}
    keys = {labels[name]: key for name, key in formed.items()}
    planned: dict[SectionKey, list[Weight]] = {}
    for weight, pick in zip(rounded, choose(own, shared), strict=True):
        if pick in keys:
            planned.setdefault(keys[pick], []).append(weight)
        else:
            kept[weight.name] = f"{form} makes it no smaller"
    return planned, kept


def _no_form(array: Array, form: str) -> str:
    """Why a weight cannot be rounded to a form; "" where it can."""
    kept = array[array != 0]
    if not np.isfinite(kept).all():
        return "it holds NaN or infinity"
    if kept.size < _FEWEST_KEPT:
        return f"fewer than {_FEWEST_KEPT} of its values are not zero"
    if np.all(kept == kept[0]):
        return "its values that are not zero are all the same"
    if array.size > _room(_FLOAT32):
        return "it is too large for one decoder"
    return FORMS[form].refusal(kept)


def _formed(weight: Weight, form: str) -> Weight | str:
    """The weight rounded to a form that `_no_form` allows, or the reason why that would lose too much."""
    kept = weight.array != 0
    exact = weight.array[kept]
    array = np.zeros_like(weight.array)
    array[kept] = FORMS[form].rounded(exact)
    if lost_share(exact, array[kept]) > MOST_LOST:
        sizes = np.abs(exact)
        small = f"most of its values, half of them below {np.median(sizes):.3g},"
        return f"{small} would be lost beside its largest, {sizes.max():.3g}"
    return Weight(name=weight.name, array=array)


def _in_parts(sections: Mapping[SectionKey, Sequence[Weight]]) -> dict[SectionKey, list[Weight]]:
    """Sections so small that onnxruntime folds their decoders; the order of weights stays. A larger weight stays dense."""
    parts: dict[SectionKey, list[Weight]] = {}
    for key, members in sections.items():
        room = _room(key.dtype)
        part, taken = 0, 0
        for weight in members:
            if key.encoding == "dense" or weight.array.size > room:
                parts.setdefault(replace(key, encoding="dense"), []).append(weight)
                continue
            taken += weight.array.size
            if taken > room:
                part, taken = part + 1, weight.array.size
            parts.setdefault(replace(key, part=part), []).append(weight)
    return parts


def _room(dtype: np.dtype[Any]) -> int:
    """Elements that one decoder may have."""
    return FOLDED_BYTES // max(_LEAST_BYTES, dtype.itemsize) - _SLACK


def can_be_rounded(weight: Weight) -> bool:
    """Whether `values` is about this weight: float32 matrices; vectors stay as they are."""
    return weight.array.dtype == _FLOAT32 and weight.array.ndim >= 2


def _costs(weight: Weight, keys: Mapping[str, SectionKey], prices: Mapping[str, Price]) -> dict[str, float]:
    """Encoding -> what the weight's bytes count, of those that are for it; without zeros only dense.

    Where each weight has its own decoder, that counts whole: what weights of one shape share of it may come to nothing.
    """
    if np.count_nonzero(weight.array) == weight.array.size:
        return {"dense": own_bytes(weight, keys["dense"])}
    here = {name: prices[name](weight.array.size) for name in keys}
    found = {}
    for name, price in here.items():
        if math.isfinite(price):
            counted = own_bytes if ENCODINGS[name].shares else alone_bytes
            found[name] = price * counted(weight, keys[name])
    return found


def _shared_costs(weights: Sequence[Weight], keys: Mapping[str, SectionKey], prices: Mapping[str, Price]) -> dict[str, float]:
    """Encoding -> what its decoder's bytes count, of those that are for one of the weights; nothing where each has its own."""
    sizes = {weight.array.size for weight in weights}
    here = {name: min((prices[name](size) for size in sizes), default=math.inf) for name in keys}
    return {
        name: price * shared_bytes(keys[name]) if ENCODINGS[name].shares else 0.0
        for name, price in here.items()
        if math.isfinite(price)
    }


def _halved(weight: Weight, key: SectionKey) -> tuple[Weight, SectionKey] | str:
    """The weight rounded to float16, or the reason why it cannot be."""
    array = weight.array
    if not np.isfinite(array).all():
        return "it holds NaN or infinity"
    largest, limit = float(np.abs(array).max()), float(np.finfo(_FLOAT16).max)
    if largest > limit:
        return f"a value of size {largest:.3g} is beyond float16's {limit:g}"
    rounded = Weight(name=weight.name, array=array.astype(_FLOAT16).astype(_FLOAT32) + np.float32(0))
    if lost_share(array, rounded.array) > MOST_LOST:
        return "most of its values are too small for float16"
    narrow = replace(key, stored=_FLOAT16)
    if own_bytes(rounded, narrow) >= own_bytes(weight, key):
        return "float16 makes it no smaller"
    return rounded, narrow

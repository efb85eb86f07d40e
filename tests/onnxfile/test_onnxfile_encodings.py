"""Encodings: hand-computed codes, round trips, and onnxruntime as the independent decoder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.onnxfile.cost import own_bytes, shared_bytes
from tdcompress.onnxfile.encodings import ENCODINGS, frame
from tdcompress.onnxfile.encodings.base import Room, Section, SectionKey, Weight
from tdcompress.onnxfile.encodings.bitmask import BITMASK
from tdcompress.onnxfile.encodings.bits import part
from tdcompress.onnxfile.encodings.gap import GapCodec
from tdcompress.onnxfile.encodings.rice import RiceCodec
from tdcompress.onnxfile.encodings.step4 import STEP4
from tdcompress.onnxfile.runtime import check_section
from tdcompress.onnxfile.tensors import PACKABLE, bound_bytes, nonzero, position_bits

FLOAT32 = np.dtype(np.float32)
PLENTY = 2**30


def key_of(encoding: str, dtype: np.dtype = FLOAT32, stored: np.dtype | None = None) -> SectionKey:
    return SectionKey(graph=0, encoding=encoding, dtype=dtype, stored=stored or dtype)


def like(opset: int = 13) -> object:
    """Any model that says which operator set a decoder runs under."""
    graph = helper.make_graph([], "empty", [], [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def test_gap8_codes_by_hand() -> None:
    # 0: no zero before; 3: two zeros; 259: 255 zeros, a skip and then none; 1000: 740 zeros = 2 skips and 230
    encoded = GapCodec(8).encode(np.array([0, 3, 259, 1000]), 1001)
    assert encoded.codes.tolist() == [0, 2, 255, 0, 255, 255, 230]
    assert (encoded.before, encoded.after) == (1, 0)
    assert GapCodec(8).decode(encoded.codes, 1001).tolist() == [0, 3, 259, 1000]


def test_gap4_codes_by_hand() -> None:
    # 1: one zero; 17: 15 zeros = skip and 0; 20: two zeros; codes 1, 15, 0, 2: the first half in the high halves
    encoded = GapCodec(4).encode(np.array([1, 17, 20]), 21)
    assert encoded.codes.tolist() == [[0x10, 0xF2]]
    assert (encoded.before, encoded.after) == (1, 0)
    # one code more, 0, is filled up by a skip, which ends at 22 + 15
    encoded = GapCodec(4).encode(np.array([1, 17, 20, 21]), 22)
    assert encoded.codes.tolist() == [[0x12, 0xF0, 0x0F]]
    assert (encoded.before, encoded.after) == (1, 15)
    assert GapCodec(4).encode(np.array([1, 17, 20, 21]), 30).after == 7
    assert GapCodec(4).decode(encoded.codes, 22).tolist() == [1, 17, 20, 21]


def test_gap6_codes_by_hand() -> None:
    # 0: no zero before; 3: two zeros; 67: 63 zeros, a skip and then none: codes 0, 2, 63, 0; the last, 0, has no bits to add
    encoded = GapCodec(6).encode(np.array([0, 3, 67]), 68)
    assert encoded.codes.tolist() == [[0], [2], [63]]
    assert (encoded.before, encoded.after) == (1, 0)
    # a code more, 1, and three skips that fill up; the last of each row is in the high bits: 1 and 63 = 0b111111
    encoded = GapCodec(6).encode(np.array([0, 3, 67, 69]), 70)
    assert encoded.codes.tolist() == [[0b11_000000, 0b11_000010], [0b11_111111, 0b11_000000], [0b11_000001, 0b11_111111]]
    assert encoded.after == 3 * 63
    assert GapCodec(6).decode(encoded.codes, 70).tolist() == [0, 3, 67, 69]
    assert GapCodec(6).encode(np.array([0, 3, 67, 69]), 100).after == 3 * 63 - 30


def test_rice_codes_by_hand() -> None:
    # steps of 8. 1: one zero; 20: 18 zeros = two flags of 8, and 2; flags 1 0 0 1; remainders 7 (for flags without a value), 1, 2
    # as planes 1 0 0, 1 0 1, 1 1 0; 13 bits, so three flags without a value fill up: they end at 21 + 24
    encoded = RiceCodec(3).encode(np.array([1, 20]), 21)
    bits = [*(1, 0, 0, 1, 0, 0, 0), *(1, 0, 0), *(1, 0, 1), *(1, 1, 0)]
    assert encoded.codes.tolist() == [[sum(bits[2 * row + byte] << 7 - row for row in range(8)) for byte in range(2)]]
    assert encoded.more["parts"].tolist() == [7, 9]
    assert (encoded.before, encoded.after) == (1, 24)
    assert RiceCodec(3).encode(np.array([1, 20]), 40).after == 5
    assert RiceCodec(3).decode(encoded.codes, 21).tolist() == [1, 20]
    with pytest.raises(ModelError, match="cut off"):
        RiceCodec(3).decode(np.full((1, 1), 255, np.uint8), 21)


def test_step4_codes_by_hand() -> None:
    # 1: two places on; 17: 16 places on = a zero kept at 16, then 1; 20: three on
    encoded = STEP4.codec.encode(np.array([1, 17, 20]), 21)
    assert encoded.codes.tolist() == [0x21, 0xF3]  # codes 2, 15, 1, 3: an even number
    assert (encoded.before, encoded.after, encoded.fillers.tolist()) == (1, 0, [16])
    odd = STEP4.codec.encode(np.array([1, 17, 20, 21]), 22)
    assert odd.codes.tolist() == [0x23, 0xF1, 0x11]  # codes 2, 15, 1 and 3, 1, 1
    assert (odd.after, odd.fillers.tolist()) == (1, [16, 22])  # the last filler stands beyond the 22 elements
    assert STEP4.codec.encode(np.array([1, 17, 20, 21]), 30).after == 0
    assert STEP4.codec.decode(odd.codes, 22).tolist() == [1, 16, 17, 20, 21, 22]


def test_bitmask_codes_by_hand() -> None:
    # 10 elements in 2 bytes: byte 0 has elements 0, 2, 4, 6, 8, ..., byte 1 has 1, 3, 5, 7, 9, ...
    encoded = BITMASK.codec.encode(np.array([0, 3, 9]), 10)
    assert encoded.codes.tolist() == [[0b1000_0000, 0b0100_1000]]
    assert (encoded.before, encoded.after) == (0, 6)
    assert BITMASK.codec.decode(encoded.codes, 10).tolist() == [0, 3, 9]


def test_position_bits_by_hand() -> None:
    assert position_bits(4, 0) == position_bits(4, 4) == 0
    assert position_bits(100, 50) == 100
    assert position_bits(4, 1) == pytest.approx(4 * (0.25 * 2 + 0.75 * np.log2(4 / 3)))
    assert bound_bytes(100, 50, 4) == 50 * 4 + 100 / 8
    assert bound_bytes(100, 100, 4) == 400
    assert bound_bytes(1000, 999, 1) == 1000  # saying which one is zero takes more than the byte it saves


def test_signed_zero_and_nan_are_values() -> None:
    array = np.array([0.0, -0.0, np.nan, 1e-45], np.float32)
    assert nonzero(array).tolist() == [1, 2, 3]


@st.composite
def weights(draw: st.DrawFn) -> list[Weight]:
    """One to five weights of one element type, of any shapes and shares of zeros."""
    dtype = draw(st.sampled_from(list(PACKABLE.values())))
    made = []
    for number in range(draw(st.integers(1, 5))):
        shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        array = (random.standard_normal(shape) * 30).astype(dtype)
        array[random.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))] = 0
        made.append(Weight(name=f"layer.{number}", array=np.where(array == 0, dtype.type(0), array)))
    return made


@settings(derandomize=True, deadline=None, max_examples=60)
@given(weights(), st.sampled_from(sorted(ENCODINGS)), st.booleans())
def test_what_is_written_is_read(members: list[Weight], encoding: str, narrow: bool) -> None:
    dtype = members[0].array.dtype
    stored = dtype
    if narrow and dtype == FLOAT32:
        stored = np.dtype(np.float16)
        members = [Weight(name=w.name, array=w.array.astype(stored).astype(dtype)) for w in members]
    key = key_of(encoding, dtype, stored)
    section = ENCODINGS[encoding].write(members, key)
    check_section(section, key, members, like())  # onnxruntime, nothing folded
    read = ENCODINGS[encoding].read(section, key, Room(left_bytes=PLENTY))
    assert {w.name: (w.array.shape, w.array.tobytes()) for w in read} == {
        w.name: (w.array.shape, w.array.tobytes()) for w in members
    }
    again = ENCODINGS[encoding].write(read, key)
    assert again.n_bytes() == section.n_bytes()


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sets(st.integers(0, 3000), max_size=200), st.sampled_from([4, 6, 8]), st.integers(0, 40))
def test_gaps_have_no_two_codes_in_one_place(places: set[int], bits: int, room: int) -> None:
    positions = np.array(sorted(places), np.int64)
    total = int(positions[-1]) + 1 + room if places else 1 + room
    codec = GapCodec(bits)
    encoded = codec.encode(positions, total)
    codes, length = encoded.codes, encoded.before + total + encoded.after
    assert codec.decode(codes, total).tolist() == positions.tolist()
    flat = part(codes.reshape(-1), bits)
    ends = np.cumsum([code if code == codec.skip else code + 1 for code in flat.tolist()])
    assert len(set(ends.tolist())) == ends.size  # ScatterElements: each place once
    assert not ends.size or (ends[0] >= 1 and ends[-1] < length)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sets(st.integers(0, 3000), max_size=200), st.sampled_from([1, 3, 4, 6]), st.integers(0, 40))
def test_rice_codes_have_no_two_in_one_place(places: set[int], low: int, room: int) -> None:
    positions = np.array(sorted(places), np.int64)
    total = int(positions[-1]) + 1 + room if places else 1 + room
    codec = RiceCodec(low)
    encoded = codec.encode(positions, total)
    assert codec.decode(encoded.codes, total).tolist() == positions.tolist()
    flags, planes = encoded.more["parts"].tolist()
    bits = np.unpackbits(encoded.codes, axis=0).reshape(-1).tolist()
    assert len(bits) == flags + planes
    remainders = [int("".join(map(str, column)), 2) for column in zip(*np.reshape(bits[flags:], (low, -1)).tolist(), strict=True)]
    ends, place, value = [], 0, 0
    for flag in bits[:flags]:  # as the nodes do, one after the other
        value += flag
        place += remainders[value if flag else 0] + 1
        ends.append(place)
    assert len(set(ends)) == len(ends)  # ScatterElements: each place once
    assert [end - 1 for end, flag in zip(ends, bits, strict=False) if flag] == positions.tolist()
    assert not ends or (ends[0] >= 1 and ends[-1] < encoded.before + total + encoded.after)


def test_costs_are_those_of_the_file() -> None:
    """decoder + weights, as measured one by one, against the section with all of them."""
    random = np.random.default_rng(0)
    arrays = [np.where(random.random((64, 32, 3, 3)) < 0.9, 0, 1.5).astype(np.float32) for _ in range(4)]
    members = [Weight(name=f"w{i}", array=array) for i, array in enumerate(arrays)]
    for encoding in ("dense", "sparse_initializer", "gap8", "gap6", "gap4", "rice6", "rice4", "rice3", "rice1", "bitmask"):
        key = key_of(encoding)
        total = ENCODINGS[encoding].write(members, key).n_bytes()
        estimate = shared_bytes(key) + sum(own_bytes(member, key) for member in members)
        assert total <= estimate <= total + 4 * 200
    total = ENCODINGS["steps"].write(members, key_of("steps")).n_bytes()
    apart = sum(own_bytes(member, key_of("steps")) for member in members)
    assert apart < total <= apart + 500  # the zeros, and numbers that unpack 6 bits, are there once
    assert shared_bytes(key_of("dense")) == shared_bytes(key_of("sparse_initializer")) == 0
    assert 500 < shared_bytes(key_of("gap8")) < shared_bytes(key_of("gap4")) < 2000


def test_more_weights_than_int32_counts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "MAX_ELEMENTS", 100)
    with pytest.raises(UnsupportedError, match="at most 100"):
        ENCODINGS["gap8"].write([Weight(name="w", array=np.ones((11, 10), np.float32))], key_of("gap8"))


def test_keys_round_trip_through_names() -> None:
    for key in (key_of("gap8"), key_of("bitmask", FLOAT32, np.dtype(np.float16)), key_of("sparse_initializer")):
        assert SectionKey.of(key.prefix + "codes") == key
    assert key_of("gap8").prefix == "tdc1.0.gap8.f4."
    assert key_of("gap4", FLOAT32, np.dtype(np.float16)).prefix == "tdc1.0.gap4.f4f2."
    for name in ("tdc1.0.gap8.f9.codes", "tdc1.x.gap8.f4.codes", "tdc1.", "tdc1.0.gap8.f4"):
        with pytest.raises(ModelError, match="not of a known format"):
            SectionKey.of(name)


def test_room_is_taken_before_memory_is() -> None:
    """Three bytes of codes that claim 2^40 elements."""
    key = key_of("gap8")
    section = ENCODINGS["gap8"].write([Weight(name="w", array=np.array([0, 1, 0], np.float32))], key)
    huge = Section(initializers=list(section.initializers), nodes=section.nodes)
    for place, tensor in enumerate(huge.initializers):
        if tensor.name.endswith("sizes"):
            huge.initializers[place] = numpy_helper.from_array(np.array([1, 2**40], np.int64), tensor.name)
    with pytest.raises(ModelError, match="unpacks to"):
        ENCODINGS["gap8"].read(huge, key, Room(left_bytes=PLENTY))


def test_packable_types_are_known_to_onnx() -> None:
    for number, dtype in PACKABLE.items():
        assert helper.np_dtype_to_tensor_dtype(dtype) == number != TensorProto.UNDEFINED

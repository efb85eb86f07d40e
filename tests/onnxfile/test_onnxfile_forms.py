"""Kept values as a codebook or as small integers: bytes, what comes back, what a runtime sees, what is left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from weights import dense_initializers

from tdcompress.cli import main
from tdcompress.engine import Session
from tdcompress.errors import ModelError
from tdcompress.inspection import file_tables, packing_lines
from tdcompress.onnxfile import reports
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import Room, Section, SectionKey, Weight
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.levels import codebook
from tdcompress.onnxfile.load import infers_strictly, save_model
from tdcompress.onnxfile.pack import pack_model, pack_onnx, unpack_onnx
from tdcompress.onnxfile.reports import PackReport
from tdcompress.onnxfile.runtime import check_section
from tdcompress.onnxfile.verify import verify_onnx
from tdcompress.onnxfile.weights import densified
from tdcompress.records.stages import Values
from tdcompress.stages.export import ExportTable

Make = Callable[..., onnx.ModelProto]
FLOAT32 = np.dtype(np.float32)
BITS = {"codebook16": 4, "int8-kept": 8, "int4-kept": 4}


def key_of(form: str, encoding: str = "gap4") -> SectionKey:
    return SectionKey(graph=0, encoding=encoding, dtype=FLOAT32, stored=FLOAT32, form=form)


def assert_rounded(exact: np.ndarray, rounded: np.ndarray, form: str) -> None:
    """The zeros stay, and every other value becomes the nearest of 16 levels, or of the multiples of max / top."""
    kept, given = (array[exact != 0].astype(np.float64) for array in (exact, rounded))
    assert not rounded[exact == 0].any()
    if form == "codebook16":
        levels = codebook(exact[exact != 0], 16).astype(np.float64)
        np.testing.assert_array_equal(given, levels[np.abs(kept[:, np.newaxis] - levels).argmin(axis=1)])
        return
    top = 2 ** (BITS[form] - 1) - 1
    step = np.abs(kept).max() / top
    np.testing.assert_allclose(given / step, np.rint(given / step), atol=1e-4 * top)
    assert np.abs(given / step).max() == pytest.approx(top, rel=1e-4)
    assert np.abs(given - kept).max() <= step * (0.5 + 1e-4 * top)


@pytest.mark.parametrize(
    ("sparsity", "form"), [(0.75, "codebook16"), (0.9, "codebook16"), (0.95, "int4-kept"), (0.75, "int8-kept")]
)
def test_resnet32_is_near_its_bound(make_resnet32: Make, sparsity: float, form: str) -> None:
    """The bound by hand: kept values, n H(p), the tables, and all that is not rounded."""
    model = make_resnet32(sparsity)
    packed, report = pack_model(model, values=form)
    assert report.file_bytes == packed.ByteSize() <= 1.2 * report.bound_bytes
    exact, rounded = dense_initializers(model), dense_initializers(packed)
    pruned = {name for name, array in exact.items() if array.ndim == 4 and np.count_nonzero(array) < array.size}
    assert {tensor.name for tensor in report.tensors if tensor.stored == form} == pruned
    assert report.kept_float32 == dict.fromkeys(("stem.weight", "head.weight"), "its zeros are too few to pack")
    bound = 0.0
    for name, array in exact.items():
        if name not in pruned:
            assert rounded[name].tobytes() == array.tobytes()
            bound += array.nbytes
            continue
        assert_rounded(array, rounded[name], form)
        p = np.count_nonzero(rounded[name]) / array.size
        table = 64 if form == "codebook16" else 4
        bound += array.size * (p * BITS[form] - p * np.log2(p) - (1 - p) * np.log2(1 - p)) / 8 + table
    assert report.bound_bytes == pytest.approx(bound, rel=1e-9)
    assert report.weight_error == pytest.approx(
        max(float(np.abs(rounded[name] - exact[name]).max() / np.abs(exact[name]).max()) for name in pruned)
    )
    assert infers_strictly(packed)
    assert {node.domain for node in packed.graph.node} == {""}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_runtime_and_the_engine_see_the_dense_network(
    make_small_net: Make, optimised_graph: Callable, run_model: Callable, form: str, tmp_path: Path
) -> None:
    packed, report = pack_model(make_small_net(0.7), values=form)
    assert {tensor.stored for tensor in report.tensors if len(tensor.shape) > 1} == {form}
    dense = densified(packed)
    for level in ("basic", "extended", "layout", "all"):
        assert optimised_graph(packed, level) == optimised_graph(dense, level)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert run_model(packed, images)[0].tobytes() == run_model(dense, images)[0].tobytes()
    given, wanted = (Session(model.SerializeToString()).run(None, {"input": images})[0] for model in (packed, dense))
    assert given.tobytes() == wanted.tobytes()
    np.testing.assert_allclose(given, run_model(dense, images)[0], rtol=1e-4, atol=1e-5)
    save_model(packed, tmp_path / "packed.onnx")
    unpack_onnx(tmp_path / "packed.onnx", tmp_path / "dense.onnx")
    assert (tmp_path / "dense.onnx").read_bytes() == dense.SerializeToString(deterministic=True)
    assert verify_onnx(tmp_path / "packed.onnx").weights == len(report.tensors)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_packing_again_changes_nothing(make_small_net: Make, form: str, tmp_path: Path) -> None:
    save_model(make_small_net(0.9), tmp_path / "in.onnx")
    for target in ("once.onnx", "twice.onnx"):
        pack_onnx(tmp_path / "in.onnx", tmp_path / target, values=form)
    assert (tmp_path / "once.onnx").read_bytes() == (tmp_path / "twice.onnx").read_bytes()
    report = pack_onnx(tmp_path / "once.onnx", tmp_path / "again.onnx", values=form)
    assert (tmp_path / "once.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert "no fewer than now" in report.left_as_is


def test_what_cannot_be_rounded_stays_float32_and_says_why(make_small_net: Make) -> None:
    def with_head(change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
        model = make_small_net(0.75)
        (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
        weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), weight.name))
        return model

    def first(count: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
        def change(array: np.ndarray) -> np.ndarray:
            flat = np.zeros_like(array).reshape(-1)
            flat[:count] = np.linspace(value, 2 * value, count)
            return flat.reshape(array.shape)

        return change

    cases = [
        ("codebook16", first(15, 1), "fewer than 16 of its values are not zero"),
        ("int4-kept", lambda array: np.where(array == 0, array, np.float32(3)), "its values that are not zero are all the same"),
        ("codebook16", lambda array: np.where(array == array.max(), np.float32(np.nan), array), "it holds NaN or infinity"),
        ("int8-kept", lambda array: np.where(array == array.max(), np.float32(np.inf), array), "it holds NaN or infinity"),
        ("int8-kept", first(40, 1e-33), "its largest value is of size 2e-33; integers are for 1e-30 to 1e30"),
        ("int4-kept", lambda array: np.where(array == 0, np.float32(1), array), "its zeros are too few to pack"),
    ]
    for form, change, reason in cases:
        model = with_head(change)
        packed, report = pack_model(model, values=form)
        assert report.kept_float32 == {"head.weight": reason}
        assert dense_initializers(packed)["head.weight"].tobytes() == dense_initializers(model)["head.weight"].tobytes()
        assert {tensor.name for tensor in report.tensors if tensor.stored == form} == {"conv1.weight", "conv2.weight"}
        assert list(packing_lines(report))[-1] == f"kept in float32 because {reason}: head.weight"
        assert PackReport.from_json(report.to_json()) == report


def test_zeros_that_are_kept_leave_nothing_to_round(make_small_net: Make) -> None:
    dense = make_small_net(0.9)
    packed, report = pack_model(dense, values="codebook16", sparse=False)
    assert packed.SerializeToString(deterministic=True) == dense.SerializeToString(deterministic=True)
    assert {"conv1.weight", "conv2.weight", "head.weight"} == report.kept_float32.keys()


def test_inspect_names_the_form(make_small_net: Make) -> None:
    tensors, _ = file_tables(Path("m.onnx"), inspect_model(pack_model(make_small_net(0.7), values="codebook16")[0]))
    assert {row[3] for row in tensors.rows if "x" in row[1]} == {"gap4, codebook16"}


@st.composite
def rounded_weights(draw: st.DrawFn) -> tuple[str, list[Weight]]:
    form = draw(st.sampled_from(sorted(FORMS)))
    made = []
    for number in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        array = random.standard_normal(shape).astype(np.float32) * np.float32(10.0 ** random.integers(-9, 9))
        array[random.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.9, 0.99]))] = 0
        if np.any(array):
            array[array != 0] = FORMS[form].rounded(array[array != 0])
        made.append(Weight(name=f"layer.{number}", array=array))
    return form, made


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rounded_weights(), st.sampled_from(["gap4", "gap6", "gap8", "rice3", "rice6", "step4", "bitmask"]))
def test_what_is_written_is_read(drawn: tuple[str, list[Weight]], encoding: str) -> None:
    form, members = drawn
    if not ENCODINGS[encoding].holds(form):
        assert (encoding, form) == ("step4", "codebook16")
        return
    if not any(np.any(weight.array) for weight in members):
        return  # packing rounds no weight without values
    key = key_of(form, encoding)
    section = ENCODINGS[encoding].write(members, key)
    like = helper.make_model(helper.make_graph([], "empty", [], []), opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    check_section(section, key, members, like)  # onnxruntime, nothing folded
    read = ENCODINGS[encoding].read(section, key, Room(left_bytes=2**30))
    assert {w.name: (w.array.shape, w.array.tobytes()) for w in read} == {
        w.name: (w.array.shape, w.array.tobytes()) for w in members
    }
    assert ENCODINGS[encoding].write(read, key).n_bytes() == section.n_bytes()


def test_keys_round_trip_through_names() -> None:
    for form, name in {"codebook16": "f4c4", "int8-kept": "f4q8", "int4-kept": "f4q4"}.items():
        assert key_of(form).prefix == f"tdc1.0.gap4.{name}."
        assert SectionKey.of(key_of(form).prefix + "codes") == key_of(form)
    for name in ("tdc1.0.gap4.f8c4.codes", "tdc1.0.gap4.f4c8.codes", "tdc1.0.gap4.c4.codes"):
        with pytest.raises(ModelError, match="not of a known format"):
            SectionKey.of(name)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_edited_tables_never_mislead(make_small_net: Make, run_model: Callable, form: str) -> None:
    """A constant with another number in it is a typed error, or other weights, as a runtime computes them."""
    packed, _ = pack_model(make_small_net(0.7), values=form)
    of_the_values = {"kept", "whole", "count", "starts", "jumps", "tables", "middle", "axis", "halves", "base", "row"}
    ours = [tensor for tensor in packed.graph.initializer if tensor.name.rsplit(".", 1)[1] in of_the_values]
    edited, accepted = 0, set()
    for tensor in ours:
        array = numpy_helper.to_array(tensor)
        flat = array.reshape(-1)
        extremes = [np.nan, np.inf, 3e38, 1e-45, 0.0] if array.dtype.kind == "f" else [-1, 0, 1, 2**31 - 1]
        for value in extremes:
            if (array.dtype.kind == "u" and value < 0) or (array.dtype.itemsize == 1 and abs(value) > 127):
                continue
            for place in {0, flat.size // 2, flat.size - 1}:
                changed = flat.copy()
                changed[place] = value
                if changed.tobytes() == flat.tobytes():
                    continue
                edited += 1
                copy = onnx.ModelProto()
                copy.CopyFrom(packed)
                (own,) = (other for other in copy.graph.initializer if other.name == tensor.name)
                own.CopyFrom(numpy_helper.from_array(changed.reshape(array.shape), tensor.name))
                try:
                    dense = densified(copy)
                except ModelError:
                    continue
                accepted.add(tensor.name.rsplit(".", 1)[1])
                images = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
                assert run_model(copy, images)[0].tobytes() == run_model(dense, images)[0].tobytes()
    assert edited > 50
    assert accepted <= {"kept", "whole", "tables", "starts"}  # data; what decodes it has to be as it was


def test_a_section_that_lacks_its_tables(make_small_net: Make) -> None:
    key = key_of("codebook16")
    weight = Weight(name="w", array=np.array([0, 1, 2, 0], np.float32))
    section = ENCODINGS["gap4"].write([weight], key)
    for name in ("tables", "starts", "kept"):
        less = Section(initializers=[t for t in section.initializers if t.name != key.prefix + name], nodes=section.nodes)
        with pytest.raises(ModelError, match="lack a part"):
            ENCODINGS["gap4"].read(less, key, Room(left_bytes=2**30))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_the_command_and_the_recipe_know_every_form(
    make_small_net: Make, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(make_small_net(0.7), tmp_path / "in.onnx")
    assert main(["pack", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--values", form]) == 0
    assert f"{form}: weights differ by at most " in capsys.readouterr().out
    assert ExportTable(values=("float32", form)).of(form).values == form
    with pytest.raises(ValueError, match=f"'{form}' rounds the weights that are packed; set pack"):
        ExportTable(values=(form,), pack="never")
    assert {*FORMS, "float32", "float16"} == set(get_args(reports.PackValues)) == set(get_args(Values)) - {"int8"}

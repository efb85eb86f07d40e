import gzip
import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.bench.inputs import check_given_inputs, check_same_inputs, random_inputs
from tdcompress.bench.modelfile import InputSpec, ModelFile, count_denormals, read_model_file
from tdcompress.errors import ModelError, UnsupportedError, UserError


def model_file(tmp_path, *inputs: tuple[str, int, tuple[int | None, ...] | None]) -> ModelFile:
    specs = tuple(InputSpec(name=name, element_type=kind, shape=shape) for name, kind, shape in inputs)
    return ModelFile(path=tmp_path / "model.onnx", sha256="", bytes=0, gzip_bytes=0, denormals=0, full_range=0, inputs=specs)


def test_facts_of_a_file(make_model):
    path = make_model(tiny_weights=5)
    facts = read_model_file(path)
    data = path.read_bytes()
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert facts.bytes == len(data)
    assert len(gzip.compress(data)) - 40 < facts.gzip_bytes < len(data) + 40
    assert facts.denormals == 5
    assert facts.inputs == (InputSpec(name="input", element_type=TensorProto.FLOAT, shape=(None, 4)),)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        (np.array([0.0, -0.0, 1.0, 1e-38, -1e-39, 1.4e-45], np.float32), 3),  # the smallest normal is 1.18e-38
        (np.array([1e-39, 5e-324], np.float64), 1),
        (np.array([6e-8], np.float16), 0),  # computed in float32, where it is normal
        (np.array([1], np.int8), 0),
    ],
)
def test_denormals_are_counted_per_type(values, count):
    assert count_denormals(numpy_helper.from_array(values)) == count


def test_weights_beside_the_model_count_and_those_elsewhere_are_refused(make_model, tmp_path):
    path, beside = tmp_path / "outside.onnx", tmp_path / "weights.bin"
    onnx.save_model(onnx.load(make_model(hidden=64)), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelError, match="external_data=True"):
        read_model_file(path)
    file = read_model_file(path, external_data=True)
    assert file.bytes == path.stat().st_size + beside.stat().st_size
    assert file.gzip_bytes > beside.stat().st_size / 2
    changed = bytearray(beside.read_bytes())
    changed[0] ^= 1
    beside.write_bytes(changed)
    assert read_model_file(path, external_data=True).sha256 != file.sha256
    beside.rename(tmp_path / "elsewhere.bin")
    with pytest.raises(ModelError, match="not a file beside the model"):
        read_model_file(path, external_data=True)


def test_what_is_wrong_with_weights_and_inputs_is_said_with_the_file(tmp_path):
    tensor = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])

    def save(name, given, weight):
        node = helper.make_node("SequenceAt" if name == "sequence" else "MatMul", [given.name, weight.name], ["y"])
        graph = helper.make_graph([node], "g", [given], [tensor], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / f"{name}.onnx")
        return tmp_path / f"{name}.onnx"

    matrix, x = np.eye(2, dtype=np.float32), helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 2])
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["n", 2])
    with pytest.raises(UnsupportedError, match=r"sequence\.onnx: its input 'x' is no tensor, and is not timed"):
        read_model_file(save("sequence", sequence, numpy_helper.from_array(np.array(0), "w")))
    with pytest.raises(ModelError, match=r"edited\.onnx: 'tdc1\.' looks like a packed weight"):
        read_model_file(save("edited", x, numpy_helper.from_array(matrix, "tdc1.")))
    open_axis = read_model_file(save("open", x, numpy_helper.from_array(matrix, "w")))
    assert open_axis.inputs == (InputSpec(name="x", element_type=TensorProto.FLOAT, shape=(None, 2)),)


def test_things_that_are_no_model_are_refused(tmp_path):
    page = tmp_path / "page.onnx"
    page.write_text("<html>not found</html>")
    with pytest.raises(ModelError, match="not a model"):
        read_model_file(page)


def test_random_inputs_have_the_models_types_and_the_batch(tmp_path):
    file = model_file(
        tmp_path,
        ("image", TensorProto.FLOAT, (None, 3, 2, 2)),
        ("pixels", TensorProto.UINT8, (None, 500)),
        ("half", TensorProto.FLOAT16, (7, 2)),
        ("tokens", TensorProto.INT64, (None, 50)),
    )
    made = random_inputs(file, 7, np.random.default_rng(0))
    assert {name: (array.dtype.name, array.shape) for name, array in made.items()} == {
        "image": ("float32", (7, 3, 2, 2)),
        "pixels": ("uint8", (7, 500)),
        "half": ("float16", (7, 2)),
        "tokens": ("int64", (7, 50)),
    }
    assert made["pixels"].min() == 0
    assert made["pixels"].max() == 255
    assert set(made["tokens"].ravel()) == {0, 1}
    again = random_inputs(file, 7, np.random.default_rng(0))
    assert all(np.array_equal(made[name], again[name]) for name in made)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (("x", TensorProto.FLOAT, (None, None)), ModelError, r"'x' \(float, \?x\?\) leaves more open than the batch"),
        (("x", TensorProto.FLOAT, None), ModelError, "any shape"),
        (("x", TensorProto.FLOAT, (3, 4)), ModelError, "fixes the batch size; ask for batch 3"),
        (("x", TensorProto.FLOAT, (0, 4)), ModelError, "fixes the batch size; export it with the size that its inputs have"),
        (("x", TensorProto.STRING, (None, 4)), UnsupportedError, r"no random data for 'x' \(string, \?x4\); give its inputs"),
    ],
)
def test_random_inputs_refuse_what_they_would_have_to_guess(tmp_path, spec, error, message):
    with pytest.raises(error, match=message):
        random_inputs(model_file(tmp_path, spec), 1, np.random.default_rng(0))


def test_random_inputs_have_the_shapes_asked_for(tmp_path):
    specs = ("image", TensorProto.FLOAT, (None, 3, None, None)), ("mask", TensorProto.UINT8, None)
    file = model_file(tmp_path, *specs)
    made = random_inputs(file, 2, np.random.default_rng(0), [(2, 3, 8, 6), (2, 5)])
    assert {name: array.shape for name, array in made.items()} == {"image": (2, 3, 8, 6), "mask": (2, 5)}
    for shapes, said in (
        ([(2, 3, 8, 6)], "1 shapes are given; give one, like 1x3x224x224, for each of image, mask"),
        ([(2, 4, 8, 6), (2, 5)], r"asked for is 'image' \(float, 2x4x8x6\), but .* takes 'image' \(float, \?x3x\?x\?\)"),
        ([(1, 3, 8, 6), (2, 5)], "but the batch size is 2"),
    ):
        with pytest.raises(UserError, match=said):
            random_inputs(file, 2, np.random.default_rng(0), shapes)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"other": np.zeros((2, 4), np.float32)}, "given for"),
        ({"input": np.zeros((2, 4), np.float64)}, "double, 2x4"),
        ({"input": np.zeros((2, 5), np.float32)}, "float, 2x5"),
        ({"input": np.zeros((3, 4), np.float32)}, "3 examples, but the batch size is 2"),
        ({"input": np.zeros((2, 4), ">f4")}, "input 'input' is an array of '>f4', which no ONNX file takes: convert it"),
        ({"input": np.zeros((2, 4), "M8[D]")}, r"input 'input' is an array of '<M8\[D\]', which no ONNX file takes"),
    ],
)
def test_given_inputs_are_checked(tmp_path, inputs, message):
    file = model_file(tmp_path, ("input", TensorProto.FLOAT, (None, 4)))
    with pytest.raises(UserError, match=message):
        check_given_inputs(file, inputs, 2)


def test_texts_of_python_become_an_array_that_travels(tmp_path):
    file = model_file(tmp_path, ("words", TensorProto.STRING, (None,)))
    given = check_given_inputs(file, {"words": np.array(["a", "grün"], dtype=object)}, 2)["words"]
    assert (given.dtype, given.tolist()) == (np.dtype("<U4"), ["a", "grün"])


def test_given_inputs_of_an_open_shape_are_taken(tmp_path):
    file = model_file(tmp_path, ("input", TensorProto.FLOAT, (None, None)))
    given = {"input": np.ones((2, 9), np.float32)}
    assert np.array_equal(check_given_inputs(file, given, 2)["input"], given["input"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([("other", TensorProto.FLOAT, (None, 4))], "compare files of the same network"),
        ([("input", TensorProto.UINT8, (None, 4))], "uint8"),
        ([("input", TensorProto.FLOAT, (None, 5))], "5"),
        ([("input", TensorProto.FLOAT, (None, 4)), ("mask", TensorProto.BOOL, (None,))], "takes 2 inputs"),
    ],
)
def test_files_with_other_inputs_than_the_baselines_are_refused(tmp_path, inputs, message):
    dense = model_file(tmp_path, ("input", TensorProto.FLOAT, (None, 4)))
    with pytest.raises(ModelError, match=message):
        check_same_inputs(dense, [dense, model_file(tmp_path, *inputs)])


def test_a_fixed_size_fits_an_open_one(tmp_path):
    dense = model_file(tmp_path, ("input", TensorProto.FLOAT, (None, 4)))
    check_same_inputs(dense, [model_file(tmp_path, ("input", TensorProto.FLOAT, (1, 4)))])


def test_inputs_that_are_also_weights_are_not_asked_for(tmp_path):
    weight = numpy_helper.from_array(np.ones((4,), np.float32), "weight")
    value = helper.make_tensor_value_info("weight", TensorProto.FLOAT, (4,))
    data = helper.make_tensor_value_info("input", TensorProto.FLOAT, ("n", 4))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ("n", 4))
    graph = helper.make_graph([helper.make_node("Add", ["input", "weight"], ["output"])], "g", [data, value], [output], [weight])
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    assert [spec.name for spec in read_model_file(path).inputs] == ["input"]

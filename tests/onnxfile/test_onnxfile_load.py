"""Loading: what is not a model is refused in one line; saving: complete or not at all, same bytes each time."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.onnxfile import load
from tdcompress.onnxfile.load import load_model, opset, save_model


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"TDCPLAN\n" + bytes(100), "docs/c.md"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04rest", "zip archive .* or a torch checkpoint"),
        (b"\x80\x02}q\x00.", "a pickle, perhaps an old torch checkpoint"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08rest", "gzipped"),
        (b"\x00\x01\x02 some bytes", "not a model"),
        (b"plain text", "not a model"),
        (b"\x08\x07", "no graph"),
    ],
)
def test_what_is_not_a_model(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path, make_small_net: Callable[..., onnx.ModelProto]) -> None:
    whole = make_small_net().SerializeToString()
    path = tmp_path / "m.onnx"
    for length in [*range(0, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            load_model(path)


def test_no_such_file_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "none.onnx")
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(ModelError, match=r"m\.onnx: is a folder, not an ONNX file"):
        load_model(tmp_path / "m.onnx")


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_small_net: Callable) -> None:
    save_model(make_small_net(), tmp_path / "m.onnx")
    monkeypatch.setattr(load, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ModelError, match="more than one ONNX file can hold"):
        load_model(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="at most 1000"):
        save_model(make_small_net(), tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


def relu(**changes: object) -> onnx.ModelProto:
    node = helper.make_node(str(changes.get("op", "Relu")), ["x"], ["y"], domain=str(changes.get("domain", "")), name="n")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    imports = [helper.make_opsetid("", int(changes.get("opset", 17)))]  # type: ignore[call-overload]
    if changes.get("domain"):
        imports.append(helper.make_opsetid(str(changes["domain"]), 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "Relux"}, "unknown operator 'Relux'"),
        ({"domain": "my.company", "op": "Fancy"}, "'Fancy' is of the unknown domain 'my.company'"),
        ({"opset": 9999}, "operator set 9999 is newer"),
    ],
)
def test_unknown_operators_are_refused_by_name(tmp_path: Path, changes: dict, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(relu(**changes).SerializeToString())
    with pytest.raises(UnsupportedError, match=message):
        load_model(tmp_path / "m.onnx")


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(relu().SerializeToString().replace(b"Relu", b"Rel\xff"))
    with pytest.raises(ModelError, match="not text"):
        load_model(tmp_path / "m.onnx")


def test_a_graph_that_uses_an_undefined_value_is_refused(tmp_path: Path) -> None:
    model = relu()
    model.graph.node[0].input[0] = "nowhere"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(tmp_path / "m.onnx")


def test_contrib_operators_are_known(tmp_path: Path) -> None:
    save_model(relu(domain="com.microsoft", op="Gelu"), tmp_path / "m.onnx")
    assert opset(load_model(tmp_path / "m.onnx")) == 17


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "none.bin", "", "."])
def test_external_data_stays_beside_the_model(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    model = relu()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="not a file beside the model"):
        load_model(folder / "m.onnx", external_data=True)


@pytest.mark.parametrize(
    ("location", "accepted"),
    [("w.bin", True), ("./w.bin", True), ("sub/../w.bin", True), ("../models/w.bin", False), ("sub/../../models/w.bin", False)],
)
def test_a_path_that_leaves_the_folder_is_refused_though_it_comes_back(tmp_path: Path, location: str, accepted: bool) -> None:
    """As onnx itself does, whose check of a file on disk is asked here too."""
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    (folder / "w.bin").write_bytes(bytes(4))
    model = relu()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    if accepted:
        onnx.checker.check_model(str(folder / "m.onnx"))
        assert load_model(folder / "m.onnx", external_data=True).graph.initializer[-1].raw_data == bytes(4)
        return
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(str(folder / "m.onnx"))
    with pytest.raises(ModelError, match="not a file beside the model"):
        load_model(folder / "m.onnx", external_data=True)


def test_links_of_a_cache_are_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    """HuggingFace's cache has links to files that are called after their content."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    model = relu()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    for folder in (blobs, snapshot):
        folder.mkdir()
    for name, content, blob in (("m.onnx", model.SerializeToString(), "1f"), ("w.bin", bytes(4), "2e")):
        (blobs / blob).write_bytes(content)
        (snapshot / name).symlink_to(blobs / blob)
    with pytest.raises(ModelError, match=r"not a file beside the model: a link is read .* so copy both into one folder"):
        load_model(snapshot / "m.onnx", external_data=True)


@pytest.mark.parametrize("entry", [("offset", "-1"), ("length", "5"), ("offset", "1000"), ("length", "many")])
def test_external_data_must_lie_in_its_file(tmp_path: Path, entry: tuple[str, str]) -> None:
    model = relu()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    tensor.external_data.add(key=entry[0], value=entry[1])
    (tmp_path / "w.bin").write_bytes(bytes(4))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w'"):
        load_model(tmp_path / "m.onnx", external_data=True)


def test_saving_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, make_small_net: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    n_bytes = save_model(make_small_net(), path)
    before = path.read_bytes()
    assert n_bytes == len(before)
    save_model(make_small_net(), path)
    assert path.read_bytes() == before  # the same model, the same bytes

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ModelError, match="No space left"):
        save_model(make_small_net(0.5), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]

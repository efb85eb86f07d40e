"""The verbs that read ONNX files: what is no model, weights in another file, and what they say of a model."""

import json

import onnx
import pytest
from onnx import helper

NO_MODELS = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("content", NO_MODELS)
def test_files_that_are_no_models(refused, tmp_path, tiny_run, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(NO_MODELS[content])
    for verb in (["inspect", path], ["verify", path], ["pack", path, "o.onnx"], ["unpack", path, "o.onnx"]):
        assert "m.onnx: " in refused(*verb)
    assert "m.onnx" in refused("bench", path, "--baseline", tiny_run / "dense.onnx")
    assert not (tmp_path / "o.onnx").exists()


def test_a_truncated_model(refused, tmp_path, tiny_run):
    path = tmp_path / "m.onnx"
    whole = (tiny_run / "dense.onnx").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for verb in (["inspect", path], ["verify", path], ["pack", path, "o.onnx"]):
        assert "m.onnx: " in refused(*verb)


def test_inspect_as_json(call, tiny_root, tiny_run):
    _, out, _ = call("inspect", tiny_run / "model.onnx", "--json")
    assert json.loads(out)["opset"] == 20
    _, out, _ = call("inspect", "tiny", "--artifacts", tiny_root, "--json")
    assert set(json.loads(out)) == {path.name for path in tiny_run.glob("*.onnx")}


def test_external_data_is_read_only_where_it_is_allowed(refused, call, tiny_run, tmp_path):
    model = onnx.load(tiny_run / "dense.onnx")
    one, two, plain = (tmp_path / name for name in ("one.onnx", "two.onnx", "plain.onnx"))
    onnx.save_model(model, one, save_as_external_data=True, location="one.data", size_threshold=0)
    for verb in (["inspect", one], ["verify", one], ["pack", one, two], ["unpack", one, two]):
        assert "--external-data" in refused(*verb)
        assert not two.exists()
    dense = tiny_run / "dense.onnx"
    for verb in (
        ["inspect", one, "--backend", "engine"],
        ["bench", one, "--baseline", dense],
        ["bench", dense, "--baseline", one],
    ):
        assert "--external-data" in refused(*verb)
    engine = ["inspect", one, "--backend", "engine"]
    for verb in (["inspect", one], engine, ["verify", one], ["unpack", one, plain], ["pack", one, two]):
        call(*verb, "--external-data")
    assert onnx.load(plain) == onnx.load(tiny_run / "dense.onnx")


def test_packing_says_what_it_rounded_and_left_alone(call, tiny_run, tmp_path):
    model = onnx.load(tiny_run / "none-0.5-float32.onnx")
    model.graph.initializer.append(helper.make_tensor("half", onnx.TensorProto.BFLOAT16, [64], [0.0, 1.0] * 32))
    onnx.save(model, tmp_path / "m.onnx")
    _, out, _ = call("pack", tmp_path / "m.onnx", tmp_path / "p.onnx", "--values", "float16")
    wrote, rounded, outputs, left = out.splitlines()
    assert wrote.startswith(f"wrote {tmp_path / 'p.onnx'}: ")
    assert rounded.startswith("float16: weights differ by at most 0.000")
    assert outputs.startswith("float16: outputs on random inputs differ by at most ")
    assert left == "with zeros, but kept dense because element type BFLOAT16 is not packed: half"


def test_a_folder_named_like_a_file(refused, tmp_path):
    (tmp_path / "m.onnx").mkdir()
    assert "m.onnx: a folder without ONNX files" in refused("inspect", tmp_path / "m.onnx")
    for verb in ("pack", "unpack"):
        assert "m.onnx: is a folder, not an ONNX file" in refused(verb, tmp_path / "m.onnx", tmp_path / "p.onnx")
    assert "m.onnx a run's folder?" in refused("verify", tmp_path / "m.onnx", code=1)

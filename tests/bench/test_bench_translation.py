"""A translator is timed as it is used: encoder once, decoder step once a token, of every file the same number of tokens."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from translator_export import encoder_and_step

from tdcompress.bench.backends.onnxruntime import OnnxRuntimeBackend
from tdcompress.bench.benchmark import benchmark
from tdcompress.bench.deployed import check_can_time, first_files, read_deployed, sampled_inputs
from tdcompress.bench.modelfile import read_model_file
from tdcompress.bench.report import BenchReport
from tdcompress.bench.table import times_columns, times_table
from tdcompress.bench.workloads import workload_of
from tdcompress.errors import ModelError, UnsupportedError, UserError
from tdcompress.models.transformer import Transformer
from tdcompress.npz import write_npz
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.pack import pack_model
from tdcompress.text.vocabulary import END

SENTENCES = np.array([[4, END, 0, 0, 0], [4, 5, 6, 7, END], [8, 9, END, 0, 0]])
TASK = "translation"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as far as a benchmark looks at it: a dense translator, a packed one, and samples."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    net = Transformer(40, 16, 32, 2, 1, 1, 0.0, False, True, False).eval()
    encoder, step = encoder_and_step(net, torch.tensor([[4, 5, 6, END], [7, 8, END, 0]]), torch.tensor([2, 2]))
    set_metadata(encoder, {"task": TASK})
    for name, change in (("dense", lambda model: model), ("half", lambda model: pack_model(model, "float16")[0])):
        save_model(change(encoder), folder / f"{name}.onnx")
        save_model(change(step), folder / f"{name}.decoder_step.onnx")
    (folder / "vocabulary.model").write_bytes(b"pieces" * 20)
    write_npz(folder / "samples.npz", {"input": SENTENCES})
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_a_translator_is_three_files(folder: Path) -> None:
    names = ("half.onnx", "half.decoder_step.onnx", "vocabulary.model")
    whole, parts = read_deployed(folder / names[0]), [folder / name for name in names]
    assert whole.bytes == sum(part.stat().st_size for part in parts)
    assert whole.parts == {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    assert whole.gzip_bytes > read_model_file(parts[0]).gzip_bytes + read_model_file(parts[1]).gzip_bytes
    assert whole.sha256 not in whole.parts.values()
    shutil.copy(folder / "dense.decoder_step.onnx", parts[1])
    assert read_deployed(parts[0]).sha256 != whole.sha256  # by any of its files
    assert first_files(sorted(folder.glob("*.onnx"))) == [folder / "dense.onnx", folder / "half.onnx"]
    parts[1].unlink()
    with pytest.raises(ModelError, match=r"half\.decoder_step\.onnx: no such file; the translator .*half\.onnx is not whole"):
        read_deployed(parts[0])


def test_a_file_that_only_says_that_it_translates_is_refused(folder: Path) -> None:
    step = load_model(folder / "dense.decoder_step.onnx")
    set_metadata(step, {"task": TASK})
    save_model(step, folder / "wrong.onnx")
    with pytest.raises(ModelError, match=r"wrong\.onnx: says that it translates, but does not take 'source' alone"):
        read_deployed(folder / "wrong.onnx")


def test_an_export_has_plain_names(folder: Path) -> None:
    (folder / "dense.onnx").rename(folder / "model.onnx")
    (folder / "dense.decoder_step.onnx").rename(folder / "decoder_step.onnx")
    assert list(read_deployed(folder / "model.onnx").parts) == ["model.onnx", "decoder_step.onnx", "vocabulary.model"]


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (1, [[8, 9, END]]),
        (2, [[4, END, 0], [8, 9, END]]),
        (3, [[4, END, 0, 0, 0], [8, 9, END, 0, 0], [4, 5, 6, 7, END]]),
        (4, [[4, END, 0, 0, 0], [8, 9, END, 0, 0], [4, 5, 6, 7, END], [4, END, 0, 0, 0]]),
    ],
)
def test_sentences_of_the_middle_length_are_taken(folder: Path, batch: int, expected: list[list[int]]) -> None:
    found = sampled_inputs(read_deployed(folder / "dense.onnx"), folder / "samples.npz", batch)
    assert {name: array.tolist() for name, array in found.items()} == {"source": expected}
    assert workload_of(TASK).tokens(found) == sum(np.count_nonzero(row) for row in expected)


@pytest.mark.parametrize("key", ["source", "dense.onnx/source", "input"])
def test_samples_are_found_by_the_inputs_name(folder: Path, key: str) -> None:
    dense = read_deployed(folder / "dense.onnx")
    write_npz(folder / "samples.npz", {key: SENTENCES, "half.onnx/source": np.zeros((2, 2), np.int64)})
    assert sampled_inputs(dense, folder / "samples.npz", 1)["source"].tolist() == [[8, 9, END]]
    write_npz(folder / "samples.npz", {"other": SENTENCES})
    with pytest.raises(ModelError, match=r"samples\.npz: not a file of samples: it lacks the arrays 'source'"):
        sampled_inputs(dense, folder / "samples.npz", 1)


def test_each_sentence_gets_as_many_tokens_as_it_has_pieces(folder: Path) -> None:
    calls: Counter[str] = Counter()

    class Counted:
        def __init__(self, path: Path, session: object) -> None:
            self.path, self.session = path, session

        def __getattr__(self, name: str) -> object:
            return getattr(self.session, name)

        def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            calls[self.path.name] += 1
            outputs = self.session.run(names, inputs)  # type: ignore[attr-defined]
            if "token" in inputs:
                outputs[0][:, END] = 1e9  # a network that would say nothing at all
            return outputs  # type: ignore[no-any-return]

    class Backend(OnnxRuntimeBackend):
        def open(self, path: Path, inputs: object) -> object:  # type: ignore[override]
            session = super().open(path, inputs)  # type: ignore[arg-type]
            session.network = Counted(path, session.network)
            return session

    session = workload_of(TASK).open(Backend("CPUExecutionProvider", 1), folder / "dense.onnx", {"source": SENTENCES})  # type: ignore[arg-type]
    assert session.run() == [[END] * 2, [END] * 5, [END] * 3]
    assert calls == {"dense.onnx": 1, "dense.decoder_step.onnx": 5}
    assert session.options["graph_optimization_level"] == "all"
    assert session.options["nodes"] == "" or session.options["nodes"].startswith("encoder: ")


def test_translators_are_timed_in_pairs(folder: Path, short_benchmarks: object) -> None:
    with short_benchmarks():  # type: ignore[operator]
        report = benchmark([folder / "half.onnx"], baseline=folder / "dense.onnx")
    (row,) = report.rows
    assert (row.file, row.tokens, report.control.tokens) == ("half.onnx", 3, 3)
    assert row.bytes == read_deployed(folder / "half.onnx").bytes
    assert row.parts is not None
    assert row.tokens_per_second == pytest.approx(3e9 / row.p50_ns)
    assert report.protocol.call == "a call translates 1 sentence of 3 pieces into as many tokens, by greedy search"
    assert report.protocol.input_shapes == ("source: int64 [1, 3]",)
    assert not report.protocol.random_inputs
    assert BenchReport.from_json(report.to_json()) == report
    lines = times_table(report)
    assert times_columns(report)[-1] == "tokens/s"
    assert [len(line) for line in lines] == [len(times_columns(report))] * 2
    assert lines[1][-1] == f"{row.tokens_per_second:,.0f}"


def test_the_engine_is_timed_on_translators(folder: Path, short_benchmarks: object) -> None:
    with short_benchmarks():  # type: ignore[operator]
        report = benchmark([folder / "half.onnx"], baseline=folder / "dense.onnx", backend="engine", batch=2)
    (row,) = report.rows
    assert row.tokens == report.control.tokens > 2  # of both sentences, whose pieces the vocabulary decides
    assert row.tokens_per_second == pytest.approx(row.tokens * 1e9 / row.p50_ns)


def test_sentences_of_an_asked_length_need_no_samples(folder: Path, short_benchmarks: object) -> None:
    (folder / "samples.npz").unlink()
    with pytest.raises(UserError, match=r"dense\.onnx: no samples\.npz lies beside it; say how long .*--shape 2x20"):
        benchmark([folder / "half.onnx"], baseline=folder / "dense.onnx", batch=2)
    with short_benchmarks():  # type: ignore[operator]
        report = benchmark([folder / "half.onnx"], baseline=folder / "dense.onnx", batch=2, shapes=[(2, 7)])
    assert report.rows[0].tokens == 14
    assert report.protocol.random_inputs
    with pytest.raises(UserError, match="the batch size is 2"):
        benchmark([folder / "half.onnx"], baseline=folder / "dense.onnx", batch=2, shapes=[(1, 7)])


@pytest.mark.parametrize("backend", ["null", "deepsparse", "openvino"])
def test_backends_that_keep_to_their_inputs_are_refused(folder: Path, backend: str) -> None:
    with pytest.raises(
        UnsupportedError, match=f"backend '{backend}' cannot time translations, whose inputs grow .*; use onnxruntime or engine"
    ):
        benchmark([folder / "half.onnx"], baseline=folder / "dense.onnx", backend=backend)
    check_can_time(backend, None)  # one file is no matter

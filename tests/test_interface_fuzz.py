"""Whatever the public interface is given, it works or says in one of our errors what is wrong; nothing else comes out of it.

Each argument of each public function takes every value of a pool of wrong things in turn, the others being right.
"""

import copy
import inspect
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ArgumentError, TdcompressError

Arguments = dict[str, Any]


def network() -> nn.Module:
    """Everything that the functions look at, as small as it can be."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that lazy modules may change
        return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4))


@cache
def compiled(how: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "traced":
            return torch.jit.trace(network().eval(), images())  # type: ignore[no-any-return, no-untyped-call]
        return torch.jit.script(network().eval())  # type: ignore[no-any-return]


def traced() -> nn.Module:
    return copy.deepcopy(compiled("traced"))


def scripted() -> nn.Module:
    return copy.deepcopy(compiled("scripted"))


class Variadic(nn.Module):
    """A forward that names none of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, *xs: Tensor) -> Tensor:
        result: Tensor = self.inner(xs[0])
        return result


class NamelessOutput(nn.Module):
    """Returns a dict with an empty key."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"": self.inner(x)}


class Failing(nn.Module):
    """Its forward raises what no library does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        raise LookupError("nothing here")


POOL: Mapping[str, Callable[[Path], object]] = {
    "None": lambda _: None,
    "3": lambda _: 3,
    "-1": lambda _: -1,
    "10^30": lambda _: 10**30,
    "0": lambda _: 0,
    "0.5": lambda _: 0.5,
    "nan": lambda _: float("nan"),
    "inf": lambda _: float("inf"),
    "True": lambda _: True,
    "text": lambda _: "half",
    "empty text": lambda _: "",
    "zero byte": lambda _: "a\0b",
    "bytes": lambda _: b"bytes",
    "[]": lambda _: [],
    "[1]": lambda _: [1],
    "[-1]": lambda _: [-1],
    "['a']": lambda _: ["a"],
    "{}": lambda _: {},
    "{'a': 1}": lambda _: {"a": 1},
    "{1: {}}": lambda _: {1: {}},
    "tensor without entries": lambda _: torch.zeros(0, 3, 8, 8),
    "meta tensor": lambda _: torch.zeros(4, 3, 8, 8, device="meta"),
    "whole numbers": lambda _: torch.ones(4, 3, 8, 8, dtype=torch.int64),
    "scalar": lambda _: torch.tensor(1.0),
    "sparse tensor": lambda _: torch.ones(4, 3).to_sparse(),
    "array": lambda _: np.ones((4, 3, 8, 8), np.float32),
    "module": lambda _: network(),
    "module without parameters": lambda _: nn.ReLU(),
    "lazy module": lambda _: lazy(),
    "meta module": lambda _: network().to("meta"),
    "traced module": lambda _: traced(),
    "scripted module": lambda _: scripted(),
    "varargs": lambda _: Variadic(),
    "empty key": lambda _: NamelessOutput(),
    "failing module": lambda _: Failing(),
    "class": lambda _: nn.Linear,
    "function": lambda _: lambda *_, **__: None,
    "object": lambda _: object(),
    "folder": lambda here: here,
    "missing": lambda here: here / "missing" / "file",
    "below a file": lambda here: here / "m.onnx" / "file",
    "zeros in a file": lambda here: here / "zeros",
    "empty file": lambda here: here / "empty",
    "model": lambda here: here / "m.onnx",
}


def shrunk() -> tuple[nn.Module, Any]:
    model = network()
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=images())
    return model, tdc.shrink(model, images())


def masks() -> dict[str, Tensor]:
    return tdc.prune(network(), fraction=0.5)


def narrow_state_arguments(_: Path) -> Arguments:
    model, small = shrunk()
    return {"optimizer": torch.optim.SGD(model.parameters(), 0.1), "before": model, "after": small.model, "kept": small.kept}


def dropout(**more: object) -> Arguments:
    given = {name: each.default for name, each in inspect.signature(tdc.TargetedDropout).parameters.items()}
    return {**given, "model": network(), "gamma": 0.5, **more}


def step(**arguments: Any) -> None:
    tdc.TargetedDropout(network(), gamma=0.5, schedule="ramp").step(**arguments)


def engine(*, feed: Any, output_names: Any, **arguments: Any) -> None:
    tdc.engine.Session(**arguments).run(output_names, feed)


def planned(*, source: Any, shapes: Any) -> None:
    tdc.engine.Session(source).plan(shapes)


def translated(*, run: Any, row: Any, threads: Any, **options: Any) -> None:
    tdc.Translator(run, row=row, threads=threads)(**options)


def refusal(*, sentence: Any) -> None:
    tdc.Translator("model.onnx").refusal(sentence)


BENCH = {"threads": 1, "batch": 1, "backend": "null", "budget": "quick", "seed": 0, "inputs": None, "shapes": [[1, 3, 8, 8]]}
BENCH |= {"external_data": False, "progress": None, "provider": "CPUExecutionProvider"}
BATCH = {"input": np.ones((1, 3, 8, 8), np.float32)}
SHAPES = {"input": [1, 3, 8, 8]}

# what each is called with: the function, and right arguments made anew
CALLS: Mapping[str, tuple[Callable[..., object], Callable[[Path], Arguments]]] = {
    "Cubic": (tdc.Cubic, lambda _: {"epochs": 10.0, "gamma": (0.0, 0.5), "alpha": (0.0, 0.5), "freeze": 0.1}),
    "Ramp": (tdc.Ramp, lambda _: {"epochs": (1.0, 1.0)}),
    "TargetedDropout": (tdc.TargetedDropout, lambda _: dropout()),
    "TargetedDropout of units": (tdc.TargetedDropout, lambda _: dropout(granularity="unit", example_inputs=images())),
    "TargetedDropout.step": (step, lambda _: {"epoch": 0.5, "optimizer": None}),
    "Translator": (
        translated,
        lambda here: ({"run": here / "model.onnx", "row": None, "threads": 1, "sentences": ["one two"], "beam": 2, "alpha": 0.6}),
    ),
    "Translator.refusal": (refusal, lambda _: {"sentence": "one two"}),
    "benchmark": (tdc.benchmark, lambda here: {"files": [here / "m.onnx"], "baseline": here / "m.onnx", **BENCH}),
    "build_model": (tdc.build_model, lambda _: {"name": "mlp", "classes": 4, "image": (3, 8, 8), "seed": 0, "hidden": 8}),
    "engine.Session": (
        engine,
        lambda here: (
            {"source": here / "m.onnx", "threads": 1, "isa": None, "providers": None, "external_data": False}
            | {"feed": BATCH, "output_names": None}
        ),
    ),
    "engine.Session.plan": (planned, lambda here: {"source": here / "m.onnx", "shapes": SHAPES}),
    "engine.explain": (tdc.engine.explain, lambda here: {"source": here / "m.onnx", "isa": None, "shapes": SHAPES}),
    "export_onnx": (
        tdc.export_onnx,
        lambda here: (
            {"model": network(), "example_inputs": images(), "path": here / "o.onnx"} | {"metadata": None, "free_axes": (0,)}
        ),
    ),
    "freeze": (tdc.freeze, lambda _: {"model": network(), "masks": masks()}),
    "load_sparse": (tdc.load_sparse, lambda here: {"path": here / "w.npz"}),
    "load_weights": (tdc.load_weights, lambda here: {"model": network(), "path": here / "w.pth"}),
    "narrow": (tdc.narrow, lambda _: dict(zip(("model", "kept"), (network(), shrunk()[1].kept), strict=True))),
    "narrow_state": (tdc.narrow_state, narrow_state_arguments),
    "pack_onnx": (
        tdc.pack_onnx,
        lambda here: (
            {"src": here / "m.onnx", "dst": here / "p.onnx", "values": "float32", "prefer": "speed"}
            | {"sparse": True, "external_data": False}
        ),
    ),
    "prune": (
        tdc.prune,
        lambda _: (
            {"model": network(), "granularity": "weight", "fraction": 0.5, "keep_per_filter": None, "example_inputs": None}
            | {"exclude": (), "include": (), "scope": "layer", "unit": "whole", "shares": None, "align": 1}
        ),
    ),
    "prune of units": (
        tdc.prune,
        lambda _: (
            {"model": network(), "granularity": "unit", "fraction": 0.5, "example_inputs": images(), "exclude": ()}
            | {"include": (), "scope": "layer", "unit": "whole", "shares": None, "align": 1}
        ),
    ),
    "recalibrate": (tdc.recalibrate, lambda _: {"model": network(), "batches": [images()]}),
    "run": (
        tdc.run,
        lambda here: (
            {"recipe": "cifar10_lenet5_weight", "set": {"data.root": str(here / "missing")}, "artifacts": here / "a"}
            | {"device": "cpu", "replace": False, "wait": False}
        ),
    ),
    "save_sparse": (tdc.save_sparse, lambda here: {"model": network(), "path": here / "s.npz"}),
    "shrink": (tdc.shrink, lambda _: {"model": network(), "example_inputs": images(), "align": 1}),
    "unpack_onnx": (tdc.unpack_onnx, lambda here: {"src": here / "m.onnx", "dst": here / "u.onnx", "external_data": False}),
    "verify": (tdc.verify, lambda here: {"path": here / "m.onnx", "say": lambda _: None, "external_data": False}),
}


CALLED = ("progress", "say")  # what the caller's own function raises is the caller's


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, words_root: Path) -> Path:
    here = tmp_path_factory.mktemp("files")
    for name in ("model.onnx", "model.decoder_step.onnx", "vocabulary.model"):
        shutil.copy(words_root / "artifacts" / "words" / name, here)
    tdc.export_onnx(network(), images(), here / "m.onnx")
    tdc.save_sparse(network(), here / "w.npz")
    torch.save(network().state_dict(), here / "w.pth")
    (here / "zeros").write_bytes(bytes(100))
    (here / "empty").write_bytes(b"")
    return here


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, in which to be while a function writes where it is told."""
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_name_of_the_interface_is_called() -> None:
    called = {name.split(".")[0].split(" ")[0] for name in CALLS}
    assert called == set(tdc.__all__) - {"Schedule"}  # abstract: what users derive their own from


@pytest.mark.parametrize("name", CALLS)
def test_the_right_arguments_are_right(
    here: Path, name: str, short_benchmarks: Callable[[], AbstractContextManager[None]]
) -> None:
    function, arguments = CALLS[name]
    with short_benchmarks():
        if name == "run":
            with pytest.raises(TdcompressError, match="missing"):
                function(**arguments(here))
        else:
            function(**arguments(here))


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_refused_in_our_words(
    here: Path, name: str, short_benchmarks: Callable[[], AbstractContextManager[None]]
) -> None:
    function, arguments = CALLS[name]
    right = arguments(here)
    escaped = []
    for argument in right:
        for wrong, make in POOL.items():
            given = {**copy.deepcopy(right), argument: make(here)}  # as one: an optimizer's parameters stay its model's
            if argument in CALLED and callable(given[argument]):
                continue
            try:
                with short_benchmarks(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    function(**given)
            except TdcompressError as error:
                if "\n" in str(error) or not str(error):
                    escaped.append(f"{argument} = {wrong}: not one line: {error}")
            except Exception as error:
                escaped.append(f"{argument} = {wrong}: {type(error).__name__}: {str(error)[:200]}")
    assert not escaped, "\n".join(escaped)


def refused(call: Callable[[], object]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TdcompressError) as told:
            call()
    return str(told.value)


SAID: Mapping[str, Callable[[Path], object]] = {
    "prune: fraction has to be a number or None, and is 'half'": lambda _: tdc.prune(network(), fraction="half"),  # type: ignore[arg-type]
    "prune: exclude has to be a list of texts, and is '0'": lambda _: tdc.prune(network(), fraction=0.5, exclude="0"),
    "prune: granularity has to be 'weight', 'unit', '2:4' or '1x4', and is 'units'; did you mean 'unit'?": lambda _: tdc.prune(
        network(), granularity="units"
    ),  # type: ignore[arg-type]
    "freeze: masks has to be a mapping of texts to tensors or None, and is a list": lambda _: tdc.freeze(network(), [1]),  # type: ignore[arg-type]
    "freeze: masks['0.weight'] has to be a tensor, and is 3": lambda _: tdc.freeze(network(), {"0.weight": 3}),  # type: ignore[dict-item]
    "TargetedDropout: schedule has to be 'constant', 'ramp' or 'cubic', a Schedule or None, and is 3": lambda _: (
        tdc.TargetedDropout(network(), gamma=0.5, schedule=3)  # type: ignore[arg-type]
    ),
    "Ramp: epochs has to be a list of 2 numbers, and is 3": lambda _: tdc.Ramp(epochs=3),  # type: ignore[arg-type]
    "model mlp: hidden has to be a whole number, and is 'many'": lambda _: tdc.build_model("mlp", classes=2, hidden="many"),
    "free_axes: -1 is no axis of the inputs (4, 3, 8, 8); an axis is 0 (the batch) to 3": lambda here: tdc.export_onnx(
        network(), images(), here / "o.onnx", free_axes=(-1,)
    ),
    "free_axes: 7 is no axis of the inputs (4, 3, 8, 8); an axis is 0 (the batch) to 3": lambda here: tdc.export_onnx(
        network(), images(), here / "o.onnx", free_axes=(0, 7)
    ),
    "export_onnx: free_axes has to be a list of whole numbers, and is 7": lambda here: tdc.export_onnx(
        network(),
        images(),
        here / "o.onnx",
        free_axes=7,  # type: ignore[arg-type]
    ),
    "export_onnx: model has to be a torch.nn.Module, and is the class Linear": lambda here: tdc.export_onnx(
        nn.Linear,  # type: ignore[arg-type]
        images(),
        here / "o.onnx",
    ),
    "export_onnx: path has to name a file or folder, and is ''": lambda _: tdc.export_onnx(network(), images(), ""),
    "{here}: is a folder; name the file to write": lambda here: tdc.save_sparse(network(), here),
    "example_inputs: the first has shape (0, 3, 8, 8), which holds no example: give a batch (B, ...)": lambda _: tdc.shrink(
        network(), torch.zeros(0, 3, 8, 8)
    ),
    "0.weight of Sequential has no shape yet: run the network once, so that its lazy layers are made": lambda _: tdc.shrink(
        lazy(), images()
    ),
    "the model is a TorchScript program, whose layers cannot be changed: give the module it is made of": lambda _: tdc.prune(
        traced(), fraction=0.5
    ),
    "0.weight of Sequential is on the meta device and has no values: load its weights first": lambda _: tdc.recalibrate(
        network().to("meta"), [images()]
    ),
    "batches has to be a list of what the model takes, [x1, x2, ...], and is a Tensor": lambda _: tdc.recalibrate(
        network(), images()
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_a_message_names_the_argument_what_it_is_and_what_it_has_to_be(here: Path, said: str) -> None:
    assert refused(lambda: SAID[said](here)) == said.replace("{here}", str(here))


def test_an_error_of_an_argument_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match=r"fraction = 1\.5: it has to lie in 0\.\.1"):
        tdc.prune(network(), fraction=1.5)
    assert issubclass(ArgumentError, TdcompressError)


def test_what_python_refuses_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"prune\(\) got an unexpected keyword argument 'share'"):
        tdc.prune(network(), share=0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        tdc.shrink(network())  # type: ignore[call-arg]


def test_numbers_of_other_libraries_are_numbers() -> None:
    masks = tdc.prune(network(), fraction=np.float32(0.5))  # type: ignore[arg-type]
    assert masks["0.weight"].sum() == 14 * 8  # of 27 weights of each of 8 filters
    assert tdc.build_model("mlp", classes=np.int64(3)).head.out_features == 3  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("free_axes", [(0,), ()])
def test_inputs_without_names_and_outputs_without_names_are_exported(tmp_path: Path, free_axes: tuple[int, ...]) -> None:
    for model, outputs in ((Variadic(), ["output"]), (NamelessOutput(), ["output_0"])):
        tdc.export_onnx(model, images(), tmp_path / "o.onnx", free_axes=free_axes)
        session = ort.InferenceSession(tmp_path / "o.onnx")
        assert [each.name for each in session.get_outputs()] == outputs

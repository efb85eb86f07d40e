"""Given weights in files of any usual form; a head with other classes starts anew; nothing else is taken."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ModelError


def network(classes: int = 3, seed: int = 0, width: int = 4) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(4 * width, classes))


def given() -> dict[str, Tensor]:
    return network(seed=1).state_dict()


def prefixed(prefix: str, **more: Tensor) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in given().items()} | more


FORMS: dict[str, Callable[[], Any]] = {
    "bare": given,
    "module": lambda: prefixed("module."),
    "compiled": lambda: prefixed("_orig_mod.module."),
    "checkpoint": lambda: {"epoch": 3, "state_dict": prefixed("module."), "optimizer": {"state": {}, "param_groups": []}},
    "reference": lambda: {"model": given(), "lr_scheduler": {"last_epoch": 4}, "epoch": 1},
    "nested": lambda: {"state_dict": {"model_state_dict": given()}},
    "half": lambda: {name: value.half() if value.is_floating_point() else value for name, value in given().items()},
    "uncounted": lambda: {name: value for name, value in given().items() if "num_batches" not in name},
    "parameters": lambda: {n: nn.Parameter(v, v.is_floating_point()) for n, v in given().items()},
    "targeted": lambda: tdc.TargetedDropout(network(seed=1), gamma=0.5).state_dict(),
}  # fmt: skip


def loaded_right(model: nn.Module, tolerance: float = 0.0) -> bool:
    expected = given()
    found = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    return all(torch.allclose(value, expected[name], rtol=tolerance, atol=tolerance) for name, value in found.items())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_torch_files_of_every_usual_form(tmp_path: Path, form: str, legacy: bool) -> None:
    torch.save(FORMS[form](), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    model = network()
    assert tdc.load_weights(model, tmp_path / "w.pth") == ()
    assert loaded_right(model, 1e-3 if form == "half" else 0.0)
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_whatever_the_name(tmp_path: Path, prefix: str) -> None:
    save_file(prefixed(prefix), tmp_path / "w.bin")
    model = network()
    assert tdc.load_weights(nn.DataParallel(model), tmp_path / "w.bin") == ()
    assert loaded_right(model)


@pytest.mark.parametrize("classes", [2, 10])
def test_a_head_of_other_classes_starts_anew_and_is_named(tmp_path: Path, classes: int, caplog) -> None:
    torch.save(given(), tmp_path / "w.pth")
    model, fresh = network(classes), network(classes).state_dict()
    assert tdc.load_weights(model, tmp_path / "w.pth") == ("3.weight", "3.bias")
    assert caplog.messages == [f"w.pth: its head has 3 outputs, this one {classes}: 3.weight, 3.bias start anew"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh[name] if name.startswith("3.") else given()[name]), name


class TwoHeads(nn.Module):
    def __init__(self, classes: int, other: int) -> None:
        super().__init__()
        self.body, self.aux = nn.Linear(4, 6), nn.Linear(6, other)
        self.head = nn.Conv2d(6, classes, 1)


def test_auxiliary_heads_go_with_the_head(tmp_path: Path) -> None:
    torch.save(TwoHeads(5, 5).state_dict(), tmp_path / "w.pth")
    assert tdc.load_weights(TwoHeads(3, 3), tmp_path / "w.pth") == ("aux.weight", "aux.bias", "head.weight", "head.bias")
    with pytest.raises(ModelError, match=r"aux\.weight is \(5, 6\), here \(4, 6\): the weights are of another network"):
        tdc.load_weights(TwoHeads(3, 4), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"aux\.weight is \(5, 6\), here \(4, 6\)"):
        tdc.load_weights(TwoHeads(5, 4), tmp_path / "w.pth")  # its head is the same


def test_what_the_file_holds_besides_is_named(tmp_path: Path, caplog) -> None:
    torch.save(given() | {"aux.weight": torch.ones(1)}, tmp_path / "w.pth")
    model = network()
    assert tdc.load_weights(model, tmp_path / "w.pth") == ()
    assert loaded_right(model)
    assert caplog.messages == ["w.pth: not of this Sequential, and left out: aux.weight"]


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in given().items() if key != name}


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "missing": (lambda: without("1.weight"), r"w\.pth lacks 1\.weight of this Sequential; it has 0\.weight, 0\.bias, 1\.bias"),
    "other": (lambda: {"a": torch.ones(1)}, r"lacks 0\.weight, 0\.bias, 1\.weight and 5 more of this Sequential; it has a"),
    "wide": (lambda: network(width=5).state_dict(), r"0\.weight is \(5, 1, 3, 3\), here \(4, 1, 3, 3\): the weights are of"),
    "nan": (lambda: given() | {"1.running_var": torch.ones(4) / 0}, r"1\.running_var has values that are NaN or infinite"),
    "quantised": (lambda: given() | {"0.bias": torch.ones(4, dtype=torch.int8)}, r"0\.bias is torch\.int8, here torch\.float"),
    "list": (lambda: [1, 2], "is no state_dict: it holds a list"),
    "tensor": (lambda: torch.ones(2), "is no state_dict: it holds a Tensor"),
    "empty": (dict, "is no state_dict: it is empty"),
    "optimizer": (lambda: {"state": {}, "param_groups": []}, "is no state_dict: it holds state, param_groups, where names"),
    "mixed": (lambda: given() | {"epoch": 3}, r"is no state_dict: it holds 0\.weight, 0\.bias, 1\.weight and 7 more"),
    "module": (network, r"holds more than weights, .*: a torch\.nn\.modules\.container\.Sequential\. Where it was made, save"),
    "namespace": (lambda: {"model": given(), "args": argparse.Namespace()}, r"could run code: a argparse\.Namespace"),
}


@pytest.mark.parametrize("case", WRONG)
def test_anything_else_is_refused_and_changes_nothing(tmp_path: Path, case: str) -> None:
    make, message = WRONG[case]
    torch.save(make(), tmp_path / "w.pth")
    model = network()
    with pytest.raises(ModelError, match=message):
        tdc.load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(value, network().state_dict()[name]) for name, value in model.state_dict().items())


def test_values_beyond_the_networks_type_are_refused(tmp_path: Path) -> None:
    torch.save(given() | {"1.running_var": torch.full((4,), 70_000.0)}, tmp_path / "w.pth")
    assert tdc.load_weights(network(), tmp_path / "w.pth") == ()
    half = network().half()
    with pytest.raises(ModelError, match=r"w\.pth: 1\.running_var has values beyond torch\.float16, which it has here"):
        tdc.load_weights(half, tmp_path / "w.pth")
    assert torch.equal(half[1].running_var, torch.ones(4).half())


class Evil:
    """Its pickle writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_of_a_file_runs(tmp_path: Path, legacy: bool) -> None:
    torch.save(
        {"state_dict": given(), "x": Evil(tmp_path / "ran")}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(ModelError, match="which is not read since that could run code"):
        tdc.load_weights(network(), tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_file_that_was_cut_off(tmp_path: Path, form: str, share: float) -> None:
    path = tmp_path / "w.pth"
    if form == "safetensors":
        save_file(given(), path)
    else:
        torch.save(given(), path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match=r"w\.pth (is|holds|cannot)"):
        tdc.load_weights(network(), path)


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>not found</html>")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (tmp_path / "none.pth").write_bytes(b"")
    for name in ("page", "pointer", "none"):
        with pytest.raises(ModelError, match=rf"{name}\.pth holds no weights, neither safetensors nor torch's: it begins with b"):
            tdc.load_weights(network(), tmp_path / f"{name}.pth")
    with pytest.raises(ModelError, match=r"missing\.pth cannot be read: No such file or directory"):
        tdc.load_weights(network(), tmp_path / "missing.pth")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        tdc.load_weights(network(), tmp_path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_program(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(network().eval(), torch.ones(1, 1, 4, 4)), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt is a TorchScript program\. Where it was made, save the weights alone"):
        tdc.load_weights(network(), tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_weights_go_into_targeted_dropout_which_draws_anew(prefix: str, tmp_path: Path) -> None:
    torch.save(prefixed(prefix), tmp_path / "w.pt")
    net = tdc.TargetedDropout(network(), gamma=0.5, alpha=1.0)
    net.step()
    assert tdc.load_weights(net, tmp_path / "w.pt") == ()
    loaded = network(seed=1)
    assert all(torch.equal(value, given()[name]) for name, value in net.plain().state_dict().items())
    lowest = loaded[0].weight.abs().flatten(1).argsort(1)[:, :4]  # of 9
    assert bool(net.method.dropped()["0.weight"].flatten(1).gather(1, lowest).all())


def test_a_network_made_in_inference_mode_is_refused(tmp_path: Path) -> None:
    torch.save(given(), tmp_path / "w.pt")
    with torch.inference_mode():
        model = network()
    with pytest.raises(ModelError, match=r"Sequential was made in torch\.inference_mode and cannot be changed; build it outside"):
        tdc.load_weights(model, tmp_path / "w.pt")


class TwoNames(nn.Module):
    """A head that stands under two names; ``units`` of another integer type."""

    def __init__(self, classes: int = 3, kind: torch.dtype = torch.int64) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(4, 4), nn.Linear(4, classes)
        self.classifier = self.fc
        self.register_buffer("units", torch.tensor([300]).to(kind))


def test_a_tensor_under_two_names_may_have_one_in_the_file(tmp_path: Path) -> None:
    source, model = TwoNames(), TwoNames()
    for left_out in ("fc", "classifier"):
        nn.init.zeros_(model.fc.weight)
        torch.save({k: v for k, v in source.state_dict().items() if left_out not in k}, tmp_path / "w.pth")
        assert tdc.load_weights(model, tmp_path / "w.pth") == ()
        assert torch.equal(model.fc.weight, source.fc.weight)


def test_a_head_under_two_names_starts_anew(tmp_path: Path) -> None:
    torch.save(TwoNames(5).state_dict(), tmp_path / "w.pth")
    fresh = ("fc.weight", "fc.bias", "classifier.weight", "classifier.bias")
    assert tdc.load_weights(TwoNames(), tmp_path / "w.pth") == fresh


def test_different_values_for_one_tensor_are_refused(tmp_path: Path) -> None:
    torch.save(TwoNames().state_dict() | {"classifier.bias": torch.ones(3)}, tmp_path / "w.pth")
    model = TwoNames()
    before = model.fc.bias.tolist()
    with pytest.raises(ModelError, match=r"w\.pth: fc\.bias and classifier\.bias differ, and are one tensor of this TwoNames"):
        tdc.load_weights(model, tmp_path / "w.pth")
    assert model.fc.bias.tolist() == before


def test_whole_numbers_that_the_networks_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    torch.save(TwoNames().state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"units has values beyond torch\.int8, which it has here; load them into torch\.int64"):
        tdc.load_weights(TwoNames(kind=torch.int8), tmp_path / "w.pth")

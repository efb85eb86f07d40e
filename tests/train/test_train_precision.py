"""What a training computes in: decided by what the device can do, told, recorded, and kept."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import safe_open

from tdcompress.errors import InterruptedRun
from tdcompress.limits import available_cores, usable_cores
from tdcompress.processor import Processor
from tdcompress.train import checkpoint, loop, manner
from tdcompress.train.distributed import World
from tdcompress.train.precision import native_bfloat16, settle_precision, step_seconds
from tdcompress.train.settings import TrainSettings
from tdcompress.train.threads import computing_with, settle_threads

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
AMX = Processor(name="Sapphire Rapids", machine="x86_64", flags=("amx_bf16", "avx2", "avx512_bf16"))
ZEN4 = Processor(name="Zen 4", machine="x86_64", flags=("avx2", "avx512_bf16"))
ZEN3 = Processor(name="Zen 3", machine="x86_64", flags=("avx2",))
M1 = Processor(name="M1", machine="arm64", flags=())


def never(precision):
    raise AssertionError("nothing has to be measured here")


def takes(float32: float, bfloat16: float):
    return {"float32": float32, "bfloat16": bfloat16}.__getitem__


@pytest.mark.parametrize("processor", [AMX, ZEN4])
@pytest.mark.parametrize(
    ("bfloat16", "precision"), [(0.1, "bfloat16"), (1.4, "bfloat16"), (1.5, "bfloat16"), (1.6, "float32"), (31.6, "float32")]
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_it_is_not_slow(processor, bfloat16, precision) -> None:
    found = settle_precision("auto", None, device=CPU, processor=processor, seconds=takes(1.0, bfloat16))
    assert (found.precision, found.warning) == (precision, False)
    assert processor.flags[0] in found.reason or "avx512_bf16" in found.reason


@pytest.mark.parametrize("processor", [ZEN3, M1])
def test_auto_is_float32_elsewhere_and_nothing_is_tried(processor) -> None:
    found = settle_precision("auto", None, device=CPU, processor=processor, seconds=never)
    assert found.precision == "float32"
    assert "no bfloat16 instructions" in found.reason


@pytest.mark.parametrize("native", [True, False])
def test_on_a_gpu_the_gpu_decides(native, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or native)
    found = settle_precision("auto", None, device=CUDA, processor=ZEN3, seconds=takes(1.0, 0.2))
    assert found.precision == ("bfloat16" if native else "float32")
    assert asked == [False]


def test_float32_is_not_said_to_be_asked_for_and_what_is_faster_is_named() -> None:
    said = [settle_precision("float32", None, device=CPU, processor=each, seconds=never).reason for each in (ZEN3, AMX)]
    assert said[0] == "float32, the value of train.precision"
    assert said[1] == said[0] + '; "auto" would take bfloat16, since this processor has amx_bf16'


def test_what_is_asked_for_stays_and_emulation_is_warned_of_with_both_times() -> None:
    assert settle_precision("float32", None, device=CPU, processor=AMX, seconds=never).precision == "float32"
    assert settle_precision("bfloat16", None, device=CPU, processor=AMX, seconds=never).precision == "bfloat16"
    found = settle_precision("bfloat16", None, device=CPU, processor=ZEN3, seconds=takes(2.4, 31.6))
    assert (found.precision, found.warning) == ("bfloat16", True)
    assert "31.6 s in bfloat16 and 2.4 s in float32" in found.reason


@pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_what_has_begun_stays(asked, begun) -> None:
    found = settle_precision(asked, begun, device=CPU, processor=ZEN4, seconds=never)
    assert (found.precision, found.warning) == (begun, False)
    found = settle_precision(asked, begun, device=CPU, processor=ZEN3, seconds=takes(2.4, 31.6))
    assert (found.precision, found.warning) == (begun, begun == "bfloat16")
    assert ("31.6 s in bfloat16 and 2.4 s in float32" in found.reason) == found.warning


def test_flags_of_another_architecture_do_not_count() -> None:
    arm = Processor(name="Neoverse", machine="aarch64", flags=("avx512_bf16",))
    assert not native_bfloat16(CPU, arm)[0]


def test_trying_a_step_leaves_the_network_as_it_was(small) -> None:
    net, batch = small.conv_net(), small.images(32).first(TrainSettings(batch_size=16), World())
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    net.model.eval()
    for precision in ("float32", "bfloat16"):
        assert step_seconds(net.model, batch, device=CPU, precision=precision) > 0
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module.training for module in net.model.modules())


@pytest.fixture
def on(monkeypatch):
    """Train as on another processor, where a step takes these seconds."""

    def on(processor, float32=1.0, bfloat16=1.0):
        monkeypatch.setattr(loop, "read_processor", lambda: processor)
        monkeypatch.setattr(manner, "step_seconds", lambda *args, precision, **more: takes(float32, bfloat16)(precision))

    return on


AUTO = TrainSettings(epochs=2, batch_size=16, precision="auto")


def test_a_training_tells_and_records_what_it_became(small, tmp_path: Path, on) -> None:
    on(ZEN3)
    seen = []
    result = small.run(tmp_path / "float32", settings=AUTO, progress=seen.append)
    assert result.precision == "float32"
    assert "no bfloat16 instructions" in result.notes[0]
    assert {now.precision for now in seen} == {"float32"}
    on(ZEN4)
    result = small.run(tmp_path / "bfloat16", settings=AUTO)
    assert result.precision == "bfloat16"
    assert {line["precision"] for line in small.timeless(tmp_path / "bfloat16")} == {"bfloat16"}
    on(ZEN4, bfloat16=2.0)
    assert small.run(tmp_path / "slow", settings=AUTO).precision == "float32"


def test_the_first_of_several_processes_decides_for_all(small, on, monkeypatch) -> None:
    said = []

    class Together(World):
        def first_says(self, numbers, device):
            said.append(numbers)
            return said[0]

    def settled(rank: int, processor: Processor) -> manner.Manner:
        net, world = small.conv_net(), Together(rank=rank, size=2)
        return manner.settle(AUTO, None, net.model, small.images(16), device=CPU, processor=processor, cores=1, world=world)

    monkeypatch.setattr(manner, "settle_threads", lambda asked, begun, cores: len(said) + 2)
    on(ZEN4)
    first = settled(0, ZEN4)
    second = settled(1, ZEN3)
    assert (first.precision, first.threads) == (second.precision, second.threads) == ("bfloat16", 2)
    assert said[1][1] == 3  # what the second process would have taken
    assert first.notes
    assert not second.notes


def test_bfloat16_by_name_warns_where_it_is_emulated(small, tmp_path: Path, on, caplog) -> None:
    on(ZEN3, 2.4, 31.6)
    with caplog.at_level(logging.WARNING, logger="tdcompress"):
        result = small.run(tmp_path, settings=TrainSettings(epochs=1, batch_size=16, precision="bfloat16"))
    assert result.precision == "bfloat16"
    assert "31.6 s in bfloat16 and 2.4 s in float32" in caplog.text
    assert result.notes[0] in caplog.text


def stop_after(steps: int):
    answers = iter([None] * steps)
    return lambda: next(answers, 15)


def test_a_training_that_goes_on_elsewhere_keeps_precision_and_threads(small, tmp_path: Path, on, caplog) -> None:
    on(ZEN4)
    whole = small.conv_net()
    small.run(tmp_path / "whole", whole, AUTO)
    with pytest.raises(InterruptedRun):
        small.run(tmp_path / "parts", settings=AUTO, should_stop=stop_after(5))
    on(ZEN3, 2.4, 31.6)
    net = small.conv_net(seed=8)
    with caplog.at_level(logging.WARNING, logger="tdcompress"):
        result = small.run(tmp_path / "parts", net, AUTO)
    assert (result.precision, result.resumed_from_step) == ("bfloat16", 5)
    (note,) = result.notes
    assert note.startswith("bfloat16, as the training began, but this processor has no bfloat16 instructions")
    assert note in caplog.text
    assert small.same_bits(whole, net)


def as_on_a_gpu(checkpoints: Path, path: str) -> None:
    """Make of a checkpoint what a GPU of a large machine would have written: nothing else of it knows the device."""
    found = checkpoint.read_newest(checkpoints, dict[str, Any])
    manner_there = found.header["manner"] | {"device": "cuda", "threads": 192}
    header = dict(found.header) | {"manner": manner_there, "path": path}
    checkpoint.write(checkpoints, dataclasses.replace(found, header=header))


@pytest.mark.parametrize("path", ["reference", "fast"])
def test_a_training_begun_on_a_gpu_goes_on_on_a_laptop(small, tmp_path: Path, on, caplog, path) -> None:
    on(ZEN4)
    settings = dataclasses.replace(AUTO, batch_size=20)
    with pytest.raises(InterruptedRun):
        small.run(tmp_path, small.conv_net(dropout=0.0), settings, should_stop=stop_after(4))
    as_on_a_gpu(tmp_path / "checkpoints", path)
    on(ZEN3, 2.4, 31.6)
    with caplog.at_level(logging.WARNING, logger="tdcompress"):
        result = small.run(tmp_path, small.conv_net(seed=8, dropout=0.0), settings)
    assert (result.precision, result.path, result.resumed_from_step, result.steps) == ("bfloat16", path, 4, 10)
    assert result.threads == settle_threads(0, None, available_cores())  # not the 192 of a machine whose threads computed nothing
    assert "begun on cuda, goes on on cpu" in caplog.text
    assert result.notes[-1] in caplog.text
    assert checkpoint.read_newest(tmp_path / "checkpoints", dict[str, Any]).header["manner"]["device"] == "cpu"


def test_a_checkpoint_of_before_devices_were_named_goes_on(small, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRun):
        small.run(tmp_path, settings=AUTO, should_stop=stop_after(3))
    found = checkpoint.read_newest(tmp_path / "checkpoints", dict[str, Any])
    named = {key: value for key, value in found.header["manner"].items() if key != "device"}
    checkpoint.write(tmp_path / "checkpoints", dataclasses.replace(found, header=dict(found.header) | {"manner": named}))
    result = small.run(tmp_path, settings=AUTO)
    assert result.resumed_from_step == 3
    assert len(result.notes) == 1


def test_another_torch_is_told(small, tmp_path: Path, monkeypatch, caplog) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.11.0")
        with pytest.raises(InterruptedRun):
            small.run(tmp_path, settings=AUTO, should_stop=stop_after(3))
    with caplog.at_level(logging.WARNING, logger="tdcompress"):
        result = small.run(tmp_path, settings=AUTO)
    assert result.notes[1].startswith("begun under torch 2.11.0, goes on under")
    assert result.notes[1] in caplog.text


def test_a_checkpoint_says_how_it_was_made(small, tmp_path: Path, on) -> None:
    on(ZEN3)
    small.run(tmp_path, settings=TrainSettings(epochs=1, batch_size=16, precision="auto", threads=1))
    (path, *_) = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["header"])
    assert header["manner"] == {"precision": "float32", "threads": 1, "device": "cpu", "torch": torch.__version__}
    assert checkpoint.read_newest(tmp_path / "checkpoints", dict[str, Any]).header["manner"] == header["manner"]


def test_threads_are_those_asked_for_or_what_the_process_has() -> None:
    assert settle_threads(3, None, 1) == 3
    assert settle_threads(0, 5, 1) == settle_threads(3, 5, 1) == 5
    assert settle_threads(0, None, 1) == 1
    assert settle_threads(0, None, 1000) == torch.get_num_threads()


def test_threads_are_set_for_a_training_and_given_back(small, tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []
    settings = TrainSettings(epochs=1, batch_size=16, threads=before + 1)
    result = small.run(tmp_path, settings=settings, progress=lambda now: seen.append(torch.get_num_threads()))
    assert set(seen) == {before + 1}
    assert result.threads == before + 1
    assert torch.get_num_threads() == before


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), computing_with(before + 2, CPU):
        raise RuntimeError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", None), ("150000 100000", 2), ("10000 100000", 1)])
def test_a_containers_quota_limits_the_threads(tmp_path: Path, quota: str, cores: int | None) -> None:
    for name, text in (("proc/self/cgroup", "0::/box"), ("sys/fs/cgroup/box/cpu.max", quota)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores(tmp_path) == min(cores or usable_cores(), usable_cores())

"""Checkpoints under damage: what is incomplete or altered is never read, and the one before it is used."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tdcompress.train.checkpoint import Checkpoint, read_newest, sweep, write
from tdcompress.train.saved import manifest_path, tensors_path


def at(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        step=step,
        tensors={
            "net/w": torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last),
            "net/count": torch.tensor(step),
            "random/cpu": torch.randint(0, 256, (64,), generator=generator, dtype=torch.uint8),
        },
        header={"counters": {"loss_sum": step / 3}},
    )


def assert_is(found: Checkpoint | None, step: int) -> None:
    assert found is not None
    wanted = at(step)
    assert found.step == step
    assert found.header == wanted.header
    assert found.tensors.keys() == wanted.tensors.keys()
    assert all(torch.equal(found.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_what_is_written_is_read_and_the_newest_two_stay(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert read_newest(folder, dict[str, Any]) is None
    for step in (7, 90, 1000):
        write(folder, at(step))
    assert names(folder) == [f"step-{s:09d}.{end}" for s in (90, 1000) for end in ("json", "safetensors")]
    assert_is(read_newest(folder, dict[str, Any]), 1000)


def test_newest_is_by_step_not_by_time(tmp_path: Path) -> None:
    write(tmp_path, at(20))
    write(tmp_path, at(10))
    assert_is(read_newest(tmp_path, dict[str, Any]), 20)


def test_tied_tensors_are_written(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    write(tmp_path, Checkpoint(step=1, tensors={"net/a": shared, "net/b": shared}, header={}))
    found = read_newest(tmp_path, dict[str, Any])
    assert found is not None
    assert torch.equal(found.tensors["net/a"], found.tensors["net/b"])


def test_any_flipped_bit_is_found_and_the_older_one_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        write(tmp_path, at(step))
    path = tmp_path / "step-000000002.safetensors"
    manifest = path.with_suffix(".json")
    content, seal = path.read_bytes(), manifest.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for target, good in ((path, content), (manifest, seal)):
        for bit in torch.randint(0, 8 * len(good), (60,), generator=generator).tolist():
            damaged = bytearray(good)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            manifest.write_bytes(seal)
            target.write_bytes(damaged)
            with caplog.at_level(logging.WARNING):
                assert_is(read_newest(tmp_path, dict[str, Any]), 1)
            assert "step 2 is damaged" in caplog.text
            caplog.clear()
            assert names(tmp_path) == ["step-000000001.json", "step-000000001.safetensors"]


@pytest.mark.parametrize("length", [0, 1, 8, 100, -1])
def test_a_truncated_one_is_found(tmp_path: Path, length: int) -> None:
    for step in (1, 2):
        write(tmp_path, at(step))
    path = tmp_path / "step-000000002.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert_is(read_newest(tmp_path, dict[str, Any]), 1)


def test_one_under_another_steps_name_is_not_believed(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, at(step))
    for end in ("json", "safetensors"):
        (tmp_path / f"step-000000001.{end}").rename(tmp_path / f"step-000000009.{end}")
    assert_is(read_newest(tmp_path, dict[str, Any]), 2)


def sealed(folder: Path, content: bytes) -> None:
    """Tensors of step 2 whose manifest vouches for them: nobody damaged them, but another version wrote them."""
    tensors_path(folder, 2).write_bytes(content)
    said = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest_path(folder, 2).write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "no JSON|Expecting value"),
        ({}, "no JSON|Expecting value"),
        ({"header": "{"}, "Expecting property name"),
        ({"header": "[" * 200_000}, "nested too deeply"),
        ({"header": "[]"}, "a table is needed"),
        ({"header": '{"step": 2}'}, "names no format"),
        ({"header": '{"step": 2, "format": 2}'}, "format 2, this version reads 3"),
        ({"header": '{"format": 3}'}, "of another step"),
        ({"header": '{"step": 1, "format": 3}'}, "of another step"),
    ],
)
def test_one_of_another_version_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, metadata: dict[str, str] | None, said: str
) -> None:
    write(tmp_path, at(1))
    sealed(tmp_path, save({"net/a": torch.ones(2)}, metadata))
    with caplog.at_level(logging.WARNING):
        assert_is(read_newest(tmp_path, dict[str, Any]), 1)
    assert re.search(rf"step 2 is damaged \(step-000000002\.safetensors.*({said})", caplog.text)


@pytest.mark.parametrize("content", [b"", b"no tensors at all"])
def test_what_is_no_file_of_tensors_is_passed_over(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, at(1))
    sealed(tmp_path, content)
    assert_is(read_newest(tmp_path, dict[str, Any]), 1)


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"bytes": 3}', '{"bytes": "3", "sha256": "x"}', "[" * 200_000])
def test_a_manifest_that_is_none_is_passed_over(tmp_path: Path, manifest: str) -> None:
    for step in (1, 2):
        write(tmp_path, at(step))
    manifest_path(tmp_path, 2).write_text(manifest)
    assert_is(read_newest(tmp_path, dict[str, Any]), 1)


def test_leftovers_of_a_kill_are_swept_and_other_files_are_not(tmp_path: Path) -> None:
    write(tmp_path, at(1))
    for name in ("step-000000002.safetensors", ".step-000000002.safetensors.ab12.tmp", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert_is(read_newest(tmp_path, dict[str, Any]), 1)
    sweep(tmp_path)
    sweep(tmp_path / "absent")
    assert names(tmp_path) == ["notes.txt", "step-000000001.json", "step-000000001.safetensors"]


def test_all_damaged_means_from_the_start(tmp_path: Path) -> None:
    write(tmp_path, at(1))
    (tmp_path / "step-000000001.safetensors").write_bytes(b"")
    assert read_newest(tmp_path, dict[str, Any]) is None


@dataclass(frozen=True, kw_only=True)
class Small:
    loss: float


def test_a_header_that_is_another_record_is_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step, header in ((1, Small(loss=0.5)), (2, {"loss": "low"}), (3, {}), (4, {"loss": 1.0, "extra": 1})):
        write(tmp_path, Checkpoint(step=step, tensors={"w": torch.zeros(1)}, header=header))
        with caplog.at_level(logging.WARNING):
            found = read_newest(tmp_path, Small)
        assert found is not None
        assert (found.step, found.header) == (1, Small(loss=0.5))
    told = ("header.loss: float needed, not 'low'", "header.loss: missing", "header.extra: unknown key")
    assert [part in message for part, message in zip(told, caplog.messages, strict=True)] == [True] * 3

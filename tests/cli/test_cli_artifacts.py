"""``tdcompress artifacts`` as people call it: what is listed, exported and taken in."""

from pathlib import Path

import pytest

from tdcompress.commands.artifacts import parse_size


def test_artefacts_travel_between_folders(call, refused, copied, tmp_path):
    code, out, _ = call("artifacts", "list", "--artifacts", copied)
    lines = [line.split() for line in out.splitlines()[1:]]
    assert code == 0
    trained = [line[1] for line in lines if line[0] == "train"]
    assert len(trained) == 2
    code, out, _ = call(
        "artifacts", "export", "--stage", "train", "--artifacts", copied, "--to", "gpu/all", "--part-size", "70kB"
    )
    assert code == 0
    parts = sorted((tmp_path / "gpu").iterdir())
    assert [path.name for path in parts] == [f"all.{number:03d}.tdca" for number in range(len(parts))]
    assert all(path.stat().st_size <= 70_000 for path in parts)
    assert f"wrote {Path('gpu/all.000.tdca')}: " in out
    assert f"2 artefacts, 0 of them unfinished; take them in with: tdcompress artifacts import {Path('gpu/all.000.tdca')}" in out
    _, out, _ = call(
        "artifacts", "export", *(line[1] for line in lines), "--artifacts", copied, "--to", "whole", "--part-size", "70kB"
    )
    assert "wrote whole.001.tdca: " in out
    assert out.endswith("take them in with: tdcompress artifacts import whole.*.tdca\n")
    code, out, _ = call("artifacts", "import", *parts, "--artifacts", "there")
    assert code == 0
    assert out.splitlines() == [f"imported      train {key}" for key in trained]
    _, out, _ = call("artifacts", "export", trained[0][:7], "--artifacts", "there", "--to", "one")
    assert "1 artefact, 0 of them unfinished; take them in with: tdcompress artifacts import one.000.tdca" in out
    _, out, _ = call("artifacts", "import", "one.000.tdca", "--artifacts", copied)
    assert out.splitlines() == [f"already there train {trained[0]}"]
    assert "name what to export" in refused("artifacts", "export")
    assert "no such file" in refused("artifacts", "import", "none.tdca")
    assert "is no key here" in refused("artifacts", "export", "zzz", "--artifacts", copied)
    assert "none: there is nothing to export" in refused("artifacts", "export", "--stage", "train", "--artifacts", "none")
    for wrong in (
        ("--part-size", "x16"),
        ("--part-size", "16XB"),
        ("--part-size", "1e9MB"),
        ("--stage", "trian"),
        ("--max-parts", "0"),
    ):
        with pytest.raises(SystemExit):
            call("artifacts", "export", trained[0], *wrong)


def test_sizes_are_read_in_small_and_large_letters():
    assert [parse_size(text) for text in ("300kB", "300KB", "1.5 mib", "7", "7B")] == [300_000, 300_000, 1_572_864, 7, 7]


def test_the_artefacts_of_a_recipe_travel(call, copied, tmp_path, tiny_text):
    (tmp_path / "tiny.toml").write_text(tiny_text)
    (copied / "stages" / "train" / ("0" * 16)).mkdir()  # another recipe's
    code, out, _ = call("artifacts", "export", "--recipe", "tiny.toml", "--stage", "train", "--artifacts", copied, "--to", "t")
    assert code == 0
    assert "2 artefacts, 0 of them unfinished" in out

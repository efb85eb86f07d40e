"""The verbs that show what is there: recipes, the status of runs and stages, reports."""

import json
import shutil

from tdcompress.files import sha256_file
from tdcompress.recipes.shipped import shipped_recipes


def test_recipes_are_listed_and_copied(call, tmp_path):
    code, out, _ = call("recipes")
    assert code == 0
    assert any(line.startswith("digits ") for line in out.splitlines())
    assert "needs no download" in " ".join(out.split())  # folded into the width
    assert call("recipes", "--copy", "digits")[:2] == (0, f"wrote {tmp_path / 'digits.toml'}\n")


def test_recipes_fold_into_the_width_of_a_pipe_that_columns_tells_and_the_demo_comes_first(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = call("recipes")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 60
    rows = [line for line in out.splitlines() if line.strip() and not set(line) <= set(" ━─")]
    assert rows[0].split() == ["recipe", "what"]
    assert rows[1].startswith("digits ")
    known = shipped_recipes()
    words = sorted(word for name, what in known.items() for word in (name, *what.split()))
    assert sorted(word for line in rows[1:] for word in line.split()) == words  # none is cut


def test_status_of_runs_and_stages(call, copied, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # so that no message is folded, however long the folder's name
    code, out, _ = call("status", "--artifacts", copied)
    assert code == 0
    assert "tiny" in out
    assert "complete" in out
    (copied / "stages" / "train" / f"{'0123' * 4}.partial").mkdir()
    (copied / "tiny" / "dense.onnx").write_bytes(b"")
    code, out, _ = call("status", "tiny", "--artifacts", copied)
    assert code == 0
    assert "damaged" in out
    _, out, _ = call("status", "--artifacts", copied)
    assert [line.split() for line in out.splitlines() if line.startswith("train ")] == [["train", "2", "1", "0"]]
    (copied / "tiny" / "report.json").write_text("{")
    assert "report.json: damaged" in call("status", "--artifacts", copied)[1]
    assert "none yet: tdcompress run digits" in " ".join(call("status", "--artifacts", copied / "nowhere")[1].split())
    shutil.rmtree(copied / "tiny")  # as of stages that another machine made
    out = " ".join(call("status", "--artifacts", copied)[1].split())
    assert "none yet, but the stages below: the recipe that they are of goes on from them" in out
    assert "digits" not in out


def test_a_report_is_shown_again(call, copied):
    code, out, _ = call("report", "tiny", "--artifacts", copied, "--json")
    assert code == 0
    assert json.loads(out)["run"] == "tiny"
    code, out, _ = call("report", "tiny", "--artifacts", copied)
    assert code == 0
    assert "targeted-0.5" in out
    assert "Layers of targeted-0.5" in out


def test_bad_benchmarks_do_not_join(refused, copied, tmp_path):
    before = {path.name: sha256_file(path) for path in (copied / "tiny").iterdir()}
    for content in ("", "<html>", "[]", "3", "{}", '{"benchmark": 3}', '{"schema": 1, "benchmark": {"rows": []}}', "null"):
        (tmp_path / "b.json").write_text(content)
        refused("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "b.json")
    refused("report", "tiny", "--artifacts", copied, "--bench", tmp_path / "none.json")
    refused("report", "tiny", "--artifacts", copied, "--compare", "no-such-table")
    assert {path.name: sha256_file(path) for path in (copied / "tiny").iterdir()} == before
    (copied / "tiny" / "report.json").write_text('{"run": 3}')
    refused("report", "tiny", "--artifacts", copied, code=1)

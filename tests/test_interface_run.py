"""``tdc.run``: the report of a recipe, and what happens while another process has the run."""

import shutil
from contextlib import ExitStack

import pytest

import tdcompress as tdc
from tdcompress.errors import BusyError
from tdcompress.runs.unfinished import claim_run
from tdcompress.stores.place import open_store


def test_a_run_that_another_process_has_is_an_error_or_waited_for(tiny_root, tiny_text, tmp_path, monkeypatch):
    """All of it is made already, so that nothing is trained here."""
    artifacts = shutil.copytree(tiny_root, tmp_path / "artifacts")
    (tmp_path / "tiny.toml").write_text(tiny_text)
    before = (artifacts / "tiny" / "report.json").read_bytes()
    with ExitStack() as other:
        other.enter_context(claim_run(open_store(artifacts), "tiny"))
        with pytest.raises(BusyError, match="tiny is in use by process"):
            tdc.run(tmp_path / "tiny.toml", artifacts=artifacts, device="cpu")
        told = []

        def waiting(_, what, seconds):
            told.append(what)
            if len(told) == 2:
                other.close()  # it is done

        monkeypatch.setattr("tdcompress.pipeline._LOOK_AGAIN_SECONDS", 0.0)
        monkeypatch.setattr("tdcompress.console.StageConsole.waiting", waiting)
        report = tdc.run(str(tmp_path / "tiny.toml"), artifacts=str(artifacts), device="cpu", wait=True)
    assert len(told) == 2
    assert report.run == "tiny"
    assert (artifacts / "tiny" / "report.json").read_bytes() == before

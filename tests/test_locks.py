"""Locks of files: one owner, named to the others, and taken over when it is dead."""

import os
import signal
import subprocess
import sys

import pytest

from tdcompress import locks
from tdcompress.errors import BusyError
from tdcompress.locks import hold

HOLDER = """
import sys, time
from pathlib import Path
from tdcompress.locks import hold
with hold(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_owner_is_told_who_holds_it(tmp_path, holder):
    said = f"^the run x is in use by process {holder.pid} on .* since 2.*; wait for it, or stop it"
    with pytest.raises(BusyError, match=said), hold(tmp_path / "lock", "the run x"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owners_lock_is_taken_over(tmp_path, holder, number):
    holder.send_signal(number)
    assert holder.wait() == -number
    with hold(tmp_path / "lock", "it"):
        assert f"process {os.getpid()} " in (tmp_path / "lock").read_text()


def test_two_owners_in_one_process_are_told_apart_and_a_lock_is_given_back(tmp_path):
    with hold(tmp_path / "lock", "it"):
        with pytest.raises(BusyError, match=f"in use by process {os.getpid()}"), hold(tmp_path / "lock", "it"):
            pass
        with hold(tmp_path / "other", "it"):
            pass
    with hold(tmp_path / "lock", "it"):
        pass


def test_a_look_at_a_lock_does_not_take_it(tmp_path):
    assert locks.holder(tmp_path / "none") is None
    with hold(tmp_path / "lock", "it"):
        assert str(locks.holder(tmp_path / "lock")).startswith("process ")
    assert locks.holder(tmp_path / "lock") is None
    with hold(tmp_path / "lock", "it"):
        pass


def test_who_holds_it_is_told_to_those_who_may_only_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with hold(tmp_path / "lock", "it"):
        assert str(locks.holder(tmp_path / "lock")).startswith(f"process {os.getpid()} on ")
    assert locks.holder(tmp_path / "lock") is None


def test_the_owners_name_is_not_in_the_byte_that_is_locked(tmp_path, holder):
    """On Windows nobody but the owner can read that byte."""
    with (tmp_path / "lock").open("rb") as file:
        file.seek(1)
        assert file.read().startswith(f"process {holder.pid} on ".encode())


def test_a_look_by_another_process_does_not_make_a_lock_busy(tmp_path, monkeypatch):
    """It has the lock for a moment: whoever wants it tries again."""
    answers = iter([False, True, False, True])
    monkeypatch.setattr(locks, "lock_descriptor", lambda descriptor, *, blocking: next(answers))
    with hold(tmp_path / "lock", "it"):
        pass
    assert locks.holder(tmp_path / "lock") is None


def test_a_file_system_without_locks_owns_nothing_twice(tmp_path, monkeypatch):
    def missing(descriptor, *, blocking):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks, "lock_descriptor", missing)
    with pytest.raises(BusyError, match=r"^it is in use by another process; wait"), hold(tmp_path / "lock", "it"):
        pass
    assert locks.holder(tmp_path / "lock") == "another process"

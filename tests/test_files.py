import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.errors import UserError
from tdcompress.files import cache_folder, published, sha256_file, write_bytes, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_published_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    write_bytes(path, b"2")
    assert path.read_bytes() == b"2"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UserError, match=f"{path}: is a device, a pipe or a socket; name an ordinary file to write"):
            write_text(path, "new")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    kept, link = tmp_path / "kept", tmp_path / "link"
    write_text(kept, "old")
    link.symlink_to(kept)
    write_text(link, "new")
    assert (kept.read_text(), link.read_text(), link.is_symlink()) == ("old", "new", False)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with published(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_write_that_the_system_refuses_names_the_file(tmp_path):
    def full():
        with published(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as refused:
        full()
    assert refused.value.filename == str(tmp_path / "a.txt")
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    program = (
        "import os, sys, pathlib\nfrom tdcompress.files import published\n"
        "with published(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"
    left = [name for name in names(tmp_path) if name != "a.txt"]
    assert all(name.startswith(".a.txt.") and name.endswith(".tmp") for name in left)


def test_known_digests(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert sha256_file(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_flipped_bit_changes_the_digest(tmp_path_factory, content, data):
    path = tmp_path_factory.mktemp("flip") / "a"
    path.write_bytes(content)
    before = sha256_file(path)
    place = data.draw(st.integers(0, len(content) * 8 - 1))
    flipped = bytearray(content)
    flipped[place // 8] ^= 1 << (place % 8)
    path.write_bytes(bytes(flipped))
    assert sha256_file(path) != before


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("TDCOMPRESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UserError, match="no home folder for what is cached; set TDCOMPRESS_CACHE"):
        cache_folder()
    monkeypatch.setenv("TDCOMPRESS_CACHE", "elsewhere")
    assert cache_folder() == Path("elsewhere")

"""One owner at a time: lock files that the system frees when their owner dies, whose owner is named in them.

`filelock` locks the open file: with flock where there is one, on Windows the file's first byte, which nobody else can read
meanwhile. So what names the owner begins at the second byte.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from tdcompress.errors import BusyError, naming

_LOCKED = b" "


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Own something while the block runs. The system frees the lock of a process that dies, so a dead owner's is taken over.

    Args:
        path: the lock file; it stays, with its last owner's name in it.
        what: what is owned, for the message.

    Raises:
        BusyError: another process owns it; the message says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(descriptor):
            raise BusyError(f"{what} is in use by {_owner(descriptor)}; wait for it, or stop it and run again")
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with naming(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _LOCKED + f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
        yield
    finally:
        os.close(descriptor)


def holder(path: Path) -> str | None:
    """Who owns a lock file now: "process 12 on host since ...", or None."""
    try:
        # some file systems lock nothing that is open for reading only; others' locks may be readable and no more
        descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _lock(descriptor) else _owner(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Try to lock an open file, until it is closed; twice, because `holder` of another process may look at this moment."""
    for seconds in (0.0, 0.1):
        time.sleep(seconds)
        try:
            if lock_descriptor(descriptor, blocking=False):
                return True
        except OSError:  # a file system without locks: what cannot be owned safely counts as another's
            continue
    return False


def _owner(descriptor: int) -> str:
    os.lseek(descriptor, len(_LOCKED), os.SEEK_SET)
    return os.read(descriptor, 500).decode(errors="replace") or "another process"

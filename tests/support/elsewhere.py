"""A Python on Linux that lacks what Windows lacks, for child processes: ``sitecustomize`` says ``elsewhere.arrive()``.

Modules, functions and signals that are not there are taken away, and what Windows refuses is refused: to open a folder, to
remove or replace what this process has open, to make durable what is open for reading only. There is no /proc and no /sys.
Locking itself is `filelock`'s: it keeps the flock that it found before, in the place of Windows' own.
"""

import builtins
import fcntl
import io
import os
import random  # noqa: F401  the standard library keeps what it found when it was imported
import shutil
import signal
import subprocess  # noqa: F401
import sys
import threading  # noqa: F401
from pathlib import Path

import filelock  # noqa: F401

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
FUNCTIONS = (
    "chown", "ctermid", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp",
    "getpriority", "getsid", "getuid", "killpg", "lchown", "lockf", "mkfifo", "mknod", "nice", "openpty", "posix_fadvise",
    "posix_fallocate", "pread", "pwrite", "readv", "sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "setpgid",
    "setsid", "setuid", "statvfs", "sync", "sysconf", "wait3", "wait4", "writev", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW",
)  # fmt: skip
SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1", "SIGUSR2")
SYSTEM = ("/proc", "/sys")


def arrive() -> None:
    """Take everything away."""
    for function in (_without_system_files, _refuse_folders, _refuse_what_is_open, _refuse_to_sync_what_is_read):
        function()
    shutil._use_fd_functions = False
    for name in MODULES:
        sys.modules[name] = None
    for owner, names in ((os, FUNCTIONS), (signal, SIGNALS)):
        for name in names:
            delattr(owner, name)


def _without_system_files() -> None:
    real = io.open

    def opened(file, *arguments, **options):
        if not isinstance(file, int) and os.fsdecode(file).startswith(SYSTEM):
            raise FileNotFoundError(2, "No such file or directory", file)
        return real(file, *arguments, **options)

    io.open = builtins.open = opened


def _refuse_folders() -> None:
    real = os.open

    def opened(path, *arguments, **options):
        if Path(os.fsdecode(path)).is_dir():
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **options)

    os.open = opened


def _refuse_what_is_open() -> None:
    listed, link = os.listdir, os.readlink

    def check(path):
        for number in listed("/proc/self/fd"):
            try:
                target = link(f"/proc/self/fd/{number}")
            except OSError:  # the folder's own descriptor
                continue
            if target == os.path.realpath(path):
                raise PermissionError(13, "The process cannot access the file because it is being used", path)

    def wrap(real):
        def checked(*paths, **options):
            for path in paths:
                check(path)
            return real(*paths, **options)

        return checked

    for name in ("remove", "unlink", "rename", "replace"):
        setattr(os, name, wrap(getattr(os, name)))


def _refuse_to_sync_what_is_read() -> None:
    real = os.fsync

    def synced(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        real(descriptor)

    os.fsync = synced

"""The command line: parse, call the verb, and turn what it raises into one line and an exit code."""

import argparse
import contextlib
import gc
import io
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from tdcompress import __version__
from tdcompress.commands.registry import COMMANDS
from tdcompress.commands.shared import VerbParser, print_error
from tdcompress.errors import OtherProcessError, TdcompressError, UserError, of_system, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0 = done; 2 = what the user gave is wrong; 1 = a fault; 130 or 143 = interrupted, state saved; 75 = the time that was
        given is over, state saved: the same command goes on.
    """
    began = time.monotonic() - (process_age() if argv is None else 0.0)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name from a file may have letters that this one, on Windows say, has not
            stream.reconfigure(errors="replace")
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # closed: its lines are for nobody
    if sys.stdout is None:
        print_error("standard output is closed; send it to a file, or to /dev/null")
        return UserError.exit_code
    given = sys.argv[1:] if argv is None else argv
    if any(not word or re.fullmatch(r"--[a-z-]+=", word) for word in given):  # Path("") would be the current folder
        print_error("an argument is empty; is a variable of the shell not set?")
        return UserError.exit_code
    # Torch's modules and graphs are hundreds of thousands of objects. To search them for garbage as often as Python does alone
    # takes a sixth of the time of their import, and a tenth of an export's; so rarely, a twentieth.
    gc.set_threshold(50_000, 20, 20)
    # Where other processes want the cores too, OpenMP threads that spin while they wait make training ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args = make_parser().parse_args(given)
        args.began = began
        args.command = shlex.join(["tdcompress", *given])
        with _warnings_in_one_line(), _sigterm_heard():
            args.verb(args)
    except OtherProcessError as error:
        return error.exit_code  # the other one says what it was
    except TdcompressError as error:
        for note in getattr(error, "__notes__", ()):  # one of several failures
            print_error(note)
        print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print_error("interrupted")
        return 128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)
    except BrokenPipeError:
        _forget_output()
        return 1
    except ImportError as error:
        if (package := foreign(error)) is None:
            raise
        print_error(f"{package} is installed here and cannot be imported ({one_line(error)}): install it again")
        return UserError.exit_code
    except OSError as error:  # a full disk, a name that is too long
        refused = of_system(error)
        print_error(str(refused))
        return refused.exit_code
    return 0


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """A warning is one line, said once, as of many rows that are pruned alike; Python's own shows a place in the code too."""
    said: set[str] = set()

    def told(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        text = one_line(str(message), at_most=2000)
        new = text not in said
        said.add(text)
        return f"tdcompress: warning: {text}\n" if new else ""

    usual, warnings.formatwarning = warnings.formatwarning, told
    try:
        yield
    finally:
        warnings.formatwarning = usual


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextlib.contextmanager
def _sigterm_heard() -> Iterator[None]:
    """SIGTERM ends a verb as Ctrl-C does: temporary folders, which may hold whole models, and processes that it began go with it.

    A run listens itself, and saves what it did.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def heard(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is heard:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _forget_output() -> None:
    """What is still to be written to a closed pipe goes nowhere, or Python complains of it when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def foreign(error: ImportError) -> str | None:
    """The package, other than ours, in whose files an import failed; None where it is a fault of ours."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules if not module.startswith("importlib")]
    return packages[-1] if packages and packages[-1] != __name__.partition(".")[0] else None


def process_age() -> float:
    """Seconds since this process began, where Linux tells; else 0, which leaves out the start of Python."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    return age if 0 <= age < 60 else 0.0  # of another time namespace


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(prog="tdcompress", description="From training to a compact, verified, measured ONNX file.")
    parser.add_argument("--version", action="version", version=f"tdcompress {__version__}")
    of_verbs: type[argparse.ArgumentParser] = VerbParser
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=of_verbs)
    for add_parser in COMMANDS:
        add_parser(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())

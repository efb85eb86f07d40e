"""Typed errors. Each one knows the exit code that the command line ends with.

A message is one line that says what is wrong, where (file, field, layer) and what to do next.
"""

import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class TdcompressError(Exception):
    """A fault: something that should have worked did not. Exit code 1."""

    exit_code: int = 1


class UserError(TdcompressError):
    """What the user gave is wrong: a recipe, a file, an argument. Exit code 2."""

    exit_code = 2


class ArgumentError(UserError, ValueError):
    """An argument of the Python interface that is of a wrong type or out of range; the message names it. Also a ValueError."""


class RecipeError(UserError):
    """A recipe that cannot be run as written; the message names the line and the nearest valid key."""


class DataError(UserError):
    """Missing, truncated or mislabelled data."""


class ModelError(UserError):
    """A network, or a model file, that is not what it has to be (shape, layer, operator, damaged file)."""


class UnsupportedError(UserError):
    """Something well-formed that is not handled; the message names the operator, layer, backend or provider."""


class ArtifactError(TdcompressError):
    """A stored artefact that is damaged, missing or of another format."""


class BusyError(UserError):
    """A run folder or artefact that a living process holds; the message names that process."""


class LostError(BusyError):
    """What this process owned is another's now, since it gave no sign of life for too long; nothing was published."""


class StoreError(TdcompressError):
    """Object storage that cannot be reached, or that refuses what is asked of it."""


class VerificationError(TdcompressError):
    """A check of ours failed (certificate, export against torch, round trip); nothing was published."""


class TrainingError(TdcompressError):
    """Training cannot go on: a non-finite loss or gradient, or no memory."""


class OtherProcessError(TdcompressError):
    """Another of several processes failed, so this one ends too; the message is the other's."""


class InterruptedRun(TdcompressError):
    """SIGINT or SIGTERM arrived; the state was saved. Exit code 130 or 143.

    Args:
        message: what was saved and how to go on.
        signal_number: the signal; the exit code is 128 plus it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class UnfinishedRun(TdcompressError):
    """The time that was given is over; the state was saved. Exit code 75: run the same command again."""

    exit_code = 75


_WRONG_PATHS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EACCES, errno.ELOOP}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def of_system(error: OSError) -> TdcompressError:
    """What the system refused, in one line: a ``UserError`` where a path was given wrongly, else a fault such as a full disk."""
    kind = UserError if error.errno in _WRONG_PATHS else TdcompressError
    advice = "; make room" if error.errno in _FULL else ""
    return kind(f"{error.filename or 'input or output'}: {error.strerror or error}{advice}")


@contextmanager
def naming(path: "os.PathLike[str]") -> Iterator[None]:
    """Name a file in an OSError of the block that names none: the system refuses a write without saying of what."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.strerror = error.strerror or str(error)  # numpy says "... requested and ... written", and no number
            error.filename = os.fspath(path)
        raise


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for the end of a message: "; did you mean 'gamma'?", or nothing where no known word is near.

    Up to three known words that contain the misspelt one come before words that are merely alike.
    """
    known = list(known)
    containing = [name for name in known if word and word in name]
    near = containing if 0 < len(containing) <= 3 else difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def one_line(error: BaseException | str, at_most: int = 300) -> str:
    """What somebody else's error says, for a message of ours: on one line, not too long, its type where it says nothing.

    Args:
        error: an exception, or its text.
        at_most: characters; what is longer ends in "...".
    """
    text = " ".join(str(error).split()) or ("no message" if isinstance(error, str) else type(error).__name__)
    return text if len(text) <= at_most else f"{text[: at_most - 3].rstrip()}..."

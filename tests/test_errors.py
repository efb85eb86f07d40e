import errno
from pathlib import Path

import pytest

from tdcompress.errors import TdcompressError, UserError, did_you_mean, naming, of_system, one_line


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("gama", "; did you mean 'gamma'?"),
        ("resnet20", "; did you mean 'cifar_resnet20'?"),  # not the merely similar resnet50
        ("3", "; did you mean 'table-3a' or 'table-3b'?"),
        ("e", "; did you mean 'e'?"),
        ("completely else", ""),
        ("", ""),
    ],
)
def test_the_nearest_known_words(word: str, hint: str) -> None:
    known = ("gamma", "resnet50", "cifar_resnet20", "table-3a", "table-3b", "e", "eager", "eerie", "ever")
    assert did_you_mean(word, known) == hint


def test_another_librarys_error_is_told_on_one_line() -> None:
    assert one_line(ValueError("first\n  second\n")) == "first second"
    assert one_line(ValueError(" \n")) == "ValueError"
    assert one_line("") == "no message"
    assert one_line(ValueError("0123456789"), at_most=10) == "0123456789"
    assert one_line(ValueError("01234 6789x"), at_most=9) == "01234..."


def test_what_the_system_refuses_is_told_with_what_to_do() -> None:
    full = of_system(OSError(errno.ENOSPC, "No space left on device", "a.npz"))
    assert (type(full), str(full)) == (TdcompressError, "a.npz: No space left on device; make room")
    denied = of_system(PermissionError(errno.EACCES, "Permission denied", "a.npz"))
    assert (type(denied), str(denied)) == (UserError, "a.npz: Permission denied")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.EFBIG, "File too large"), "a.npz: File too large"),
        (OSError("10 requested and 4 written"), "a.npz: 10 requested and 4 written"),
        (OSError(errno.EACCES, "Permission denied", "b.npz"), "b.npz: Permission denied"),
    ],
)
def test_a_write_that_names_no_file_is_of_the_one_that_was_written(raised: OSError, said: str) -> None:
    with pytest.raises(OSError) as told, naming(Path("a.npz")):  # noqa: PT011  # its words are what is asked for
        raise raised
    assert str(of_system(told.value)) == said

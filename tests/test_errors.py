import pytest

from tdcompress.errors import did_you_mean, one_line


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

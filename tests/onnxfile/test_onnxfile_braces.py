"""Sets of names as one text, and back."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.errors import ModelError
from tdcompress.onnxfile.braces import braced, expanded

BRACED = {
    "a": ["a"],
    "w{,_bias}": ["w", "w_bias"],
    "conv{1,2}.weight": ["conv1.weight", "conv2.weight"],
    "{conv{1,2}.weight,norm.{bias,weight}}": ["conv1.weight", "conv2.weight", "norm.bias", "norm.weight"],
    "unit{0,1}.{conv,norm.{a,b}}": [f"unit{n}.{rest}" for n in (0, 1) for rest in ("conv", "norm.a", "norm.b")],
    r"\{a\,b\}\\{1,2}": ["{a,b}\\1", "{a,b}\\2"],
}


@pytest.mark.parametrize("text", BRACED)
def test_names_by_hand(text: str) -> None:
    assert expanded(text) == BRACED[text]
    assert braced(BRACED[text]) == text


def test_a_shell_reads_it_in_the_same_way() -> None:
    """What GNU bash 5.2 prints for `echo x{a,b{1,2}}{,_}y`."""
    assert expanded("x{a,b{1,2}}{,_}y") == ["xay", "xa_y", "xb1y", "xb1_y", "xb2y", "xb2_y"]


@given(st.sets(st.text("ab1.{},\\ _é\n", max_size=8), min_size=1, max_size=12))
def test_every_set_comes_back(names: set[str]) -> None:
    text = braced(names)
    assert sorted(expanded(text)) == sorted(names)
    assert braced(sorted(names, reverse=True)) == text


@given(st.text("ab{},\\\n", max_size=30))
def test_any_text_is_names_or_an_error(text: str) -> None:
    with suppress(ModelError):
        assert expanded(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a,b", "a brace is not closed"),
        ("{a,{b}", "a brace is not closed"),
        ("a\\", "ends too early"),
        ("a,b", "',' at character 1 is in no brace"),
        ("{a}}", "'}' at character 3 is in no brace"),
        ("{a,b}" * 40, "more names than any model has"),
        ("{" + "a," * 1000 + "}" + "{" + "," * 10000 + "}", "more names than any model has"),
        ("{" * 100_000, "a brace is not closed"),
    ],
)
def test_damaged_texts(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        expanded(text)


def test_names_of_thousands_of_parts() -> None:
    names = [".".join(map(str, range(5000))) + end for end in ("a", "b")]
    assert sorted(expanded(braced(names))) == names

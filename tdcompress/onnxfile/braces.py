"""A set of names as one text, written with braces as a Unix shell expands them: "conv{1,2}.{weight,bias}" is four names.

Names of weights are paths whose parts repeat, so that few characters say them all: 427 the 113 names of ResNet-32.
"""

import re
from collections.abc import Iterable, Sequence

from tdcompress.errors import ModelError

Pieces = tuple[str, ...]

_PIECE = re.compile(r"\d+|[A-Za-z]+|[^A-Za-z0-9]")
_MOST_PIECES = 50  # of a name; what comes after is one more
_MARKS = re.compile(r"[\\{},]")
_PART = re.compile(r"\\(.)|([{},])|([^\\{},]+)", re.DOTALL)
_MOST_WORK = 1 << 26  # bytes that expanding may write on the way: a short text can stand for more names than memory holds
_TEXT_BYTES = 50  # what Python takes for a text, beside its characters


def braced(names: Iterable[str]) -> str:
    """A text that `expanded` makes these names of, in an order of its own.

    Args:
        names: different ones, at least one.
    """
    return _braced(sorted({_pieces(name) for name in names}))


def _pieces(name: str) -> Pieces:
    found = _PIECE.findall(name)
    return (*found[:_MOST_PIECES], *filter(None, ["".join(found[_MOST_PIECES:])]))


def _braced(names: Sequence[Pieces]) -> str:
    """Take what all end with out of the braces; then put names together that begin alike, and beginnings that go on alike."""
    if len(names) == 1:
        return _escaped(names[0])
    same = 0
    while len({name[-same - 1 : len(name) - same] for name in names}) == 1:
        same += 1
    going_on: dict[Pieces, list[Pieces]] = {}
    for name in names:
        stem = name[: len(name) - same]
        going_on.setdefault(stem[:1], []).append(stem[1:])
    beginnings: dict[tuple[Pieces, ...], list[str]] = {}
    for first, rests in going_on.items():
        beginnings.setdefault(tuple(rests), []).append(_escaped(first))
    choices: list[str] = []
    for ends, firsts in beginnings.items():
        choices += firsts if ends == ((),) else [_choice(firsts) + _braced(ends)]
    return _choice(choices) + _escaped(names[0][len(names[0]) - same :])


def _choice(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else "{" + ",".join(texts) + "}"


def _escaped(pieces: Pieces) -> str:
    return _MARKS.sub(r"\\\g<0>", "".join(pieces))


def expanded(text: str) -> list[str]:
    r"""The names that a text with braces stands for, first choices first.

    Args:
        text: choices stand in braces with commas between, and may have braces again; a backslash takes the meaning from what
            follows it.

    Raises:
        ModelError: braces do not match, or there are too many names for any model.
    """
    left = _MOST_WORK
    open_choices: list[list[list[str]]] = [[[""]]]  # of every open brace: its choices so far, each as the names it stands for
    place = 0
    for part in _PART.finditer(text):
        if part.start() != place:
            break
        place = part.end()
        literal, mark, plain = part.groups()
        choices = open_choices[-1]
        if mark == "{":
            open_choices.append([[""]])
            continue
        if mark and len(open_choices) == 1:
            raise ModelError(f"{mark!r} at character {part.start()} is in no brace")
        if mark == ",":
            choices.append([""])
            continue
        ends = [name for choice in open_choices.pop() for name in choice] if mark else [literal or plain]
        begun = open_choices[-1][-1]
        left -= sum(map(len, begun)) * len(ends) + sum(map(len, ends)) * len(begun) + _TEXT_BYTES * len(begun) * len(ends)
        if left < 0:
            raise ModelError("it stands for more names than any model has")
        open_choices[-1][-1] = [name + end for name in begun for end in ends]
    if place != len(text) or len(open_choices) > 1:
        raise ModelError("a brace is not closed, or the text ends too early")
    return open_choices[0][0]

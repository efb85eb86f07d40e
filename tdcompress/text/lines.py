"""Lines of text from bytes: what a line is, and what is said of one that is no text."""

import codecs
import io
from collections.abc import Iterator

from tdcompress.errors import DataError

AT_ONCE = 128
LONGEST_LINE = 1 << 20  # bytes; a file without line feeds would fill the memory


def decoded_line(line: bytes, number: int, where: str, advice: str) -> str:
    """A line as text, without white space around it; a byte order mark before the first one is dropped.

    Args:
        line: its bytes; a line feed and a carriage return at its end are white space.
        number: of the line, from 1.
        where: the file, for messages.
        advice: what to do about bytes that are no UTF-8.

    Raises:
        DataError: bytes that are no UTF-8.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}, line {number}: byte {error.start + 1} is no UTF-8 (0x{line[error.start]:02x}); {advice}"
        ) from error
    return text.removeprefix("\ufeff" if number == 1 else "").strip()


def lines_as_they_come(stream: io.BufferedReader, where: str) -> Iterator[list[bytes]]:
    """Lines in lists of up to ``AT_ONCE``: those that are there are given at once, and nothing waits for more.

    So a long file goes through in large pieces, and somebody who types, or a program that waits for each answer, gets it.

    Args:
        stream: buffered, such as ``sys.stdin.buffer``.
        where: what messages call it.

    Raises:
        DataError: a line longer than ``LONGEST_LINE`` bytes; those before it have been given.
    """
    rest, given = b"", 0
    while chunk := stream.read1(1 << 16):
        *whole, rest = (rest + chunk).split(b"\n")
        too_long = next((place for place, line in enumerate((*whole, rest)) if len(line) > LONGEST_LINE), None)
        ready = whole[:too_long]
        for first in range(0, len(ready), AT_ONCE):
            yield ready[first : first + AT_ONCE]
        given += len(ready)
        if too_long is not None:
            raise DataError(f"{where}, line {given + 1} is longer than {LONGEST_LINE} bytes; give one sentence a line")
    if rest and not (given == 0 and is_mark(rest)):
        yield [rest]


def is_mark(line: bytes) -> bool:
    """Whether what begins a text is a byte order mark and nothing else: then the text has no line."""
    return line == codecs.BOM_UTF8

"""Parallel text files, WMT-style: two files of UTF-8 text, whose lines with the same number say the same. Read as streams.

A file whose name ends in .gz is read as gzip.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tdcompress.errors import DataError, one_line
from tdcompress.text.lines import decoded_line, is_mark


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One line of both files.

    Attributes:
        line: its number, from 1.
        source: the sentence, without white space around it; may be empty.
        target: its translation, likewise.
    """

    line: int
    source: str
    target: str


def read_pairs(source: Path, target: Path) -> Iterator[Pair]:
    """All lines of two files side by side; neither is held in memory.

    A line ends at a line feed alone; a carriage return before it is dropped. Unicode's other separators end none: they occur in
    crawled text, and would shift one file against the other. A byte order mark at the start is dropped.

    Args:
        source: the file of the sentences.
        target: the file of their translations.

    Raises:
        DataError: a missing file, one called .gz that is damaged, bytes that are no UTF-8, or files of different length; with the
            file and line.
    """
    pairs = zip_longest(_lines(source), _lines(target))
    for number, (first, second) in enumerate(pairs, start=1):
        if first is None or second is None:
            short, long = (source, target) if first is None else (target, source)
            raise DataError(f"{long}, line {number}: {short} has only {number - 1} lines; both files need a line for each pair")
        yield Pair(line=number, source=first, target=second)


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1 and is_mark(line):
                    return
                yield decoded_line(line, number, str(path), "convert the file to UTF-8, or mend the line in both files")
    except FileNotFoundError as error:
        raise missing_text(path) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}, after line {number}: damaged, cut off, or no gzip ({one_line(error)})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def missing_text(path: Path) -> DataError:
    """What is said of a file that is not there."""
    return DataError(
        f"{path} is missing: parallel text is two files, such as train.en and train.de, or train.en.gz and so on; "
        "set data.root to the folder that holds them"
    )

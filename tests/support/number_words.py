"""A generated language for translators: number words, said in another language and backwards."""

from pathlib import Path

import numpy as np

ENGLISH = ("one", "two", "three", "four", "five", "six")
GERMAN = ("eins", "zwei", "drei", "vier", "fuenf", "sechs")


def write_corpus(folder: Path, *, train: int = 400, others: int = 40, longest: int = 6) -> Path:
    """train, val and test in two files each; sentences have four words or more."""
    draw = np.random.default_rng(0)
    for part, count in (("train", train), ("val", others), ("test", others)):
        rows = [draw.integers(0, 6, draw.integers(4, longest + 1)) for _ in range(count)]
        for name, words, step in (("en", ENGLISH, 1), ("de", GERMAN, -1)):
            (folder / f"{part}.{name}").write_text("".join(" ".join(words[i] for i in row[::step]) + "\n" for row in rows))
    return folder

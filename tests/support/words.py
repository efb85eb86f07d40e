"""A generated language that a small Transformer learns in seconds: number words, said in another language and backwards."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdcompress.data.parallel_text import ParallelTextSettings
    from tdcompress.tasks.translation import MachineTranslation

ENGLISH = ("one", "two", "three", "four", "five", "six")
GERMAN = ("eins", "zwei", "drei", "vier", "fuenf", "sechs")
_START = """
name = "words"

[data]
name = "parallel_text"
root = "{root}"
vocabulary = {{ size = 60 }}

[model]
name = "transformer"
"""
RECIPE = (
    _START
    + """width = 32
hidden = 64
heads = 2
encoder_layers = 1
decoder_layers = 1
dropout = 0.0
pre_norm = true

[train]
epochs = 25
batch_tokens = 400
label_smoothing = 0.1
optimizer = {{ name = "adam", lr = 0.01 }}
evaluate_every = 25

[prune]
fraction = 0.3

[[sweep.case]]
"sparsity.method" = "none"

[[sweep.case]]
"sparsity.method" = "targeted"
"sparsity.gamma" = 0.3
"sparsity.alpha" = 0.5
"""
)
TINY = (
    _START
    + """width = 16
hidden = 16
heads = 4
encoder_layers = 1
decoder_layers = 1
dropout = 0.1

[train]
epochs = 1
batch_tokens = 200
optimizer = {{ name = "adam", lr = 0.01 }}
lr_schedule = {{ name = "inverse_sqrt", warmup_epochs = 0.5 }}

[prune]
fraction = 0.5

[bench]
budget = "none"

[sparsity]
method = "none"
"""
)


def vocabulary_of(settings: "ParallelTextSettings") -> bytes:
    """The vocabulary of a corpus, made here."""
    from tdcompress.text.vocabulary import train_vocabulary

    return train_vocabulary(settings.load().training_text(), settings.vocabulary)


def translation_of(settings: "ParallelTextSettings") -> "MachineTranslation":
    """The task of a corpus, with the vocabulary that is made of it here."""
    from tdcompress.tasks.translation import MachineTranslation

    return MachineTranslation(settings.load(), vocabulary=vocabulary_of(settings))


def write_corpus(folder: Path, *, train: int = 400, others: int = 40, longest: int = 6) -> Path:
    """Sentences of four words or more: train, val and test, .en and .de; the folder."""
    draw = np.random.default_rng(0)
    for part, count in (("train", train), ("val", others), ("test", others)):
        rows = [draw.integers(0, 6, draw.integers(4, longest + 1)) for _ in range(count)]
        for name, words, step in (("en", ENGLISH, 1), ("de", GERMAN, -1)):
            text = "".join(" ".join(words[i] for i in row[::step]) + "\n" for row in rows)
            (folder / f"{part}.{name}").write_text(text, encoding="utf-8")
    return folder

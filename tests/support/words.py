"""A generated language that a small Transformer learns in seconds: number words, said in another language and backwards."""

from pathlib import Path

import numpy as np

ENGLISH = ("one", "two", "three", "four", "five", "six")
GERMAN = ("eins", "zwei", "drei", "vier", "fuenf", "sechs")
RECIPE = """
name = "words"

[data]
name = "parallel_text"
root = "{root}"
vocabulary = {{ size = 60 }}

[model]
name = "transformer"
width = 32
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

[bench]
budget = "none"

[[sweep.case]]
"sparsity.method" = "none"

[[sweep.case]]
"sparsity.method" = "targeted"
"sparsity.gamma" = 0.3
"sparsity.alpha" = 0.5
"""


def write_corpus(folder: Path) -> None:
    """Sentences of 4 to 6 words: train, val and test, .en and .de."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 400), ("val", 40), ("test", 40)):
        rows = [draw.integers(0, 6, draw.integers(4, 7)) for _ in range(count)]
        for name, words, step in (("en", ENGLISH, 1), ("de", GERMAN, -1)):
            text = "".join(" ".join(words[i] for i in row[::step]) + "\n" for row in rows)
            (folder / f"{part}.{name}").write_text(text, encoding="utf-8")

"""Peak memory of a translator's text: its vocabulary, its training part as pieces, and one epoch's batches.

    python benchmarks/text_memory.py --pairs 1000000 [--kind unigram]

The text is made up: words of 2 to 9 letters, the common ones far more often (Zipf), 8 to 30 a sentence. What is printed is the
peak of the process after each step, and what a step adds for each pair.
"""

import argparse
import random
import resource
import tempfile
from pathlib import Path
from typing import get_args, get_type_hints

from counts import at_least

from tdcompress.data.parallel_text import ParallelTextSettings
from tdcompress.tasks.translation import MachineTranslation
from tdcompress.text.vocabulary import VocabularySettings, train_vocabulary
from tdcompress.train.distributed import World
from tdcompress.train.settings import TrainSettings

WORDS, POOL = 40_000, 200_000


def write_text(folder: Path, pairs: int) -> int:
    """Parts of parallel text; returns the bytes of the training part."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(WORDS)]
    for part, count in (("train", pairs), ("val", 100), ("test", 100)):
        for language in ("en", "de"):
            pool = draw.choices(words, [1 / (rank + 1) for rank in range(WORDS)], k=POOL)
            with (folder / f"{part}.{language}").open("w", encoding="utf-8") as file:
                for _ in range(count):
                    length = draw.randint(8, 30)
                    first = draw.randrange(POOL - length)
                    file.write(" ".join(pool[first : first + length]) + "\n")
    return sum(path.stat().st_size for path in folder.glob("train.*"))


def peak() -> int:
    """Bytes of memory that the process has had at most (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=at_least(1), default=1_000_000)
    parser.add_argument("--kind", choices=get_args(get_type_hints(VocabularySettings)["kind"]), default="bpe")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write_text(Path(folder), args.pairs)
        settings = ParallelTextSettings(root=folder, vocabulary=VocabularySettings(kind=args.kind))
        data, last = settings.load(), peak()
        print(f"{args.pairs:,} pairs, {size:,} bytes of text: {size / args.pairs:.0f} a pair; {last / 2**20:,.0f} MiB before")

        def told(step: str) -> None:
            nonlocal last
            print(f"{step}: peak {peak() / 2**20:,.0f} MiB, {(peak() - last) / args.pairs:,.0f} bytes a pair more", flush=True)
            last = peak()

        model = train_vocabulary(data.training_text(), settings.vocabulary)
        told(f"vocabulary ({args.kind})")
        pairs = MachineTranslation(data, vocabulary=model).train_set(0)
        told("training part as pieces")
        loader = pairs.loader(TrainSettings(batch_tokens=25_000), seed=0, world=World())
        told(f"one epoch's {loader.steps_per_epoch:,} batches")


if __name__ == "__main__":
    main()

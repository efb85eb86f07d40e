"""``tdcompress translate``: sentences through a run's translator."""

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tdcompress.commands.shared import Verbs, add_store, add_verb, find_run
from tdcompress.errors import DataError, UserError

if TYPE_CHECKING:
    from tdcompress.runs.translator import Translator

STANDARD_INPUT = "standard input"


def add_parser(verbs: Verbs) -> None:
    """Add ``translate``."""
    sub = add_verb(verbs, "translate", run, "translate sentences with a run's files; needs no torch")
    text = "a run, its folder, or a file FILE.onnx beside its FILE.decoder_step.onnx and vocabulary.model"
    sub.add_argument("run", type=Path, metavar="RUN", help=text)
    text = "what is translated; without any, each line of standard input (UTF-8)"
    sub.add_argument("sentences", nargs="*", default=[], metavar="SENTENCE", help=text)  # without a default it is "required"
    sub.add_argument("--row", help="whose files; default: the row that was selected, model.onnx")
    text = "how many beginnings are followed at once, 1 to 64; default 4; 1 = greedy search"
    sub.add_argument("--beam", type=_between(int, 1, 64), default=4, metavar="N", help=text)
    text = "how much long translations are preferred, 0 to 10; default 0.6"
    sub.add_argument("--alpha", type=_between(float, 0, 10), default=0.6, metavar="A", help=text)
    sub.add_argument("--threads", type=int, default=1, help="of a session; 0 = all cores")
    text = "what runs the network; default onnxruntime; engine skips the zeros of a pruned one"
    sub.add_argument("--backend", choices=("onnxruntime", "engine"), default="onnxruntime", help=text)
    add_store(sub)


def _between(kind: Callable[[str], float], low: int, high: int) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not {low} to {high}")
        return value

    number.__name__ = kind.__name__  # argparse says "invalid int value"
    return number


def run(args: argparse.Namespace) -> None:
    """``tdcompress translate``: each sentence, or each line of standard input, becomes one line."""
    from tdcompress.runs.translator import Translator

    translator = Translator(find_run(args.run, args.artifacts), row=args.row, threads=args.threads, backend=args.backend)
    groups = iter([args.sentences]) if args.sentences else _typed(translator)
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # files and pipes are UTF-8, as what comes in
    with _counted() as count:
        for sentences in groups:
            for line in translator(sentences, beam=args.beam, alpha=args.alpha):
                print(line)
            sys.stdout.flush()
            count(len(sentences))


def _typed(translator: "Translator") -> Iterator[list[str]]:
    """Lines of standard input; those before a line that cannot be translated come first.

    Raises:
        UserError: there is no standard input.
        DataError: a line that is no text, or too long.
    """
    from tdcompress.text.lines import decoded_line, lines_as_they_come

    if sys.stdin is None:
        raise UserError("no sentence is given, and standard input is closed")
    if sys.stdin.isatty():
        print("Type a sentence a line; Ctrl-D ends.", file=sys.stderr)
    number = 0
    for lines in lines_as_they_come(cast(io.BufferedReader, sys.stdin.buffer), STANDARD_INPUT):
        sentences: list[str] = []
        try:
            for line in lines:
                number += 1
                sentence = decoded_line(line, number, STANDARD_INPUT, "convert it to UTF-8")
                if why := translator.refusal(sentence):
                    raise DataError(f"{STANDARD_INPUT}, line {number}: {why}")
                sentences.append(sentence)
        except DataError:
            yield sentences
            raise
        yield sentences


@contextmanager
def _counted() -> Iterator[Callable[[int], None]]:
    """Counts sentences on a terminal, where the translations themselves go elsewhere."""
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from tdcompress.console import make_console

    console = make_console(stderr=True)
    columns = TextColumn("{task.completed:,.0f} sentences translated"), TimeElapsedColumn()
    hidden = not console.is_terminal or sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden) as bars:
        task = bars.add_task("", total=None)
        yield lambda more: bars.advance(task, more)

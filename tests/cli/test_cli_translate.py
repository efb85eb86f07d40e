"""``tdcompress translate`` as people call it: arguments, standard input, pipes, and what is refused."""

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tdcompress as tdc
from tdcompress.cli import main, make_parser


class Input:
    """A standard input of these bytes."""

    def __init__(self, content, terminal=False):
        self.buffer = io.BytesIO(content)
        self.isatty = lambda: terminal


@pytest.fixture
def call(capsys, monkeypatch, words_root):
    """Call the verb beside ``artifacts``; gives its exit code, lines, and what it said on stderr."""
    monkeypatch.chdir(words_root)
    monkeypatch.setattr("sys.stdin", Input(b""))

    def run(*arguments):
        try:
            code = main(["translate", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err

    return run


AS_MODULE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
runpy.run_module("tdcompress", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def child(words_root):
    """The verb in a process of its own, its pipes open."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C", "PYTHONUTF8": "0", "TERM": "xterm"}
    started = []

    def start(*arguments, stderr=subprocess.PIPE):
        command = [sys.executable, "-c", AS_MODULE, "translate", *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
        started.append(subprocess.Popen(command, cwd=words_root, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


SENTENCES = ("one two three four", "six five four three two")


def expected(words_root, sentences=SENTENCES, **options):
    return tdc.Translator(words_root / "artifacts" / "words")(sentences, **options)


def test_sentences_are_arguments(call, words_root):
    assert call("words", *SENTENCES) == (0, expected(words_root), "")
    folder = words_root / "artifacts" / "words"
    for place in (folder, folder / "model.onnx"):
        assert call(place, SENTENCES[0]) == (0, expected(words_root)[:1], "")
    greedy = tdc.Translator(folder, row="dense")(SENTENCES, beam=1)
    assert call("--row", "dense", "--beam", 1, "--threads", 0, "words", *SENTENCES) == (0, greedy, "")
    assert call("words", SENTENCES[0], "--alpha", 2, "--beam", 3)[1] == expected(words_root, SENTENCES[:1], beam=3, alpha=2)
    assert call("words", SENTENCES[0], "--beam", 1, SENTENCES[1], "--threads", 1, "two") == (
        0,
        expected(words_root, [*SENTENCES, "two"], beam=1),
        "",
    )
    assert call("--row", "dense", "--beam", 1, "--backend", "engine", "words", *SENTENCES) == (0, greedy, "")
    assert call("words", " ") == (0, [""], "")
    assert call("--beam", 1, "words", "--", "-one")[1] == expected(words_root, ["-one"], beam=1)


def test_a_machine_without_torch_translates(command, without, words_root):
    hidden = without("torch", "torchvision", "onnxscript", "safetensors", "sklearn", "matplotlib", "scipy", "sacrebleu")
    done = command("translate", words_root / "artifacts" / "words", *SENTENCES, env=hidden)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, expected(words_root), "")


@pytest.mark.parametrize("name", ["sentencepiece", "onnxruntime"])
def test_a_package_that_is_missing_is_said_in_one_line(command, without, words_root, name):
    done = command("translate", words_root / "artifacts" / "words", "one", env=without(name))
    said = f"tdcompress: this needs {name}: pip install '.[translate]' in tdcompress's checkout\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_words_behind_options_belong_to_the_verb_too():
    parse = make_parser().parse_args
    assert parse(["bench", "a.onnx", "--threads", "2", "b.onnx", "--batch", "1", "c.onnx"]).files == [
        Path(f"{name}.onnx") for name in "abc"
    ]
    with pytest.raises(SystemExit):
        parse(["translate", "words", "--row", "dense", "one", "--beem", "2"])
    with pytest.raises(SystemExit):
        parse(["verify", "a", "--json", "b"])


def test_lines_of_standard_input_become_lines_in_their_order(call, words_root, monkeypatch):
    lines = [*SENTENCES, "", "two", "   ", *SENTENCES[::-1]] * 40  # more than are translated at once
    monkeypatch.setattr("sys.stdin", Input("\r\n".join(lines).encode()))
    assert call("words", "--beam", 1) == (0, expected(words_root, lines, beam=1), "")


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(("content", "lines"), [(b"", 0), (b"\n", 1), (b"\n\n\n", 3), (MARK, 0), (MARK + b"\n", 1)])
def test_nothing_in_is_nothing_out(call, monkeypatch, content, lines):
    monkeypatch.setattr("sys.stdin", Input(content))
    assert call("words") == (0, [""] * lines, "")


def test_a_byte_order_mark_and_a_last_line_without_an_end(call, words_root, monkeypatch):
    monkeypatch.setattr("sys.stdin", Input(MARK + "\n".join(SENTENCES).encode()))
    assert call("words")[1] == expected(words_root)


def test_somebody_who_types_is_told_how(call, monkeypatch):
    monkeypatch.setattr("sys.stdin", Input(b"one two\n", terminal=True))
    code, lines, said = call("words")
    assert (code, len(lines), said) == (0, 1, "Type a sentence a line; Ctrl-D ends.\n")


LONG = b"one two three " * 200


@pytest.mark.parametrize(
    ("content", "done", "said"),
    [
        (b"one two\n\nthree \xff\nfour\n", 2, "standard input, line 3: byte 7 is no UTF-8 (0xff); convert it to UTF-8"),
        (b"one two\n" + LONG + b"\nfour\n", 1, "standard input, line 2: 600 pieces, more than 256: split it"),
        (LONG, 0, "standard input, line 1: 600 pieces, more than 256: split it"),
        (b"one\n" + bytes(1 << 21), 1, "standard input, line 2 is longer than 1048576 bytes; give one sentence a line"),
        (
            b"one\n" + b" " * ((1 << 20) + 1) + b"\n",
            1,
            "standard input, line 2 is longer than 1048576 bytes; give one sentence a line",
        ),
        (b"one\n" + b" " * (1 << 20) + b"\n\xff", 2, "standard input, line 3: byte 1 is no UTF-8 (0xff); convert it to UTF-8"),
    ],
)
def test_a_wrong_line_is_named_and_those_before_it_are_translated(call, monkeypatch, content, done, said):
    monkeypatch.setattr("sys.stdin", Input(content))
    code, lines, told = call("words")
    pieces = told.replace("tdcompress: ", "").rstrip("\n")
    assert (code, len(lines), told.count("\n")) == (2, done, 1)
    assert pieces.split(":")[0] == said.split(":")[0]
    assert pieces.endswith(said[-20:])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "one"), "nowhere: no such file or run"),
        (("words", ""), "an argument is empty; is a variable of the shell not set?"),
        (("words", "one " * 600), "sentence 1: "),
        (("words", "one \udcff"), "sentence 1: character 5 is no text"),
        (("words", "one", "--row", "dens"), "did you mean 'dense'?"),
        (("words", "one", "--beam", "0"), "argument --beam: 0 is not 1 to 64"),
        (("words", "one", "--beam", "2.5"), "argument --beam: invalid int value: '2.5'"),
        (("words", "one", "--alpha", "nan"), "argument --alpha: nan is not 0 to 10"),
        (("words", "one", "--threads", "-1"), "Translator: threads has to be 0 to "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(call, arguments, said):
    code, lines, told = call(*arguments)
    assert (code, lines) == (2, [])
    assert said in told.splitlines()[-1]


def test_a_run_that_is_no_translation(call, tiny_root):
    code, lines, told = call("--artifacts", tiny_root, "tiny", "one")
    assert (code, lines, told.count("\n")) == (2, [], 1)
    assert "model.onnx: is no translator" in told


def test_no_standard_input(call, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert call("words") == (2, [], "tdcompress: no sentence is given, and standard input is closed\n")


def test_each_line_is_answered_at_once(child, words_root):
    """As a program needs it that sends a sentence and waits for its translation."""
    process = child("words")
    for sentence, translation in zip(SENTENCES, expected(words_root), strict=True):
        process.stdin.write(sentence.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline().decode() == translation + "\n"
    process.stdin.close()
    assert process.wait(60) == 0


def test_sentences_are_counted_on_a_terminal_while_they_go_elsewhere(child, words_root):
    terminal, end = pty.openpty()
    process = child("words", stderr=end)
    out, _ = process.communicate("\n".join(SENTENCES).encode(), timeout=60)
    os.close(end)
    assert out.decode().splitlines() == expected(words_root)
    assert b"sentences translated" in os.read(terminal, 1 << 16)
    os.close(terminal)


def test_a_closed_pipe_ends_it_quietly(child):
    process = child("words", "--beam", "1")
    process.stdin.write(b"one two three four\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()  # as `head -1` does
    process.stdin.write(b"one two three four\n" * 1000)
    process.stdin.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == b""


@pytest.mark.parametrize("verb", ["status", "translate words ."])
def test_a_closed_standard_output_is_one_line(verb, tmp_path):
    command = f'"{sys.executable}" -m tdcompress {verb} >&-'
    ended = subprocess.run(command, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, timeout=60, check=False)
    said = b"tdcompress: standard output is closed; send it to a file, or to /dev/null\n"
    assert (ended.returncode, ended.stderr) == (2, said)


def test_an_interrupt_is_one_line(child):
    process = child("words")
    process.stdin.write(b"one two three four\n")
    process.stdin.flush()
    process.stdout.readline()  # it waits for more
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == b"tdcompress: interrupted\n"


def test_letters_come_out_in_utf_8_whatever_the_locale(words_root, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr(tdc.Translator, "__call__", lambda self, sentences, **options: ["grün ⁇"] * len(sentences))
    assert main(["translate", str(words_root / "artifacts" / "words"), "one", "two"]) == 0
    assert out.buffer.getvalue().decode() == "grün ⁇\ngrün ⁇\n"

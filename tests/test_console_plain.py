import io

import pytest
from rich.console import Console

from tdcompress import console
from tdcompress.console import StageConsole, StageProgress, time_left


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0.4, "0 s left"),
        (40.2, "40 s left"),
        (60, "1 min left"),
        (3599, "1 h 00 min left"),
        (7500, "2 h 05 min left"),
    ],
)
def test_the_time_left_in_words(seconds: float | None, said: str) -> None:
    assert time_left(seconds) == said


def test_a_short_halt_says_little_of_the_time_left() -> None:
    now = 0.0
    bars = StageConsole(Console(file=io.StringIO(), width=100)).bars
    bars.get_time = lambda: now
    bar = bars.add_task("train", total=1000, text="")
    for done in range(1, 201):
        now += 30 if done == 200 else 1
        bars.update(bar, completed=done)
    assert bars.tasks[0].time_remaining == 917  # at 199 steps in 228 seconds; those of the last half minute alone say 24,000


def test_plain_lines_say_share_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    shown = StageConsole(Console(file=io.StringIO(), width=100))
    shown.bars.get_time = lambda: now
    progress = StageProgress(shown, shown.bars.add_task("train", total=None, text=""), "train net")
    for done in range(1, 6):
        now += 10
        progress.update(done, 20, f"epoch {done}")
    lines = shown.console.file.getvalue().splitlines()
    assert [line.removeprefix("...   ").split("  ") for line in lines] == [
        ["train net", "10%", "3 min left", "epoch 2"],
        ["train net", "20%", "3 min left", "epoch 4"],
    ]

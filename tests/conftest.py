"""What all tests share: quiet threads, fixed random examples, and one tiny run of the whole pipeline."""

import os

# before torch is imported anywhere: threads that spin while others wait make small networks ten times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock
from small_recipes import small_recipe
from words import RECIPE, write_corpus

gc.disable()  # until all is imported and collected: a quarter of that time went into the search for garbage

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50, database=None)
hypothesis.settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parent.parent
TRAINING_PARTS = ("torch", "torchvision", "onnxscript", "safetensors", "sklearn", "matplotlib", "tomli_w")

# Weights in three number formats, and units; accurate enough to tell a working file from a broken one.
TINY = small_recipe(
    "tiny",
    """
[sparsity]
method = "none"

[train]
epochs = 3
batch_size = 32
optimizer = { name = "sgd", lr = 0.05, momentum = 0.9 }

[export]
select = { max_accuracy_drop = 0.1 }

[[sweep.case]]
"sparsity.method" = "none"
"export.values" = ["float32", "float16", "int8"]

[[sweep.case]]
"sparsity.method" = "targeted"
"sparsity.granularity" = "unit"
"sparsity.gamma" = 0.5
"sparsity.alpha" = 0.5
""",
    seed=3,
    width=8,
    hidden=16,
    bench="quick",
)

# Few tests that take long. Files go to workers whole: these first, so that none of them runs on when the others are done.
LONG_FILES = (
    "test_methods_pipeline.py",
    "test_tasks_translation_stages.py",
    "test_end_to_end.py",
    "test_engine_build.py",
    "test_train_kill.py",
    "test_train_distributed.py",
    "test_cluster_runs.py",
)

SHORT_BUDGET: dict[str, Any] = {
    "name": "quick",
    "processes": 2,
    "minimum_pairs": 3,
    "maximum_pairs": 20,
    "seconds_per_file": 0.05,
    "seconds_total": 0.2,
    "warm_up_seconds": 0.02,
    "single_calls": 5,
}
# ``tdcompress ARGUMENTS``, with that budget.
SHORT_PROGRAM = f"""
import sys
from tdcompress.bench import budget
from tdcompress.cli import main
budget.BUDGETS = {{**budget.BUDGETS, "quick": budget.Budget(**{SHORT_BUDGET!r})}}
sys.exit(main(sys.argv[1:]))
"""

# Hides packages, as on a machine where they are not installed: they are not found, here and in child processes.
BLOCK = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


def pytest_collection_finish() -> None:
    """What is imported stays. Torch's objects are not searched for garbage again and again: a tenth of an export's time."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What is written is flushed as ever, and no test waits until a disk has it: a loss of power is what none can make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which also refuses what is no open file
        yield


@pytest.fixture(scope="session", autouse=True)
def _operators_are_looked_up_once() -> Iterator[None]:
    """Each export lets torch look up all its operators some sixty times, a sixth of its time; no test registers new ones."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:
            from torch._export import utils

            patch.setattr(utils, "_materialize_cpp_cia_ops", cache(utils._materialize_cpp_cia_ops))
        yield


@dataclass
class Recorder:
    """A watcher that remembers which stages were made and which were there."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def started(self, task: Any) -> "Recorder":
        return self

    def update(self, done: float, total: float, text: str) -> None:
        pass

    def finished(self, task: Any, artifact: Any, seconds: float) -> None:
        self.made.append(task.stage.name)

    def reused(self, task: Any, artifact: Any) -> None:
        self.kept.append(task.stage.name)

    def left(self, task: Any) -> None:
        pass


@pytest.fixture(scope="session")
def make_recorder() -> Callable[[], Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def tiny_text() -> str:
    return TINY


@pytest.fixture(scope="session")
def run_text(make_recorder: Callable[[], Recorder]) -> Callable[..., Any]:
    """Run a recipe's text in this process; returns what ``run_recipe`` does, and the watcher."""

    def run(text: str, root: Path, changes: Mapping[str, Any] | None = None, **options: Any) -> Any:
        from tdcompress.recipes.source import parse_recipe
        from tdcompress.runs.execution import Execution
        from tdcompress.runs.run import run_recipe

        watcher = make_recorder()
        recipe = parse_recipe(text, "test.toml", changes)
        return run_recipe(recipe, Execution(root=root, device="cpu", watcher=watcher), **options), watcher

    return run


@pytest.fixture(scope="session")
def short_benchmarks() -> Callable[[], AbstractContextManager[None]]:
    """``with short_benchmarks():`` the quick budget measures next to nothing: for tests of what is done with the numbers."""
    from tdcompress.bench import budget

    @contextmanager
    def shortened() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(budget, "BUDGETS", {**budget.BUDGETS, "quick": budget.Budget(**SHORT_BUDGET)})
            yield

    return shortened


@pytest.fixture(scope="session")
def short_program() -> str:
    """The text of a program: ``tdcompress ARGUMENTS`` whose quick benchmarks are short."""
    return SHORT_PROGRAM


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``once("name", make)``: the folder of that name, which ``make`` fills in whichever worker needs it first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # each worker has a folder in that of the whole run

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        place, made = shared / f"once-{name}", shared / f"once-{name}.made"
        with FileLock(shared / f"once-{name}.lock"):
            if not made.exists():
                shutil.rmtree(place, ignore_errors=True)  # of a worker that failed
                place.mkdir()
                make(place)
                made.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def tiny_root(once: Callable[..., Path], run_text: Callable[..., Any], short_benchmarks: Any) -> Path:
    """The artifacts folder of one tiny run, benchmark included. Not to be changed: copy it first."""

    def make(folder: Path) -> None:
        with short_benchmarks():
            run_text(TINY, folder / "artifacts")

    return once("tiny", make) / "artifacts"


@pytest.fixture(scope="session")
def tiny_run(tiny_root: Path) -> Path:
    """The run's folder of the tiny run."""
    return tiny_root / "tiny"


@pytest.fixture(scope="session")
def words_root(once: Callable[..., Path], run_text: Callable[..., Any]) -> Path:
    """A folder with one run of a small translator, ``artifacts/words``, and its corpus. Not to be changed: copy it first."""
    pytest.importorskip("sentencepiece")
    pytest.importorskip("sacrebleu")

    def make(folder: Path) -> None:
        (folder / "corpus").mkdir()
        write_corpus(folder / "corpus")
        changes = {"bench.budget": "none", "export.select.max_accuracy_drop": 1.0}  # some row is model.onnx, however well it does
        run_text(RECIPE.format(root=folder / "corpus"), folder / "artifacts", changes)

    return once("words", make)


@pytest.fixture(scope="session")
def without(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """``without("torch")``: an environment in which packages cannot be found."""

    def hide(*names: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("site")
        (folder / "sitecustomize.py").write_text(f"HIDDEN = {names!r}\n{BLOCK}")
        return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}

    return hide


@pytest.fixture(scope="session")
def without_torch(without: Callable[..., dict[str, str]]) -> dict[str, str]:
    """An environment in which the training half of the package cannot be found."""
    return without(*TRAINING_PARTS)


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``tdcompress ARGUMENTS`` in a process of its own, anywhere; with ``short=True`` its quick benchmarks are short."""

    def run(*arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None, short: bool = False) -> Any:
        program = ["-c", SHORT_PROGRAM] if short else ["-m", "tdcompress.cli"]
        return subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )

    return run

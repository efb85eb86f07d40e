"""How far a reader has to jump to follow the demo's planning: calls, files, and returns to a file already left.

Traces ``plan_run`` of ``pipelines/digits.toml``, and the keys of all its tasks, with ``sys.setprofile``. Each call of one of the
package's functions is a step; a step into another file than the last one, that was entered before, is a return.

    python benchmarks/planning_trace.py
"""

import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from tdcompress.recipes.source import load_recipe
from tdcompress.runs.plan import plan_run
from tdcompress.stores.folder import FolderStore

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = f"{ROOT / 'tdcompress'}/"


def traced(work: Callable[[], Any]) -> list[str]:
    """The file of each call of one of the package's functions while ``work`` runs; bodies of comprehensions are no calls."""
    files: list[str] = []

    def heard(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            files.append(code.co_filename.removeprefix(PACKAGE))

    sys.setprofile(heard)
    try:
        work()
    finally:
        sys.setprofile(None)
    return files


def returns(files: list[str]) -> int:
    """Steps into a file that was entered before and left since."""
    entered, count = set(files[:1]), 0
    for last, file in pairwise(files):
        count += file != last and file in entered
        entered.add(file)
    return count


def main() -> None:
    recipe = load_recipe(ROOT / "pipelines" / "digits.toml")
    keys: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        plan_run(recipe, store)  # imports and caches are not what is counted
        files = traced(lambda: keys.extend(task.key for task in plan_run(recipe, store).tasks()))
    where = f"across {len(set(files))} files"
    print(f"{len(keys)} tasks: {len(files)} calls {where}, {returns(files)} returns to a file already left")


if __name__ == "__main__":
    main()

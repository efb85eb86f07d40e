"""Where the values of a recipe were written: the line of each dotted key, for messages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tdcompress.errors import RecipeError

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"^\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where values came from, for messages: a file name and the line of each dotted key."""

    file: str
    lines: Mapping[str, int] = field(default_factory=dict)

    def error(self, path: str, problem: str) -> RecipeError:
        """An error that names the file, the line of ``path`` (or of its nearest parent) and the problem."""
        line = self.line(path)
        if line is None:
            return RecipeError(f"{self.file}: {problem}")
        if line > 0:
            return RecipeError(f"{self.file}, line {line}: {problem}")
        return RecipeError(f"--set {problem}" if problem.startswith(f"{path}:") else f"--set {path}: {problem}")

    def line(self, path: str) -> int | None:
        """The line of a dotted key, or of its nearest parent; 0 = given by ``--set``, None = not known."""
        parts = path.split(".")
        lines = (self.lines.get(".".join(parts[:end])) for end in range(len(parts), 0, -1))
        return next((line for line in lines if line is not None), None)


def key_lines(text: str) -> dict[str, int]:
    """Line number (from 1) of each dotted key and table of a TOML text.

    tomllib keeps no positions. Keys inside inline tables have their table's line; a key of an array of tables has its item's
    number in it: "sweep.case.0.sparsity.method".
    """
    lines: dict[str, int] = {}
    items: dict[str, int] = {}
    prefix, depth = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if depth == 0 and (header := _HEADER.match(line)):
            prefix = _clean(header[2])
            lines.setdefault(prefix, number)
            if header[1] == "[[":
                items[prefix] = items.get(prefix, -1) + 1
                prefix = f"{prefix}.{items[prefix]}"
                lines[prefix] = number
            continue
        if depth == 0 and (key := _KEY.match(line)):
            lines.setdefault(f"{prefix}.{_clean(key[1])}".lstrip("."), number)
        bare = re.sub(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|#.*", "", line)
        depth = max(0, depth + sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}"))
    return lines


def _clean(key: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_PART, key))

"""The C source of the kernels as text: which file has which kernel, the types of tables, and some files joined to one.

A joined text is for one kind of processor. Its conditional lines are settled where what they ask is known, so that it
shows no line for other processors; what a compiler alone knows (such as `defined(__clang__)`) stays a condition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tdcompress.engine.build import KERNEL_FILES, SOURCE
from tdcompress.errors import TdcompressError

ABSENT = frozenset({"__AVX512F__", "__AVX512DQ__", "__AVX2__", "__aarch64__", "__wasm_simd128__"})
"""What portable source takes as not defined."""

_KERNEL = re.compile(r"^void KERNEL\((\w+)\)\(const void \*descriptor, const tdc_context \*context\) \{\n +const (\w+) \*", re.M)
_TABLE = re.compile(r"\bTABLE\((?:const )?(\w+), (\w+)\)")
_GUARD = re.compile(r"^#ifndef (TDC_(?:\w+_)?H)\n#define \1\n(.*)^#endif\n\Z", re.M | re.S)
_DIRECTIVE = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif|define|include)\b\s*(.*?)\s*(?:/\*.*)?$")
_COMPARED = re.compile(r"(\w+) (==|>=|>) (\d+)")


@dataclass(frozen=True, kw_only=True)
class KernelSource:
    """Where a kernel is, and what it is given: a name of csrc, and a type of tdc.h."""

    file: str
    descriptor: str


def kernel_sources() -> Mapping[str, KernelSource]:
    """Kernel name, as in ``OPERATIONS`` -> its source."""
    return {
        name: KernelSource(file=file, descriptor=descriptor)
        for file in KERNEL_FILES
        for name, descriptor in _KERNEL.findall((SOURCE / file).read_text(encoding="utf-8"))
    }


def c_types() -> Mapping[str, str]:
    """Name of a table in a descriptor -> the C type of its entries. One name has one type throughout tdc.h.

    Raises:
        TdcompressError: a name has two.
    """
    found: dict[str, str] = {}
    for kind, name in _TABLE.findall((SOURCE / "tdc.h").read_text(encoding="utf-8")):
        if found.setdefault(name, kind) != kind:
            raise TdcompressError(f"engine: tables {name!r} of tdc.h have two types, {found[name]} and {kind}")
    return found


@dataclass(kw_only=True)
class _Branch:
    """An #if that is open. kept: undecided, so its lines stay; taken: one of its branches was; active: this one is."""

    kept: bool
    taken: bool
    active: bool


@dataclass(kw_only=True)
class _Joiner:
    macros: dict[str, int | None]
    seen: set[str] = field(default_factory=set)
    system: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    branches: list[_Branch] = field(default_factory=list)

    @property
    def active(self) -> bool:
        return all(branch.active for branch in self.branches)

    def add(self, name: str) -> None:
        """A file, with those of its own folder that it includes."""
        self.seen.add(name)
        text = _GUARD.sub(r"\2", (SOURCE / name).read_text(encoding="utf-8"))
        self.lines.append(f"/* ---- {name} ---- */")
        for line in text.splitlines():
            found = _DIRECTIVE.match(line)
            if found is None:
                self.lines += [line] if self.active else []
            elif found[1] in ("define", "include"):
                if self.active:
                    getattr(self, found[1])(line, found[2])
            else:
                self.condition(line, found[1], found[2])

    def define(self, line: str, rest: str) -> None:
        """Remember what it defines."""
        name, _, value = rest.partition(" ")
        self.macros[name.partition("(")[0]] = int(value) if value.isdigit() else None
        self.lines.append(line)

    def include(self, line: str, rest: str) -> None:
        """Put a file of ours in its place, once; collect the others."""
        if rest.startswith("<"):
            self.system.add(rest)
        elif rest.strip('"') not in self.seen:
            self.add(rest.strip('"'))

    def condition(self, line: str, word: str, asked: str) -> None:
        """Settle an #if, its branches and its end, or keep the line."""
        if word in ("if", "ifdef", "ifndef"):
            value = self.value(asked) if word == "if" else self.defined(asked)
            value = not value if word == "ifndef" and value is not None else value
            self.branches.append(_Branch(kept=value is None, taken=bool(value), active=value is not False))
            kept = value is None
        else:
            branch = self.branches[-1]
            kept = branch.kept
            if word == "endif":
                self.branches.pop()
            elif not kept:
                value = True if word == "else" else self.value(asked)
                if value is None and not branch.taken:
                    raise TdcompressError(f"engine: {line.strip()!r} cannot be settled after an #if that was")
                branch.active = bool(value) and not branch.taken
                branch.taken = branch.taken or branch.active
        if kept and self.active:
            self.lines.append(line)

    def defined(self, name: str) -> bool | None:
        return True if name in self.macros else False if name in ABSENT else None

    def value(self, asked: str) -> bool | None:
        """Of a condition of `&&` and `||` without brackets; None: not known here."""
        results = [self.all_of([self.term(term) for term in part.split(" && ")]) for part in asked.split(" || ")]
        return True if True in results else None if None in results else False

    @staticmethod
    def all_of(values: list[bool | None]) -> bool | None:
        return False if False in values else None if None in values else True

    def term(self, text: str) -> bool | None:
        if found := re.fullmatch(r"defined\((\w+)\)", text):
            return self.defined(found[1])
        if found := _COMPARED.fullmatch(text):
            known = self.macros.get(found[1])
            bound = int(found[3])
            return None if known is None else {"==": known == bound, ">=": known >= bound, ">": known > bound}[found[2]]
        return None


def one_source(files: Iterable[str], macros: Mapping[str, str]) -> str:
    """Files of csrc, with all that they include, as one text of portable C.

    Args:
        files: names in csrc, each taken once.
        macros: name -> text; defined at the start.

    Raises:
        TdcompressError: a condition of the source is of a form that is not handled.
    """
    joiner = _Joiner(macros={name.partition("(")[0]: int(text) if text.isdigit() else None for name, text in macros.items()})
    for name in files:
        if name not in joiner.seen:
            joiner.add(name)
    head = [f"#include {name}" for name in sorted(joiner.system)]
    head += [f"#define {name} {text}".rstrip() for name, text in macros.items()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join([*head, "", *joiner.lines, ""]))

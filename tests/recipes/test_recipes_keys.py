"""What a recipe can say is read from the settings that own the keys, and docs/recipes.md is that text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tdcompress.cli import main
from tdcompress.recipes.experiment import table_types
from tdcompress.recipes.keys import NAMED, Key, in_words, keys_document, keys_of, table_of
from tdcompress.report.markdown import render_document

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Inner.

    Attributes:
        rate: how
            fast.
    """

    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Base:
    """Base.

    Attributes:
        kind: which ``one``.
    """

    kind: Literal["a", "b"]


@dataclass(frozen=True, kw_only=True)
class Outer(Base):
    """Outer.

    Attributes:
        sizes: all of them; None = none.
    """

    sizes: tuple[int, ...] | None = None
    inner: Inner = field(default_factory=Inner)


def test_keys_have_values_defaults_and_meanings_also_where_inherited_or_nested() -> None:
    assert keys_of(Outer) == [
        Key(path="kind", values='"a" or "b"', default="needed", meaning="which one."),
        Key(path="sizes", values="list of whole numbers", default="", meaning="all of them; None = none."),
        Key(path="inner.rate", values="number", default="0.1", meaning="how fast."),
    ]


def test_types_in_words() -> None:
    assert in_words(tuple[float, float]) == "list of 2 numbers"
    assert in_words(tuple[str, ...]) == "list of text"
    assert in_words(float | None) == "number"


def test_every_key_of_a_recipe_is_explained() -> None:
    unexplained = [
        f"{section}.{row[0]}"
        for section in (*NAMED, *table_types())
        for row in table_of(section).rows
        if not row[4] or not row[1]
    ]
    assert unexplained == []


def test_keys_that_names_share_stand_once_with_each_default() -> None:
    rows = {row[0]: row for row in table_of("data").rows}
    assert len(rows) == len(table_of("data").rows)
    images = "digits, mnist, fashion_mnist, cifar10, cifar100, imagefolder"
    assert rows["flip"][2:4] == ("false: digits, mnist; true: fashion_mnist, cifar10, cifar100, imagefolder", images)
    assert rows["image_size"][2:4] == ("224", "imagefolder")


def test_the_documentation_is_what_the_code_says() -> None:
    assert DOCS.read_text(encoding="utf-8") == render_document(keys_document()), "tdcompress recipes --write-keys docs/recipes.md"


def test_the_command_writes_it(tmp_path: Path) -> None:
    assert main(["recipes", "--write-keys", str(tmp_path / "keys.md")]) == 0
    assert "max_accuracy_drop" in (tmp_path / "keys.md").read_text()

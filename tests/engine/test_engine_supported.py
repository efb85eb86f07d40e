"""docs/engine.md lists what the registries hold, and every name of the list is an operator."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tdcompress.engine.constants.evaluate import EVALUATORS
from tdcompress.engine.supported import FOLDED_BY_TRANSLATION, NOTES, supported_text
from tdcompress.engine.translate.graph import TRANSLATORS

DOCS = Path(__file__).parents[2] / "docs" / "engine.md"


def test_the_documentation_says_what_the_registries_hold():
    assert supported_text() in DOCS.read_text(encoding="utf-8"), "python -m tdcompress.engine.supported"


@pytest.mark.parametrize("name", sorted({*TRANSLATORS, *EVALUATORS, *FOLDED_BY_TRANSLATION}))
def test_every_name_is_an_operator(name):
    assert onnx.defs.has(name)
    assert f"`{name}`" in supported_text()


def test_notes_are_about_operators_that_run():
    named = [name for operators, _ in NOTES for name in operators]
    assert len(named) == len(set(named))
    assert set(named) <= set(TRANSLATORS)


@pytest.mark.parametrize(
    "name", ["TDCOMPRESS_CACHE", "TDCOMPRESS_ENGINE_LIBRARY", "TDCOMPRESS_ENGINE_ISA", "TDCOMPRESS_COMPILE", "CC", "isa="]
)
def test_what_steers_the_engine_from_outside_is_explained(name):
    assert f"`{name}`" in DOCS.read_text(encoding="utf-8")

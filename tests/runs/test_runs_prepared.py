"""A vocabulary is made once, known by what made it, and goes with its trainings, whichever version of the library is here."""

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from small_recipes import small_recipe
from words import TINY, write_corpus

pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")

from tdcompress.artifacts import Artifact
from tdcompress.cli import main
from tdcompress.data import parallel_text
from tdcompress.errors import ArtifactError, DataError, UserError
from tdcompress.lineage import origin
from tdcompress.lineage.network import load_network
from tdcompress.pipeline import Machine, Runner
from tdcompress.recipes.source import parse_recipe
from tdcompress.records.stages import VocabularyRecord
from tdcompress.runs.campaign import run_campaign
from tdcompress.runs.execution import Execution
from tdcompress.runs.plan import RunPlan, plan_run
from tdcompress.stages import STAGES, vocabulary
from tdcompress.stores.folder import FolderStore
from tdcompress.tasks.registry import TASKS
from tdcompress.text.parallel import read_pairs
from tdcompress.text.vocabulary import Vocabulary
from tdcompress.transfer.items import CARRIED

Installed = Callable[[str], None]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), train=60, others=12, longest=5)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Let another version of sentencepiece be installed."""
    return lambda number: monkeypatch.setattr(vocabulary, "version", lambda package: number)


@pytest.fixture
def plan(corpus: Path) -> Callable[..., RunPlan]:
    def make(root: Path, **changes: Any) -> RunPlan:
        text = TINY.format(root=changes.pop("data", corpus))
        return plan_run(parse_recipe(text, "words.toml", {"train.epochs": 0, **changes}), FolderStore(root))

    return make


@pytest.fixture
def make(make_recorder: Any) -> Callable[..., tuple[Artifact, Any]]:
    """Make a task of a plan; gives the artefact and the recorder."""

    def run(root: Path, plan: RunPlan, task: Any) -> tuple[Artifact, Any]:
        watcher = make_recorder()
        runner = Runner(store=FolderStore(root), watcher=watcher, facts={}, machine=Machine(places=plan.places))
        return runner.ensure(task), watcher

    return run


def made_of(plan: RunPlan) -> Any:
    return plan.rows[0].train.inputs["vocabulary"]


def test_all_trainings_on_a_text_share_one_vocabulary_which_they_name(plan: Any, make: Any, tmp_path: Path, corpus: Path) -> None:
    planned = plan(tmp_path, **{"sweep.sparsity.method": ["none", "dropout"], "distill.weight": 0.5})
    first, taught = (row.train for row in planned.rows)
    assert set(taught.inputs) == {"vocabulary", "teacher"}
    keys = {task.inputs["vocabulary"].key for task in (first, taught, taught.inputs["teacher"])}
    assert len(keys) == 1
    assert [task.stage.name for task in planned.tasks()].count("vocabulary") == 1
    trained, watcher = make(tmp_path, planned, taught)
    assert watcher.made == ["vocabulary", "train", "train"]
    artifact = trained.input("vocabulary")
    words = Vocabulary(artifact.file("vocabulary.model").read_bytes())
    assert artifact.recorded(VocabularyRecord) == VocabularyRecord(pieces=60, bytes=len(words.model))
    assert words.decode(words.encode(["one two"])) == ["one two"]
    assert load_network(trained, origin.learning_task_of(trained, planned.places))


def test_what_a_vocabulary_depends_on_is_in_its_key(plan: Any, installed: Installed, tmp_path: Path, corpus: Path) -> None:
    changed = shutil.copytree(corpus, tmp_path / "changed")
    (changed / "train.en").write_text((corpus / "train.en").read_text().replace("one", "ONE"))
    moved = shutil.copytree(corpus, tmp_path / "moved")
    own = plan(tmp_path)
    changes = [
        {"data": changed},
        {"data.vocabulary.size": 50},
        {"data.vocabulary.kind": "unigram"},
        {"data.vocabulary.coverage": 1.0},
    ]
    others = [plan(tmp_path, **change) for change in changes]
    installed("0.1.99")
    others.append(plan(tmp_path))
    assert len({made_of(each).key for each in (own, *others)}) == 6
    assert len({each.rows[0].train.key for each in (own, *others)}) == 6
    installed(made_of(own).settings.maker.removeprefix("sentencepiece "))
    same = [plan(tmp_path, data=moved), plan(tmp_path, **{"train.epochs": 3}), plan(tmp_path, **{"model.width": 32})]
    assert {made_of(each).key for each in same} == {made_of(own).key}


def test_what_a_task_prepares_is_a_stage_and_travels() -> None:
    prepared = {role for task in TASKS.values() for role in task.prepares}
    assert prepared == set(CARRIED) == {"vocabulary"}
    for role in prepared:
        assert {"data", "maker"} == {field.name for field in fields(STAGES[role].settings)}


def test_images_have_no_vocabulary(tmp_path: Path) -> None:
    planned = plan_run(parse_recipe(small_recipe("short", '[sparsity]\nmethod = "none"\n')), FolderStore(tmp_path))
    assert planned.rows[0].train.inputs == {}
    assert {task.stage.name for task in planned.tasks()} == {"train", "prune", "store", "export"}


def test_a_training_from_elsewhere_goes_on_under_another_version(
    plan: Any, make: Any, installed: Installed, tmp_path: Path, corpus: Path
) -> None:
    """Taken along by `artifacts export` of the training alone."""
    installed("0.1.99")
    there, here = tmp_path / "there", tmp_path / "here"
    elsewhere = plan(there)
    make(there, elsewhere, elsewhere.rows[0].train)
    assert main(["artifacts", "export", "--stage", "train", "--to", str(tmp_path / "out"), "--artifacts", str(there)]) == 0
    installed("0.2.50")
    own = plan(here)
    assert own.rows[0].train.key != elsewhere.rows[0].train.key
    make(here, own, made_of(own))  # it has made its own before
    assert plan(here).rows[0].train.key == own.rows[0].train.key
    parts = [str(path) for path in tmp_path.glob("out.*.tdca")]
    assert main(["artifacts", "import", *parts, "--artifacts", str(here)]) == 0
    again = plan(here)
    assert again.rows[0].train.key == elsewhere.rows[0].train.key
    pruned, watcher = make(here, again, again.rows[0].pruned)
    assert watcher.made == ["prune"]
    assert len(origin.learning_task_of(pruned, again.places).vocabulary) == 60  # type: ignore[attr-defined]
    make(here, own, own.rows[0].train)
    make(here, own, own.rows[0].pruned)
    assert plan(here).rows[0].train.key == own.rows[0].train.key  # with a training on both, this machine's own


def test_a_vocabulary_that_this_machine_would_make_otherwise_is_not_made(
    plan: Any, make: Any, installed: Installed, tmp_path: Path
) -> None:
    installed("0.1.99")
    planned = plan(tmp_path)
    installed("0.2.50")
    with pytest.raises(UserError, match=r"of sentencepiece 0\.1\.99 is gone or damaged, and here is sentencepiece 0\.2\.50"):
        make(tmp_path, planned, made_of(planned))


def test_only_what_is_used_of_the_text_is_read(plan: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(source: Path, target: Path) -> Any:
        read.append(source.name)
        return read_pairs(source, target)

    monkeypatch.setattr(parallel_text, "read_pairs", counted)
    monkeypatch.setattr("tdcompress.data.text_parts.read_pairs", counted)
    planned = plan(tmp_path)
    origin._loaded.cache_clear()
    make(tmp_path, planned, made_of(planned))
    assert read == ["train.en"]
    read.clear()
    make(tmp_path, planned, planned.rows[0].train)
    assert sorted(read) == ["test.en", "test.en", "train.en", "val.en"]  # of the test part pieces, then its references
    read.clear()
    make(tmp_path, planned, planned.rows[0].export)
    assert read == []  # the process has read them
    origin._loaded.cache_clear()
    other = plan(tmp_path, **{"prune.fraction": 0.25})
    make(tmp_path, other, other.rows[0].export)
    assert set(read) == {"test.en"}


def test_text_that_changed_while_it_was_in_use_is_refused(corpus: Path, tmp_path: Path) -> None:
    root = shutil.copytree(corpus, tmp_path / "text")
    data = parallel_text.ParallelTextSettings(root=str(root)).load()
    assert sum(1 for _ in data.training_text()) == 120
    (root / "train.de").write_text((root / "train.de").read_text().replace("eins", "EINS"))
    with pytest.raises(DataError, match="its text was changed while it was in use"):
        list(data.training_text())


@pytest.mark.parametrize("damage", ["damaged", "missing", "not named"])
def test_a_vocabulary_that_is_not_what_the_training_had_is_refused(plan: Any, make: Any, tmp_path: Path, damage: str) -> None:
    planned = plan(tmp_path)
    trained, _ = make(tmp_path, planned, planned.rows[0].train)
    path = trained.input("vocabulary").file("vocabulary.model")
    if damage == "damaged":
        path.write_bytes(path.read_bytes()[::-1])
    elif damage == "missing":
        shutil.rmtree(path.parent)
    else:  # as trainings were before there was this stage
        trained = replace(trained, inputs={})
    said = {"damaged": "is damaged", "missing": "its vocabulary, .* is missing", "not named": "names no vocabulary as its input"}
    with pytest.raises(ArtifactError, match=said[damage] + ".*; run the recipe again"):
        origin.learning_task_of(trained, planned.places)


def test_a_campaign_makes_it_before_its_trainings(corpus: Path, tmp_path: Path, make_recorder: Any) -> None:
    watcher = make_recorder()
    changes = {"sweep.sparsity.method": ["none", "dropout"], "distill.weight": 0.5, "train.epochs": 0}
    recipe = parse_recipe(TINY.format(root=corpus), "words.toml", changes)
    done = run_campaign([recipe], Execution(root=tmp_path, device="cpu", watcher=watcher), together=2)
    assert (done.trainings, watcher.made) == (2, ["vocabulary", "train", "train"])


def test_a_campaign_says_what_is_wrong_with_the_text(corpus: Path, tmp_path: Path, make_recorder: Any) -> None:
    root = shutil.copytree(corpus, tmp_path / "text")
    (root / "train.de").write_bytes(b"eins\xff\n" * 60)
    recipe = parse_recipe(TINY.format(root=root), "words.toml")
    with pytest.raises(
        UserError, match=r"(?s)2 of 2 failed: .*train\.de, line 1: byte 5 is no UTF-8.*it needs vocabulary of parallel_text"
    ):
        run_campaign([recipe], Execution(root=tmp_path / "x", device="cpu", watcher=make_recorder()))


def test_it_says_how_far_it_is(plan: Any, make: Any, tmp_path: Path, make_recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "EVERY", 50)
    said: list[str] = []
    monkeypatch.setattr(make_recorder, "update", lambda self, done, total, text: said.append(text))
    planned = plan(tmp_path)
    make(tmp_path, planned, made_of(planned))
    assert said == ["0 sentences read", "50 sentences read", "100 sentences read", "choosing 60 word pieces"]

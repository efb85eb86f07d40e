"""The key of one task of each stage, as it was when the stage last changed."""

from types import SimpleNamespace

from words import TINY, write_corpus

from tdcompress.recipes.source import parse_recipe
from tdcompress.runs import workers
from tdcompress.runs.plan import plan_run
from tdcompress.stages import STAGES


def test_golden_keys_of_a_recipes_tasks(plan, runner, monkeypatch, tmp_path):
    """These change only when a stage's version is raised or a setting is added: old results are then made again."""
    monkeypatch.setattr(
        workers, "read_host", lambda: SimpleNamespace(id="host", versions=("onnxruntime 1", "OMP_WAIT_POLICY=ACTIVE"))
    )
    monkeypatch.setattr("tdcompress.stages.vocabulary.version", lambda package: "1")
    text = TINY.format(root=write_corpus(tmp_path, train=4, others=2))
    prepared = plan_run(parse_recipe(text, "words.toml"), runner.store).rows[0].train.inputs.values()
    changes = {"sparsity.gamma": 0.5, "sparsity.alpha": 0.5}
    weights = plan("targeted", "fraction = 0.5", **changes, **{"analyse.bins": 8, "bench.budget": "quick"})
    units = plan("targeted", **changes, **{"prune.granularity": "unit", "finetune.epochs": 1, "finetune.after": "shrink"})
    (first,), (second,) = weights.rows, units.rows
    tasks = [*prepared, *first.tasks(), *weights.analyses, weights.bench, second.steps["shrink"], second.steps["finetune shrunk"]]
    assert {task.stage.name: task.key for task in tasks} == GOLDEN
    assert GOLDEN.keys() == STAGES.keys()


GOLDEN = {
    "vocabulary": "4975f3c948da101a",
    "train": "a83f6f2f8dc5ff44",
    "prune": "2f65376b4fc44369",
    "finetune": "07d1c7f63d93d070",
    "shrink": "ae25853171b44a81",
    "store": "f8a69cd621a28b98",
    "export": "b0bdf34f78b0e0cc",
    "bench": "8f57993a8683b941",
    "analyse": "b9ece4ed67661373",
}

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
    "train": "01eae0be64958301",
    "prune": "87e5b81cc6e0d284",
    "finetune": "b75e0e0783aa6a02",
    "shrink": "8de64d665ca1e0db",
    "store": "231208e99c3d7895",
    "export": "db7a3c1803e53372",
    "bench": "e3072daff2610973",
    "analyse": "da0a2b8aabbd1cb0",
}

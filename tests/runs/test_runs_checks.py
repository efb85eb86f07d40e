"""What is refused before anything is trained."""

import os
from types import SimpleNamespace

import pytest
from small_recipes import small_recipe

from tdcompress.bench import backends
from tdcompress.engine import session
from tdcompress.errors import ModelError, RecipeError, TdcompressError, UnsupportedError, UserError
from tdcompress.limits import usable_cores
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs import checks
from tdcompress.runs.campaign import run_campaign
from tdcompress.runs.execution import Execution

RECIPE = small_recipe(
    "checked",
    """
[sparsity]
method = "none"
[train]
epochs = 0
""",
    bench=None,
)


@pytest.fixture
def refused(run_text, tmp_path, monkeypatch):
    """A run that ends before any stage begins; gives what it says."""

    def run(**changes):
        monkeypatch.setattr("tdcompress.pipeline.Runner.ensure", lambda *_: pytest.fail("a stage began"))
        with pytest.raises(TdcompressError) as error:
            run_text(RECIPE, tmp_path / "artifacts", changes)
        return error

    return run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bench.backend": ["onnxruntime", "quantum"]}, "--set bench.backend: backend 'quantum' is unknown"),
        ({"bench.provider": "NoneExecutionProvider"}, "--set bench.provider: onnxruntime .* has no provider"),
        ({"bench.threads": [usable_cores() + 1]}, "--set bench.threads: threads is"),
        (
            {"prune.granularity": "unit", "prune.include": ["conv9"]},
            "--set prune.include: include = 'conv9' names no prunable layer of DigitsCnn; it has conv",
        ),
        (
            {"sparsity.method": "variational", "sparsity.exclude": ["conv2"], "prune.exclude": [], "prune.shares": "global"},
            r'--set prune.shares: "global" ranks all layers together, but method = "variational" .* magnitude of conv2\.weight;',
        ),
        (
            {
                **{"sparsity.method": "l0", "sparsity.ranking": "gate", "sparsity.granularity": "unit"},
                **{"sparsity.exclude": ["conv2"], "prune.exclude": [], "prune.shares": "global"},
            },
            '--set prune.shares: "global" ranks all layers together, but method = "l0" .* magnitude of conv2;',
        ),
        (
            {"sparsity.granularity": "unit", "sparsity.include": ["conv9"]},
            "--set sparsity.include: include = 'conv9' names no prunable layer of DigitsCnn; it has conv",
        ),
        (
            {"sparsity.granularity": "unit", "sparsity.include": ["conv9"], "prune.include": []},
            "--set sparsity.include: include = 'conv9' names no prunable layer of DigitsCnn",
        ),
        ({"train.batch_tokens": 100}, "--set train.batch_tokens: images have no tokens; give train.batch_size instead"),
        ({"prune.include": ["conv2"]}, "prune.include: it names layers whose units are pruned"),
        ({"sparsity.include": ["conv2"]}, "sparsity.include: it names layers whose units are trained on"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_stage(refused, changes, said):
    error = refused(**changes)
    assert isinstance(error.value, RecipeError)
    error.match(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bench.backend": ["quantum"]}, "--set bench.backend: backend 'quantum' is unknown"),
        ({"train.batch_tokens": 100}, "--set train.batch_tokens: images have no tokens"),
        ({"prune.granularity": "unit", "prune.include": ["conv9"]}, "--set prune.include: include = 'conv9' names no"),
        (
            {"sparsity.method": "variational", "sparsity.exclude": ["conv2"], "prune.exclude": [], "prune.shares": "global"},
            '--set prune.shares: "global" ranks all layers together',
        ),
    ],
)
def test_what_no_machine_can_run_is_refused_where_trainings_alone_are_made(tmp_path, make_recorder, monkeypatch, changes, said):
    monkeypatch.setattr("tdcompress.pipeline.Runner.ensure", lambda *_: pytest.fail("a stage began"))
    execution = Execution(root=tmp_path, device="cpu", watcher=make_recorder())
    with pytest.raises(RecipeError, match=said):
        run_campaign([parse_recipe(RECIPE, overrides=changes)], execution)


def test_units_of_what_is_trained_already_are_not_looked_for(tmp_path, make_recorder, monkeypatch):
    looked, original = [], checks.units_of
    monkeypatch.setattr(checks, "units_of", lambda *given: looked.append(1) or original(*given))
    units = {"prune.granularity": "unit"}
    execution = Execution(root=tmp_path, device="cpu", watcher=make_recorder())
    for seed, times in ((0, 1), (0, 1), (1, 2)):
        run_campaign([parse_recipe(RECIPE, overrides=units | {"seed": seed})], execution)
        assert len(looked) == times


def test_what_another_machine_may_have_is_not_asked_of_this_one(tmp_path, make_recorder):
    lacking = {"bench.provider": "NoneExecutionProvider", "bench.threads": [usable_cores() + 1], "bench.backend": ["openvino"]}
    execution = Execution(root=tmp_path, device="cpu", watcher=make_recorder())
    assert run_campaign([parse_recipe(RECIPE, overrides=lacking)], execution).trainings == 1


def test_an_engine_that_cannot_be_compiled_is_refused(refused, monkeypatch):
    def no_compiler():
        raise UnsupportedError("engine: no C compiler; install gcc")

    monkeypatch.setattr(session, "library", no_compiler)
    refused(**{"bench.backend": ["engine"]}).match("bench.backend: backend .engine. cannot run here: engine: no C compiler")


def test_a_benchmark_that_is_not_asked_for_needs_no_runtime(run_text, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "create_backend", lambda *_: pytest.fail("asked"))
    run_text(f'{RECIPE}\n[bench]\nbackend = ["quantum"]\n', tmp_path, {"bench.budget": "none"})


def test_units_that_could_never_leave_are_refused(refused, monkeypatch):
    def none(*_, **__):
        raise ModelError("Net has no unit that could leave")

    monkeypatch.setattr(checks, "units_of", none)
    refused(**{"prune.granularity": "unit"}).match("prune.granularity: Net has no unit that could leave")


def test_a_row_whose_name_is_too_long_for_a_file_is_refused():
    row, recipe = SimpleNamespace(id="x" * 240), parse_recipe(RECIPE)
    with pytest.raises(RecipeError, match=r"sweep: xxx.* of 245 bytes, too long"):
        checks._check_names(recipe, [row])
    checks._check_names(recipe, [SimpleNamespace(id="x" * 230)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(refused, tmp_path):
    stages = tmp_path / "artifacts" / "stages"
    stages.mkdir(parents=True)
    stages.chmod(0o500)
    refused().match("stages: cannot be written .*choose another with --artifacts")


def test_a_file_in_place_of_a_folder_is_refused(refused, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "stages").write_text("")
    refused().match("stages: cannot be written .*choose another with --artifacts")


def test_packages_of_the_report_are_asked_for_first(refused, monkeypatch):
    monkeypatch.setattr("tdcompress.runs.parts.find_spec", lambda name: None if name == "tomli_w" else True)
    error = refused()
    assert isinstance(error.value, UserError)
    error.match("this needs tomli_w")

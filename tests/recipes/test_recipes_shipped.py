from pathlib import Path

import pytest
import tomli_w

from tdcompress.errors import DataError, UserError
from tdcompress.recipes import shipped
from tdcompress.recipes.combinations import combinations
from tdcompress.recipes.names import row_ids
from tdcompress.recipes.shipped import copy_recipe, find_recipe, find_recipes, recipes_folder, shipped_recipes
from tdcompress.recipes.source import load_recipe, parse_recipe
from tdcompress.runs.layout import resolved_values
from tdcompress.runs.plan import plan_run
from tdcompress.stores.folder import FolderStore


def test_the_papers_settings_and_the_demo_are_shipped():
    names = set(shipped_recipes())
    assert {"digits", "cifar10_lenet5_weight", "cifar10_lenet5_unit", "cifar100_vgg16_unit"} <= names
    assert {f"cifar10_resnet32_{kind}" for kind in ("weight", "unit", "ramping", "xtreme3")} <= names
    assert all(sentence for sentence in shipped_recipes().values())


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_resolves_to_rows_with_names_of_their_own(name):
    experiments = combinations(load_recipe(find_recipe(Path(name)))).experiments
    assert len(set(row_ids(experiments))) == len(experiments)


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_recipe_that_a_run_of_a_shipped_one_leaves_is_the_same_experiments(name):
    recipe = load_recipe(find_recipe(Path(name)))
    experiments = combinations(recipe).experiments
    again = combinations(parse_recipe(tomli_w.dumps(resolved_values(recipe, experiments)))).experiments
    assert again == experiments
    assert row_ids(again) == row_ids(experiments)


@pytest.mark.parametrize("name", shipped_recipes())
def test_no_shipped_recipe_asks_every_machine_for_bfloat16(name):
    for experiment in combinations(load_recipe(find_recipe(Path(name)))).experiments:
        assert experiment.train.precision in ("auto", "float32")


def test_every_recipe_has_a_run_folder_of_its_own():
    names = [load_recipe(recipes_folder() / f"{name}.toml").name for name in shipped_recipes()]
    assert len(set(names)) == len(names)


def test_recipes_are_found_by_name_and_by_path(tmp_path):
    assert find_recipe(Path("digits")) == recipes_folder() / "digits.toml"
    assert find_recipe(Path("digits.toml")) == recipes_folder() / "digits.toml"
    own = tmp_path / "own.toml"
    own.write_text("")
    assert find_recipe(own) == own
    with pytest.raises(UserError, match="digit: no such recipe; did you mean 'digits'"):
        find_recipe(Path("digit"))
    with pytest.raises(UserError, match="no such recipe"):
        find_recipe(tmp_path)


def test_a_folder_means_all_its_recipes(tmp_path):
    assert find_recipes(Path("paper")) == sorted((recipes_folder() / "paper").glob("*.toml"))
    assert find_recipes(Path("digits")) == [recipes_folder() / "digits.toml"]
    with pytest.raises(UserError, match="a folder without recipes"):
        find_recipes(tmp_path)
    for name in ("b", "a"):
        (tmp_path / f"{name}.toml").write_text("")
        (tmp_path / f"._{name}.toml").write_bytes(b"\0\5\x16\7")  # macOS keeps its own notes of a file so
    assert find_recipes(tmp_path) == [tmp_path / "a.toml", tmp_path / "b.toml"]
    with pytest.raises(UserError, match="no such recipe"):
        find_recipes(tmp_path / "c")


def test_what_macos_leaves_beside_a_recipe_is_none(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text("# One. Two.")
    (tmp_path / "._a.toml").write_bytes(b"\x9e")
    monkeypatch.setattr(shipped, "recipes_folder", lambda: tmp_path)
    assert shipped_recipes() == {"a": "One."}


def test_a_recipe_is_copied_once(tmp_path):
    target = copy_recipe("digits", tmp_path)
    assert target.read_bytes() == (recipes_folder() / "digits.toml").read_bytes()
    with pytest.raises(UserError, match="is there already"):
        copy_recipe("digits", tmp_path)
    with pytest.raises(UserError, match="no shipped recipe; did you mean 'digits'"):
        copy_recipe("digts", tmp_path)
    with pytest.raises(UserError, match="no shipped recipe"):
        copy_recipe("../pipelines/digits", tmp_path)


def test_missing_data_is_told_before_anything_is_made(tmp_path):
    recipe = load_recipe(find_recipe(Path("cifar10_lenet5_weight")), {"data.root": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="nowhere"):
        plan_run(recipe, FolderStore(tmp_path))

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.errors import RecipeError
from tdcompress.recipes.experiment import resolve
from tdcompress.recipes.positions import key_lines
from tdcompress.recipes.shipped import find_recipe
from tdcompress.recipes.source import load_recipe, parse_override, parse_recipe
from tdcompress.recipes.sweep import expand_sweep

GOOD = """\
name = "a"
seed = 1

[data]
name = "digits"

[model]
name = "digits_cnn"

[sparsity]
method = "targeted"
gamma = 0.5
alpha = 0.5

[train]
epochs = 2
optimizer = { name = "sgd", lr = 0.1 }

[prune]
fraction = 0.5
"""


def every_experiment(text, changes=None):
    return [resolve(variant) for variant in expand_sweep(parse_recipe(text, "r.toml", changes))]


def refusal(text, **changes):
    """What the recipe of this text is refused with, as a run would: parsed, swept, resolved."""
    with pytest.raises(RecipeError) as caught:
        every_experiment(text, changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def line_of(text, part):
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def test_a_good_recipe_resolves_with_defaults():
    experiment = resolve(parse_recipe(GOOD))
    assert (experiment.seed, experiment.method.name, experiment.method.gamma) == (1, "targeted", 0.5)
    assert experiment.export.values == ("float32",)
    assert experiment.bench.budget == "quick"
    assert experiment.pruning.granularity == "weight"


@pytest.mark.parametrize(
    ("old", "new", "key", "hint"),
    [
        ("seed = 1", "sed = 1", "sed", "seed"),
        ("[prune]", "[prun]", "prun", "prune"),
        ("gamma = 0.5", "gama = 0.5", "sparsity.gama", "gamma"),
        ("epochs = 2", "epoch = 2", "train.epoch", "epochs"),
        ("lr = 0.1", "learning = 0.1, lrr = 0.1", "train.optimizer.learning", "nesterov"),
        ('name = "digits_cnn"', 'name = "digits_cnn"\nwidht = 8', "model.widht", "width"),
        ('name = "digits"\n', 'name = "digits"\nrot = 1\n', "data.rot", "crop_padding"),
        ("fraction = 0.5", "fracton = 0.5", "prune.fracton", "fraction"),
    ],
)
def test_a_misspelt_key_gets_its_line_and_the_nearest_key(old, new, key, hint):
    text = GOOD.replace(old, new)
    message = refusal(text)
    assert message.startswith(f"r.toml, line {line_of(text, new.splitlines()[-1])}: {key}: unknown key")
    assert hint in message


@pytest.mark.parametrize(("method", "key"), [("none", "gamma"), ("dropout", "gamma"), ("l1", "gamma"), ("l0", "keep_per_filter")])
def test_a_key_of_another_method_is_refused(method, key):
    text = GOOD.replace('"targeted"', f'"{method}"').replace("gamma = 0.5\nalpha = 0.5", f"{key} = 1")
    assert f"line {line_of(text, f'{key} = 1')}: sparsity.{key}: unknown key" in refusal(text)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"targeted"', '"targetted"', "sparsity.method: unknown name 'targetted'; did you mean 'targeted'?"),
        ('"digits"', '"digit"', "data.name: unknown name 'digit'; did you mean 'digits'?"),
        ('"digits_cnn"', '"digit_cnn"', "digits_cnn"),
        ('"digits_cnn"', "3", "model.name"),
        ("epochs = 2", 'epochs = "2"', "train.epochs: int needed, not '2'"),
        ("epochs = 2", "epochs = 2.5", "train.epochs: int needed"),
        ("epochs = 2", "epochs = true", "train.epochs: int needed"),
        ("epochs = 2", "epochs = -1", "train.epochs: -1 is out of range"),
        ("lr = 0.1", "lr = nan", "train.optimizer.lr: nan is not a finite number"),
        ("lr = 0.1", "lr = inf", "train.optimizer.lr: inf is not a finite number"),
        ("lr = 0.1", f"lr = 1{'0' * 400}", "train.optimizer.lr"),
        ("lr = 0.1", "lr = -1.0", "train.optimizer.lr: -1.0 is out of range"),
        ("gamma = 0.5", "gamma = 1.5", "sparsity.gamma"),
        ("alpha = 0.5", "alpha = -0.1", "sparsity.alpha"),
        ("lr = 0.1", "lr = 1e400", "train.optimizer.lr: inf is not a finite number"),
        ("epochs = 2", f"epochs = {2**63}", "train.epochs: a whole number of 64 bits is out of range"),
        ("epochs = 2", f"epochs = -{2**63}", "train.epochs: a whole number of 64 bits is out of range"),
        ("epochs = 2", f"epochs = 0x{'f' * 5000}", "train.epochs: a whole number of 20000 bits is out of range"),
        ("fraction = 0.5", f"keep_per_filter = {2**63}", "prune.keep_per_filter: a whole number of 64 bits"),
        ("[prune]", f"[bench]\nthreads = [1, {2**64}]\n[prune]", "bench.threads: a whole number of 65 bits"),
        (
            "[prune]",
            f'[[sweep.case]]\n"train.batch_size" = {2**63}\n[prune]',
            "sweep.case.0.train.batch_size: a whole number of 64 bits",
        ),
        ('name = "digits_cnn"', f'name = "digits_cnn"\ninit = "{"x" * 5000}"', "model.init: 'xxx"),
        ("fraction = 0.5", "fraction = 1.0", "prune.fraction: 1.0 is out of range"),
        (
            "fraction = 0.5",
            "keep_per_filter = 3\nfraction = 0.5",
            "prune.keep_per_filter: given beside fraction",
        ),
        ("fraction = 0.5", "align = 2", "prune.fraction: give either"),
        ("fraction = 0.5", "fraction = 0.5\nscope = 'all'", "prune.scope: 'all' is none of 'layer', 'group'"),
        ("seed = 1", "seed = -1", "seed: -1 is not a whole number of 0 or above"),
        ("seed = 1", "seed = 1.0", "seed: 1.0 is not a whole number"),
        ("seed = 1", "bench = 3", "bench has to be a table"),
        ("[prune]", "[export]\nvalues = []\n[prune]", "export.values: []: at least one"),
        ("[prune]", '[export]\nvalues = ["float8"]\n[prune]', "export.values[0]: 'float8' is none of"),
        ("[prune]", "[export]\nselect = { max_accuracy_drop = 2.0 }\n[prune]", "export.select.max_accuracy_drop: 2.0"),
        ("[prune]", "[bench]\nthreads = []\n[prune]", "bench.threads: []"),
        ("[prune]", "[bench]\nbatch = [0]\n[prune]", "bench.batch: [0]"),
        (
            "[prune]",
            "[bench]\nbatch = [1, 8, 1]\n[prune]",
            "bench.batch: [1, 8, 1]: at least one number of 1 or above, none twice",
        ),
        (
            "[prune]",
            "[bench]\nbackend = ['engine', 'engine']\n[prune]",
            "bench.backend: ['engine', 'engine']: at least one, none twice",
        ),
        ('name = "digits_cnn"', 'name = "digits_cnn"\ninit = "none.safetensors"', "model.init: 'none.safetensors' is not a file"),
    ],
)
def test_a_wrong_value_names_file_line_and_key(old, new, said):
    text = GOOD.replace(old, new)
    message = refusal(text)
    assert said in message
    assert message.startswith("r.toml, line ")
    written = line_of(text, new.splitlines()[0]) if new.splitlines()[0] != "[prune]" else 0
    # the line is the key's own, or its table's where the key as a whole is missing
    assert int(message.split("line ")[1].split(":")[0]) in range(written - 1, written + 2)


def test_no_method_or_no_name_is_said():
    assert "sparsity.method is missing: one of none" in refusal(GOOD.replace('method = "targeted"', ""))
    assert "name: None cannot name" in refusal(GOOD.replace('name = "a"', ""))


def test_duplicate_keys_and_broken_toml_name_the_line():
    assert "(at line 3, column" in refusal(GOOD.replace("seed = 1", "seed = 1\nseed = 2"))
    assert "r.toml: not valid TOML" in refusal(GOOD.replace("[prune]", "[prune"))


@pytest.mark.parametrize("name", ["..", "a/b", "../a", ".a", "-a", "", "stages", "reference", "a" * 101, "a b", "ä"])
def test_names_that_cannot_be_a_folder_are_refused(name):
    assert f"name: {name!r} cannot name" in refusal(GOOD.replace('name = "a"', f'name = "{name}"'))
    assert f"name: {name!r} cannot name" in refusal(GOOD, name=name)


def test_set_forms():
    assert parse_override("train.epochs=3") == ("train.epochs", 3)
    assert parse_override(" prune.fraction = 0.5") == ("prune.fraction", 0.5)
    assert parse_override("export.values=['float16']") == ("export.values", ["float16"])
    assert parse_override("data.root=/some/where") == ("data.root", "/some/where")
    assert parse_override("data.root = /some where ") == ("data.root", "/some where")
    assert parse_override("data.root=' a'") == ("data.root", " a")
    assert parse_override("data.download=true") == ("data.download", True)
    assert parse_override('name="x"') == ("name", "x")
    assert parse_override("name=x=y") == ("name", "x=y")
    assert parse_override("name=1\nseed = 3") == ("name", "1\nseed = 3")


@pytest.mark.parametrize("text", ["", "train.epochs", "=3", "  =3"])
def test_set_without_key_or_value_is_refused(text):
    with pytest.raises(RecipeError, match="key=value"):
        parse_override(text)


def test_set_changes_and_is_named_in_messages():
    recipe = parse_recipe(GOOD, "r.toml", {"train.epochs": 7, "train.optimizer.lr": 0.5, "finetune.epochs": 1})
    experiment = resolve(recipe)
    assert (experiment.train.epochs, experiment.train.optimizer.lr, experiment.finetune.epochs) == (7, 0.5, 1)
    assert refusal(GOOD, **{"train.epoch": 3}).startswith("--set train.epoch: unknown key; did you mean 'epochs'?")
    assert refusal(GOOD, **{"trian.epochs": 3}).startswith("--set trian: unknown key; did you mean 'train'?")
    assert refusal(GOOD, **{"train.epochs": -3}).startswith("--set train.epochs: -3")
    assert refusal(GOOD, **{"train": 3}).startswith("--set train: ")
    assert "not a dotted key" in refusal(GOOD, **{"train..epochs": 3})
    assert "seed is a value, not a table" in refusal(GOOD, **{"seed.x": 3})


SWEEP = (
    GOOD
    + """
[sweep]
"prune.fraction" = [0.0, 0.5]
"seed" = [0, 1]

[[sweep.case]]
"sparsity.gamma" = 0.25

[[sweep.case]]
"sparsity.gamma" = 0.75
"sparsity.alpha" = 1.0
"""
)


def test_a_sweep_expands_in_the_order_written_with_cases_slowest():
    found = [resolve(variant) for variant in expand_sweep(parse_recipe(SWEEP))]
    assert [(e.method.gamma, e.method.alpha, e.prune.fraction, e.seed) for e in found] == [
        (gamma, alpha, fraction, seed)
        for gamma, alpha in ((0.25, 0.5), (0.75, 1.0))
        for fraction in (0.0, 0.5)
        for seed in (0, 1)
    ]


def test_no_sweep_is_one_combination():
    recipe = parse_recipe(GOOD)
    assert [variant.values for variant in expand_sweep(recipe)] == [recipe.values]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"prune.fraction"', '"prun.fraction"', "did you mean 'prune'"),
        ('"prune.fraction"', '"prune.fracton"', "prune.fracton: unknown key; did you mean 'fraction'?"),
        ('"sparsity.gamma" = 0.75', '"sparsity.gama" = 0.75', "sparsity.gama: unknown key; did you mean 'gamma'?"),
        ('"sparsity.gamma" = 0.75', '"sparsity.gamma" = 7.5', "sparsity.gamma: 7.5"),
        ('"sparsity.alpha" = 1.0', '"sparsty.alpha" = 1.0', "did you mean 'sparsity'"),
        ('"seed" = [0, 1]', '"name" = ["b"]', "'name'"),
        ("= [0.0, 0.5]", "= 0.25", "a list with at least one value is needed, such as [0.5, 0.9]"),
        ("[0.0, 0.5]", "[]", "a list with at least one value is needed"),
        ("[0.0, 0.5]", "[0.5, 0.5]", "twice"),
    ],
)
def test_a_wrong_sweep_names_its_line(old, new, said):
    text = SWEEP.replace(old, new)
    message = refusal(text)
    assert said in message
    assert f"line {line_of(text, new)}:" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.width", [4, 8]), ("data.normalise", ["set", "unit"]), ("bench.batch", [[1], [2]]), ("export.input", ["uint8"])],
)
def test_what_all_rows_are_compared_by_cannot_be_swept(key, value):
    assert f"{key!r}" in refusal(SWEEP.replace('"seed" = [0, 1]', f'"{key}" = {value}'))


def test_set_on_a_swept_key_replaces_its_list():
    def fractions(**changes):
        return sorted({resolve(v).prune.fraction for v in expand_sweep(parse_recipe(SWEEP, "r.toml", changes))})

    assert fractions() == [0.0, 0.5]
    assert fractions(**{"sweep.prune.fraction": [0.25, 0.75, 0.9]}) == [0.25, 0.75, 0.9]
    assert "the recipe sweeps over it" in refusal(SWEEP, **{"prune.fraction": 0.3})
    assert "the recipe sweeps over it" in refusal(SWEEP, **{"sparsity.gamma": 0.3})
    swept = {"prune.recalibrate": 8, "sweep.prune.recalibrate": [0, 16]}
    for changes in (swept, dict(reversed(swept.items()))):  # whichever is given first
        assert "--set prune.recalibrate: the recipe sweeps over it" in refusal(SWEEP, **changes)


def test_lines_of_keys_and_tables():
    text = 'a = 1\n[b]\n"c.d" = [\n  1,\n]\ne.f = """x"""\n[[g.h]]\n i=2\n[[g.h]]\n i=3\n'
    lines = key_lines(text)
    assert {key: lines[key] for key in ("a", "b", "b.c.d", "b.e.f")} == {"a": 1, "b": 2, "b.c.d": 3, "b.e.f": 6}
    assert lines["g.h"] == 7


@given(st.text(max_size=300))
def test_any_text_is_a_recipe_or_refused(text):
    try:
        recipe = parse_recipe(text, "r.toml")
    except RecipeError:
        return
    assert recipe.name


@given(
    st.sampled_from(GOOD.splitlines()),
    st.sampled_from(["=", "[", "]", '"', "0", "-", "#", "é", "\\", ".", "{"]),
    st.integers(0, 30),
)
def test_a_recipe_with_one_wrong_character_runs_or_is_refused(line, mark, place):
    text = GOOD.replace(line, line[:place] + mark + line[place:])
    with contextlib.suppress(RecipeError):
        every_experiment(text)


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read as a recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read as a recipe"):
        load_recipe(tmp_path / "binary.toml")
    with pytest.raises(RecipeError, match="cannot be read as a recipe"):
        load_recipe(tmp_path)


NUMBERS = {"train.epochs": "epochs = 2", "prune.fraction": "fraction = 0.5", "seed": "seed = 1"}


@given(st.sampled_from(list(NUMBERS)), st.integers() | st.floats())
def test_every_number_is_taken_or_refused_with_its_line(key, number):
    text, said = GOOD.replace(NUMBERS[key], f"{key.rpartition('.')[2]} = {number}"), ""
    try:
        every_experiment(text)
    except RecipeError as error:
        said = str(error)
    assert said.startswith(f"r.toml, line {line_of(text, f'= {number}')}: {key}: ") if said else -(2**63) < number < 2**63


def test_negative_zero_is_zero():
    """Keys and names of rows are made of what is written, and -0.0 is another text than 0.0."""
    (plain,), (signed,) = (every_experiment(GOOD.replace("fraction = 0.5", f"fraction = {zero}")) for zero in ("0.0", "-0.0"))
    assert repr(signed) == repr(plain)
    (swept,) = every_experiment(GOOD + '[sweep]\n"prune.fraction" = [-0.0]\n')
    assert repr(swept.pruning) == repr(plain.pruning)


def test_a_key_below_one_of_the_chosen_names_own_is_answered_with_the_keys_there():
    recipe = load_recipe(find_recipe(Path("multi30k_transformer")), {"data.vocabulary.foo": 1})
    with pytest.raises(RecipeError, match=r"--set data\.vocabulary\.foo: unknown key \(valid: size, kind, coverage\)$"):
        resolve(recipe)

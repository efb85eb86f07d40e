"""Which units a training drops and pruning takes: those that are found, once, and those of layers that are included."""

from short_trainings import UNITS, layers, short_recipe

from tdcompress.lineage import units
from tdcompress.lineage.network import new_network, training_targets
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs.plan import plan_run


def test_layers_that_are_included_are_asked_for_as_units(runner, row, monkeypatch):
    plain, asked = (row("none", f'fraction = 0.37\ngranularity = "unit"{more}') for more in ("", '\ninclude = ["conv2"]'))
    assert plain.train.key == asked.train.key
    assert plain.pruned.key != asked.pruned.key
    given, find = [], units.find_units
    monkeypatch.setattr(units, "_found", {})
    monkeypatch.setattr(units, "find_units", lambda *args, include, **rest: given.append(include) or find(*args, **rest))
    assert layers(runner.ensure(plain.pruned)) == layers(runner.ensure(asked.pruned))  # its units can leave in any case
    assert given == [(), ("conv2",)]


def test_units_of_networks_that_are_built_alike_are_found_once(runner, plan, monkeypatch):
    """In all trainings of a sweep, and again where a trained network is read back, pruned and shrunk."""
    traced, find = [], units.find_units
    monkeypatch.setattr(units, "_found", {})
    monkeypatch.setattr(units, "find_units", lambda model, *args, **more: traced.append(model) or find(model, *args, **more))
    swept = {key: value for key, value in UNITS.items() if key != "sparsity.alpha"}
    found = plan("targeted", **swept, **{"sweep.sparsity.alpha": [0.4, 0.6]})
    pruned = [runner.ensure(row.pruned) for row in found.rows]
    assert len(pruned) == 2
    assert len(traced) == 1
    asked = found.rows[0].train.settings
    for other in (
        {"seed": 7},  # networks may be wired by chance
        {"model.width": 4},
        {"sparsity.scope": "group"},
        {"sparsity.unit": "filter"},
        {"sparsity.exclude": ["conv2"]},
    ):
        training = plan("targeted", **UNITS, **other).rows[0].train.settings
        task = training.data.task({})
        training_targets(training, new_network(training, task), task)
    assert len(traced) == 6
    task = asked.data.task({})
    assert training_targets(asked, new_network(asked, task), task).groups == training_targets(asked, traced[0], task).groups
    assert len(traced) == 6


def test_the_trainings_include_holds_unless_pruning_has_its_own_or_prunes_weights(row):
    changes = {**UNITS, "sparsity.gamma": 0.5, "sparsity.include": ["conv2"]}

    def included(**more):
        return row("targeted", "fraction = 0.5", **changes, **more).pruned.settings.include

    assert included() == ("conv2",)
    assert included(**{"prune.include": ["conv3"]}) == ("conv3",)
    assert included(**{"prune.include": []}) == included(**{"prune.granularity": "weight"}) == ()


def test_a_training_drops_units_that_could_never_leave_where_it_includes_their_layer(runner):
    """Shortcuts that pad their channels keep all that is written into the stream."""
    text = short_recipe("targeted")
    text = text.replace('name = "digits_cnn"\nwidth = 8\nhidden = 16', 'name = "cifar_resnet20"\nshortcut = "pad"')
    found = []
    for include in ([], ["stages.0.0.conv2"]):
        recipe = parse_recipe(text, "padded.toml", {**UNITS, "sparsity.include": include})
        training = plan_run(recipe, runner.store).rows[0].train.settings
        task = training.data.task({})
        targets = training_targets(training, new_network(training, task), task)
        found.append({group.name for group in targets.groups})
    assert found[1] - found[0] == {"stages.0.0.conv2"}

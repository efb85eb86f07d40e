"""Rows of one run are told apart by what differs between them, and by nothing else."""

from tdcompress.recipes.experiment import Experiment, resolve
from tdcompress.recipes.names import differences, method_label, row_config, row_ids
from tdcompress.recipes.source import parse_recipe
from tdcompress.recipes.sweep import expand_sweep

RECIPE = """
name = "names"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "none"
[prune]
fraction = 0.5
"""


def experiments(sweep: str) -> list[Experiment]:
    return [resolve(variant) for variant in expand_sweep(parse_recipe(RECIPE + sweep))]


def test_what_differs_is_told_by_its_dotted_key() -> None:
    both = experiments('[sweep]\n"train.optimizer.lr" = [0.01, 0.1]\n"prune.fraction" = [0.5, 0.9]')
    assert differences(both) == [{"train.optimizer.lr": lr} for lr in (0.01, 0.01, 0.1, 0.1)]
    assert row_ids(both) == ["none-lr0.01-0.5", "none-lr0.01-0.9", "none-lr0.1-0.5", "none-lr0.1-0.9"]


def test_what_a_row_says_elsewhere_is_no_difference() -> None:
    rows = experiments('[sweep]\nseed = [0, 1]\n"train.epochs" = [1, 2]\n"prune.granularity" = ["weight", "unit"]')
    assert differences(rows) == [{}] * 8
    assert row_ids(rows)[0] == "none-weight-epochs1-seed0-0.5"


def test_defaults_that_are_off_say_nothing_and_names_that_end_in_a_digit_keep_off_their_numbers() -> None:
    rows = experiments(
        '[[sweep.case]]\n"sparsity.method" = "targeted"\n"sparsity.gamma" = 0.75\n"sparsity.alpha" = 0.66\n"sparsity.l1" = 0.1\n'
        '[[sweep.case]]\n"sparsity.method" = "targeted"\n"sparsity.gamma" = 0.75\n"sparsity.schedule" = "ramp"\n'
        '"sparsity.alpha" = 0.66\n"sparsity.ramp_scale" = true\n'
    )
    assert row_ids(rows) == ["targeted-l1_0.1-0.5", "targeted-ramp-ramp_scale-0.5"]
    assert method_label(rows[0].method) == "targeted(alpha=0.66,gamma=0.75,l1=0.1)"


def test_names_do_not_speak_of_numbers_that_are_0_unless_asked_for() -> None:
    rows = experiments('[sweep]\n"train.l2" = [0.0, 0.1]\n"prune.recalibrate" = [0, 64]')
    assert row_ids(rows) == ["none-0.5", "none-recalibrate64-0.5", "none-l2_0.1-0.5", "none-recalibrate64-l2_0.1-0.5"]
    frozen = '[[sweep.case]]\n"sparsity.method" = "targeted"\n"sparsity.gamma" = 0.5\n"sparsity.schedule" = "cubic"\n'
    assert row_ids(experiments(frozen + frozen + '"sparsity.freeze_share" = 0.0\n'))[1] == "targeted-freeze_share0-0.5"


def test_lists_switches_and_excluded_layers() -> None:
    rows = experiments(
        '[[sweep.case]]\n"train.channels_last" = true\n[[sweep.case]]\n"train.channels_last" = false\n'
        '"prune.exclude" = ["conv2"]\n'
        '[[sweep.case]]\n"train.lr_schedule" = { name = "piecewise", milestones = [1, 2], factors = [0.1, 0.01] }\n'
    )
    assert row_ids(rows) == [
        "none-lr_schedule-constant-channels_last-0.5",
        "none-without-conv2-lr_schedule-constant-0.5",
        "none-lr_schedule-piecewise-channels_last-0.5",
    ]
    assert differences(rows)[1]["prune.exclude"] == ["conv2"]


def test_names_of_two_tables_are_told_apart_and_what_is_off_or_idle_says_nothing() -> None:
    rows = experiments(
        '[[sweep.case]]\n"train.optimizer" = { name = "adam" }\n"train.average" = "ema"\n"train.average_decay" = 0.9\n'
        '[[sweep.case]]\n"train.lr_schedule" = { name = "cosine", final_factor = 0.1 }\n"train.average" = "last"\n'
    )
    assert row_ids(rows) == [
        "none-adam-lr_schedule-constant-ema-average_decay0.9-0.5",
        "none-sgd-lr_schedule-cosine-lr_final_factor0.1-last-0.5",
    ]
    plain, last = (each.items() for each in differences(experiments('[sweep]\n"train.average" = ["none", "last"]\n')))
    assert (dict(plain), dict(last)) == ({"train.average": "none"}, {"train.average": "last"})
    assert "train.average_decay" in differences(rows)[0]
    assert "train.average_decay" not in differences(rows)[1]


def test_a_key_of_the_base_says_nothing_in_rows_in_which_it_has_no_effect() -> None:
    text = RECIPE + 'align = 16\n[shrink]\nalign = 8\n[sweep]\n"prune.granularity" = ["weight", "unit"]\n'
    rows = [resolve(variant) for variant in expand_sweep(parse_recipe(text))]
    assert differences(rows) == [{}, {"prune.align": 16, "shrink.align": 8}]
    assert row_ids(rows) == ["none-weight-0.5", "none-unit-0.5"]


def test_included_layers_are_named_whoever_includes_them() -> None:
    unit = '[[sweep.case]]\n"sparsity.granularity" = "unit"\n'
    rows = experiments(f'{unit}{unit}"sparsity.include" = ["conv2"]\n{unit}"prune.include" = ["conv3"]\n')
    assert row_ids(rows) == ["none-0.5", "none-with-conv2-0.5", "none-with-conv3-0.5"]
    assert [found.get("prune.include") for found in differences(rows)] == [None, ["conv2"], ["conv3"]]


def test_differences_leave_out_steps_that_are_not_taken_and_what_a_row_says_of_its_fine_tuning() -> None:
    rows = experiments(
        '[[sweep.case]]\n"prune.granularity" = "unit"\n'
        '[[sweep.case]]\n"prune.granularity" = "unit"\n"prune.align" = 4\n"shrink.align" = 16\n"prune.exclude" = ["conv2"]\n'
        '[[sweep.case]]\n"prune.granularity" = "unit"\n"finetune.epochs" = 2\n"finetune.after" = "shrink"\n"finetune.lr" = 0.1\n'
    )
    assert differences(rows) == [
        {},
        {"prune.align": 4, "shrink.align": 16, "prune.exclude": ["conv2"]},
        {"finetune.lr": 0.1},
    ]


def test_what_belongs_to_steps_that_are_not_taken_is_in_no_name() -> None:
    rows = experiments('[sweep]\n"prune.granularity" = ["weight", "unit"]')
    assert row_ids(rows) == ["none-weight-0.5", "none-unit-0.5"]
    tuned = '[[sweep.case]]\n"finetune.epochs" = 2\n"finetune.lr_schedule" = { name = "cosine" }\n'
    rows = experiments(f'[[sweep.case]]\n"prune.fraction" = 0.5\n{tuned}')
    assert row_ids(rows) == ["none-0.5", "none-finetune-lr_schedule-cosine-finetune2-after-prune-0.5"]


def test_patterns_have_names_that_can_be_files() -> None:
    rows = experiments('[sweep]\n"prune.granularity" = ["weight", "2:4", "1x4"]')
    assert row_ids(rows) == ["none-weight-0.5", "none-2of4-0.5", "none-1x4-0.5"]
    trained = '[[sweep.case]]\n"sparsity.method" = "targeted"\n"sparsity.gamma" = 0.5\n"sparsity.granularity" = "2:4"\n'
    rows = experiments(f'{trained}{trained}"prune.granularity" = "weight"')
    assert row_ids(rows) == ["targeted-2of4-0.5", "targeted-weight-on-2of4-weights-0.5"]


def test_number_formats_of_files_are_in_the_name() -> None:
    rows = experiments('[sweep]\n"export.values" = [["float32"], ["int8"], ["float32", "int8"]]')
    assert row_ids(rows) == ["none-float32-0.5", "none-int8-0.5", "none-float32+int8-0.5"]
    assert row_ids(experiments('[export]\nvalues = ["float32", "int8"]')) == ["none-0.5"]


def test_what_steps_leave_undone_is_in_no_name() -> None:
    unit = '[[sweep.case]]\n"prune.granularity" = "unit"\n'
    rows = experiments(f'{unit}{unit}"prune.align" = 8\n{unit}"shrink.align" = 24\n')
    assert row_ids(rows) == ["none-0.5", "none-align8-0.5", "none-shrink-align24-0.5"]


def test_words_that_are_unclear_have_their_key() -> None:
    rows = experiments('[sweep]\n"train.precision" = ["auto", "float32"]\n"export.pack" = ["auto", "never"]')
    assert row_ids(rows) == [
        "none-precision-auto-export-pack-auto-0.5",
        "none-precision-auto-export-pack-never-0.5",
        "none-precision-float32-export-pack-auto-0.5",
        "none-precision-float32-export-pack-never-0.5",
    ]


def test_lists_are_said_where_nothing_else_tells_rows_apart() -> None:
    step = '[[sweep.case]]\n"train.lr_schedule" = { name = "piecewise", milestones = [1, 2], factors = [%s] }\n'
    rows = experiments(step % "0.1, 0.01" + step % "0.5, 0.25")
    assert row_ids(rows) == ["none-lr_factors0.1_0.01-0.5", "none-lr_factors0.5_0.25-0.5"]


def test_paths_are_named_by_their_files(tmp_path) -> None:
    (tmp_path / "good.safetensors").touch()
    rows = experiments(f"""[sweep]\n"model.init" = ['{tmp_path / "good.safetensors"}', "dirac"]""")
    assert row_ids(rows) == ["none-good-0.5", "none-dirac-0.5"]


def test_shares_and_schedules_tell_rows_apart() -> None:
    targeted = '[[sweep.case]]\n"sparsity.method" = "targeted"\n"sparsity.gamma" = 0.5\n'
    rows = experiments(
        f'[[sweep.case]]\n"sparsity.method" = "none"\n[[sweep.case]]\n"prune.shares" = "erk"\n{targeted}'
        f'{targeted}"sparsity.shares" = "erk"\n{targeted}"sparsity.shares" = "erk"\n"prune.shares" = "global"\n'
        f'{targeted}"sparsity.schedule" = "cubic"\n{targeted}"sparsity.schedule" = "cubic"\n"sparsity.freeze_share" = 0.2\n'
    )
    assert row_ids(rows) == [
        "none-0.5",
        "none-by-erk-0.5",
        "targeted-0.5",
        "targeted-erk-0.5",
        "targeted-by-global-erk-0.5",
        "targeted-cubic-0.5",
        "targeted-cubic-freeze_share0.2-0.5",
    ]
    assert method_label(rows[3].method) == "targeted(alpha=0.5,gamma=0.5,shares=erk)"
    told = [row_config(row, "float32", {}).shares for row in rows]
    assert told == [None, "erk", None, None, "global", None, None]
    assert all("prune.shares" not in each for each in differences(rows))


def test_no_two_files_differ_in_small_and_capital_letters_alone() -> None:
    rows = experiments('[[sweep.case]]\nname = "Slow"\n[[sweep.case]]\nname = "slow"\n"train.optimizer.lr" = 0.01\n')
    assert row_ids(rows) == ["Slow-0.5", "slow-0.5-2"]


def test_rows_are_called_what_their_case_is_called_and_only_by_what_that_leaves_open() -> None:
    small, large = '"train.optimizer.lr" = 0.01\n', '"train.optimizer.lr" = 0.1\n"train.l2" = 0.2\n'
    rows = experiments(
        f'[sweep]\n"prune.fraction" = [0.5, 0.9]\n[[sweep.case]]\nseed = 2\n[[sweep.case]]\nname = "small rate"\n{small}'
        f'[[sweep.case]]\nname = "large rate"\n{large}[[sweep.case]]\nname = "large rate"\n{large}seed = 1\n'
    )
    assert row_ids(rows) == [
        "none-0.5",
        "none-0.9",
        "small-rate-0.5",
        "small-rate-0.9",
        "large-rate-seed0-0.5",
        "large-rate-seed0-0.9",
        "large-rate-seed1-0.5",
        "large-rate-seed1-0.9",
    ]
    assert [row_config(row, "float32", {}).case for row in rows[::2]] == ["", "small rate", "large rate", "large rate"]

"""The rows of a sweep: which results they share, and their names."""


def test_rows_that_differ_in_augmentation_share_the_images(plan):
    found = plan(**{"sweep.data.crop_padding": [0, 1], "sweep.model.init": ["dirac"], "sweep.data.flip": [False, "alternating"]})
    assert len({row.train.key for row in found.rows}) == 4
    assert [row.config.differs for row in found.rows] == [
        {"data.crop_padding": padding, "data.flip": flip} for padding in (0, 1) for flip in (False, "alternating")
    ]
    assert [row.id for row in found.rows] == [
        "none-0.5",
        "none-alternating-0.5",
        "none-crop_padding1-0.5",
        "none-crop_padding1-alternating-0.5",
    ]
    loaded = [row.train.settings.data.load({}) for row in found.rows]
    assert len({id(data.train) for data in loaded}) == 1
    assert [data.augmentation.crop_padding for data in loaded] == [0, 0, 1, 1]


def test_a_sweep_over_seeds_names_its_rows_and_trains_each(plan):
    found = plan(**{"sweep.seed": [0, 1]})
    assert [row.id for row in found.rows] == ["none-seed0-0.5", "none-seed1-0.5"]
    assert len({row.train.key for row in found.rows}) == 2
    assert found.dense_train.key == found.rows[0].train.key


def test_number_formats_are_rows_of_one_network(plan):
    found = plan(**{"export.values": ["float32", "int8"]})
    assert [(row.id, row.config.values) for row in found.rows] == [("none-0.5-float32", "float32"), ("none-0.5-int8", "int8")]
    assert len({row.deployed.key for row in found.rows}) == 1
    assert len({row.export.key for row in found.rows}) == 2


def test_every_name_of_a_row_is_unique_and_can_name_a_file(plan):
    found = plan(**{"sweep.prune.fraction": [0.1, 0.25], "sweep.prune.granularity": ["weight", "unit"], "sweep.seed": [0, 1]})
    names = [row.id for row in found.rows]
    assert len(set(names)) == 8
    assert all("/" not in name and name == name.strip(". ") for name in names)

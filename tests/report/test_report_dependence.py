import json
from dataclasses import replace

import numpy as np
import pytest

from tdcompress.codec import encode
from tdcompress.errors import ArtifactError, UserError
from tdcompress.records.report import Report
from tdcompress.records.stages import AnalysisRecord
from tdcompress.report.dependence import comparison, document, label, plot_dependence, read_dependence, write_dependence
from tdcompress.report.markdown import render_document


def record(method: str = "none", **changes) -> AnalysisRecord:
    fields = {
        "method": method,
        "options": {"gamma": 0.75, "alpha": 0.5, "schedule": "constant", "draw": "unit"} if method == "targeted" else {},
        "seed": 0,
        "epochs": 200,
        "device": "cpu",
        "train_seconds": 321.4,
        "fraction": 0.75,
        "gradient_term": -0.02,
        "curvature_term": 0.12,
        "measured": 0.11,
        "accuracy_unpruned": 0.381,
        "accuracy_pruned": 0.25,
        "bins": 4,
        "kept_bins": 1,
        "samples": 10_000,
    }
    return AnalysisRecord(**(fields | changes))


REPORT = Report(
    run="r",
    created="2026-01-01T00:00:00+00:00",
    recipe_key="0" * 16,
    data="cifar10",
    model="mlp",
    classes=("a", "b"),
    test_samples=10_000,
    rows=(),
    selected=None,
    notes=(),
    hosts={},
    versions={},
)


def rendered(*records: AnalysisRecord, report: Report = REPORT) -> str:
    return render_document(document(comparison(records, report), "mlp"))


def test_the_estimate_is_the_absolute_sum():
    assert record().estimate == pytest.approx(0.10)
    assert record(gradient_term=-0.2, curvature_term=0.05).estimate == pytest.approx(0.15)


def test_beside_table_1():
    text = rendered(record(), record("targeted", gradient_term=0.0, curvature_term=0.0125))
    assert "| none | 0.1 (0.1207) | 38.10 (38.11) | 25.00 (26.13) | 0 | 200 | 321 |" in text
    assert "| targeted(alpha=0.5,gamma=0.75) | 0.0125 (0.01459) |" in text
    assert "-0.02 | +0.12 | +0.1 | +0.11 |" in text
    assert "8 times as large (theirs: 8.27 times)" in text
    assert "10,000 test samples" in text
    assert "Not run" not in text


def test_the_ratio_of_every_seed_that_has_both():
    small = {"gradient_term": 0.0, "curvature_term": 0.0125}
    plain, targeted = [record(seed=seed) for seed in (0, 1, 2)], [record("targeted", seed=seed, **small) for seed in (0, 2)]
    text = rendered(*plain, *targeted)
    assert "is 8, 8 times as large (theirs: 8.27 times; ours of seeds 0, 2)" in text
    assert text.count("| none | 0.1 (0.1207) |") == 3
    assert "times as large" not in rendered(*plain, *targeted, targeted[0])  # which of the two would it be
    assert "times as large" not in rendered(plain[1], targeted[0])


def test_of_several_seeds_the_first_is_drawn():
    records = [record(seed=4), record("targeted"), record(seed=5, curvature_term=0.5), record("targeted", seed=1)]
    drawing = plot_dependence(records, [np.eye(4)] * 4)
    panels = [axes for axes in drawing.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["none", "targeted(alpha=0.5,gamma=0.75)"]
    assert panels[0].get_xlabel() == "|delta E| = 0.1"


def test_trainings_that_their_labels_do_not_tell_apart_are_all_drawn():
    ramp = record("targeted", options=record("targeted").options | {"schedule": "ramp"}, gradient_term=-0.5)
    drawing = plot_dependence([record("targeted"), ramp], [np.eye(4)] * 2)
    drawn = [axes.get_xlabel() for axes in drawing.axes if axes.images and axes.get_title()]
    assert drawn == ["|delta E| = 0.1", "|delta E| = 0.38"]


def test_what_was_not_run_is_said_and_what_the_table_has_not_stands_without_theirs():
    options = {"gamma": 0.5, "alpha": 0.5, "schedule": "constant", "draw": "unit"}
    text = rendered(record("targeted", options=options))
    assert "Not run: none." in text
    assert "Not run: targeted(alpha=0.5,gamma=0.75)." in text
    assert "| targeted(alpha=0.5,gamma=0.5) | 0.1 | 38.10 | 25.00 |" in text


def test_another_share_stands_without_theirs():
    text = rendered(record(), record(fraction=0.5))
    assert "| none | 0.1 (0.1207) |" in text
    assert "| none, 0.5 pruned | 0.1 | 38.10 | 25.00 |" in text


def test_another_task_is_said_and_no_ratio_claimed():
    digits = replace(REPORT, data="digits", model="mlp", model_options={"hidden": 40})
    text = rendered(record(), record("targeted", gradient_term=0.0, curvature_term=0.0125), report=digits)
    assert "Ours is trained on digits, theirs on cifar10: not the same task." in text
    assert "Ours is mlp with hidden = 40: not the published network." in text
    assert "times as large" not in text


def test_labels():
    assert label(record()) == "none"
    assert label(record("targeted")) == "targeted(alpha=0.5,gamma=0.75)"


def test_written_and_read_back(tmp_path):
    matrices = [np.diag([4.0, -1.0, 0.5, 0.0]), np.zeros((4, 4))]
    records = (record(), record("targeted"))
    write_dependence(tmp_path, records, matrices, REPORT)
    assert read_dependence(tmp_path) == records
    with np.load(tmp_path / "dependence.npz", allow_pickle=False) as archive:
        assert all((archive[str(index)] == matrix).all() for index, matrix in enumerate(matrices))
    assert (tmp_path / "dependence.png").read_bytes().startswith(b"\x89PNG")
    assert "![" in (tmp_path / "dependence.md").read_text()
    assert json.loads((tmp_path / "dependence.json").read_text()) == [encode(each) for each in records]
    first = (tmp_path / "dependence.svg").read_bytes()
    write_dependence(tmp_path, records, matrices, REPORT)
    assert (tmp_path / "dependence.svg").read_bytes() == first


def test_a_run_without_an_analysis_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"give the recipe an \[analyse\] table"):
        read_dependence(tmp_path)
    (tmp_path / "dependence.json").write_text('[{"method": 3}]')
    with pytest.raises(ArtifactError, match="damaged"):
        read_dependence(tmp_path)

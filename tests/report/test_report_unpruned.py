"""What a report says of a network that is worse unpruned."""

import pytest

from tdcompress.report.document import Paragraph, compose
from tdcompress.report.unpruned import explanation


@pytest.fixture
def make(make_row, make_report):
    def report(targeted, none=0.98, pruned=0.95):
        rows = [make_row("targeted", share, pruned, accuracy_dense=targeted) for share in (0.5, 0.9)]
        return make_report((*([] if none is None else [make_row("none", 0.9, 0.1, accuracy_dense=none)]), *rows))

    return report


def test_low_accuracy_unpruned_is_explained(make):
    report = make(0.5)
    said = explanation(report)
    assert said.startswith("Accuracy at 0 % pruned is low by design: targeted")
    assert "has 50.00 % there, and the untargeted network has 98.00 %. Targeted dropout trains" in said
    assert Paragraph(text=said) in compose(report, {}).blocks


def test_without_an_untargeted_network_its_own_prunings_say_so(make):
    assert "the same network has when it is pruned 95.00 %" in explanation(make(0.5, none=None))
    assert explanation(make(0.94, none=None)) is None


@pytest.mark.parametrize("targeted", [0.99, 0.98, 0.961])
def test_what_is_not_low_needs_no_explanation(make, targeted):
    assert explanation(make(targeted)) is None


def test_a_network_that_is_the_same_pruned_needs_no_explanation(make):
    assert explanation(make(0.87, pruned=0.87)) is None
    assert explanation(make(0.8695, pruned=0.87)) is None


def test_frozen_networks_that_were_fine_tuned_or_have_new_statistics_need_no_explanation(make_row, make_report):
    """What they gained is not of pruning, which found nothing to do."""
    zeros = {"sparsity_prunable": 0.9, "sparsity_trained": 0.9, "accuracy_dense": 0.7}
    rows = (
        make_row("none", 0.9, 0.1, accuracy_dense=0.92),
        *(make_row("targeted", share, 0.88, finetune_epochs=1, finetune_after="prune", **zeros) for share in (0.0, 0.9)),
    )
    assert explanation(make_report(rows)) is None
    assert explanation(make_report(rows[1:])) is None
    thinner = make_row("targeted", 0.98, 0.88, **(zeros | {"sparsity_prunable": 0.98}))
    assert "has 70.00 % there" in explanation(make_report((*rows, thinner)))


def test_new_statistics_make_no_network_low_unpruned(make_row, make_report):
    """What is compared is both with the training's own statistics."""
    row = make_row("targeted", 0.5, 0.95, accuracy_dense=0.87, accuracy_before=0.8)
    assert explanation(make_report((row,))) is None
    assert "is pruned 95.00 %" in explanation(
        make_report((make_row("targeted", 0.5, 0.97, accuracy_dense=0.87, accuracy_before=0.95),))
    )


def test_other_methods_are_not_spoken_of(make_row, make_report):
    rows = (make_row("none", 0.9, 0.1, accuracy_dense=0.98), make_row("dropout", 0.9, 0.1, accuracy_dense=0.2))
    assert explanation(make_report(rows)) is None

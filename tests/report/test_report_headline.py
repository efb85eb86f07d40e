from dataclasses import replace

from tdcompress.records.stages import PrunedCount
from tdcompress.report.headline import sentences


def test_the_largest_share_that_costs_little(report):
    first, rule, chosen, *latency = sentences(report)
    assert first == ("At 90 % pruned: targeted (γ 0.9, α 0.66) 98.06 %, dropout (α 0.594) 75.83 %, none 46.39 %; dense 98.61 %.")
    assert rule == (
        "90 % is the largest share here at which a network loses at most 2 points; one of the 360 test samples is 0.28 points."
    )
    assert chosen == "targeted-0.9 became model.onnx: 48.4 KiB, x0.14 of the dense file, 98.06 % under the runtime."
    assert latency == [
        f"It is faster than the dense file on {host} (onnxruntime, 1 thread, batch 1): {interval} of its time."
        for host, interval in zip(report.hosts, ("0.26 [0.25, 0.27]", "0.28 [0.25, 0.31]"), strict=True)
    ]


def test_what_makes_the_numbers_worthless_stands_in_the_place_of_what_they_would_say(make_row, make_report):
    row, warning = make_row("targeted", 0.9, 0.98), "The dense network has learnt next to nothing."
    said = sentences(replace(make_report((row,), selected=row.id), warning=warning))
    assert said[0] == warning
    assert said[1].startswith("targeted-0.9 became model.onnx")
    assert not any("largest share" in sentence for sentence in said)


def test_without_a_claim_nothing_is_said_of_the_ratio(make_row, make_latency, make_report):
    unsure = make_latency("pc", 0.7, claim="none", reason="the control differs from itself")
    row = make_row("targeted", 0.9, 0.98, latency=(unsure,))
    told = " ".join(sentences(make_report((row,), selected=row.id)))
    assert "No difference in latency from the dense file is claimed on pc (onnxruntime, 1 thread, batch 1): the control" in told
    assert "0.7" not in told
    assert "faster" not in told


def test_slower_is_said_as_plainly(make_row, make_latency, make_report):
    row = make_row("targeted", 0.9, 0.98, latency=(make_latency("pc", 1.3),))
    assert sentences(make_report((row,), selected=row.id))[-1].startswith("It is slower than the dense file on pc")


def test_nothing_measured_nothing_chosen_nothing_pruned(make_row, make_report):
    row = make_row("none", 0.0, 0.98)
    assert sentences(make_report((row,), selected=row.id))[-1] == "Its latency was not measured."
    assert sentences(make_report((row,))) == (
        "Nothing was pruned; dense 98.61 %.",
        "No row became model.onnx.",
    )
    assert sentences(make_report(())) == ("No network was deployed.",)


def test_where_every_network_collapses_it_is_said(make_row, make_report):
    rows = (make_row("none", 0.9, 0.2), make_row("none", 0.5, 0.6), make_row("none", 0.0, 0.98))
    first, rule, *_ = sentences(make_report(rows))
    assert first == "At 50 % pruned: none 60.00 %; dense 98.61 %."
    assert rule == (
        "Every pruned network here loses more than 2 points. 50 % is the largest share here at which a network has at most "
        "2 points less than the best pruned one; one of the 360 test samples is 0.28 points."
    )


def test_where_every_network_loses_a_little_more_than_allowed_the_share_is_the_one_that_a_network_holds_to(make_row, make_report):
    held = [make_row("targeted", share, accuracy) for share, accuracy in ((0.5, 0.962), (0.9, 0.95), (0.98, 0.7))]
    fallen = [make_row("none", share, accuracy) for share, accuracy in ((0.5, 0.964), (0.9, 0.4), (0.98, 0.1))]
    first, rule, *_ = sentences(make_report((*fallen, *held)))
    assert first == "At 90 % pruned: targeted (γ 0.9, α 0.66) 95.00 %, none 40.00 %; dense 98.61 %."
    assert rule.startswith("Every pruned network here loses more than 2 points. 90 % is the largest share here")


def test_a_long_list_keeps_the_worst(make_row, make_report):
    rows = tuple(make_row("targeted", 0.9, 0.98 - i / 100, id=str(i), options={"gamma": i / 10}) for i in range(9))
    first, *_ = sentences(make_report(rows))
    assert first.count("targeted") == 6
    assert "targeted (γ 0.4) 94.00 %, 3 more, targeted (γ 0.8) 90.00 %; dense" in first
    assert "γ 0.7)" not in first


def test_number_formats_of_a_network_are_told_once_by_float32(make_row, make_report):
    rows = [make_row("targeted", 0.9, accuracy, id=v, values=v) for v, accuracy in (("int8", 0.95), ("float32", 0.98))]
    first, *_ = sentences(make_report((*rows, make_row("none", 0.9, 0.5, values="int8"))))
    assert first == "At 90 % pruned: targeted (γ 0.9, α 0.66) 98.00 %, none (int8) 50.00 %; dense 98.61 %."


def test_several_seeds_are_averaged(make_row, make_report):
    rows = tuple(make_row("targeted", 0.9, accuracy, id=str(seed), seed=seed) for seed, accuracy in enumerate((0.97, 0.98)))
    said = sentences(make_report(rows))[0]
    assert said == "At 90 % pruned: targeted (γ 0.9, α 0.66) 97.50 % (mean of 2 seeds, 97.00 to 98.00); dense 98.33 %."


def test_so_is_the_dense_network(make_row, make_report):
    seeds = enumerate((0.98, 0.96, 0.985))
    rows = [replace(make_row("none", 0.0, 0.98, id=str(seed), seed=seed), accuracy_dense=accuracy) for seed, accuracy in seeds]
    first, *_ = sentences(make_report(rows))
    assert first == "Nothing was pruned; dense 97.50 % (mean of 3 seeds, 96.00 to 98.50)."


def test_zeros_of_trainings_do_not_part_what_was_asked_alike(make_row, make_report):
    """Seeds of l0 shut different gates: they are one point, beside methods that were asked for the same."""
    plain = [make_row("none", share, accuracy) for share, accuracy in ((0.5, 0.975), (0.9, 0.4))]
    gates = [
        replace(
            make_row(
                "none", share, accuracy, id=f"l0-{share}-{seed}", seed=seed, sparsity_prunable=zeros, sparsity_trained=zeros
            ),
            method="l0",
        )
        for share, accuracy, (seed, zeros) in (
            (0.0, 0.96, (0, 0.58)),
            (0.0, 0.98, (1, 0.76)),
            (0.5, 0.96, (0, 0.58)),
            (0.5, 0.98, (1, 0.76)),
            (0.9, 0.3, (0, 0.9)),
            (0.9, 0.5, (1, 0.9)),
        )
    ]
    first, rule, *_ = sentences(make_report((*plain, *gates)))
    assert (
        first == "At 50 % pruned or more: none 97.50 %, l0 97.00 % (mean of 2 seeds, 96.00 to 98.00; 67 % pruned); dense 98.61 %."
    )
    assert rule.startswith("50 % is the largest share asked for here at which a network loses at most 2 points;")


def test_what_could_not_be_pruned_does_not_win_at_what_was_asked(make_row, make_report):
    gone = PrunedCount(total=288, asked=144, gone=64)
    aligned = make_row("none", 0.5, 0.98, id="aligned", pruned=gone, differs={"prune.align": 64}, sparsity_prunable=0.18)
    plain = make_row("none", 0.5, 0.6)
    first, *_ = sentences(make_report((plain, aligned)))
    assert first == "At 22.22 % pruned: none (align 64) 98.00 %; dense 98.61 %."


def test_networks_that_nothing_was_asked_of_are_compared_by_their_zeros(make_row, make_report):
    frozen = make_row("targeted", 0.0, 0.97, sparsity_prunable=0.8, sparsity_trained=0.8)
    first, rule, *_ = sentences(make_report((make_row("none", 0.8, 0.5), frozen)))
    assert first == "At 80 % pruned: targeted (γ 0.9, α 0.66) 97.00 %, none 50.00 %; dense 98.61 %."
    assert rule.startswith("80 % is the largest share here at which")

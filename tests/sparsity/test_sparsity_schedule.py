import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.sparsity.schedule import Constant, Cubic, Ramp


def test_constant_is_full_from_the_start():
    assert (Constant().gamma_share(0.0), Constant().alpha_share(0.0)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("epoch", "gamma", "alpha"),
    [
        (0.0, 0.0, 0.0),
        (24.5, 0.475, 0.25),
        (49.0, 0.95, 0.5),
        (73.5, 0.975, 0.75),
        (98.0, 1.0, 1.0),
        (256.0, 1.0, 1.0),
    ],
)
def test_the_papers_ramp(epoch: float, gamma: float, alpha: float):
    """0 to 95 % in forty-nine epochs, to 100 % in the next forty-nine; alpha over all ninety-eight (section 5.5)."""
    ramp = Ramp()
    assert ramp.gamma_share(epoch) == pytest.approx(gamma, abs=1e-12)
    assert ramp.alpha_share(epoch) == pytest.approx(alpha, abs=1e-12)
    assert ramp.length == 98.0


def test_the_released_codes_ramp_in_steps():
    """20,000 and 20,000 steps at 391 steps an epoch: its formula, at some steps."""
    ramp = Ramp(epochs=(20_000 / 391, 20_000 / 391))
    for step in (0, 1, 9_999, 20_000, 30_001, 40_000, 50_000):
        released = 0.95 * min(1.0, step / 20_000) + 0.05 * min(1.0, max(0.0, (step - 20_000) / 20_000))
        assert ramp.gamma_share(step / 391) == pytest.approx(released, abs=1e-12)
        assert ramp.alpha_share(step / 391) == pytest.approx(min(1.0, step / 40_000), abs=1e-12)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    st.tuples(st.floats(0.01, 500), st.floats(0.01, 500)),
    st.floats(0, 2000),
    st.floats(0, 2000),
)
def test_a_ramp_never_falls_and_stays_in_range(epochs: tuple[float, float], a: float, b: float):
    ramp = Ramp(epochs=epochs)
    early, late = sorted((a, b))
    for share in (ramp.gamma_share, ramp.alpha_share):
        assert 0.0 <= share(early) <= share(late) + 1e-12 <= 1.0 + 2e-12
    assert ramp.gamma_share(ramp.length + 1e-6) == pytest.approx(1.0)


@pytest.mark.parametrize("epochs", [(0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0), (float("nan"), 1.0)])
def test_lengths_out_of_range_are_refused(epochs: tuple[float, float]):
    with pytest.raises(ValueError, match=r"both lengths have to be above 0|epochs\[1?0?\] has to be a number, and is (inf|nan)"):
        Ramp(epochs=epochs)


@pytest.mark.parametrize(
    ("epoch", "gamma", "alpha", "frozen"),
    [
        (0.0, 0.0, 0.0, False),
        (9.0, 1 - 0.5**3, 0.375, False),
        (18.0, 1.0, 0.75, False),
        (24.0, 1.0, 1.0, False),
        (27.9, 1.0, 1.0, False),
        (28.0, 1.0, 1.0, True),
        (40.0, 1.0, 1.0, True),
    ],
)
def test_the_cubic_by_share_of_forty_epochs(epoch: float, gamma: float, alpha: float, frozen: bool):
    cubic = Cubic(epochs=40)
    assert cubic.gamma_share(epoch) == pytest.approx(gamma, abs=1e-12)
    assert cubic.alpha_share(epoch) == pytest.approx(alpha, abs=1e-12)
    assert cubic.frozen(epoch) is frozen


def test_a_cubic_can_begin_later_and_be_full_at_once():
    cubic = Cubic(epochs=10, gamma=(0.2, 0.4), alpha=(0.0, 0.0), freeze=0.0)
    assert [cubic.gamma_share(epoch) for epoch in (0.0, 2.0, 3.0, 4.0, 9.9)] == [0.0, 0.0, 1 - 0.5**3, 1.0, 1.0]
    assert [cubic.alpha_share(epoch) for epoch in (0.0, 9.9)] == [1.0, 1.0]
    step = Cubic(epochs=10, gamma=(0.5, 0.5), freeze=0.0)
    assert [step.gamma_share(epoch) for epoch in (0.0, 4.9, 5.0)] == [0.0, 0.0, 1.0]
    assert not cubic.frozen(10.0)
    assert not Constant().frozen(99.0)
    assert not Ramp().frozen(99.0)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.floats(0.5, 500),
    st.floats(0, 600),
    st.floats(0, 600),
)
def test_a_cubic_never_falls_and_is_exactly_full_when_it_freezes(share: list[float], epochs: float, a: float, b: float):
    cubic = Cubic(epochs=epochs, gamma=(share[0], share[1]), alpha=(share[0], share[1]), freeze=min(0.99, 1 - share[1]))
    early, late = sorted((a, b))
    for part in (cubic.gamma_share, cubic.alpha_share):
        assert 0.0 <= part(early) <= part(late) + 1e-12 <= 1.0 + 2e-12
        assert part(epochs) == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gamma": (0.5, 0.2)}, "^gamma: .* the start first"),
        ({"alpha": (0.0, 1.2)}, "^alpha: "),
        ({"freeze": 1.0}, "^freeze: "),
        (
            {"freeze": 0.5},
            "^freeze: 0.5 would freeze the masks at 0.5 of the training, before gamma and alpha are full at 0.6",
        ),
        ({"epochs": 0}, "^epochs: "),
    ],
)
def test_cubics_that_cannot_be_are_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        Cubic(**({"epochs": 10} | options))
    assert Cubic(epochs=10, freeze=0.4).freeze == 0.4  # full and frozen at the same moment

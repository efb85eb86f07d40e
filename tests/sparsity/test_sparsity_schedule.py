import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.sparsity.schedule import Constant, Ramp


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
    with pytest.raises(ValueError, match="both lengths have to be above 0"):
        Ramp(epochs=epochs)

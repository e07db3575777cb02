import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from dcft_jax.reporting import History, load_history
from dcft_jax.reporting.canvas import line_style, smooth, thin, to_svg
from dcft_jax.reporting.plots import PLOTS, Plot

EVERY_PLOT = pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
OF_PAIRS = ("cosines", "blocks")  # need two abilities, and name what they compare


@pytest.fixture(scope="module")
def history(run_dir: Path) -> History:
    return load_history(run_dir)


def draw(plot: Plot, history: History) -> Figure:
    figure = plot.draw(history)
    assert figure is not None
    return figure


@EVERY_PLOT
def test_axes_have_titles_and_units(plot: Plot, history: History):
    figure = draw(plot, history)
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert all(ax.get_title(loc="left") for ax in axes)
    assert any(ax.get_ylabel() for ax in axes) or plot.name in OF_PAIRS


@EVERY_PLOT
def test_without_data_there_is_no_plot(plot: Plot, history: History):
    empty_T = np.zeros(0, dtype=np.int64)
    for step_T in (empty_T, history.step_T):
        bare = dataclasses.replace(history, columns={}, step_T=step_T, summary=None)
        assert plot.draw(bare) is None


@EVERY_PLOT
def test_a_run_that_was_cut_short_has_every_plot(plot: Plot, unfinished_dir: Path):
    to_svg(draw(plot, load_history(unfinished_dir)), plot.name)


@EVERY_PLOT
def test_one_ability_is_enough(plot: Plot, history: History):
    single = dataclasses.replace(history, abilities=("math",), summary=None)
    figure = plot.draw(single)
    assert (figure is None) == (plot.name in OF_PAIRS)


def test_an_ability_keeps_its_colour_in_every_plot(history: History):
    plots = {plot.name: plot for plot in PLOTS}
    for name in ("weights", "losses", "exact-match", "coefficients"):
        lines = draw(plots[name], history).axes[0].get_lines()
        colours = {str(line.get_label()): line.get_color() for line in lines}
        for k, ability in enumerate(history.abilities):
            assert colours[ability] == line_style(k)["color"]


def test_many_abilities_still_look_different():
    styles = [tuple(line_style(k).values()) for k in range(28)]
    assert len(set(styles)) == 28


def test_the_plot_shows_the_weights_that_were_recorded(history: History):
    (plot,) = [plot for plot in PLOTS if plot.name == "weights"]
    line = draw(plot, history).axes[0].get_lines()[0]
    weight_T = history.per_ability("mixture/weight")[:, 0]
    np.testing.assert_array_equal(line.get_ydata(), weight_T[~np.isnan(weight_T)])


@pytest.mark.parametrize("window", [1, 3, 50])
def test_smooth_is_the_mean_of_the_last_values(window: int):
    value_N = np.random.default_rng(0).normal(size=20)
    expected = [value_N[max(0, i + 1 - window) : i + 1].mean() for i in range(20)]
    np.testing.assert_allclose(smooth(value_N, window), expected)
    assert smooth(np.zeros(0), window).shape == (0,)


def test_long_runs_are_thinned_to_means():
    step_N, value_N = np.arange(1200), np.arange(1200.0)
    step_M, value_M = thin(step_N, value_N)
    np.testing.assert_array_equal(step_M, np.arange(0, 1200, 2))
    np.testing.assert_allclose(value_M, np.arange(0, 1200, 2) + 0.5)
    value_N[1] = value_N[2] = value_N[3] = np.nan
    _, value_M = thin(step_N, value_N)
    assert value_M[0] == 0.0 and np.isnan(value_M[1]) and value_M[2] == 4.5
    _, value_M = thin(step_N, np.ones((1200, 2, 2)))
    assert value_M.shape == (600, 2, 2)

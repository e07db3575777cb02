"""A small collection end to end, and worlds that are the same every time."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from dcft_jax.meta import collect as module
from dcft_jax.meta.baselines import METHODS
from dcft_jax.meta.collect import collect, world_name
from dcft_jax.meta.experience import PROVED, cases, open_store
from dcft_jax.meta.families import FAMILIES
from dcft_jax.meta.features import TASK, check
from dcft_jax.meta.leave_out import leave_one_category_out
from dcft_jax.meta.measured import measured_table
from dcft_jax.meta.prove import prove
from dcft_jax.meta.regret import solve
from dcft_jax.meta.worlds import (
    Settings,
    base_families,
    draw_mixtures,
    draw_world,
    smoke,
)
from tests.meta.synthetic_cases import OPTIONS

pytest.importorskip("reasoning_gym")


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Interrupted once, after the population is trained."""
    path = tmp_path_factory.mktemp("collected") / "store.db"
    text = io.StringIO()
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "measure", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(smoke(), path, [0], console=Console(file=text))
    patch.undo()
    patch.setattr(module, "make_plan", _counted(module.make_plan))
    collect(smoke(), path, [0], console=Console(file=text))
    collect(smoke(), path, [0], console=Console(file=text))
    # Specialists are added to what is there.
    adapters = dataclasses.replace(smoke(), specialist_rank=2)
    collect(adapters, path, [0], console=Console(file=text))
    patch.undo()
    return path, text.getvalue()


_calls = []


def _interrupt(*_):
    raise KeyboardInterrupt


def _counted(function):
    def call(*arguments):
        _calls.append(arguments)
        return function(*arguments)

    return call


def test_a_world_becomes_cases(collected):
    settings = smoke()
    store = open_store(collected[0])
    found = cases(store)
    world = draw_world(settings, 0)
    joint = {name for name in world.names if "+" in name}
    tasks = {*settings.tasks, *joint}
    assert {(c.world, c.task) for c in found} == {
        (world_name(settings, 0, step), task) for step in (4, 6) for task in tasks
    }
    for case in found:
        check(case.features)
        assert case.abilities == world.names
        assert case.weights_NK.shape == (settings.models, len(world.names))
        assert case.loss_N.shape == case.accuracy_N.shape == case.seed_N.shape
        assert np.all(np.isfinite(case.loss_N)) and np.all(case.loss_N > 0)
        assert np.all((case.accuracy_N >= 0) & (case.accuracy_N <= 1))
        step = int(case.world.split("@")[1])
        budget = case.features.task_G[TASK.index("budget")]
        np.testing.assert_allclose(budget, np.log(step * 4 * 192), rtol=1e-6)
    emerging = [c for c in found if c.task == "time_intervals"]
    assert len(emerging) == 2 and emerging[0].category == "arithmetic"


def test_interpolated_specialists_are_kept_apart(collected):
    store = open_store(collected[0])
    mixed = {c.task: c for c in cases(store, sources=("interpolated",))}
    true = {c.task: c for c in cases(store) if c.world.endswith("@6")}
    assert mixed.keys() == true.keys()
    for task, case in mixed.items():
        other = true[task]
        vertex_N = case.weights_NK.max(axis=1) == 1
        # At a vertex it is the specialist itself.
        vertices = [*map(tuple, case.weights_NK[vertex_N])]
        at = [[*map(tuple, other.weights_NK)].index(vertex) for vertex in vertices]
        np.testing.assert_allclose(case.loss_N[vertex_N], other.loss_N[at], rtol=1e-4)


def test_adapters_are_specialists_too(collected):
    store = open_store(collected[0])
    full = {c.task: c for c in cases(store, sources=("interpolated",))}
    mixed = {c.task: c for c in cases(store, sources=("interpolated-lora",))}
    assert mixed.keys() == full.keys()
    for task, case in mixed.items():
        np.testing.assert_array_equal(case.weights_NK, full[task].weights_NK)
        # They were trained, and otherwise.
        assert np.ptp(case.loss_N) > 0
        assert not np.allclose(case.loss_N, full[task].loss_N, rtol=1e-6)
    other = dataclasses.replace(smoke(), specialist_rank=3)
    with pytest.raises(ValueError, match=r"specialist_rank=3.*rank2.*another store"):
        collect(other, collected[0], [0], console=Console(quiet=True))


@pytest.mark.slow
def test_what_the_methods_choose_is_trained_and_then_measured(collected):
    """Nothing is learnt from it: the methods choose the same with it and without."""
    path, tasks = collected[0], ["time_intervals"]
    store = open_store(path)
    before = cases(store)
    count = prove(
        smoke(), path, [0], tasks, options=OPTIONS, console=Console(quiet=True)
    )
    assert count > 0
    again = prove(
        smoke(), path, [0], tasks, options=OPTIONS, console=Console(quiet=True)
    )
    assert again == 0
    for one, other in zip(before, cases(store), strict=True):
        np.testing.assert_array_equal(one.loss_N, other.loss_N)
    rows = leave_one_category_out(
        solve(before),
        options=OPTIONS,
        seeds=(0,),
        test_tasks=tasks,
        proved=cases(store, sources=PROVED),
    )
    found = measured_table([row for row in rows if row.world.endswith("@6")])
    assert found["cases"] == 1 and found["methods"].keys() == {"meta", *METHODS}
    for one in found["methods"].values():
        assert one["nats"]["mean"] >= 0 and one["accuracy"]["mean"] >= 0


def test_what_was_interrupted_continues_and_what_is_there_is_skipped(collected):
    path, text = collected
    # The second call goes on with a trained population, the third finds all of it.
    assert len(_calls) == 1
    assert "1 worlds are in the store already" in text and "s a world" in text
    assert not list(path.parent.rglob("world-*.npz"))


@pytest.mark.parametrize("number", range(20))
def test_worlds_are_what_the_settings_say(number):
    settings = Settings()
    world = draw_world(settings, number)
    assert world == draw_world(settings, number)
    assert 2 <= len(world.abilities) <= 6
    used = [name for names in world.abilities for name in names]
    assert len(used) == len(set(used)) and FAMILIES.keys() >= set(used)
    for names in world.abilities:
        assert len({FAMILIES[name].category for name in names}) == 1
    assert all(150 <= count <= 1500 for count in world.examples_K)


def test_bases_know_different_halves_of_the_families():
    settings = Settings()
    known = [set(base_families(settings, base)) for base in range(3)]
    assert all(len(names) == len(FAMILIES) // 2 for names in known)
    assert known[0] != known[1] != known[2] and known[0] <= FAMILIES.keys()


def test_mixtures_hold_vertices_uniform_proportional_and_repeats():
    settings, sizes = Settings(), [10, 30, 60]
    world = draw_world(settings, 3)
    weights_NK, seed_N = draw_mixtures(settings, world, sizes)
    np.testing.assert_array_equal(weights_NK[:3], np.eye(3))
    np.testing.assert_allclose(weights_NK[3:5], [[1 / 3] * 3, [0.1, 0.3, 0.6]])
    np.testing.assert_allclose(weights_NK.sum(axis=1), 1.0)
    assert weights_NK.shape == (settings.models, 3)
    once = settings.models - settings.repeats
    np.testing.assert_array_equal(np.flatnonzero(seed_N), range(once, settings.models))
    np.testing.assert_array_equal(
        weights_NK[once:], weights_NK[3 : 3 + settings.repeats]
    )
    assert len(np.unique(weights_NK, axis=0)) == once


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(min_abilities=1), "min_abilities=1 and max_abilities=5 must be from 2"),
        (dict(models=8), "models=8 must be at least 9"),
        (dict(support=8), "support=8 must be from 16 to 128"),
        (dict(min_examples=0), "min_examples=0 must be from 1"),
        (dict(test=0), "test=0 must be at least 1"),
        (dict(base_share=0.0), "base_share=0.0 must be in"),
        (dict(base_steps=(150,)), "stop at step 150: .* multiples of chunk=20"),
        (dict(base_steps=()), "must not be empty"),
        (dict(specialist_rank=-1), "specialist_rank=-1 must not be negative"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        Settings(**fields)

"""What rules ask for beyond an evaluation, against a computation by hand, and runs."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.conflict import ENGINES
from dcft_jax.models import init
from dcft_jax.reporting import load_history
from dcft_jax.training.held_out import rotate
from dcft_jax.training.loop import train
from dcft_jax.training.passes import transfer, virtual_step
from dcft_jax.training.run import Run, open_run
from dcft_jax.training.step import slot_loss
from tests.conftest import make_tiny_config
from tests.training.test_continuation import last_state
from tests.training.test_step import make_batch, make_engine, model

K = 3
QUIET = Console(quiet=True)


def slots_of(batch):
    names = ("tokens", "loss_mask", "segments", "positions")
    return {name: jnp.asarray(batch[f"{name}_SBL"]) for name in names}


@pytest.mark.parametrize("engine", [e for e in ENGINES if e != "lagged"])
def test_transfer_is_the_product_of_mix_val_and_train_gradients(engine: str):
    config = model()
    params = init(config, jax.random.key(0))
    slots = slots_of(make_batch(ability_S=np.arange(2 * K)))
    loss_fn = partial(slot_loss, config)

    def mean_loss(params, slot):
        loss, count = loss_fn(params, {}, slot)
        return loss / count

    grads = jax.vmap(jax.grad(mean_loss), (None, 0))(params, slots)
    rows = np.concatenate(
        [np.reshape(g, (2 * K, -1)) for g in jax.tree.leaves(grads)], axis=1
    ).astype(np.float64)
    expected = rows[K:] @ rows[:K].T
    measured = transfer(
        make_engine(config, name=engine), loss_fn, params, {}, None, slots, K
    )
    np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=1e-5)


def test_a_virtual_step_is_the_optimizers():
    config = model()
    params = init(config, jax.random.key(0))
    slots = slots_of(make_batch())
    optimizer = optax.adam(1e-2)
    opt_state = optimizer.init(params)
    loss_fn = partial(slot_loss, config)

    def mean_loss(params):
        losses = [
            loss_fn(params, {}, {name: x[s] for name, x in slots.items()})
            for s in range(4)
        ]
        return sum(loss for loss, _ in losses) / sum(count for _, count in losses)

    before, after = virtual_step(loss_fn, optimizer, params, {}, opt_state, slots)
    updates, _ = optimizer.update(jax.grad(mean_loss)(params), opt_state, params)
    stepped = optax.apply_updates(params, updates)
    np.testing.assert_allclose(before, mean_loss(params), rtol=1e-5)
    np.testing.assert_allclose(after, mean_loss(stepped), rtol=1e-4)
    assert after < before


def test_blocks_of_mix_val_rotate_and_overlap():
    sets = [[(i,) for i in range(5)], [(0,)]]
    seen = [rotate(sets, update, 3) for update in range(4)]
    assert [[i for (i,) in chosen[0]] for chosen in seen] == [
        [0, 1, 3, 4],
        [1, 2, 4],
        [0, 2, 3],
        [0, 1, 3, 4],
    ]
    assert all(chosen[1] == [(0,)] for chosen in seen)
    assert rotate(sets, 7, 1) == sets


# --------------------------------------------------------------- whole, small runs


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run_it(config: ConfigDict, folder: Path) -> tuple[Run, dict]:
    run = open_run(config, folder, QUIET, jax.devices()[:1])
    return run, train(run)


@pytest.fixture(scope="module")
def static(task_files, cache: Path, tmp_path_factory) -> Run:
    config = make_tiny_config(task_files, cache)
    config.mixture.rule = "static"
    return run_it(config, tmp_path_factory.mktemp("static") / "run")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "tokens_per_update"),
    # 8 rows of 64 tokens; transfer: 2 x 3 slots of 2 rows; virtual: 3 whole steps and
    # a forward pass; reference: a forward pass over mix-val.
    [("grape", 768), ("dynamix_sft", 3 * 512 * 4 / 3), ("doremi", None)],
)
def test_rules_get_what_they_need_and_it_is_charged(
    rule: str, tokens_per_update, static: Run, task_files, cache: Path, tmp_path: Path
):
    config = make_tiny_config(task_files, cache)
    config.mixture.rule = rule
    config.mixture.reference_run = str(static.workdir) if rule == "doremi" else ""
    run, summary = run_it(config, tmp_path / "run")
    assert run.program.composition.rule.needs
    history = load_history(run.workdir)
    cost = history.scalar("run/extra_tokens")
    cost = cost[np.isfinite(cost)]
    assert len(cost) == 4 and np.all(cost > 0)  # steps 0, 2, 4, 6
    if tokens_per_update:
        np.testing.assert_allclose(cost, tokens_per_update)
    assert summary["extra_tokens"] == pytest.approx(cost.sum(), abs=1)
    assert summary["extra_s"] > 0
    weights = np.array([w for _, w in summary["weights_path"]])
    assert np.ptp(weights, axis=0).max() > 1e-4  # what was measured moved them


@pytest.mark.slow
def test_a_run_is_replayed_by_one_line(static: Run, task_files, cache, tmp_path: Path):
    config = make_tiny_config(task_files, cache)
    config.mixture.options.mirror_descent.update(warmup_updates=0)
    first, summary = run_it(config, tmp_path / "first")
    path = make_tiny_config(task_files, cache)
    path.mixture.rule = "replay"
    path.mixture.options.replay.update(run=str(first.workdir), mode="path")
    _, again = run_it(path, tmp_path / "again")
    assert [s for s, _ in again["weights_path"]] == [
        s for s, _ in summary["weights_path"]
    ]
    # All but the last, to which the end of the run moved them: no step used it.
    np.testing.assert_allclose(
        [w for _, w in again["weights_path"][:-1]],
        [w for _, w in summary["weights_path"][:-1]],
        rtol=1e-5,
    )
    for name, ability in summary["abilities"].items():
        # The same data and the same weights: the same model.
        assert again["abilities"][name]["test_loss_after"] == pytest.approx(
            ability["test_loss_after"], rel=1e-4
        )


@pytest.mark.slow
def test_a_rule_goes_back_to_an_earlier_step(task_files, cache: Path, tmp_path: Path):
    config = make_tiny_config(task_files, cache)
    config.mixture.rule = "msft"
    config.run.update(num_steps=8, eval_every=1, save_every=100)
    run = open_run(config, tmp_path / "run", QUIET, jax.devices()[:1])
    rule = run.program.composition.rule
    assert run.keep > config.run.keep_checkpoints and rule.rollback is not None

    # Step 4 goes back to step 2: its parameters must be those of step 2.
    def rollback(state):
        step = state.step_R[jnp.maximum(state.num_rows - 1, 0)]
        return jnp.where(step == 4, 2, -1)

    patched = dataclasses.replace(
        run.program.composition, rule=rule._replace(rollback=rollback)
    )
    program = dataclasses.replace(run.program, composition=patched)
    losses = {}
    summary = train(dataclasses.replace(run, program=program))
    history = load_history(run.workdir)
    for step in (2, 3, 5):
        row = history.step_T.tolist().index(step)
        losses[step] = history.per_ability("mix_val/loss")[row]
    # One step on the same data from the same parameters and optimizer state would give
    # the loss of step 3; the data are the next ones, so only nearly so.
    assert np.all(losses[5] < losses[2])
    np.testing.assert_allclose(losses[5], losses[3], rtol=0.05)
    assert summary["num_steps"] == 8


@pytest.mark.slow
def test_tiers_caps_blocks_and_a_given_curve_in_one_run(
    static: Run, task_files, cache: Path, tmp_path: Path
):
    config = make_tiny_config(task_files, cache)
    config.abilities.maths.tiers.update(by="length", count=2)
    config.abilities.code.max_epochs = 0.2
    config.mixture.update(guard_run=str(static.workdir), mix_val_blocks=2)
    config.mixture.options.mirror_descent.update(guard=2.0, objective="worst")
    config.mixture.tiers.rule = "bandit"
    run, summary = run_it(config, tmp_path / "run")
    composition = run.program.composition
    assert composition.num_parts == 4 and len(run.streams) == 4
    history = load_history(run.workdir)
    epochs = history.scalar("mixture/epochs/code")
    assert np.nanmax(epochs) <= 0.2 + 1e-6
    tier_slots = [
        history.scalar(f"mixture/tier_slots/maths/{tier}") for tier in range(2)
    ]
    slots = history.scalar("mixture/slots/maths")
    np.testing.assert_allclose(sum(tier_slots), slots)
    assert summary["abilities"]["code"]["best_step"] is not None


@pytest.mark.slow
def test_tiers_by_the_loss_of_another_run(
    static: Run, task_files, cache: Path, tmp_path: Path
):
    config = make_tiny_config(task_files, cache)
    config.abilities.maths.tiers.update(by="loss", count=2)
    with pytest.raises(ValueError, match=r"reference_run = '': tiers.by = .*maths"):
        open_run(config, tmp_path / "none", QUIET, jax.devices()[:1])
    config.mixture.reference_run = str(static.workdir)
    run = open_run(config, tmp_path / "run", QUIET, jax.devices()[:1])
    plan = run.data.tiers["maths"].plan
    (low, high), (next_low, _) = plan.ranges
    assert 0 < low < high <= next_low
    # The mix-val losses that the run recorded at its end cut at the same place.
    with jax.set_mesh(static.mesh):
        sums = np.asarray(last_state(static).mixture.val_loss_sum_KN[0])
    assert np.corrcoef(sums, plan.mix_val_tier_N)[0, 1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("actuator", ["sample", "reweight"])
def test_actuators_in_a_run(actuator: str, task_files, cache: Path, tmp_path: Path):
    config = make_tiny_config(task_files, cache)
    config.mixture.update(actuator=actuator, rule="random_walk")
    run, _ = run_it(config, tmp_path / "run")
    history = load_history(run.workdir)
    weight_TK = history.per_ability("mixture/weight")
    share_TK = history.per_ability("mixture/share")
    known_T = np.isfinite(weight_TK).all(axis=1)
    if actuator == "reweight":
        np.testing.assert_allclose(share_TK[known_T], 1 / 3, rtol=1e-5)
        assert np.ptp(weight_TK[known_T]) > 0.05
    else:
        np.testing.assert_allclose(share_TK[known_T], weight_TK[known_T], rtol=1e-5)

"""A population is as many models trained alone, whatever happens meanwhile."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from dcft_jax.data.packing import pack_encoded
from dcft_jax.meta import population as module
from dcft_jax.meta.plan import Training, make_bank, make_plan
from dcft_jax.meta.population import make_population, score, train_population
from dcft_jax.meta.proxy import proxy_model
from dcft_jax.models import LoRA, combine, init, merge, score_responses, split

LENGTH, VOCABULARY = 24, 40
TRAINING = Training(steps=6, rows=3, chunk=2, stops=(4,), warmup=2)
WEIGHTS_NK = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
ONE = jax.devices()[:1]


def _rows(ability: int, count: int, seed: int = 0):
    """Copy `n` (ability 0) or count down from it (ability 1)."""
    rng = np.random.default_rng([ability, seed])
    encoded = []
    for n in rng.integers(4, VOCABULARY - 1, count):
        reply = [n, n] if ability == 0 else [n - 1, n - 2, n - 3]
        tokens = np.array([1, n, 2, *reply], np.int32)
        encoded.append((tokens, np.arange(len(tokens)) >= 3))
    return pack_encoded(encoded, LENGTH, 0)


ROWS = [_rows(0, 24), _rows(1, 18)]
TESTS = [_rows(0, 10, 1), _rows(1, 9, 1)]
MODEL = proxy_model(VOCABULARY, width=32, num_layers=1)


@pytest.fixture(scope="module")
def base():
    return init(MODEL, jax.random.key(0))


@pytest.fixture(scope="module")
def population():
    return make_population(MODEL, TRAINING)


def _train(population, base, weights_NK, seed_N, **options):
    plan = make_plan(weights_NK, seed_N, ROWS, TRAINING)
    return train_population(
        *(population, base, make_bank(ROWS, 32), plan, TRAINING),
        lambda params_N: score(population, params_N, TESTS, 4),
        **({"devices": ONE} | options),
    )


@pytest.fixture(scope="module")
def trained(population, base):
    return _train(population, base, WEIGHTS_NK, [0, 0, 1])


def _close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


def _same(a, b):
    _close(a, b, rtol=0, atol=0)


def test_each_is_a_model_trained_alone(base, trained):
    """Against a plain loop with an AdamW of optax, and one gradient at a time."""
    bank = make_bank(ROWS)
    plan = make_plan(WEIGHTS_NK, [0, 0, 1], ROWS, TRAINING)
    rate = TRAINING.learning_rates()
    optimizer = optax.chain(
        optax.clip_by_global_norm(TRAINING.clip_norm),
        optax.adamw(
            lambda step: jax.numpy.asarray(rate)[step],
            b2=0.95,
            weight_decay=TRAINING.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim > 2, params),
        ),
    )

    @jax.jit
    def step(params, state, rows, scale_B):
        def loss(params):
            nll_BL, _, _ = score_responses(MODEL, params, rows)
            return jax.numpy.sum(nll_BL.sum(axis=1) * scale_B)

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for n in range(3):
        params, state = base, optimizer.init(base)
        for t in range(TRAINING.steps):
            rows = {name: x[plan.row_TNB[t, n]] for name, x in bank.items()}
            params, state = step(params, state, rows, plan.scale_TNB[t, n])
        _close(jax.tree.map(lambda x, n=n: x[n], trained.params), params)


def test_the_order_of_the_models_does_not_matter(population, base, trained):
    order = [2, 0, 1]
    other = _train(population, base, WEIGHTS_NK[order], [1, 0, 0])
    _close(jax.tree.map(lambda x: x[np.array(order)], trained.params), other.params)


def test_models_differ_by_mixture_and_learn_what_they_are_given(trained):
    loss_NT = trained.results[6]["loss_NT"]
    assert loss_NT[0, 0] < loss_NT[1, 0] and loss_NT[1, 1] < loss_NT[0, 1]
    assert set(trained.results) == {4, 6}


def test_scores_against_a_plain_pass(trained):
    found = trained.results[6]
    for n in range(3):
        params = jax.tree.map(lambda x, n=n: x[n], trained.params)
        for t, rows in enumerate(TESTS):
            arrays = {
                k: getattr(rows, f"{k}_NL")
                for k in ("tokens", "loss_mask", "segments", "positions")
            }
            nll, correct, mask = map(np.asarray, score_responses(MODEL, params, arrays))
            assert found["count_T"][t] == mask.sum()
            np.testing.assert_allclose(
                found["loss_NT"][n, t], nll.sum() / mask.sum(), 1e-4
            )
            right = [
                np.all(correct[r][mask[r] & (rows.segments_NL[r] == m + 1)])
                for r, m in np.argwhere(rows.scored_NM)
            ]
            np.testing.assert_allclose(found["accuracy_NT"][n, t], np.mean(right), 1e-6)


class _KilledError(Exception):
    """Stands for the death of the process."""


def test_an_interrupted_one_continues_to_the_same_bits(
    population, base, trained, tmp_path, monkeypatch
):
    path = tmp_path / "state.npz"
    saved, steps = [], []

    def save_and_die(*arguments):
        module_save(*arguments)
        saved.append(arguments[2])
        if saved[-1] < TRAINING.steps:
            raise _KilledError

    module_save = module.save_state
    monkeypatch.setattr(module, "save_state", save_and_die)
    for _ in range(2):
        with pytest.raises(_KilledError):
            _train(population, base, WEIGHTS_NK, [0, 0, 1], state_path=path)
    resumed = _train(
        *(population, base, WEIGHTS_NK, [0, 0, 1]),
        state_path=path,
        advance=steps.append,
    )
    assert saved == [2, 4, 6] and steps == [4, 2]
    _same(resumed, trained)


def test_the_state_of_something_else_is_refused(population, base, tmp_path):
    path = tmp_path / "state.npz"
    _train(population, base, WEIGHTS_NK, [0, 0, 1], state_path=path)
    with pytest.raises(ValueError, match=r"state\.npz is the state of other models"):
        _train(population, base, WEIGHTS_NK, [0, 0, 0], state_path=path)
    path.write_bytes(b"PK rubbish")
    with pytest.raises(ValueError, match=r"state\.npz is no state of a population"):
        _train(population, base, WEIGHTS_NK, [0, 0, 1], state_path=path)


def test_two_devices_are_as_one(population, base, trained):
    """Three models on two devices: one of them is trained twice and dropped."""
    two = _train(population, base, WEIGHTS_NK, [0, 0, 1], devices=jax.devices()[:2])
    assert jax.tree.leaves(two.params)[0].shape[0] == 3
    _close(two, trained)


def test_the_models_are_split_over_the_devices(population, base):
    seen = []

    def look(params_N):
        seen.append(jax.tree.leaves(params_N)[0].sharding.device_set)
        return {}

    plan = make_plan(WEIGHTS_NK[[0, 1]], [0, 0], ROWS, TRAINING)
    train_population(
        *(population, base, make_bank(ROWS, 32), plan, TRAINING, look),
        devices=jax.devices()[:2],
    )
    assert all(len(devices) == 2 for devices in seen) and len(seen) == 2


def test_rows_follow_the_weights():
    training = dataclasses.replace(TRAINING, steps=100, rows=4, chunk=1, stops=())
    weights_NK = np.array([[0.13, 0.87], [0.5, 0.5], [1.0, 0.0]])
    plan = make_plan(weights_NK, [0, 0, 5], ROWS, training)
    first = len(ROWS[0])
    share_N = (plan.row_TNB < first).mean(axis=(0, 2))
    np.testing.assert_allclose(share_N, weights_NK[:, 0], atol=1 / 400)
    # Every ability counts as its rows do, every row as its tokens.
    tokens_R = np.concatenate([r.loss_mask_NL.sum(axis=1) for r in ROWS])
    mass_TNB = plan.scale_TNB * tokens_R[plan.row_TNB]
    np.testing.assert_allclose(mass_TNB.sum(axis=2), 1.0, rtol=1e-5)
    of_first_TN = np.where(plan.row_TNB < first, mass_TNB, 0).sum(axis=2)
    np.testing.assert_allclose(of_first_TN, (plan.row_TNB < first).mean(axis=2), 1e-5)


def test_models_of_one_seed_read_the_rows_of_an_ability_in_one_order():
    plan = make_plan(WEIGHTS_NK[[0, 2, 0]], [0, 0, 1], ROWS, TRAINING)
    whole, half, other = (plan.row_TNB[:, n].ravel() for n in range(3))
    of_first = half[half < len(ROWS[0])]
    np.testing.assert_array_equal(of_first, whole[: len(of_first)])
    assert not np.array_equal(whole, other)
    # An epoch reads every row once.
    epoch = len(ROWS[0])
    assert len(set(whole[:epoch])) == epoch


def test_learning_rates_rise_stay_and_fall():
    training = Training(steps=20, chunk=1, learning_rate=1.0, warmup=4, decay_share=0.5)
    rate_T = training.learning_rates()
    np.testing.assert_allclose(rate_T[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(rate_T[4:11], 1.0)
    np.testing.assert_allclose(rate_T[10:], np.arange(10, 0, -1) / 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(steps=25), "stop at step 25: .* multiples of chunk=20"),
        (dict(stops=(220,)), "stop at step 220"),
        (dict(rows=0), "rows=0 must be positive"),
        (dict(warmup=500), "warmup=500 must be from 0 to steps=200"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        Training(**fields)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"must be of \(2, 2\): 2 seeds"):
        make_plan(WEIGHTS_NK, [0, 0], ROWS, TRAINING)


def test_of_adapters_only_these_are_trained(base):
    """One step from B = 0: W stays, and A but for its decay."""
    model = dataclasses.replace(MODEL, lora=LoRA(2, 2.0, ("query", "up"), False))
    whole = combine(init(model, jax.random.key(1)), base)
    one = dataclasses.replace(TRAINING, steps=1, chunk=1, stops=(), warmup=1)
    plan = make_plan(WEIGHTS_NK[:2], [0, 0], ROWS, one)
    found = train_population(
        *(make_population(model, one), whole, make_bank(ROWS), plan, one),
        lambda params: {},
        devices=ONE,
    ).params
    (trained, frozen), (drawn, _) = split(found), split(whole)
    _same(frozen, jax.tree.map(lambda x: np.stack([x, x]), base))
    for path, x_N in jax.tree_util.tree_leaves_with_path(trained):
        if path[-1].key == "lora_b":
            assert np.abs(x_N).max() > 0 and not np.array_equal(x_N[0], x_N[1])
        else:
            start = functools.reduce(lambda tree, key: tree[key.key], path, drawn)
            kept = 1 - one.learning_rate * one.weight_decay
            np.testing.assert_allclose(x_N[0], kept * start, rtol=1e-5)
    merged = jax.vmap(functools.partial(merge, model.lora))(found)
    expected = jax.tree.map(lambda x: x.shape, base)
    assert jax.tree.map(lambda x: x.shape[1:], merged) == expected

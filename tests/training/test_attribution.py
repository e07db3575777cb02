"""Losses belong to the ability of their slot, whatever else is in the batch."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcft_jax.conflict import RESOLVERS, Engine, make_groups
from dcft_jax.mixture import RULES, TIER_RULES
from dcft_jax.training.composition import Composition
from dcft_jax.training.measured import Measured
from dcft_jax.training.mixture_update import update_mixture
from dcft_jax.training.state import init_mixture, init_state
from dcft_jax.training.step import ROW_FIELDS, train_step

K, S, NUM_STEPS, L = 3, 32, 3, 8
NAN = np.nan


def compose(rule):
    return Composition(
        rule=rule,
        tier_rule=TIER_RULES["static"](),
        actuator="both",
        prior_K=np.full(K, 1 / K, np.float32),
        size_KT=np.full((K, 1), 100),
        max_epochs_K=np.zeros(K),
        tier_KN=np.zeros((K, 1), np.int8),
        given_reference_K=np.full(K, NAN, np.float32),
        references="given",
        num_steps=10,
        num_slots=S,
        rows_per_slot=1,
        eval_every=NUM_STEPS,
    )


def slot_loss(params, frozen, slot, handles=None):
    """Of a token: its number times the one parameter."""
    del frozen, handles
    mask_BL = slot["loss_mask"].astype(jnp.float32)
    loss = params["layers"] * jnp.sum(slot["tokens"] * mask_BL)
    return jnp.sum(loss), jnp.sum(mask_BL)


def make_slots():
    """96 slots, 32 of each ability, with different numbers of response tokens."""
    rng = np.random.default_rng(0)
    ability_N = np.repeat(np.arange(K), S)
    level_N1 = np.array([1, 4, 9])[ability_N][:, None]
    tokens_NL = level_N1 + rng.integers(0, 3, (K * S, L))
    mask_NL = np.arange(L) < rng.integers(1, L + 1, (K * S, 1))
    return ability_N, tokens_NL.astype(np.int32), mask_NL


@functools.cache
def compiled(variant):
    composition = compose(RULES["odm"](variant))  # its reward is the train loss
    params = {"layers": jnp.ones((1,))}
    engine = Engine(
        "materialize", RESOLVERS["mean"](), make_groups(params, "global"), K
    )
    optimizer = optax.sgd(0.0)  # the same parameters in every order
    state = init_state(params, optimizer, engine, init_mixture(composition, 1))
    step = jax.jit(
        functools.partial(
            train_step, slot_loss, optimizer, composition, engine, lambda _: None
        )
    )
    update = jax.jit(functools.partial(update_mixture, composition))
    return state, step, update


def train(variant, order_N):
    """The mixture after three steps of 32 slots in that order, and an evaluation."""
    state, step, update = compiled(variant)
    ability_N, tokens_NL, mask_NL = make_slots()
    for index_S in order_N.reshape(NUM_STEPS, S):
        rows = dict(tokens=tokens_NL, loss_mask=mask_NL)
        rows |= {field: np.zeros_like(tokens_NL) for field in ("segments", "positions")}
        batch = {f"{field}_SBL": rows[field][index_S, None] for field in ROW_FIELDS}
        batch |= dict(
            ability_S=ability_N[index_S].astype(np.int32),
            credit_C=np.zeros(K, np.float32),
            rows_C=np.zeros(K, np.int32),
        )
        state, _ = step(state, {}, batch)
    unknown_K, unknown_KT = np.full(K, NAN), np.full((K, 1), NAN)
    measured = Measured(
        loss_K=np.float32([2.0, 3.0, 4.0]),
        **dict.fromkeys(
            ("loss_stderr_K", "accuracy_K", "progress_K", "progress_stderr_K"),
            unknown_K,
        ),
        **dict.fromkeys(("rise_K", "rise_stderr_K"), unknown_K),
        **dict.fromkeys(
            ("loss_KT", "loss_stderr_KT", "progress_KT", "progress_stderr_KT"),
            unknown_KT,
        ),
        loss_sum_KN=np.zeros((K, 1), np.float32),
    )
    mixture = state.mixture
    for number in range(1, 9):  # it explores less and less
        again = replace(mixture, train=state.mixture.train)
        mixture = update(again, measured, {}, jnp.int32(number * NUM_STEPS))
    return state.mixture.train, mixture


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_mixed_batches_of_32_give_the_weights_of_single_ability_batches(variant):
    single = np.arange(K * S)
    mixed = np.random.default_rng(1).permutation(K * S)
    ability_N, tokens_NL, mask_NL = make_slots()
    assert len(set(ability_N[mixed[:S]])) == K
    sums, mixtures = zip(
        *(train(variant, order) for order in (single, mixed)), strict=True
    )
    expected_K = [
        np.sum((tokens_NL * mask_NL)[ability_N == k]) / mask_NL[ability_N == k].sum()
        for k in range(K)
    ]
    for one in sums:
        np.testing.assert_allclose(one.loss_K / one.count_K, expected_K, rtol=1e-5)
    np.testing.assert_allclose(mixtures[0].weights_K, mixtures[1].weights_K, rtol=1e-5)
    # The train losses, which rise with k, reached the weights.
    weights_K = np.asarray(mixtures[0].weights_K)
    assert np.all(np.diff(weights_K) > 1e-3) and np.ptp(weights_K) > 0.1

"""Exact match against real greedy decoding; standard errors against resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base
from dcft_jax import sharding
from dcft_jax.evaluation.losses import (
    Scores,
    exact_match,
    loss_by_tier,
    make_eval_step,
    mean_loss,
    paired_progress,
    progress_by_tier,
    score_split,
)
from dcft_jax.models import ModelConfig, apply, init

END, VOCAB, L = 2, 24, 16


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    config = base.get_config()
    config.model.update(
        num_layers=1, width=16, hidden=32, num_heads=2, num_kv_heads=2, head_dim=8
    )
    config.model.compute_dtype = "float32"
    return ModelConfig.from_config(config.model, VOCAB, config.mesh.rules)


logits = jax.jit(apply, static_argnums=0)


def greedy(model, params, prompt: list[int], num_tokens: int) -> list[int]:
    row_BL, start = np.zeros((1, L), np.int32), len(prompt)
    row_BL[0, :start] = prompt
    for end in range(start, start + num_tokens):
        # What follows is not seen.
        row_BL[0, end] = jnp.argmax(logits(model, params, row_BL)[0, end - 1])
    return row_BL[0, start : start + num_tokens].tolist()


def pack(examples: list[tuple[list[int], list[int]]]) -> dict[str, np.ndarray]:
    """All examples (prompt, reply) in one row [1, 1, L]."""
    row = {
        "tokens": np.zeros(L, np.int32),
        "loss_mask": np.zeros(L, bool),
        "segments": np.zeros(L, np.int32),
        "positions": np.zeros(L, np.int32),
    }
    start = 0
    for number, (prompt, reply) in enumerate(examples, 1):
        end = start + len(prompt) + len(reply)
        row["tokens"][start:end] = prompt + reply
        row["loss_mask"][start + len(prompt) : end] = True
        row["segments"][start:end] = number
        row["positions"][start:end] = np.arange(end - start)
        start = end
    row["scored"] = np.ones(len(examples), bool)
    return {name: x[None, None] for name, x in row.items()}


def test_teacher_forced_exact_match_is_greedy_exact_match(model: ModelConfig):
    mesh = sharding.make_mesh(dict(ability=1, data=1, model=1), jax.devices()[:1])
    rules, eval_step = model.rules, make_eval_step(model)
    found = set()
    with jax.set_mesh(mesh):
        for seed in range(8):
            params = init(model, jax.random.key(seed))
            rng = np.random.default_rng(seed)
            prompts = [list(map(int, rng.integers(3, VOCAB, 3))) for _ in range(3)]
            replies = [greedy(model, params, prompt, 2) for prompt in prompts]
            replies[1][-1] = (replies[1][-1] + 1) % VOCAB  # wrong at the end
            replies[2][0] = (replies[2][0] + 1) % VOCAB  # wrong at the start
            batch = pack(list(zip(prompts, replies, strict=True)))
            example = np.arange(3)[None, None]
            placed = sharding.place(batch, mesh, rules)
            triple = (placed, example, batch["scored"])
            scores = score_split(eval_step, params, [triple], 3)
            exact = [
                greedy(model, params, p, 2) == r
                for p, r in zip(prompts, replies, strict=True)
            ]
            assert list(scores.wrong_N == 0) == exact
            found |= set(exact)
    assert found == {True, False}


def test_losses_of_packed_examples_are_those_of_single_ones(model: ModelConfig):
    mesh = sharding.make_mesh(dict(ability=1, data=1, model=1), jax.devices()[:1])
    eval_step = make_eval_step(model)
    rng = np.random.default_rng(0)
    examples = [
        (
            list(map(int, rng.integers(3, VOCAB, n))),
            list(map(int, rng.integers(3, 9, m))),
        )
        for n, m in ((2, 3), (4, 1), (1, 2))
    ]
    with jax.set_mesh(mesh):
        params = init(model, jax.random.key(0))

        def score(examples):
            batch = pack(examples)
            placed = sharding.place(batch, mesh, model.rules)
            index = np.arange(len(examples))[None, None]
            triple = (placed, index, batch["scored"])
            return score_split(eval_step, params, [triple], len(examples))

        together = score(examples)
        alone = [score([example]) for example in examples]
    np.testing.assert_array_equal(together.count_N, [3, 1, 2])
    for name in ("loss_sum_N", "count_N", "wrong_N"):
        parts = np.concatenate([getattr(s, name) for s in alone])
        np.testing.assert_allclose(getattr(together, name), parts, rtol=1e-5)


def scores(loss_sum_N, count_N, wrong_N=None, scored_N=None) -> Scores:
    size = len(loss_sum_N)
    return Scores(
        np.asarray(loss_sum_N, np.float32),
        np.asarray(count_N, np.float32),
        np.zeros(size) if wrong_N is None else np.asarray(wrong_N),
        np.ones(size, bool) if scored_N is None else np.asarray(scored_N),
    )


def test_standard_error_agrees_with_the_bootstrap():
    rng = np.random.default_rng(0)
    count_N = rng.integers(1, 30, 400)
    sum_N = count_N * rng.gamma(2.0, 1.0, 400)  # tokens of an example go together
    mean, stderr = mean_loss(scores(sum_N, count_N))
    draws = rng.integers(0, 400, (4000, 400))
    resampled = sum_N[draws].sum(1) / count_N[draws].sum(1)
    np.testing.assert_allclose(mean, sum_N.sum() / count_N.sum(), rtol=1e-6)
    np.testing.assert_allclose(stderr, resampled.std(), rtol=0.05)


def test_pairing_cancels_what_examples_have_in_common():
    rng = np.random.default_rng(1)
    count_N = np.full(200, 5.0)
    before_N = rng.gamma(2.0, 10.0, 200)
    after = scores(before_N - 0.5 - 0.01 * rng.normal(size=200), count_N)
    progress, stderr = paired_progress(before_N.astype(np.float32), after)
    np.testing.assert_allclose(progress, 0.1, atol=1e-3)
    assert stderr < mean_loss(after)[1] / 100


def test_tiers_are_measured_on_their_own_examples():
    rng = np.random.default_rng(2)
    tier_N = rng.integers(0, 2, 300).astype(np.int8) * 2  # nothing in tier 1
    count_N = rng.integers(1, 9, 300).astype(np.float32)
    after = scores(count_N * (1.0 + tier_N), count_N)
    loss_T, stderr_T = loss_by_tier(after, tier_N, 3)
    np.testing.assert_allclose(loss_T, [1.0, np.nan, 3.0])
    np.testing.assert_allclose(stderr_T, [0.0, np.nan, 0.0], atol=1e-6)
    before_N = after.loss_sum_N + count_N * np.where(tier_N == 0, 0.2, 0.7)
    progress_T, _ = progress_by_tier(before_N, after, tier_N, 3)
    np.testing.assert_allclose(progress_T, [0.2, np.nan, 0.7], rtol=1e-5)
    # With one tier the numbers are those of the ability.
    none_N = np.zeros(300, np.int8)
    assert loss_by_tier(after, none_N, 1)[0] == [mean_loss(after)[0]]


def test_exact_match_counts_scored_examples_only():
    mean, stderr = exact_match(
        scores([1, 1, 1, 1], [1, 1, 1, 1], [0, 2, 0, 0], [True, True, True, False])
    )
    np.testing.assert_allclose(mean, 2 / 3)
    np.testing.assert_allclose(stderr, np.sqrt(2 / 9 / 2), rtol=1e-6)


def test_nothing_scored_is_nan_not_zero():
    assert np.isnan(exact_match(scores([1.0], [1.0], [0], [False]))[0])


@settings(deadline=None)
@given(st.permutations(range(6)), st.floats(0.1, 10.0))
def test_order_and_units_of_examples_do_not_matter(order, scale):
    sum_N, count_N = np.array([3.0, 1, 4, 1, 5, 9]), np.array([2.0, 6, 5, 3, 5, 8])
    mean, stderr = mean_loss(scores(sum_N, count_N))
    order = list(order)
    moved = mean_loss(scores(scale * sum_N[order], count_N[order]))
    np.testing.assert_allclose(moved, (scale * mean, scale * stderr), rtol=1e-5)

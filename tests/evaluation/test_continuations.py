"""Likelihoods of packed continuations against one forward pass each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.evaluation.continuations import (
    Continuation,
    make_continuation_scorer,
)
from dcft_jax.models import ModelConfig, Params, apply
from dcft_jax.sharding import make_mesh

jitted_apply = jax.jit(apply, static_argnums=0)


def logits(model: ModelConfig, params: Params, tokens) -> np.ndarray:
    """Of a text alone; what is behind it is not seen, and spares compilations."""
    padded_L = np.zeros(-(-len(tokens) // 128) * 128, np.int32)
    padded_L[: len(tokens)] = tokens
    logits_BLV = jitted_apply(model, params, jnp.asarray(padded_L)[None])
    return np.asarray(logits_BLV[0, : len(tokens)])


def by_definition(
    model: ModelConfig, params: Params, context, tokens
) -> tuple[float, bool]:
    """Minus the log-likelihood of the tokens, and whether each is the likeliest."""
    logits_LV = logits(model, params, [*context, *tokens])
    logp_TV = jax.nn.log_softmax(logits_LV[len(context) - 1 : -1])
    nats = -sum(float(logp_TV[i, token]) for i, token in enumerate(tokens))
    return nats, logp_TV.argmax(-1).tolist() == list(tokens)


def greedy(model: ModelConfig, params: Params, context, number: int) -> list[int]:
    tokens = list(context)
    for _ in range(number):
        tokens.append(int(logits(model, params, tokens)[-1].argmax()))
    return tokens[len(context) :]


@pytest.fixture(scope="module")
def continuations(model, params) -> list[Continuation]:
    rng = np.random.default_rng(0)

    def draw(number: int) -> list[int]:
        return rng.integers(0, model.vocab_size, number).tolist()

    found = [Continuation(draw(n), draw(m)) for n in (1, 5, 40) for m in (1, 3, 30)]
    likeliest = [
        Continuation(one := draw(n), greedy(model, params, one, 3)) for n in (2, 9)
    ]
    return found + likeliest


def score(model, params, continuations, sizes=None, **options):
    sizes = sizes or dict(ability=1, data=1)
    number = sizes["ability"] * sizes["data"]
    mesh = make_mesh(dict(sizes, model=1), jax.devices()[:number])
    with jax.set_mesh(mesh):
        scorer = make_continuation_scorer(model, mesh, rows_per_batch=2, **options)
        return scorer(params, continuations)


@pytest.mark.parametrize("sizes", [dict(ability=1, data=1), dict(ability=2, data=2)])
def test_packed_on_any_mesh_as_alone(model, params, continuations, sizes):
    expected = [by_definition(model, params, *one) for one in continuations]
    found = score(model, params, continuations, sizes)
    np.testing.assert_allclose(found.nats_N, [n for n, _ in expected], rtol=1e-4)
    assert found.greedy_N.tolist() == [likeliest for _, likeliest in expected]
    assert {True, False} == set(found.greedy_N.tolist())
    assert not found.cut_N.any()


def test_a_long_context_loses_its_begin(model, params, continuations):
    # 10 tokens are read: the last one that is predicted is not.
    short = [one for one in continuations if len(one.tokens) <= 10]
    found = score(model, params, short, max_length=10)
    for n, (context, tokens) in enumerate(short):
        kept = context[len(context) + len(tokens) - 11 :] if found.cut_N[n] else context
        assert found.cut_N[n] == (len(context) + len(tokens) > 11)
        nats, likeliest = by_definition(model, params, kept, tokens)
        np.testing.assert_allclose(found.nats_N[n], nats, rtol=1e-4)
        assert found.greedy_N[n] == likeliest
    assert {True, False} == set(found.cut_N.tolist())


def test_nothing_has_no_scores(model, params):
    assert score(model, params, []).nats_N.shape == (0,)


@pytest.mark.parametrize(
    ("continuation", "message"),
    [
        (Continuation([], [1]), r"continuations\[0\].context is empty"),
        (Continuation([1], []), r"continuations\[0\].tokens is empty"),
        (Continuation([1], [2] * 11), "11 tokens, more than max_length=10"),
    ],
)
def test_what_has_no_score_is_refused(model, params, continuation, message):
    with pytest.raises(ValueError, match=message):
        score(model, params, [continuation], max_length=10)

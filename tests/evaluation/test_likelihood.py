"""Likelihoods of packed replies against one forward pass each."""

import jax
import numpy as np
import pytest

from dcft_jax.data import Example, encode_example
from dcft_jax.evaluation.likelihood import score_replies
from dcft_jax.models import apply
from dcft_jax.sharding import make_mesh
from tests.evaluation.conftest import WORDS

EXAMPLES = [
    Example((("user", WORDS[i]), ("assistant", " ".join(WORDS[: i + 1]))), "test")
    for i in range(5)
]


@jax.jit(static_argnums=0)
def log_probs(model, params, tokens_BL):
    return jax.nn.log_softmax(apply(model, params, tokens_BL))


def nats(model, params, tokenizer, example) -> tuple[float, int]:
    """The definition, on the example alone."""
    tokens_L, mask_L = encode_example(example, tokenizer)
    # Of one length, to compile once; what follows is not seen.
    row_BL = np.pad(tokens_L, (0, 64 - len(tokens_L)))[None]
    logp_LV = log_probs(model, params, row_BL)[0]
    places = np.flatnonzero(mask_L)
    return -sum(float(logp_LV[i - 1, tokens_L[i]]) for i in places), len(places)


@pytest.mark.parametrize("sizes", [dict(ability=1, data=1), dict(ability=2, data=2)])
def test_packed_on_any_mesh_as_alone(model, params, tokenizer, sizes):
    expected = [nats(model, params, tokenizer, one) for one in EXAMPLES]
    num_devices = sizes["ability"] * sizes["data"]
    mesh = make_mesh(dict(sizes, model=1), jax.devices()[:num_devices])
    batches = []

    def track(found, total):
        batches.append(total)
        return found

    with jax.set_mesh(mesh):
        found = score_replies(
            model, params, tokenizer, EXAMPLES, mesh, rows_per_batch=2, track=track
        )
    np.testing.assert_allclose(found.nats_N, [n for n, _ in expected], rtol=1e-4)
    assert found.tokens_N.tolist() == [count for _, count in expected]
    assert batches[0] >= 1


def test_what_is_too_long_is_not_scored(model, params, tokenizer):
    mesh = make_mesh(dict(ability=1, data=1, model=1), jax.devices()[:1])
    lengths = [len(encode_example(one, tokenizer)[0]) for one in EXAMPLES]
    limit = sorted(lengths)[2]
    with jax.set_mesh(mesh):
        found = score_replies(
            model, params, tokenizer, EXAMPLES, mesh, max_length=limit
        )
        none = score_replies(model, params, tokenizer, EXAMPLES, mesh, max_length=2)
    np.testing.assert_array_equal(np.isfinite(found.nats_N), np.array(lengths) <= limit)
    np.testing.assert_array_equal(found.tokens_N > 0, np.array(lengths) <= limit)
    assert not np.isfinite(none.nats_N).any()

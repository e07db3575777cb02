"""Generation with a cache against the plain forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from scipy import stats

from dcft_jax import models, sharding
from dcft_jax.models import Sampling, generate, init, stream
from dcft_jax.models.cache import empty_cache
from dcft_jax.models.generate import decode, prefill
from dcft_jax.models.prompts import bucket_length
from tests.models.tiny_decoder import FAMILIES, V, make, random_params

apply = jax.jit(models.apply, static_argnums=0)
SAMPLED = dict(temperature=1.0, top_k=12, top_p=0.95, seed=5)
PROMPTS = [[1, 2, 3], list(range(20)), [7] * 9, [30]]


@jax.jit(static_argnums=0)
def extend_with_logits(config, params, tokens_BL, cache):
    x_BLD, cache = models.decoder.extend(config, params, tokens_BL, cache)
    return models.unembed(config, params, x_BLD), cache


def naive_greedy(config, params, prompt, number):
    """Runs the whole row again for every token."""
    row = np.zeros((1, len(prompt) + number), np.int32)
    row[0, : len(prompt)] = prompt
    for end in range(len(prompt), row.shape[1]):
        row[0, end] = int(jnp.argmax(apply(config, params, row)[0, end - 1]))
    return row[0, len(prompt) :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_from_the_cache_equal_the_forward_pass(family):
    config = make(**FAMILIES[family])
    params = random_params(config)
    rng = np.random.default_rng(0)
    # Prompts of 8 and 5 tokens, read in two parts, then 8 tokens one by one; windows
    # are 3 tokens, so they end inside the prompt, at its edge and behind it.
    rows = [rng.integers(0, V, (1, 16)), rng.integers(0, V, (1, 13))]
    start_B = jnp.array([0, 3], jnp.int32)
    tokens_BL = np.concatenate([np.pad(r, ((0, 0), (16 - r.size, 0))) for r in rows])
    cache, parts, at = empty_cache(config, start_B, 16), [], 0
    for length in (6, 2, *(1,) * 8):
        part = jnp.asarray(tokens_BL[:, at : at + length], jnp.int32)
        logits, cache = extend_with_logits(config, params, part, cache)
        parts.append(logits)
        at += length
    got_BLV = jnp.concatenate(parts, axis=1)
    for row, tokens in enumerate(rows):
        expected_LV = apply(config, params, jnp.asarray(tokens, jnp.int32))[0]
        got_LV = got_BLV[row, int(start_B[row]) :]
        np.testing.assert_allclose(got_LV, expected_LV, atol=1e-5, rtol=1e-5)
    assert int(cache.length) == 16


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_the_naive_loop(family):
    config = make(**FAMILIES[family])
    params = random_params(config)
    got = generate(config, params, PROMPTS, max_new_tokens=12)
    for prompt, reply in zip(PROMPTS, got, strict=True):
        assert reply == naive_greedy(config, params, prompt, 12)
    assert len({token for reply in got for token in reply}) > 4, "else it proves little"


@pytest.mark.slow
def test_the_window_matters_and_is_crossed():
    config = make(sliding_window=4)
    params = random_params(config)
    unlimited = dataclasses.replace(config, sliding_window=0)
    inside = [generate(c, params, [[5]], max_new_tokens=3) for c in (config, unlimited)]
    assert inside[0] == inside[1]
    across = [
        generate(c, params, [[5]], max_new_tokens=30) for c in (config, unlimited)
    ]
    assert across[0] != across[1]


def test_compute_dtype_is_that_of_the_cache():
    config = make(compute_dtype="bfloat16")
    cache = empty_cache(config, jnp.zeros(2, jnp.int32), 5)
    assert cache.key_NBSGC.dtype == cache.value_NBSGC.dtype == jnp.bfloat16
    assert cache.key_NBSGC.shape == (2, 2, 5, 2, 8)
    assert all(generate(config, random_params(config), PROMPTS, max_new_tokens=4))


@pytest.mark.slow
def test_a_row_does_not_depend_on_its_batch_or_bucket():
    config = make(**FAMILIES["gemma2"])
    params = random_params(config)
    options = dict(SAMPLED, max_new_tokens=10)
    together = generate(config, params, PROMPTS, **options)
    buckets = {bucket_length(len(prompt)) for prompt in PROMPTS}
    assert len(buckets) > 1
    for i, prompt in enumerate(PROMPTS):
        alone = generate(config, params, [prompt], row_ids=[i], **options)
        assert alone == [together[i]]
    for batch_size in (1, 3):
        split = generate(config, params, PROMPTS, batch_size=batch_size, **options)
        assert split == together
    order = [2, 0, 3, 1]
    mixed = generate(
        config, params, [PROMPTS[i] for i in order], row_ids=order, **options
    )
    assert mixed == [together[i] for i in order]


def test_seeds_and_rows_have_their_own_randomness():
    config = make()
    params = random_params(config)
    options = dict(SAMPLED, max_new_tokens=10)
    same = generate(config, params, [[1, 2]] * 3, **options)
    assert len(set(map(tuple, same))) == 3
    assert same == generate(config, params, [[1, 2]] * 3, **options)
    other = generate(config, params, [[1, 2]] * 3, **dict(options, seed=6))
    assert not set(map(tuple, same)) & set(map(tuple, other))


@pytest.mark.slow
def test_a_reply_ends_with_its_stop_token():
    config = make()
    params = random_params(config)
    options = dict(SAMPLED, max_new_tokens=20)
    free = generate(config, params, PROMPTS, **options)
    stops = [free[0][4], free[1][7]]
    stopped = generate(config, params, PROMPTS, stop_ids=stops, **options)
    for reply, whole in zip(stopped, free, strict=True):
        ends = [i for i, token in enumerate(whole) if token in stops]
        assert reply == (whole[: ends[0] + 1] if ends else whole)
    assert len(stopped[0]) <= 5 and len(stopped[1]) <= 8


def start(config, params, prompts, number, stop_ids=()):
    tokens_BL = jnp.asarray(prompts, jnp.int32)
    zeros_B = jnp.zeros(len(prompts), jnp.int32)
    stop_J = jnp.asarray(stop_ids, jnp.int32)
    key = jax.random.key(0)
    return prefill(
        config, Sampling(), number, params, tokens_BL, zeros_B, zeros_B, key, stop_J
    )


def test_decoding_ends_when_all_rows_are_done():
    config = make()
    params = random_params(config)
    prompts = [[1, 2, 3], [4, 5, 6]]
    replies = generate(config, params, prompts, max_new_tokens=30)
    stop_ids = [replies[0][3], replies[1][5]]
    lengths = [
        next(i for i, token in enumerate(reply) if token in stop_ids) + 1
        for reply in replies
    ]
    state = start(config, params, prompts, 30, stop_ids)
    state, done = decode(config, Sampling(), params, state, jnp.int32(30))
    assert done and int(state.num_new) == max(lengths) < 30


def test_chunks_are_beginnings_of_the_reply():
    config = make()
    params = random_params(config)
    (whole,) = generate(config, params, [[3, 1]], max_new_tokens=11)
    lengths = []
    for (reply,) in stream(config, params, [[3, 1]], max_new_tokens=11, chunk=4):
        assert reply == whole[: len(reply)]
        lengths.append(len(reply))
    assert lengths == [4, 8, 11]
    stop = whole[5]
    end = whole.index(stop) + 1
    *_, (last,) = stream(
        config, params, [[3, 1]], max_new_tokens=11, chunk=4, stop_ids=[stop]
    )
    assert last == whole[:end]


@pytest.mark.parametrize("number", [1, 2])
def test_shortest_generations(number):
    config = make()
    params = random_params(config)
    prompt = list(range(16))  # fills its bucket
    expected = naive_greedy(config, params, prompt, number)
    assert generate(config, params, [prompt], max_new_tokens=number) == [expected]
    assert generate(config, params, [], max_new_tokens=number) == []


@pytest.mark.slow
def test_first_tokens_have_the_distribution_of_the_model():
    config = make()
    params = random_params(config)
    rows, prompt, temperature = 4096, [1, 2, 3], 2.0
    replies = generate(
        config,
        params,
        [prompt] * rows,
        max_new_tokens=1,
        temperature=temperature,
        batch_size=2048,
    )
    logits_V = apply(config, params, jnp.array([prompt]))[0, -1]
    share_V = np.asarray(jax.nn.softmax(logits_V / temperature), np.float64)
    counts_V = np.bincount([reply[0] for reply in replies], minlength=V)
    often = share_V > 10 / rows
    expected_V = share_V[often] / share_V[often].sum() * counts_V[often].sum()
    assert often.sum() > 10 and counts_V[often].sum() > 0.9 * rows
    assert stats.chisquare(counts_V[often], expected_V).pvalue > 0.01


@pytest.mark.slow
def test_the_same_bucket_is_compiled_once():
    config = make(num_layers=1)
    params = random_params(config)
    sizes = prefill._cache_size(), decode._cache_size()

    def compiled():
        return prefill._cache_size() - sizes[0], decode._cache_size() - sizes[1]

    generate(config, params, [[1, 2], [3]], max_new_tokens=7, seed=1)
    assert compiled() == (1, 1)
    generate(config, params, [[9] * 16, [4] * 11], max_new_tokens=7, seed=2)
    list(stream(config, params, [[5] * 8], max_new_tokens=7, min_rows=2, chunk=3))
    many = [[1] * n for n in range(1, 8)]  # four batches, the last one not full
    generate(config, params, many, max_new_tokens=7, batch_size=2)
    assert compiled() == (1, 1)
    generate(config, params, [[1] * 17, [2]], max_new_tokens=7)
    assert compiled() == (2, 2)


def test_decoding_writes_the_cache_in_place():
    def memory(num_layers):
        config = make(num_layers=num_layers)
        params = random_params(config)
        state = start(config, params, np.zeros((4, 128), np.int32), 64)
        args = (config, Sampling(), params, state, jnp.int32(64))
        cache_bytes = 2 * state.cache.key_NBSGC.nbytes
        return decode.lower(*args).compile().memory_analysis(), cache_bytes

    (two, two_bytes), (eight, eight_bytes) = memory(2), memory(8)
    assert eight_bytes == 4 * two_bytes
    for usage, cache_bytes in ((two, two_bytes), (eight, eight_bytes)):
        assert usage.alias_size_in_bytes >= cache_bytes
    # What it needs besides is that of one layer at a time.
    assert eight.temp_size_in_bytes - two.temp_size_in_bytes < two_bytes / 8
    assert eight.temp_size_in_bytes < eight_bytes / 2


def test_the_state_is_donated():
    config = make()
    params = random_params(config)
    state = start(config, params, [[1, 2, 3]], 8)
    decode(config, Sampling(), params, state, jnp.int32(4))
    assert state.cache.key_NBSGC.is_deleted()
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))


MESHES = {
    "gemma2": (dict(FAMILIES["gemma2"]), "model", dict(ability=1, data=4, model=2)),
    "qwen3": (dict(FAMILIES["qwen3"]), "model", dict(ability=2, data=2, model=2)),
    "repeated_kv": (dict(), None, dict(ability=1, data=2, model=4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", MESHES)
def test_sharded_equals_unsharded(case):
    fields, kv_heads, sizes = MESHES[case]
    config = make(**fields)
    pairs = dict(config.rules.pairs) | {"kv_heads": kv_heads}
    config = dataclasses.replace(config, rules=sharding.Rules.from_config(pairs))
    params = random_params(config)
    expected = [
        generate(config, params, PROMPTS, max_new_tokens=12, **options)
        for options in ({}, SAMPLED)
    ]
    mesh = sharding.make_mesh(sizes, jax.devices()[:8])
    with jax.set_mesh(mesh):
        like = jax.eval_shape(lambda: init(config, jax.random.key(0)))
        like = sharding.concretize(like, mesh)
        placed = jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), params, like)
        got = [
            generate(config, placed, PROMPTS, max_new_tokens=12, **options)
            for options in ({}, SAMPLED)
        ]
        spec = P(("slice", "data"), None)
        tokens_BL = jax.sharding.reshard(jnp.zeros((4, 8), jnp.int32), spec)
        state = start_sharded(config, placed, tokens_BL)
    assert got == expected
    cache_spec = P(None, ("slice", "data"), None, kv_heads, None)
    for array in (state.cache.key_NBSGC, state.cache.value_NBSGC):
        assert array.sharding.spec == cache_spec
    assert state.tokens_BT.sharding.spec == spec


def start_sharded(config, params, tokens_BL):
    zeros_B = jax.sharding.reshard(
        jnp.zeros(len(tokens_BL), jnp.int32), P(("slice", "data"))
    )
    stop_J = jnp.zeros(0, jnp.int32)
    key = jax.random.key(0)
    state = prefill(
        config, Sampling(), 8, params, tokens_BL, zeros_B, zeros_B, key, stop_J
    )
    return decode(config, Sampling(), params, state, jnp.int32(8))[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(prompts=[[1], []]), r"prompts\[1\] is empty; give it at least one token"),
        (dict(prompts=[[1, V]]), r"prompts\[0\] has token 32, .* \[0, 32\)"),
        (dict(prompts=[[-1]]), r"prompts\[0\] has token -1"),
        (dict(stop_ids=[V]), r"stop_ids has token 32"),
        (dict(max_new_tokens=0), "max_new_tokens=0 must be at least 1"),
        (dict(batch_size=0), "batch_size=0 must be at least 1"),
        (dict(temperature=-1.0), "temperature=-1.0"),
        (dict(top_k=-2), "top_k=-2"),
        (dict(top_p=0.0), "top_p=0.0"),
        (dict(seed=-1), r"seed=-1 must be in \[0, 2\*\*32\)"),
        (dict(row_ids=[1, 2]), "row_ids has 2 numbers for 1 prompts"),
        (dict(row_ids=[-1]), "row_ids has -1"),
    ],
)
def test_arguments_out_of_range_are_named(fields, message):
    config = make()
    arguments = dict(prompts=[[1]], max_new_tokens=4) | fields
    with pytest.raises(ValueError, match=message):
        generate(config, {}, **arguments)
    with pytest.raises(ValueError, match="at least one prompt"):
        next(stream(config, {}, [], max_new_tokens=4))

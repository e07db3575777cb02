"""Batched generation with a cache: one program per bucket, no host in the loop.

Prompts are padded on the left to a bucket, a power of two, and batches are filled up to
a fixed number of rows. What a row generates depends on its prompt, its number and the
seed, and on nothing else in the batch; only rounding may differ between buckets.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax import sharding
from dcft_jax.models.cache import Cache, empty_cache
from dcft_jax.models.config import ModelConfig
from dcft_jax.models.decoder import Params, extend, unembed
from dcft_jax.models.prompts import check_options, check_prompts, fill_up
from dcft_jax.models.sampling import Sampling, choose


class Decoding(NamedTuple):
    """Where a batch stands; B rows, T tokens at most, J stop tokens."""

    cache: Cache
    tokens_BT: jax.Array  # int32, generated so far
    num_new: jax.Array  # int32: columns of it that are filled
    done_B: jax.Array  # bool: a stop token was generated, or the row is a filler
    key_B: jax.Array
    stop_J: jax.Array  # int32


def generate(
    config: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
    row_ids: Sequence[int] | None = None,
) -> list[list[int]]:
    """Continues prompts; under `jax.set_mesh`, with rows and heads split over it.

    Compiles once per bucket of prompts, number of rows, `max_new_tokens` and sampling
    options. With several processes, each passes all prompts and gets all replies.

    Args:
      params: as returned by `init`.
      prompts: token identifiers; each prompt has at least one.
      max_new_tokens: per prompt, at least 1.
      stop_ids: tokens that end a reply.
      temperature, top_k, top_p: see `Sampling`; applied in this order.
      seed: of the draws, in [0, 2**32).
      batch_size: most rows decoded together; rounded up to fill the mesh.
      row_ids: numbers that, with the seed, give each prompt its own randomness. None:
        its index. Give them if a set is split over several calls.

    Returns:
      The new tokens of every prompt, in order. A reply ends with its stop token; one
      that does not was cut at `max_new_tokens`.

    Raises:
      ValueError: an argument is out of range; the message names it.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    row_ids = range(len(prompts)) if row_ids is None else row_ids
    check_prompts(config.vocab_size, prompts, row_ids)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    replies: list[list[int]] = [[] for _ in prompts]
    # By length, so that a batch is padded to what its own prompts need.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        steps = stream(
            config,
            params,
            [prompts[i] for i in chosen],
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids,
            sampling=sampling,
            seed=seed,
            row_ids=[row_ids[i] for i in chosen],
            min_rows=min(batch_size, len(prompts)),
            chunk=max_new_tokens,
        )
        *_, batch = steps
        for i, reply in zip(chosen, batch, strict=True):
            replies[i] = reply
    return replies


def stream(
    config: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    seed: int = 0,
    row_ids: Sequence[int] | None = None,
    min_rows: int = 1,
    chunk: int = 8,
) -> Iterator[list[list[int]]]:
    """As `generate`, of one batch: the replies so far, after every `chunk` tokens.

    Args:
      min_rows: fills the batch up, so that batches of one size share one program.
    """
    if not prompts:
        raise ValueError("prompts=[]: give at least one prompt")
    row_ids = range(len(prompts)) if row_ids is None else row_ids
    check_prompts(config.vocab_size, prompts, row_ids)
    check_options(config.vocab_size, max_new_tokens, chunk, seed, stop_ids)
    rows = fill_up(config, prompts, row_ids, min_rows)
    state = prefill(
        config,
        sampling,
        max_new_tokens,
        params,
        *(_place(config, array) for array in rows),
        jax.random.key(seed),
        jnp.asarray(stop_ids, jnp.int32),
    )
    count, done = 0, False
    while not done:
        count = min(count + chunk, max_new_tokens)
        state, is_done = decode(config, sampling, params, state, jnp.int32(count))
        done = bool(is_done) or count == max_new_tokens
        tokens_BT = np.asarray(sharding.replicate(state.tokens_BT))
        length = int(state.num_new)
        # Rows that are done go on in the batch; what follows a stop is nobody's.
        yield [
            _until_stop(tokens_BT[row, :length].tolist(), stop_ids)
            for row in range(len(prompts))
        ]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def prefill(
    config: ModelConfig,
    sampling: Sampling,
    max_new_tokens: int,
    params: Params,
    tokens_BL: jax.Array,
    start_B: jax.Array,
    row_B: jax.Array,
    key: jax.Array,
    stop_J: jax.Array,
) -> Decoding:
    """Reads the prompts and chooses the first token of every reply.

    Args:
      start_B: int32, tokens of padding in front of each prompt; L for a filler.
      row_B: int32, the number that is folded into a row's key.
    """
    rows, length = tokens_BL.shape
    # The last token that is generated is not read any more.
    cache = empty_cache(config, start_B, length + max_new_tokens - 1)
    x_BLD, cache = extend(config, params, tokens_BL, cache)
    state = Decoding(
        cache=cache,
        tokens_BT=_rows(config, jnp.zeros((rows, max_new_tokens), jnp.int32)),
        num_new=jnp.int32(0),
        done_B=start_B == length,
        key_B=jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B),
        stop_J=stop_J,
    )
    return _append(config, sampling, params, state, x_BLD[:, -1:])


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def decode(
    config: ModelConfig,
    sampling: Sampling,
    params: Params,
    state: Decoding,
    limit: jax.Array,
) -> tuple[Decoding, jax.Array]:
    """Generates until `limit` tokens are there, or all rows are done.

    The state is donated: its cache is written in place.

    Returns:
      The state, and whether all rows are done.
    """

    def unfinished(state: Decoding) -> jax.Array:
        return (state.num_new < limit) & ~jnp.all(state.done_B)

    def step(state: Decoding) -> Decoding:
        last_B1 = jax.lax.dynamic_slice_in_dim(state.tokens_BT, state.num_new - 1, 1, 1)
        x_B1D, cache = extend(config, params, last_B1, state.cache)
        state = state._replace(cache=cache)
        return _append(config, sampling, params, state, x_B1D)

    state = jax.lax.while_loop(unfinished, step, state)
    return state, jnp.all(state.done_B)


def _append(config, sampling, params, state: Decoding, x_B1D) -> Decoding:
    """The state with one more token in every row."""
    logits_BV = _rows(config, unembed(config, params, x_B1D)[:, 0])
    key_B = jax.vmap(lambda key: jax.random.fold_in(key, state.num_new))(state.key_B)
    token_B = choose(sampling, logits_BV, key_B)
    is_stop_B = jnp.any(token_B[:, None] == state.stop_J[None], axis=-1)
    return state._replace(
        tokens_BT=jax.lax.dynamic_update_slice_in_dim(
            state.tokens_BT, token_B[:, None], state.num_new, axis=1
        ),
        num_new=state.num_new + 1,
        done_B=state.done_B | is_stop_B,
    )


def _rows(config: ModelConfig, x: jax.Array) -> jax.Array:
    """Split over rows only, on a mesh."""
    names = ("batch",) + (None,) * (x.ndim - 1)
    spec = sharding.ambient_spec(config.rules, names)
    return x if spec is None else jax.sharding.reshard(x, spec)


def _place(config: ModelConfig, array: np.ndarray) -> jax.Array:
    return _rows(config, jnp.asarray(array))


def _until_stop(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    ends = (i for i, token in enumerate(tokens) if token in stop_ids)
    return tokens[: next(ends, len(tokens)) + 1]

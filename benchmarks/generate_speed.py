"""Tokens per second with the cache, against running the whole row for every token.

    python -m benchmarks.generate_speed --out benchmarks/results/generate_speed.md

A decoder of the size of configs/from_scratch.py with random parameters, greedy, in
float32. Both sides run in one process, one jitted loop each, in turn; cells are medians
over rounds. The other side is no straw man: it unembeds the last position only.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from dcft_jax.models import ModelConfig, generate, hidden, init, unembed

VOCABULARY = 2048
PROMPT = 64  # tokens, a bucket
CASES = ((1, 64), (8, 64), (1, 192))  # rows, new tokens


@functools.partial(jax.jit, static_argnums=(0, 3))
def generate_without_cache(config, params, prompt_BL, number):
    """Greedy; every token costs a pass over the row of its final length."""
    row_BL = jnp.pad(prompt_BL, ((0, 0), (0, number)))

    def step(i, row_BL):
        x_BLD = hidden(config, params, row_BL)
        x_B1D = jax.lax.dynamic_slice_in_dim(x_BLD, i - 1, 1, axis=1)
        token_B1 = jnp.argmax(unembed(config, params, x_B1D), axis=-1)
        return jax.lax.dynamic_update_slice_in_dim(
            row_BL, token_B1.astype(row_BL.dtype), i, axis=1
        )

    row_BL = jax.lax.fori_loop(PROMPT, PROMPT + number, step, row_BL)
    return row_BL[:, PROMPT:]


def measure(config: ModelConfig, rows: int, number: int, rounds: int) -> list[float]:
    """Median tokens per second with the cache and without it."""
    params = init(config, jax.random.key(0))
    prompts = np.random.default_rng(0).integers(0, VOCABULARY, (rows, PROMPT))
    tokens_BL = jnp.asarray(prompts, jnp.int32)
    sides: list[Callable[[], list[list[int]]]] = [
        lambda: generate(config, params, prompts.tolist(), max_new_tokens=number),
        lambda: generate_without_cache(config, params, tokens_BL, number).tolist(),
    ]
    if sides[0]() != sides[1]():  # this also compiles both
        raise SystemExit("the two sides generated different tokens")
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for side, times in zip(sides, seconds, strict=True):
            started = time.perf_counter()
            side()
            times.append(time.perf_counter() - started)
    return [rows * number / statistics.median(times) for times in seconds]


def table(rounds: int) -> str:
    config = base.get_config()
    config.model.compute_dtype = "float32"
    model = ModelConfig.from_config(config.model, VOCABULARY, config.mesh.rules)
    lines = [
        f"{model.num_layers} layers of width {model.width}, {VOCABULARY} tokens in the "
        f"vocabulary, prompts of {PROMPT} tokens; {jax.devices()[0].device_kind}, "
        f"{len(os.sched_getaffinity(0))} core(s), median of {rounds} rounds.\n",
        "| rows | new tokens | with cache, tokens/s | without, tokens/s | ratio |",
        "|---|---|---|---|---|",
    ]
    for rows, number in CASES:
        ours, theirs = measure(model, rows, number, rounds)
        lines.append(
            f"| {rows} | {number} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Generation speed.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the table here")
    args = parser.parse_args()
    text = table(args.rounds)
    print(text)
    if args.out:
        args.out.write_text("# Generation with and without a cache\n\n" + text)


if __name__ == "__main__":
    main()

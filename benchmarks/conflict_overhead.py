"""What resolving conflicts costs next to a plain step on the same tokens.

    python -m benchmarks.conflict_overhead --out benchmarks/results/conflict_overhead.md

A decoder of about 7 M parameters (rematerialised scan, float32), K slots of one ability
each, one optimizer step with Adam. The plain step takes one gradient of the weighted
mean of the same K losses. All sides of one K are timed in turn, round after round; the
table has the median over rounds of the ratio to the plain step of the same round, and
the temporary memory of the compiled programs. Absolute times mean little on a shared
machine and are not shown.

LoRA: adapters on every matrix, merged layer by layer inside the scan; the base model is
frozen. Engines that tap need the adapters inside the model and are left out there.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import base
from dcft_jax.conflict import (
    ENGINES,
    RESOLVERS,
    Engine,
    Problem,
    init_engine,
    make_groups,
    resolved_gradient,
)
from dcft_jax.models import ModelConfig, combine, init, score_responses, split
from dcft_jax.training.step import slot_loss

VOCAB = 2048


@dataclasses.dataclass(frozen=True)
class Side:
    """One compiled step: its name, and what it carries from step to step."""

    name: str
    step: Callable  # (carry, batch) -> carry
    carry: Any
    temporary_bytes: int


def make_model(width: int, layers: int, rank: int) -> ModelConfig:
    config = base.get_config()
    config.lora.rank = rank
    config.model.update(
        num_layers=layers,
        width=width,
        hidden=3 * width,
        num_heads=width // 64,
        num_kv_heads=max(1, width // 128),
        head_dim=64,
        remat="full",
        compute_dtype="float32",
    )
    return ModelConfig.from_config(config.model, VOCAB, config.mesh.rules, config.lora)


def make_batch(num_abilities: int, rows: int, length: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shape = (num_abilities, rows, length)
    return {
        "tokens": jnp.asarray(rng.integers(1, VOCAB, shape), jnp.int32),
        "loss_mask": jnp.asarray(
            np.broadcast_to(np.arange(length) > length // 2, shape)
        ),
        "segments": jnp.ones(shape, jnp.int32),
        "positions": jnp.asarray(np.broadcast_to(np.arange(length), shape), jnp.int32),
    }


def score(config: ModelConfig, params: Any, frozen: Any, rows: Any):
    """Losses and mask of the response tokens, `[B, L]`."""
    nll_BL, _, mask_BL = score_responses(config, combine(frozen, params), rows)
    return nll_BL, mask_BL


def plain_step(scores, optimizer, weights_K, frozen, carry, slots):
    params, opt_state, unused = carry
    num_abilities, rows, _ = slots["tokens"].shape
    flat = {
        name: x.reshape(1, num_abilities * rows, -1)[0] for name, x in slots.items()
    }
    # One batch: the weight of an ability goes onto its rows' mask of ones.
    row_weight = jnp.repeat(weights_K, rows)

    def objective(params):
        return weighted_loss(scores, params, frozen, flat, row_weight)

    gradient = jax.grad(objective)(params)
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, unused


def weighted_loss(scores, params, frozen, flat, row_weight):
    """`sum_k w_k mean_k`, all abilities having equally many response tokens."""
    nll_BL, mask_BL = scores(params, frozen, flat)
    return jnp.sum(nll_BL * row_weight[:, None]) / (jnp.sum(mask_BL) / len(row_weight))


def engine_step(engine, loss_fn, optimizer, weights_K, frozen, carry, slots):
    params, opt_state, state = carry
    ability_S = jnp.arange(engine.num_abilities, dtype=jnp.int32)
    problem = Problem(loss_fn, params, frozen, slots, ability_S, weights_K)
    outcome = resolved_gradient(engine, problem, state)
    updates, opt_state = optimizer.update(outcome.gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, outcome.state


def compile_side(name, step, carry, batch) -> Side:
    compiled = jax.jit(step, donate_argnums=0).lower(carry, batch).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    # Donated: every side needs buffers of its own.
    return Side(name, compiled, jax.tree.map(jnp.copy, carry), temporary)


def make_sides(arguments, num_abilities: int, lora: bool) -> list[Side]:
    rank = arguments.rank if lora else 0
    config = make_model(arguments.width, arguments.layers, rank)
    params, frozen = split(init(config, jax.random.key(0)))
    weights_K = jnp.full(num_abilities, 1 / num_abilities, jnp.float32)
    batch = make_batch(num_abilities, arguments.rows, arguments.length)
    optimizer = optax.adam(1e-4)
    loss_fn, scores = partial(slot_loss, config), partial(score, config)

    plain = partial(plain_step, scores, optimizer, weights_K, frozen)
    carry = (params, optimizer.init(params), ())
    sides = [compile_side("plain", plain, carry, batch)]
    for name in arguments.engines:
        engine = Engine(
            name,
            RESOLVERS[arguments.resolver](),
            make_groups(params, "global"),
            num_abilities,
        )
        step = partial(engine_step, engine, loss_fn, optimizer, weights_K, frozen)
        state = (params, optimizer.init(params), init_engine(engine))
        sides.append(compile_side(name, step, state, batch))
    return sides


def time_rounds(sides: list[Side], batch: Any, rounds: int) -> dict[str, list[float]]:
    carries = {side.name: side.carry for side in sides}
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds + 1):
        for side in sides:
            started = time.perf_counter()
            carries[side.name] = side.step(carries[side.name], batch)
            jax.block_until_ready(carries[side.name])
            if number:  # the first round warms up
                seconds[side.name].append(time.perf_counter() - started)
    return seconds


def measure(arguments, num_abilities: int, lora: bool) -> list[str]:
    sides = make_sides(arguments, num_abilities, lora)
    batch = make_batch(num_abilities, arguments.rows, arguments.length)
    seconds = time_rounds(sides, batch, arguments.rounds)
    plain = sides[0]
    lines = []
    for side in sides[1:]:
        pairs = zip(seconds[side.name], seconds["plain"], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        memory = side.temporary_bytes / plain.temporary_bytes
        cells = [
            "LoRA" if lora else "full",
            str(num_abilities),
            side.name,
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            f"{memory:.2f}",
            f"{side.temporary_bytes / 2**20:.0f}",
            f"{plain.temporary_bytes / 2**20:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


HEADER = (
    "| trained | K | engine | time / plain | range | temporary memory / plain "
    "| MiB | plain MiB |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--abilities", type=int, nargs="+", default=[2, 3, 4, 8, 16])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--resolver", default="upgrad", choices=RESOLVERS)
    parser.add_argument("--trained", nargs="+", default=["full", "lora"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4, help="per ability")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print(HEADER)
    lines = [
        line
        for trained in arguments.trained
        for num_abilities in arguments.abilities
        for line in measure(arguments, num_abilities, trained == "lora")
    ]
    if arguments.out:
        arguments.out.write_text("\n".join([HEADER, *lines]) + "\n")


if __name__ == "__main__":
    main()

"""A population of small models trained by one program, against one after the other.

Both sides take the same steps on the same rows from the same base. They take turns, and
a round gives one ratio; `--clock cpu` counts the processor's seconds, which other
programs on the machine do not lengthen much.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from dcft_jax.meta.plan import Plan, Training
from dcft_jax.meta.population import make_population, train_population
from dcft_jax.meta.proxy import proxy_model
from dcft_jax.models import init

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
VOCABULARY, BANK = 640, 256


def make_bank(length: int) -> dict[str, np.ndarray]:
    """Rows of two examples, a fifth of whose tokens are responses."""
    rng = np.random.default_rng(0)
    half = length // 2
    index_L = np.arange(length)
    whole = np.ones((BANK, 1), np.int32)
    return {
        "tokens": rng.integers(1, VOCABULARY, (BANK, length)).astype(np.int32),
        "loss_mask": np.broadcast_to(index_L % half >= 0.8 * half, (BANK, length)),
        "segments": whole * (1 + index_L // half).clip(max=2).astype(np.int32),
        "positions": whole * (index_L % half).astype(np.int32),
    }


def make_sides(arguments: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Name -> takes `arguments.steps` steps of all models."""
    models, steps, rows = arguments.models, arguments.steps, arguments.rows
    rng = np.random.default_rng(1)
    shape = (steps, models, rows)
    plan = Plan(
        rng.integers(0, BANK, shape).astype(np.int32), np.full(shape, 1e-2, np.float32)
    )
    bank = make_bank(arguments.length)
    model = proxy_model(VOCABULARY, arguments.width, arguments.layers)
    base = init(model, jax.random.key(0))
    training = Training(steps=steps, rows=rows, chunk=steps, warmup=1)
    population = make_population(model, training)

    def train(part: Plan) -> None:
        trained = train_population(population, base, bank, part, training, lambda _: {})
        jax.block_until_ready(trained.params)

    def one_after_the_other() -> None:
        for n in range(models):
            train(Plan(plan.row_TNB[:, n : n + 1], plan.scale_TNB[:, n : n + 1]))

    return {"vmapped": lambda: train(plan), "one by one": one_after_the_other}


def measure(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds of each side in each round; a round before them compiles."""
    sides, clock = make_sides(arguments), CLOCKS[arguments.clock]
    rounds = []
    for number in range(arguments.rounds + 1):
        seconds = {}
        for name, train in sides.items():
            started = clock()
            train()
            seconds[name] = clock() - started
        if number:
            rounds.append(seconds)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=192)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rounds = measure(arguments)
    ratios = [one["one by one"] / one["vmapped"] for one in rounds]
    number = arguments.models * arguments.steps
    lines = [
        " ".join(["`python -m benchmarks.population", *sys.argv[1:]]) + "`",
        "",
        f"jax {jax.__version__}, {len(jax.devices())} {jax.default_backend()} devices, "
        f"{arguments.models} models, {arguments.clock} time, {len(rounds)} rounds. "
        "A ratio above 1: the population is faster.",
        "",
        "| side | model-steps per second, median |",
        "| --- | --- |",
        *(
            f"| {name} | {number / statistics.median(r[name] for r in rounds):.1f} |"
            for name in rounds[0]
        ),
        "",
        f"Ratio (median, range): {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}).",
    ]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

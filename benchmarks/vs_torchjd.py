"""A step with conflict resolution, and the resolvers alone, against TorchJD.

    pip install -e ".[dev,peers]"
    python -m benchmarks.vs_torchjd --out benchmarks/results/vs_torchjd.md

Both sides train the same decoder (7.3 M parameters, float32) from the same parameters
on the same tokens, every ability on rows of its own: forward, gradients of the
abilities, resolution, Adam. Before anything is timed, losses, Gramian and resolved
gradient are compared. TorchJD runs in the two ways of its documentation, and in one
that is not there: one backward pass per ability, stacked, given to its aggregator.

The sides take turns in one process, first calls excluded, so that whatever else the
machine does meets all of them. Numbers are medians, ratios are taken round by round.
Use an idle machine: threads of PyTorch wait for each other spinning, and lose several
times more than those of XLA when they have to share their cores with other programs.
On a busy machine `--cores 1 --clock cpu` compares processor time instead.
"""

import argparse
import os
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import torch

from benchmarks import torchjd_sides
from benchmarks.torchjd_sides import PEERS
from benchmarks.turns import CLOCKS, Step, markdown, ratios, take_turns
from dcft_jax.conflict import RESOLVERS

RESOLVER_SIZES = (2, 4, 8, 16)
GRAMIANS = 64
SPREADS = (0.5, 4)  # dimensions of random gradients per ability: hard, and usual


def step_tables(num_abilities: int, arguments: argparse.Namespace):
    """Rows of the table of steps, and of the one of differences."""
    config = torchjd_sides.model_config()
    shape = (num_abilities, arguments.rows // num_abilities, arguments.length)
    tokens_KBL = torchjd_sides.make_tokens(*shape)
    params = torchjd_sides.conflicting_params(config, shape)
    gram_KK, off = torchjd_sides.check_gradients(config, params, tokens_KBL)
    names = arguments.resolvers
    apart = {
        name: torchjd_sides.check_update(config, params, tokens_KBL, name)
        for name in names
    }
    norms_K = np.sqrt(gram_KK.diagonal())
    lowest = (gram_KK / np.outer(norms_K, norms_K)).min()
    checks = [str(num_abilities), f"{lowest:.2f}"]
    checks += [f"{x:.0e}" for x in (*off.values(), *apart.values())]
    ours = torchjd_sides.our_sides(config, params, tokens_KBL, names)
    sides = {(name, "ours"): step for name, step in ours.items()}
    sides |= torchjd_sides.torch_sides(config, params, tokens_KBL, names)
    seconds = take_turns(sides, arguments.rounds, arguments.clock)
    return step_rows(num_abilities, seconds), checks


def step_rows(num_abilities: int, seconds: dict) -> list[list[str]]:
    table = []
    for (name, engine), times in seconds.items():
        if engine == "ours":
            library, plain = "DCFT-JAX", seconds["mean", "ours"]
        else:
            library, plain = f"TorchJD {engine}", seconds["mean", "backward"]
            library = "PyTorch" if engine == "backward" else library
        faster = "" if engine == "ours" else ratios(times, seconds[name, "ours"])
        own = "" if name == "mean" else ratios(times, plain)
        milliseconds = f"{1e3 * statistics.median(times):.0f}"
        table.append([str(num_abilities), name, library, milliseconds, own, faster])
    return sorted(table, key=lambda row: row[1])


def random_gramians(num_abilities: int, dimensions: int) -> np.ndarray:
    """[N, K, K] float32 of random gradients: half of the pairs conflict, and the fewer
    the dimensions the more.
    """
    rng = np.random.default_rng(num_abilities)
    rows = rng.standard_normal((GRAMIANS, num_abilities, dimensions))
    return (rows @ rows.transpose(0, 2, 1)).astype(np.float32)


def resolver_sides(name: str, num_abilities: int, dimensions: int) -> dict[str, Step]:
    grams_NKK = random_gramians(num_abilities, dimensions)
    resolver, weighting = RESOLVERS[name](), PEERS[name][1]()
    weights_K = jax.numpy.full(num_abilities, 1 / num_abilities)
    state = resolver.init(num_abilities)
    jax_grams = [jax.numpy.array(gram_KK) for gram_KK in grams_NKK]
    torch_grams = list(torch.from_numpy(grams_NKK))
    one = jax.jit(lambda gram_KK, state: resolver.resolve(gram_KK, weights_K, state))

    @jax.jit
    def compiled(grams_NKK, state):
        def resolve(state, gram_KK):
            coefficients_K, state = resolver.resolve(gram_KK, weights_K, state)
            return state, coefficients_K

        return jax.lax.scan(resolve, state, grams_NKK)

    stacked = jax.numpy.array(grams_NKK)
    return {
        "compiled": lambda: jax.block_until_ready(compiled(stacked, state)),
        "called": lambda: [jax.block_until_ready(one(g, state)) for g in jax_grams],
        "torchjd": lambda: [weighting(g) for g in torch_grams],
    }


def resolver_table(arguments: argparse.Namespace) -> list[list[str]]:
    cases = [
        (name, size, max(2, int(size * spread)))
        for name in arguments.resolvers
        for spread in SPREADS
        for size in RESOLVER_SIZES
    ]
    table = []
    for name, num_abilities, dimensions in cases:
        sides = resolver_sides(name, num_abilities, dimensions)
        seconds = take_turns(sides, arguments.rounds, arguments.clock)
        each = [
            f"{1e6 * statistics.median(x) / GRAMIANS:.0f}" for x in seconds.values()
        ]
        faster = [
            ratios(seconds["torchjd"], seconds[x]) for x in ("compiled", "called")
        ]
        table.append([name, str(num_abilities), str(dimensions), *each, *faster])
    return table


STEP_HEADER = ["K", "resolver", "library", "ms", "ratio to its own mean step"]
STEP_HEADER += ["ratio to DCFT-JAX"]
RESOLVER_HEADER = [
    "resolver",
    "K",
    "dimensions",
    "µs, within a compiled step",
    "µs, called alone",
]
RESOLVER_HEADER += ["µs, TorchJD", "TorchJD / within a step", "TorchJD / called alone"]


def report(arguments: argparse.Namespace) -> str:
    tables = [step_tables(k, arguments) for k in arguments.abilities]
    versions = ", ".join(f"{x} {version(x)}" for x in ("jax", "torch", "torchjd"))
    check_header = ["K", "lowest cosine", "Gramian: DCFT-JAX", "autojac", "autogram"]
    check_header += [f"{name} update" for name in arguments.resolvers]
    return "\n".join(
        [
            f"`python -m benchmarks.vs_torchjd {' '.join(sys.argv[1:])}`\n",
            f"{versions}; CPU cores: {arguments.cores}; {arguments.clock} time; "
            f"{arguments.rows} rows of {arguments.length} tokens for K abilities; "
            f"{arguments.rounds} rounds. Times are medians, ratios medians (lowest to "
            "highest) of those of one round.\n",
            "## One step: forward, gradients, resolution, Adam\n",
            markdown(STEP_HEADER, [row for rows, _ in tables for row in rows]),
            "## The resolver alone: a Gramian to coefficients\n",
            markdown(RESOLVER_HEADER, resolver_table(arguments)),
            "## Is it the same work?\n",
            "How far float32 Gramians are from float64, as a share of the largest "
            "entry; how far the resolved gradients of TorchJD are from ours.\n",
            markdown(check_header, [checks for _, checks in tables]),
        ]
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--abilities", type=int, nargs="+", default=[4])
    parser.add_argument("--rows", type=int, default=8, help="of all abilities together")
    parser.add_argument("--length", type=int, default=128, help="tokens per row")
    parser.add_argument("--rounds", type=int, default=10)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--cores", type=int, default=cores, help="for both sides")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    known = sorted(PEERS.keys() & RESOLVERS.keys())
    parser.add_argument("--resolvers", nargs="+", choices=known, default=known)
    parser.add_argument("--out", type=Path, help="file for the tables")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    # Before the first computation: XLA counts the cores it may use when it starts.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    torch.set_num_threads(arguments.cores)
    text = report(arguments)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

"""One config, several seeds: what it reaches, how much that varies, how long it takes.

    python -m experiments.seeds --config configs/quickstart.py --seeds 0 1 2

Each seed is a run of its own in a fresh process (so the time includes compilation),
under `runs/seeds/`; finished ones are not run again. Further arguments are passed to
the runs: `--config.mixture.rule=static`. The table goes to the terminal and to
`experiments/results/`.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from experiments.tables import markdown

RESULTS = Path(__file__).parent / "results"


def run_seed(config: str, seed: int, workdir: Path, overrides: list[str]) -> dict:
    """Trains one seed, or reads what an earlier call trained."""
    started = time.perf_counter()
    if not (workdir / "summary.json").exists():
        command = [sys.executable, "-m", "dcft_jax.main", "--config", config]
        command += ["--workdir", str(workdir), f"--config.run.seed={seed}"]
        subprocess.run([*command, *overrides], check=True)
        seconds = time.perf_counter() - started
        (workdir / "process_seconds.json").write_text(json.dumps(seconds))
    summary = json.loads((workdir / "summary.json").read_text())
    summary["process_s"] = json.loads((workdir / "process_seconds.json").read_text())
    return summary


def rows(summaries: dict[int, dict]) -> list[list[str]]:
    """One row per seed and ability, then the mean and deviation over seeds."""
    table = []
    for seed, summary in summaries.items():
        weights = summary["weights_path"][-1][1]
        for (name, a), weight in zip(
            summary["abilities"].items(), weights, strict=True
        ):
            loss = with_error(a["test_loss_after"], a["test_loss_stderr_after"])
            match = with_error(a["exact_match_after"], a["exact_match_stderr_after"])
            table.append(
                [
                    str(seed),
                    name,
                    f"{a['test_loss_before']:.3f}",
                    loss,
                    f"{a['exact_match_before']:.3f}",
                    match,
                    f"{a['majority_baseline']:.3f}",
                    f"{weight:.3f}",
                    f"{summary['process_s']:.0f}",
                ]
            )
    return table + over_seeds(summaries)


def with_error(value: float, stderr: float) -> str:
    return f"{value:.3f} ± {stderr:.3f}"


def over_seeds(summaries: dict[int, dict]) -> list[list[str]]:
    def spread(values: list[float], digits: int = 3) -> str:
        deviation = np.std(values, ddof=1) if len(values) > 1 else float("nan")
        return f"{np.mean(values):.{digits}f} (sd {deviation:.{digits}f})"

    table = []
    for name in next(iter(summaries.values()))["abilities"]:
        runs = [summary["abilities"][name] for summary in summaries.values()]
        table.append(
            [
                "all",
                name,
                spread([a["test_loss_before"] for a in runs]),
                spread([a["test_loss_after"] for a in runs]),
                spread([a["exact_match_before"] for a in runs]),
                spread([a["exact_match_after"] for a in runs]),
                spread([a["majority_baseline"] for a in runs]),
                "",
                spread([summary["process_s"] for summary in summaries.values()], 0),
            ]
        )
    return table


HEADER = ["seed", "ability", "test loss before", "after", "exact match before", "after"]
HEADER += ["majority baseline", "final weight", "seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments, overrides = parser.parse_known_args()
    # Other arguments, other runs.
    words = [
        Path(arguments.config).stem,
        *(o.removeprefix("--config.") for o in overrides),
    ]
    name = re.sub(r"[^\w.=-]+", "-", "_".join(words))
    summaries = {
        seed: run_seed(
            arguments.config, seed, Path("runs/seeds") / name / str(seed), overrides
        )
        for seed in arguments.seeds
    }
    command = " ".join(["python -m experiments.seeds", *sys.argv[1:]])
    hashes = {summary["config_hash"] for summary in summaries.values()}
    text = f"`{command}`, config {', '.join(sorted(hashes))}\n\n"
    text += markdown(HEADER, rows(summaries))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"seeds_{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

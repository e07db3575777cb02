"""A realistic run of three abilities and 100 steps, as the writers record it."""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from dcft_jax.reporting import build_summary, load_history, open_writers, write_summary

ABILITIES = ("math", "code", "alignment")
NUM_STEPS = 100
BLOCKS = ("embed", "layers.0", "layers.1")
FILES_ONLY = ConfigDict({"tensorboard": False, "wandb_project": "", "wandb_mode": ""})
CONFIG = {
    "abilities": {name: {"mix_val": 192, "test": 256} for name in ABILITIES},
    "run": {"seed": 7, "num_steps": NUM_STEPS},
    "mixture": {"rule": "mirror_descent"},
    "conflict": {"resolver": "dualproj"},
    "data": {"note": "</pre><script>alert(1)</script>"},
}


def eval_metrics(split: str, progress: float, rng: np.random.Generator) -> dict:
    metrics = {}
    ends = ((2.9, 1.1, 4, 46), (2.3, 1.5, 11, 39), (3.4, 2.6, 2, 9))
    for name, (start, end, match, last_match) in zip(ABILITIES, ends, strict=True):
        loss = end + (start - end) * np.exp(-3.5 * progress)
        metrics[f"{split}/loss/{name}"] = loss + rng.normal() * 0.01
        metrics[f"{split}/loss_stderr/{name}"] = 0.07
        share = (match + (last_match - match) * progress**1.5) / 100
        metrics[f"{split}/exact_match/{name}"] = share
        if split == "test":
            metrics[f"test/exact_match_stderr/{name}"] = np.sqrt(
                share * (1 - share) / 256
            )
    return metrics


def mixture_metrics(weight_K: np.ndarray) -> dict:
    return {f"mixture/weight/{a}": w for a, w in zip(ABILITIES, weight_K, strict=True)}


def train_metrics(step: int, weight_K: np.ndarray, rng: np.random.Generator) -> dict:
    decay = np.exp(-3.5 * step / NUM_STEPS)
    cosines = {
        "math/code": 0.25 + 0.1 * rng.normal(),
        "math/alignment": -0.05 - 0.15 * step / NUM_STEPS + 0.08 * rng.normal(),
        "code/alignment": 0.02 + 0.08 * rng.normal(),
    }
    acted = float(min(cosines.values()) < -0.08)
    target_2K = 8 * weight_K * np.array([[step], [step + 1]])
    slots_K = np.diff(np.round(target_2K), axis=0)[0]
    metrics = mixture_metrics(weight_K)
    metrics |= {f"conflict/cosine/{pair}": value for pair, value in cosines.items()}
    for pair, value in cosines.items():
        metrics[f"conflict/debiased_cosine/{pair}"] = 1.4 * value
        for depth, block in enumerate(BLOCKS):
            metrics[f"conflict/block_cosine/{block}/{pair}"] = value + 0.1 * depth
    metrics |= {
        "conflict/rate": np.mean([value < 0 for value in cosines.values()]),
        "conflict/significant_rate": acted / 3,
        "conflict/pareto_gap": 0.6 - 0.003 * step,
        "conflict/acted": acted,
        "conflict/change": acted * abs(0.08 + 0.04 * rng.normal()),
        "conflict/min_cosine": min(cosines.values()),
        "train/grad_norm": 1.0 + 0.1 * rng.normal(),
        "train/learning_rate": 1e-4 * decay,
        "train/tokens_per_s": 5200 + 300 * rng.normal() - 1800 * (step % 20 == 1),
        "train/step_s": 0.3,
        "train/tokens": 2048.0 * step,
    }
    for k, name in enumerate(ABILITIES):
        metrics[f"train/loss/{name}"] = (
            1.3 + 0.5 * k + 1.6 * decay + 0.12 * rng.normal()
        )
        metrics[f"mixture/slots/{name}"] = slots_K[k]
        metrics[f"mixture/epochs/{name}"] = 0.02 * step * weight_K[k]
        metrics[f"train/response_tokens/{name}"] = 300.0 * step * weight_K[k]
        noise = 1.0 + 0.2 * np.sin(step)
        metrics[f"conflict/noise_scale/{name}"] = 50.0 * (k + 1) * noise / decay
        push = 0.12 * acted * (-1 if k == 0 else 1)
        metrics[f"conflict/coefficient/{name}"] = weight_K[k] * (1 + push)
    return metrics


def write_run(workdir: Path, finish: bool = True) -> Path:
    rng = np.random.default_rng(0)
    writer = open_writers(workdir, FILES_ONLY, None, CONFIG)
    (workdir / "config.json").write_text(json.dumps(CONFIG))
    weight_K = np.ones(3) / 3
    writer.write(0, eval_metrics("test", 0.0, rng))
    for step in range(NUM_STEPS + 1):
        if step:
            writer.write(step, train_metrics(step, weight_K, rng))
        if step % 10 == 0:
            tilt_K = np.array([0.03, 0.0, -0.02]) + 0.02 * rng.normal(size=3)
            if step:
                weight_K = weight_K * np.exp(4 * tilt_K)
                weight_K /= weight_K.sum()
            evaluation = eval_metrics("mix_val", step / NUM_STEPS, rng)
            writer.write(step, evaluation | {"run/eval_s": 1.2})
    if finish:
        writer.write(NUM_STEPS, eval_metrics("test", 1.0, rng))
    writer.close()
    _spread_wall_time(workdir / "metrics.jsonl")
    if finish:
        _finish(workdir)
    return workdir


def _spread_wall_time(path: Path) -> None:
    """As if every step had taken 0.3 s: the rows were written in no time."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    wall_s = 0.0
    for row in rows:
        wall_s += row.get("train/step_s", 0.0) + row.get("run/eval_s", 0.0)
        row["wall_s"] = round(wall_s, 3)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _finish(workdir: Path) -> None:
    summary = build_summary(
        load_history(workdir),
        majority_baseline={"math": 0.06, "code": 0.15, "alignment": 0.03},
        test_examples=dict.fromkeys(ABILITIES, 256),
        scored_examples=dict.fromkeys(ABILITIES, 240),
        num_parameters=1_234_567,
        config_hash="0123abcd",
        versions={"jax": "0.10.2", "flax": "0.12.8"},
    )
    write_summary(workdir / "summary.json", summary)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "three-abilities")


@pytest.fixture(scope="session")
def unfinished_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "cut-short", finish=False)

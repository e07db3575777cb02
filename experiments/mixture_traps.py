"""Which mixture rules fall into which trap, and their weights on one problem.

    python -m experiments.mixture_traps

Writes experiments/results/mixture_traps.md and docs/mixture_rules.svg. Takes a minute
on one core; there is no randomness but the fixed noise of the problems.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture import RULES
from experiments.mixture_problems import STEPS_PER_UPDATE, Path, simulate
from experiments.trap_figure import weights_figure, write_svg
from experiments.trap_problems import RANGE, SHIFT, TRAPS, tour

ROOT = FilePath(__file__).parent.parent

# label -> rule and the options that are not its defaults. Without the rules that know
# sizes instead of a prior (proportional, temperature, dmt), and replay: it needs a run.
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mirror_descent": ("mirror_descent", {}),
    "static": ("static", {}),
    "random_walk": ("random_walk", {"seed": 0}),
    "ado": ("ado", {}),
    # Sweeps as long as an update of the others.
    "aioli": (
        "aioli",
        {"lp_steps": STEPS_PER_UPDATE, "lp_rounds": 2, "update_steps": 50},
    ),
    "auto_mix_align": ("auto_mix_align", {}),
    "coba": ("coba", {}),
    "doge": ("doge", {}),
    "doremi": ("doremi", {}),
    "dynamix_sft": ("dynamix_sft", {}),
    "grape": ("grape", {}),
    "msft": ("msft", {"rollback": False}),  # the problems do not go back in time
    "odm": ("odm", {}),
    "odm, released": ("odm", {"variant": "released"}),
    "pike": ("pike", {}),
    "pike, balanced": ("pike", {"tilt": 1.0}),
    "sheared": ("sheared", {}),
    "skill_it": ("skill_it", {}),
    "velocitune": ("velocitune", {}),
}
PROBLEMS = {**TRAPS, "tour": tour}


INTRODUCTION = """\
# Mixture rules in traps

`python -m experiments.mixture_traps`. Three quadratic abilities, 400 updates, each rule
with its defaults; a number in bold fell into the trap. See trap_problems.py.

- **noise**: average weight of an ability with the highest loss and nothing to learn;
  passed up to 0.353 (the prior is 1/3).
- **saturation**: updates until an ability that was learnt early, and whose data become
  hard again, has more weight than in the prior; passed up to 10, if it had less before.
  200: never.
- **repetition**: final held-out loss of a small ability that overfits at the prior, as
  a share of what there was to learn; passed up to 0.25.
- **equal**: largest distance of a weight from the prior (0.2, 0.3, 0.5) when nothing
  but noise tells the abilities apart; passed up to 0.1.
- **conflict**: final gap of the worst ability over that at the prior; passed up to
  1.01.

`aioli` trains 50 steps between its sweeps and so, in 400 updates, more than the others;
its sweeps count as weights. `msft` does not roll back here. Rules that climb gradients
depend on their scale, and so do the defaults that were chosen for language models.
Some of these traps come from what this project's own rule was built for.
"""


class Verdict(NamedTuple):
    passed: bool
    number: float  # that decided


def run_rule(label: str) -> dict[str, Path]:
    """Runs on all problems, in one program."""
    name, options = CONTESTANTS[label]
    rule = RULES[name](**options)
    run = jax.jit(jax.vmap(lambda problem: simulate(rule, problem)))
    paths = jax.tree.map(np.asarray, run(_stacked()))
    return {
        problem: jax.tree.map(lambda leaf, i=i: leaf[i], paths)
        for i, problem in enumerate(PROBLEMS)
    }


@cache
def _stacked():
    problems = [make() for make in PROBLEMS.values()]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)


def judge_noise(path: Path, static: Path) -> Verdict:
    """Weight of the ability that is all entropy, averaged over the run."""
    weight = np.average(path.weights_UK[:, 2], weights=_lengths(path))
    return Verdict(bool(weight <= 1 / 3 + 0.02), float(weight))


def judge_saturation(path: Path, static: Path) -> Verdict:
    """Updates after the shift until the ability has more than the prior again.

    It must have had less before, while it was learnt.
    """
    lengths_U = _lengths(path)
    before = slice(SHIFT // 2, SHIFT)
    weight = np.average(path.weights_UK[before, 0], weights=lengths_U[before])
    above_U = path.weights_UK[SHIFT:, 0] > 1 / 3 + 0.01
    wait = int(above_U.argmax()) if above_U.any() else len(above_U)
    return Verdict(bool(weight < 1 / 3 - 0.02 and wait <= 10), wait)


def judge_repetition(path: Path, static: Path) -> Verdict:
    """Held-out loss of the small ability at the end, of what there was to learn."""
    left = (np.mean(path.loss_UK[-50:, 2]) - 0.5) / RANGE
    return Verdict(bool(left <= 0.25), float(left))


def judge_equal(path: Path, static: Path) -> Verdict:
    """The farthest that any weight went from the prior."""
    distance = np.abs(path.weights_UK - static.weights_UK[0]).max()
    return Verdict(bool(distance <= 0.1), float(distance))


def judge_conflict(path: Path, static: Path) -> Verdict:
    """Gap of the worst ability at the end, as a share of that under the prior."""
    worst, of_prior = (
        np.max((np.mean(p.loss_UK[-50:], axis=0) - 0.5) / (p.loss_UK[0] - 0.5))
        for p in (path, static)
    )
    return Verdict(bool(worst <= 1.01 * of_prior), float(worst / of_prior))


JUDGES: dict[str, Callable[[Path, Path], Verdict]] = {
    "noise": judge_noise,
    "saturation": judge_saturation,
    "repetition": judge_repetition,
    "equal": judge_equal,
    "conflict": judge_conflict,
}


def judge(paths: Mapping[str, Path], static: Mapping[str, Path]) -> dict[str, Verdict]:
    return {trap: of(paths[trap], static[trap]) for trap, of in JUDGES.items()}


def _lengths(path: Path) -> np.ndarray:
    """Steps from each update to the next; the last one counts as the one before."""
    lengths_U = np.diff(path.step_U)
    return np.append(lengths_U, lengths_U[-1])


def table(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Markdown; bold where a rule fell into the trap."""
    lines = [
        *INTRODUCTION.splitlines(),
        "",
        "| rule | " + " | ".join(JUDGES) + " |",
        "|---" * (len(JUDGES) + 1) + "|",
    ]
    for label, of in verdicts.items():
        cells = [_cell(trap, of[trap]) for trap in JUDGES]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(trap: str, verdict: Verdict) -> str:
    number = f"{verdict.number:.{0 if trap == 'saturation' else 2}f}"
    return number if verdict.passed else f"**{number}**"


def main() -> None:
    paths = {label: run_rule(label) for label in CONTESTANTS}
    verdicts = {label: judge(of, paths["static"]) for label, of in paths.items()}
    text = table(verdicts)
    print(text)
    (ROOT / "experiments/results/mixture_traps.md").write_text(text)
    tours = {label: of["tour"] for label, of in paths.items()}
    names = ("learnt early, hard again half way", "slow", "all entropy")
    shift = SHIFT * STEPS_PER_UPDATE
    write_svg(weights_figure(tours, names, shift), ROOT / "docs/mixture_rules.svg")


if __name__ == "__main__":
    main()

"""The same traps for every rule: those that must fall in do, so traps have power."""

import functools

import pytest

from dcft_jax.mixture import RULES
from experiments.mixture_traps import CONTESTANTS, JUDGES, judge, run_rule, table

MUST_FALL = {
    "noise": ["odm", "odm, released", "skill_it"],  # they follow raw losses
    "saturation": ["static", "msft"],  # nothing comes back
    "repetition": ["static", "sheared", "doremi", "skill_it", "auto_mix_align"],
    "equal": ["random_walk", "doremi", "sheared"],  # nothing draws them back
    "conflict": ["msft", "dynamix_sft"],  # the abilities that give way are given up
}
MUST_PASS = {
    # With a reference, or by gradients, the highest loss is nothing to follow.
    "noise": ["doremi", "sheared", "auto_mix_align", "pike", "doge", "grape"],
    "saturation": ["doremi", "sheared", "pike"],
    "conflict": ["static", "doremi", "sheared", "auto_mix_align", "velocitune"],
    "equal": ["static", "doge", "pike"],
}
judged = functools.cache(lambda label: judge(cached_run(label), cached_run("static")))
cached_run = functools.cache(run_rule)


def test_all_rules_that_can_play_do():
    needs_more = {"proportional", "temperature", "dmt", "replay"}
    assert {rule for rule, _ in CONTESTANTS.values()} == set(RULES) - needs_more
    for listed in (MUST_FALL, MUST_PASS):
        assert set(listed) <= set(JUDGES)


def test_mirror_descent_passes_all():
    verdicts = judged("mirror_descent")
    assert all(verdict.passed for verdict in verdicts.values()), verdicts


@pytest.mark.parametrize("label", [name for name in CONTESTANTS if name != "ado"])
def test_rivals(label):
    """ADO's robust fits, one per update, would take longer than all the others."""
    verdicts = judged(label)
    for trap, verdict in verdicts.items():
        if label in MUST_FALL[trap]:
            assert not verdict.passed, (trap, verdict)
        if label in MUST_PASS.get(trap, ()):
            assert verdict.passed, (trap, verdict)


def test_raw_loss_grows_the_weight_of_noise_and_more_so_with_time():
    for label in ("odm, released", "skill_it"):
        weight_U = cached_run(label)["noise"].weights_UK[:, 2]
        assert weight_U[-1] > 0.7 and weight_U[-1] > weight_U[40]


def test_the_table_shows_who_fell():
    text = table({name: judged(name) for name in ("mirror_descent", "static")})
    rows = [line for line in text.splitlines() if line.startswith(("| m", "| s"))]
    assert len(rows) == 2
    assert "**" not in rows[0] and "**200**" in rows[1]

"""The methods that are compared: static mixtures, every rule, and replays."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from dcft_jax.config import from_plain, to_plain
from dcft_jax.mixture import RULES
from experiments.jobs import Job, make_job
from experiments.mixture_settings import SETTINGS
from experiments.static_grid import simplex_grid

OURS = "mirror_descent"
GRID_PARTS = 6
REPLAYS = ("mean", "path", "shuffled")


def static_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Uniform, proportional, and the grid, by name."""
    configs = {}
    for prior in ("uniform", "proportional"):
        configs[prior] = _changed(config, rule="static", prior=prior)
    for weights_K in simplex_grid(len(config.abilities), GRID_PARTS):
        if len(set(weights_K)) > 1:  # that one is there already
            parts = "-".join(str(round(GRID_PARTS * weight)) for weight in weights_K)
            configs[f"grid_{parts}"] = _given(config, weights_K)
    return configs


def rule_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Every rule that needs no other run, from the prior of the setting."""
    others = ("static", "proportional", "replay", "doremi")
    rules = [rule for rule in RULES if rule not in others]
    configs = {rule: _changed(config, rule=rule) for rule in rules}
    if config.mixture.prior != "uniform":
        configs["static"] = _changed(config, rule="static")  # stays at that prior
    return configs


def variant_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Our rule with one thing changed: what would have helped where it loses?"""
    names = ("rate", "fitted", "4_epochs")
    rate, fitted, epochs = (_changed(config, rule=OURS) for _ in names)
    # What training teaches now, however much is left to learn.
    rate.mixture.options[OURS].signals = ConfigDict({"improvement_rate": 1.0})
    # What can be learnt from these rows, not what the entropy of the data would allow.
    fitted.mixture.references = "fitted"
    for ability in fitted.abilities.values():
        ability.reference_loss = None
    for ability in epochs.abilities.values():
        ability.max_epochs = 4.0
    variants = zip(names, (rate, fitted, epochs), strict=True)
    return {f"{OURS}_{name}": variant for name, variant in variants}


def replay_jobs(ours: Job, config: ConfigDict, runs: Path) -> list[Job]:
    """Static controls made from what our rule did: was it the schedule, or where it
    spent its time on average?
    """
    jobs = []
    for mode in REPLAYS:
        replay = _changed(config, rule="replay")
        options = dict(run=str(ours.workdir(runs)), mode=mode)
        replay.mixture.options.replay.update(options)
        name = f"replay_{mode}"
        jobs.append(make_job(ours.setting, name, ours.seed, replay, (ours,)))
    return jobs


def doremi_job(uniform: Job, config: ConfigDict, runs: Path) -> Job:
    """Its reference model is the run on the uniform mixture, as in the paper."""
    doremi = _changed(config, rule="doremi", reference_run=str(uniform.workdir(runs)))
    return make_job(uniform.setting, "doremi", uniform.seed, doremi, (uniform,))


def setting_jobs(
    setting: str, config: ConfigDict, seed: int, runs: Path
) -> tuple[list[Job], list[str]]:
    """All jobs of a setting and seed; and what the trainer refuses, with the reason."""
    jobs, refused = [], []
    methods = static_configs(config) | rule_configs(config) | variant_configs(config)
    for method, changed in methods.items():
        try:
            jobs.append(make_job(setting, method, seed, changed))
        except ValueError as error:
            refused.append(f"{setting} / {method}: {error}")
    by_method = {job.method: job for job in jobs}
    if OURS in by_method:
        jobs += replay_jobs(by_method[OURS], config, runs)
    if "uniform" in by_method:
        jobs.append(doremi_job(by_method["uniform"], config, runs))
    return jobs, refused


def smoke_jobs(runs: Path) -> list[Job]:
    """One seed, two settings, three methods and 20 steps: does everything work?"""
    jobs = []
    for setting in ("balanced", "noisy"):
        config = SETTINGS[setting]()
        config.run.update(num_steps=20, eval_every=10, save_every=20)
        config.optimizer.warmup_steps = 2
        found, _ = setting_jobs(setting, config, 0, runs)
        kept = ("uniform", "proportional", OURS)
        jobs += [job for job in found if job.method in kept]
    return jobs


def is_static(method: str) -> bool:
    """Whether a method belongs to the grid that `best_of_grid` chooses from."""
    return method in ("uniform", "proportional") or method.startswith("grid_")


def _given(config: ConfigDict, weights_K: Sequence[float]) -> ConfigDict:
    config = _changed(config, rule="static", prior="given")
    for ability, weight in zip(config.abilities.values(), weights_K, strict=True):
        ability.weight = weight
    return config


def _changed(config: ConfigDict, **mixture: str) -> ConfigDict:
    config = from_plain(to_plain(config))
    config.mixture.update(mixture)
    return config

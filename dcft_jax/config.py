"""Checks a config before any work starts, and gives it a stable identity.

Every message names the field, the value it has and the values it may have.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from dcft_jax.conflict import ENGINES, GRANULARITIES, METRICS, RESOLVERS
from dcft_jax.data.difficulty import MAX_TIERS
from dcft_jax.data.pretrained_tokenizer import read_template, vocabulary_file
from dcft_jax.data.sources import SOURCES
from dcft_jax.data.tiers import KINDS as TIER_KINDS
from dcft_jax.evaluation.sandbox import BACKENDS
from dcft_jax.mixture import (
    ACTUATORS,
    NOISE,
    REFERENCE_LOSS,
    REFERENCE_MODEL,
    RULES,
    TIER_RULES,
    MixtureRule,
    prior,
)
from dcft_jax.mixture.from_config import make_rule, make_tier_rule, rule_options
from dcft_jax.models import LoRA
from dcft_jax.models.quantized import KINDS as QUANTIZED

# Fields that may change between two starts of one run: they steer what is
# shown and kept, not what is computed.
FREE_FIELDS = ("logging", "run.log_every", "run.keep_checkpoints", "run.keep_best")
FREE_NAME = "cache_dir"  # of data, and of sources that keep one


def validate(config: ConfigDict) -> None:
    """Checks everything that can be checked without data or devices.

    Raises:
      ValueError: names the field, its value and the constraint it breaks.
      FileNotFoundError: a tokenizer that is not there.
    """
    _check_abilities(config)
    _check_run(config.run)
    _check_data(config)
    _check_model(config)
    _check_optimizer(config)
    _check_evaluation(config)
    _check_mixture(config)
    _check_conflict(config)
    _one_of("logging.wandb_mode", config.logging.wandb_mode, ("online", "offline"))
    _check_mesh(config)


def require(condition: bool, field: str, value: Any, constraint: str) -> None:
    if not condition:
        raise ValueError(f"config.{field} = {value!r}: {constraint}")


def _one_of(field: str, value: str, choices: Iterable[str]) -> None:
    require(value in choices, field, value, f"must be one of {', '.join(choices)}")


def _positive(group: str, values: Mapping, names: Iterable[str]) -> None:
    for name in names:
        value = values[name]
        require(value >= 1, f"{group}.{name}", value, "must be at least 1")


def _check_abilities(config: ConfigDict) -> None:
    require(
        len(config.abilities) > 0,
        "abilities",
        {},
        "name at least one ability, as configs/quickstart.py does",
    )
    for name, ability in config.abilities.items():
        field = f"abilities.{name}"
        require(
            "/" not in name and "|" not in name,
            field,
            name,
            "an ability's name is part of metric names: no '/' and no '|'",
        )
        require(len(ability.sources) > 0, f"{field}.sources", {}, "give it a source")
        for source, fields in ability.sources.items():
            _one_of(f"{field}.sources.{source}.kind", fields.get("kind", ""), SOURCES)
        _positive(field, ability, ("mix_val", "test"))
        reference = ability.reference_loss
        require(
            reference is None or reference >= 0,
            f"{field}.reference_loss",
            reference,
            "is a loss in nats per token: must not be negative, or None if unknown",
        )
        require(
            0 < ability.max_weight <= 1,
            f"{field}.max_weight",
            ability.max_weight,
            "must be in (0, 1]",
        )
        require(
            0 <= ability.max_epochs < float("inf"),
            f"{field}.max_epochs",
            ability.max_epochs,
            "must be at least 0 (0: no limit)",
        )
        _check_tiers(f"{field}.tiers", ability.tiers)


def _check_tiers(field: str, tiers: ConfigDict) -> None:
    require(set(tiers) == {"by", "count"}, field, dict(tiers), "has `by` and `count`")
    _one_of(f"{field}.by", tiers.by, TIER_KINDS)
    require(
        1 <= tiers.count <= MAX_TIERS,
        f"{field}.count",
        tiers.count,
        f"must be in [1, {MAX_TIERS}]",
    )


def _check_run(run: ConfigDict) -> None:
    names = ("num_steps", "eval_every", "save_every", "log_every", "keep_checkpoints")
    _positive("run", run, names)
    require(
        not run.continue_from or (Path(run.continue_from) / "config.json").is_file(),
        "run.continue_from",
        run.continue_from,
        "must be the work directory of a run, or empty",
    )


def _check_data(config: ConfigDict) -> None:
    data, num_abilities = config.data, len(config.abilities)
    _positive("data", data, ("rows_per_slot",))
    require(data.seq_len >= 8, "data.seq_len", data.seq_len, "must be at least 8")
    require(
        data.num_slots >= num_abilities,
        "data.num_slots",
        data.num_slots,
        f"a slot holds one ability and there are {num_abilities}: "
        f"must be at least {num_abilities}",
    )
    _one_of("data.on_bad_row", data.on_bad_row, ("fail", "skip"))
    require(
        0 <= data.max_truncated_share <= 1,
        "data.max_truncated_share",
        data.max_truncated_share,
        "is a share: must be in [0, 1]",
    )
    require(
        data.decontamination_ngram >= 0,
        "data.decontamination_ngram",
        data.decontamination_ngram,
        "must be at least 0 (0 turns the check off)",
    )
    tokenizer = config.tokenizer
    if tokenizer.path:
        vocabulary_file(tokenizer.path)
        read_template(tokenizer.chat_template)
    given = bool(tokenizer.path or config.pretrained.path)
    for name in ("chat_template", "fold_system"):
        require(
            given or not tokenizer[name],
            f"tokenizer.{name}",
            tokenizer[name],
            "is for a tokenizer that is given; set tokenizer.path or pretrained.path "
            "too, or leave it out",
        )
    require(
        given or tokenizer.vocab_size >= 300,
        "tokenizer.vocab_size",
        tokenizer.vocab_size,
        "must be at least 300: 256 bytes, the control symbols, and some pieces",
    )


def _check_model(config: ConfigDict) -> None:
    lora, path = config.lora, config.pretrained.path
    require(
        lora.rank == 0 or bool(path),
        "lora.rank",
        lora.rank,
        "adapters need a model that has learnt something: set pretrained.path, or 0 "
        "to train all parameters",
    )
    quantize = config.pretrained.quantize
    _one_of("pretrained.quantize", quantize, QUANTIZED)
    require(
        quantize == "none" or lora.rank > 0,
        "pretrained.quantize",
        quantize,
        "is for frozen weights: set lora.rank, or none",
    )
    try:
        LoRA.from_config(lora)
    except ValueError as error:
        raise ValueError(f"config.{error}") from error


def _check_optimizer(config: ConfigDict) -> None:
    optimizer = config.optimizer
    _one_of("optimizer.schedule", optimizer.schedule, ("constant", "cosine", "wsd"))
    for name, low, high in (
        ("learning_rate", 0, float("inf")),
        ("decay_share", 0, 1),
        ("final_share", 0, 1),
        ("b1", 0, 1),
        ("b2", 0, 1),
        ("weight_decay", 0, float("inf")),
        ("clip_norm", 0, float("inf")),
    ):
        value = optimizer[name]
        require(
            low <= value <= high,
            f"optimizer.{name}",
            value,
            f"must be in [{low}, {high}]",
        )
    require(
        0 <= optimizer.warmup_steps <= config.run.num_steps,
        "optimizer.warmup_steps",
        optimizer.warmup_steps,
        f"must be in [0, run.num_steps = {config.run.num_steps}]; a shorter run needs "
        "a shorter warm-up",
    )
    _positive("optimizer", optimizer, ("accumulate",))
    require(
        config.data.rows_per_slot % optimizer.accumulate == 0,
        "optimizer.accumulate",
        optimizer.accumulate,
        f"must divide config.data.rows_per_slot = {config.data.rows_per_slot}",
    )


def _check_evaluation(config: ConfigDict) -> None:
    evaluation = config.evaluation
    for name in ("generate_every", "mix_val_prompts", "test_prompts", "seconds"):
        value, off = evaluation[name], "" if name == "mix_val_prompts" else " (0: off)"
        low = 1 if name == "mix_val_prompts" else 0
        require(
            value >= low, f"evaluation.{name}", value, f"must be at least {low}{off}"
        )
    _positive("evaluation", evaluation, ("max_new_tokens", "batch_size"))
    sandboxes = ("auto", "none", *BACKENDS)
    _one_of("evaluation.sandbox", evaluation.sandbox, sandboxes)
    require(
        evaluation.sandbox != "weak" or evaluation.allow_weak_sandbox,
        "evaluation.sandbox",
        evaluation.sandbox,
        "limits time and memory only; consent with evaluation.allow_weak_sandbox, or "
        "choose auto",
    )
    generated = config.mixture.accuracy == "generated"
    require(
        not generated or evaluation.generate_every > 0,
        "evaluation.generate_every",
        evaluation.generate_every,
        'must be at least 1 for mixture.accuracy = "generated"',
    )


def _check_mixture(config: ConfigDict) -> None:
    mixture, num_abilities = config.mixture, len(config.abilities)
    for name, value, choices in (
        ("rule", mixture.rule, RULES),
        ("actuator", mixture.actuator, ACTUATORS),
        ("references", mixture.references, ("given", "fitted")),
        ("accuracy", mixture.accuracy, ("exact_match", "generated")),
        ("tiers.rule", mixture.tiers.rule, TIER_RULES),
    ):
        _one_of(f"mixture.{name}", value, choices)
    _positive("mixture", mixture, ("mix_val_blocks",))
    given = [ability.weight for ability in config.abilities.values()]
    prior(mixture.prior, [1.0] * num_abilities, mixture.temperature, given)
    rule = _check_rule(config)
    _check_noise(config, "mixture.rule", mixture.rule if NOISE in rule.needs else "")
    unknown = [n for n, a in config.abilities.items() if a.reference_loss is None]
    require(
        REFERENCE_LOSS not in rule.needs
        or mixture.references == "fitted"
        or not unknown,
        "mixture.rule",
        mixture.rule,
        f"needs a reference_loss of every ability, and {unknown} have none: give it, "
        'or set mixture.references = "fitted"',
    )
    by_loss = [n for n, a in config.abilities.items() if a.tiers.by == "loss"]
    for needed, what, other in (
        (REFERENCE_MODEL in rule.needs, f'rule "{mixture.rule}"', ""),
        (
            bool(by_loss) and not config.pretrained.path,
            f'tiers.by = "loss" of {by_loss}',
            ", or pretrained.path",
        ),
    ):
        require(
            not needed or bool(mixture.reference_run),
            "mixture.reference_run",
            mixture.reference_run,
            f"{what} needs the work directory of a finished run of the same model"
            + other,
        )
    for field in ("guard_run", "reference_run"):
        run = mixture[field]
        require(
            not run or (Path(run) / "summary.json").is_file(),
            f"mixture.{field}",
            run,
            "must be the work directory of a finished run, or empty",
        )


def _check_rule(config: ConfigDict) -> MixtureRule:
    """Makes the rule, of abilities of one size: only its options can be wrong."""
    mixture, num_abilities = config.mixture, len(config.abilities)
    try:
        rule = make_rule(config, [1.0] * num_abilities)
        rule.init(jnp.full(num_abilities, 1.0 / num_abilities))
    except (TypeError, ValueError) as error:
        field = f"config.mixture.options.{mixture.rule}"
        options = dict(rule_options(config))
        raise ValueError(f"{field} = {options!r}: {error}") from error
    try:
        make_tier_rule(config)
    except (TypeError, ValueError) as error:
        name = mixture.tiers.rule
        raise ValueError(f"config.mixture.tiers.options.{name}: {error}") from error
    return rule


def _check_conflict(config: ConfigDict) -> None:
    conflict, num_abilities = config.conflict, len(config.abilities)
    for name, choices in (
        ("resolver", RESOLVERS),
        ("engine", ENGINES),
        ("granularity", GRANULARITIES),
        ("metric", METRICS),
        ("rows_dtype", ("float32", "bfloat16")),
    ):
        _one_of(f"conflict.{name}", conflict[name], choices)
    _check_resolver_options(conflict, num_abilities)
    for name, valid, allowed in (
        ("noise_gate", conflict.noise_gate >= 0, "must be at least 0 (0: off)"),
        ("margin", 0 <= conflict.margin < 1, "must be in [0, 1) (0: off)"),
        ("ema_weights", 0 <= conflict.ema_weights < 1, "must be in [0, 1) (0: off)"),
        ("every_n", conflict.every_n >= 1, "must be at least 1"),
    ):
        require(valid, f"conflict.{name}", conflict[name], allowed)
    _check_noise(config, "conflict.noise_gate", conflict.noise_gate)
    require(
        config.optimizer.accumulate == 1
        or conflict.engine in ("materialize", "accumulate"),
        "conflict.engine",
        conflict.engine,
        "Gramians of micro-batches do not add up: with optimizer.accumulate > 1 it "
        "must be materialize or accumulate",
    )


def _check_noise(config: ConfigDict, field: str, value: Any) -> None:
    """If the value is set: the noise of the gradients must be measurable."""
    num_abilities = len(config.abilities)
    require(
        not value
        or (
            config.conflict.engine != "accumulate"
            and config.data.num_slots >= 2 * num_abilities
        ),
        field,
        value,
        "measures the noise between slots of one ability: needs data.num_slots of at "
        f"least 2 x {num_abilities} abilities and another engine than accumulate",
    )


def _check_resolver_options(conflict: ConfigDict, num_abilities: int) -> None:
    name = conflict.resolver
    options = dict(conflict.options.get(name, {}))
    try:
        RESOLVERS[name](**options).init(num_abilities)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"config.conflict.options.{name} = {options!r}: {error}"
        ) from error


def _check_mesh(config: ConfigDict) -> None:
    mesh = config.mesh
    devices = mesh.cpu_devices
    require(devices >= 0, "mesh.cpu_devices", devices, "must not be negative")
    sizes = [mesh.ability, mesh.data, mesh.model]
    require(
        all(size == -1 or size >= 1 for size in sizes) and sizes.count(-1) <= 1,
        "mesh",
        sizes,
        "axis sizes must be at least 1, and at most one may be -1 (the rest)",
    )


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON can hold it, in its own order (abilities keep theirs)."""
    return {
        key: to_plain(value) if isinstance(value, ConfigDict) else _jsonable(value)
        for key, value in config.items()
    }


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value))  # tuples become lists


def content_hash(content: Any) -> str:
    """Twelve hex digits of the `repr` of plain values."""
    return hashlib.blake2b(repr(content).encode(), digest_size=6).hexdigest()


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """`{"run": {"seed": 0}}` -> `{"run.seed": 0}`."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def _bound(config: Mapping) -> dict[str, Any]:
    """The fields that make a run what it is."""

    def is_free(path: str) -> bool:
        below = any(f"{path}.".startswith(f"{free}.") for free in FREE_FIELDS)
        return below or path.rpartition(".")[2] == FREE_NAME

    bound = {p: value for p, value in flatten(config).items() if not is_free(p)}
    # Ability k of a saved state is the k-th of the config.
    return bound | {"abilities (in order)": list(config["abilities"])}


def config_hash(config: Mapping) -> str:
    """Twelve hex digits that name the computation this config describes."""
    text = json.dumps(_bound(config), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def difference(old: Mapping, new: Mapping) -> list[str]:
    """One line for each field in which two plain configs describe other runs."""
    before, after = _bound(old), _bound(new)
    absent = "(absent)"
    return [
        f"{path}: {before.get(path, absent)!r} -> {after.get(path, absent)!r}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path, absent) != after.get(path, absent)
    ]

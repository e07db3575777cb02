"""Checks a config before any work starts.

Every message names the field, the value it has and the values it may have.
"""

from pathlib import Path

from ml_collections import ConfigDict

from dcft_jax.config.composition import (
    check_conflict,
    check_evaluation,
    check_mixture,
)
from dcft_jax.config.require import one_of, positive, require
from dcft_jax.data.difficulty import MAX_TIERS
from dcft_jax.data.pretrained_tokenizer import read_template, vocabulary_file
from dcft_jax.data.sources import SOURCES
from dcft_jax.data.tiers import KINDS as TIER_KINDS
from dcft_jax.models import LoRA
from dcft_jax.models.quantized import KINDS as QUANTIZED


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
    check_evaluation(config)
    check_mixture(config)
    check_conflict(config)
    one_of("logging.wandb_mode", config.logging.wandb_mode, ("online", "offline"))
    _check_mesh(config)


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
            one_of(f"{field}.sources.{source}.kind", fields.get("kind", ""), SOURCES)
        positive(field, ability, ("mix_val", "test"))
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
    one_of(f"{field}.by", tiers.by, TIER_KINDS)
    require(
        1 <= tiers.count <= MAX_TIERS,
        f"{field}.count",
        tiers.count,
        f"must be in [1, {MAX_TIERS}]",
    )


def _check_run(run: ConfigDict) -> None:
    names = ("num_steps", "eval_every", "save_every", "log_every", "keep_checkpoints")
    positive("run", run, (*names, "max_nonfinite"))
    require(
        not run.continue_from or (Path(run.continue_from) / "config.json").is_file(),
        "run.continue_from",
        run.continue_from,
        "must be the work directory of a run, or empty",
    )


def _check_data(config: ConfigDict) -> None:
    data, num_abilities = config.data, len(config.abilities)
    positive("data", data, ("rows_per_slot", "source_timeout_s"))
    require(data.seq_len >= 8, "data.seq_len", data.seq_len, "must be at least 8")
    require(
        data.num_slots >= num_abilities,
        "data.num_slots",
        data.num_slots,
        f"a slot holds one ability and there are {num_abilities}: "
        f"must be at least {num_abilities}",
    )
    one_of("data.on_bad_row", data.on_bad_row, ("fail", "skip"))
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
    settings = config.pretrained.settings
    require(
        not settings or bool(path),
        "pretrained.settings",
        settings,
        "is for a model of pretrained.path; without one, config.model says what the "
        "decoder is",
    )
    require(
        not settings or Path(settings).is_file(),
        "pretrained.settings",
        settings,
        "is not a file; it is the config.json of pretrained.path, or empty",
    )
    quantize = config.pretrained.quantize
    one_of("pretrained.quantize", quantize, QUANTIZED)
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
    one_of("optimizer.schedule", optimizer.schedule, ("constant", "cosine", "wsd"))
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
    positive("optimizer", optimizer, ("accumulate",))
    require(
        config.data.rows_per_slot % optimizer.accumulate == 0,
        "optimizer.accumulate",
        optimizer.accumulate,
        f"must divide config.data.rows_per_slot = {config.data.rows_per_slot}",
    )


def _check_mesh(config: ConfigDict) -> None:
    mesh = config.mesh
    devices = mesh.cpu_devices
    require(devices >= 0, "mesh.cpu_devices", devices, "must not be negative")
    sizes = [mesh.slice, mesh.ability, mesh.data, mesh.model]
    require(
        all(size == -1 or size >= 1 for size in sizes) and sizes.count(-1) <= 1,
        "mesh",
        sizes,
        "axis sizes must be at least 1, and at most one may be -1 (the rest)",
    )

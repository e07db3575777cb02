"""The prior that a meta-network predicts from a support set, before the first step."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.config import from_plain, to_plain, validate
from dcft_jax.data import Example, Prepared, prepare
from dcft_jax.data.sources import open_source
from dcft_jax.distributed import check_same, first_goes_first, is_first
from dcft_jax.meta import (
    MAX_SUPPORT,
    MIN_SUPPORT,
    SHIPPED,
    Features,
    Prediction,
    describe,
    embed,
    load,
    predict,
    size_prior,
)
from dcft_jax.mixture import prior
from dcft_jax.models import ModelConfig, Opened, check_mesh, init
from dcft_jax.sharding import Rules, make_mesh
from dcft_jax.training.base_model import (
    base_tokenizer,
    load_base,
    make_model,
    open_base,
)
from dcft_jax.training.workdir import write_json

FILE = "prior.json"  # in the work directory


def with_predicted_prior(
    config: ConfigDict,
    workdir: Path,
    data: Prepared,
    size_K: np.ndarray,
    model: ModelConfig,
    base: Opened | None,
    mesh: jax.sharding.Mesh,
    console: Console,
) -> ConfigDict:
    """The config with `mixture.prior = "given"` and the weights that are predicted.

    Kept in the work directory: a run that goes on does not predict again. With
    `mixture.meta.set_anchor` a trusted prediction also sets the anchor of the rule, if
    that has one.

    Args:
      size_K: train rows of each ability.

    Raises:
      ValueError, OSError: the support set or the network cannot be used.
    """
    known = (workdir / FILE).is_file()
    check_same(f"whether {FILE} is there", known)
    if not known:
        features, support = embed_support(config, data, size_K, model, base, mesh)
        prediction, lines = predict_mixture(config, features, tuple(data.rows))
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        content = _content(data, features, prediction, support)
        with first_goes_first():
            if is_first():
                write_json(workdir / FILE, content)
    return _given(config, json.loads((workdir / FILE).read_text()))


def embedded(config: ConfigDict, console: Console) -> tuple[Features, tuple[str, ...]]:
    """The embedding that a run of this config would predict from, and its abilities.

    Raises:
      ValueError, OSError: as when the run is opened.
    """
    validate(config)
    mesh = make_mesh(config.mesh)
    base = open_base(config)
    data = prepare(config, console, tokenizer=base_tokenizer(config, base))
    size_K = np.array([sum(map(len, data.tiers[name].train)) for name in data.rows])
    model = make_model(config, data.tokenizer, base)
    check_mesh(model, mesh)
    with console.status("embedding the support set"):
        features, _ = embed_support(config, data, size_K, model, base, mesh)
    return features, tuple(data.rows)


def embed_support(
    config: ConfigDict,
    data: Prepared,
    size_K: np.ndarray,
    model: ModelConfig,
    base: Opened | None,
    mesh: jax.sharding.Mesh,
) -> tuple[Features, list[Example]]:
    """The embedding of the support set next to the abilities, and its examples."""
    support = support_examples(config)
    abilities = [
        _sample(held_out["mix_val"], f"abilities.{name}.mix_val", config.data.seed)
        for name, held_out in data.held_out.items()
    ]
    # Without adapters: they begin as nothing, and the base is what is described.
    plain = dataclasses.replace(model, lora=None)
    # A few rows, of any number: every device passes them all through its shards.
    whole = {**dict(model.rules.pairs), "slot": None, "batch": None}
    described = dataclasses.replace(plain, rules=Rules.from_config(whole))
    with jax.set_mesh(mesh):
        if base is None:
            params = init(plain, jax.random.key(config.run.seed))
        else:
            params = load_base(base, plain, mesh)
        features = embed(
            described,
            params,
            support,
            abilities,
            data.tokenizer,
            config.data.seq_len,
            size_K,
            budget_of(config),
        )
    return features, support


def predict_mixture(
    config: ConfigDict, features: Features, abilities: tuple[str, ...]
) -> tuple[Prediction, list[str]]:
    """What the network of the config says, and the same for a person."""
    meta = config.mixture.meta
    fitted = load(meta.network or SHIPPED)
    if meta.fallback == "network":
        prior_K = size_prior(fitted, features.size_K)
    else:
        size_K = features.size_K.tolist()
        prior_K = prior(meta.fallback, size_K, config.mixture.temperature)
    prediction = predict(fitted, features, prior_K)
    return prediction, describe(fitted, prediction, abilities)


def support_examples(config: ConfigDict) -> list[Example]:
    """At most `MAX_SUPPORT` examples of the task, drawn by the seed of the data.

    Raises:
      ValueError, FileNotFoundError: names `mixture.meta.support`.
    """
    meta, field = config.mixture.meta, "config.mixture.meta.support"
    source = ConfigDict(
        dict(kind="jsonl", path=meta.support, single_reference=meta.single_reference)
    )
    try:
        loaded = open_source(
            source, held_out=0, seed=config.data.seed, on_bad_row="fail"
        )
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{field}: {error}") from error
    return _sample(loaded.splits["all"], field, config.data.seed)


def _sample(examples: Any, field: str, seed: int) -> list[Example]:
    if len(examples) < MIN_SUPPORT:
        raise ValueError(
            f"{field}: a task is described by {MIN_SUPPORT} examples or more, here are "
            f'{len(examples)}; give more, or another mixture.prior than "meta"'
        )
    order_N = np.random.default_rng(seed).permutation(len(examples))
    return [examples[i] for i in np.sort(order_N[:MAX_SUPPORT])]


def budget_of(config: ConfigDict) -> int:
    """Tokens of the rows that a run trains on."""
    data = config.data
    rows_per_step = data.num_slots * data.rows_per_slot
    return config.run.num_steps * rows_per_step * data.seq_len


def task_name(config: ConfigDict) -> str:
    return Path(config.mixture.meta.support).stem


def stored_features(workdir: Path) -> Features:
    """The embedding that the prediction was made from."""
    stored = json.loads((workdir / FILE).read_text())["features"]
    return Features(*(np.array(stored[name], np.float32) for name in Features._fields))


def _content(
    data: Prepared,
    features: Features,
    prediction: Prediction,
    support: list[Example],
) -> dict[str, Any]:
    digest = hashlib.blake2b(repr(support).encode(), digest_size=16).hexdigest()
    return {
        "abilities": [*data.rows],
        "weights": prediction.weights_K.tolist(),
        "without_prediction": prediction.prior_K.tolist(),
        "log_ratio_stderr": prediction.stderr_K.tolist(),
        "anchor": prediction.anchor,
        "trusted": prediction.trusted,
        "reasons": list(prediction.reasons),
        "support_hash": digest,
        # JSON has no nan.
        "features": {
            name: np.array(np.where(np.isfinite(array), array, None)).tolist()
            for name, array in features._asdict().items()
        },
    }


def _given(config: ConfigDict, stored: dict[str, Any]) -> ConfigDict:
    weights_K = np.array(stored["weights"], np.float64)
    config = from_plain(to_plain(config))
    config.mixture.prior = "given"
    for name, weight in zip(stored["abilities"], weights_K, strict=True):
        config.abilities[name].weight = float(weight / weights_K.sum())
    options = config.mixture.options.get(config.mixture.rule, {})
    if stored["trusted"] and config.mixture.meta.set_anchor and "anchor" in options:
        # A step of mirror descent goes to the prior at most, not beyond.
        options.anchor = min(float(stored["anchor"]), 1.0 / options.step_size)
    return config

"""The parameters of a finished run, as the reference model of another."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from dcft_jax import config as config_lib
from dcft_jax.data import LossScorer, Tokenizer, pack_examples
from dcft_jax.evaluation.losses import make_eval_step, score_split
from dcft_jax.evaluation.rows import place_rows
from dcft_jax.models import ModelConfig, Opened, abstract_params, combine, split
from dcft_jax.training.base_model import hash_of, load_base, make_model
from dcft_jax.training.saved import check_origin, load_parts


def load_reference(
    config: ConfigDict, tokenizer_hash: str, base_hash: str, wanted: Any
) -> Any:
    """Trained parameters of `mixture.reference_run`.

    Args:
      config: of the run that refers to it.
      tokenizer_hash, base_hash: of that run.
      wanted: its abstract trained parameters, with shardings.

    Raises:
      ValueError: there is no checkpoint, or it is of another model or tokenizer.
    """
    folder = Path(config.mixture.reference_run)
    field = f"config.mixture.reference_run = {str(folder)!r}"
    with ocp.training.Checkpointer(str(folder.absolute() / "checkpoints")) as saved:
        check_origin(saved, tokenizer_hash, base_hash, field)
        try:
            return load_parts(saved, saved.latest, {"params": wanted})["params"]
        except (ValueError, KeyError) as error:
            shapes = jax.tree.map(lambda leaf: leaf.shape, wanted)
            raise ValueError(
                f"{field}: its parameters are not those of this model, {shapes}: "
                f"{error}"
            ) from error


def reference_scorer(
    config: ConfigDict, mesh: jax.sharding.Mesh, base: Opened | None
) -> LossScorer | None:
    """How hard examples are for the reference model; None if no tiers ask for it.

    The reference model is that of `mixture.reference_run`, or else the base.
    """
    if all(ability.tiers.by != "loss" for ability in config.abilities.values()):
        return None

    def loss(examples, tokenizer) -> np.ndarray:
        rows = pack_examples(
            examples, tokenizer, config.data.seq_len, np.arange(len(examples))
        )
        with jax.set_mesh(mesh):
            model, params = _reference(config, mesh, base, tokenizer)
            slots = (config.data.num_slots, config.data.rows_per_slot)
            batches = place_rows(rows, slots, mesh, model.rules)
            step = make_eval_step(model)
            scores = score_split(step, params, batches, rows.num_examples)
        # Of an example that was cut before its reply nothing is known: as the others.
        seen_N = scores.count_N > 0
        loss_N = scores.loss_sum_N / np.maximum(scores.count_N, 1)
        return np.where(seen_N, loss_N, np.mean(loss_N[seen_N]))

    run = config.mixture.reference_run
    summary = (Path(run) / "summary.json").read_bytes() if run else b""
    identity = config_lib.content_hash((summary, hash_of(base), config.data.seq_len))
    return LossScorer(identity, loss)


def _reference(
    config: ConfigDict,
    mesh: jax.sharding.Mesh,
    base: Opened | None,
    tokenizer: Tokenizer,
) -> tuple[ModelConfig, Any]:
    """The reference model and all of its parameters."""
    model = make_model(config, tokenizer, base)
    if base is not None and not config.mixture.reference_run:
        return dataclasses.replace(model, lora=None), load_base(base, model, mesh)
    wanted = split(abstract_params(model, mesh))[0]
    trained = load_reference(config, tokenizer.content_hash, hash_of(base), wanted)
    if base is None or model.lora is None:
        return model, trained
    quantize = config.pretrained.quantize
    return model, combine(load_base(base, model, mesh, quantize), trained)

"""The parameters of a finished run, as the reference model of another."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from dcft_jax import config as config_lib
from dcft_jax.data import LossScorer, pack_examples
from dcft_jax.evaluation.losses import make_eval_step, score_split
from dcft_jax.models import ModelConfig
from dcft_jax.models import init as init_params
from dcft_jax.sharding import Rules, concretize
from dcft_jax.training.eval_rows import place_rows
from dcft_jax.training.saved import PARTIAL, check_tokenizer


def load_reference(config: ConfigDict, tokenizer_hash: str, wanted: Any) -> Any:
    """Parameters of `mixture.reference_run`.

    Args:
      config: of the run that refers to it.
      tokenizer_hash: of that run.
      wanted: its abstract parameters, with shardings.

    Raises:
      ValueError: there is no checkpoint, or it is of another model or tokenizer.
    """
    folder = Path(config.mixture.reference_run)
    field = f"config.mixture.reference_run = {str(folder)!r}"
    target = {"state": {"params": wanted}}
    with ocp.training.Checkpointer(str(folder.absolute() / "checkpoints")) as saved:
        check_tokenizer(saved, tokenizer_hash, field)
        try:
            with ocp.Context(pytree_options=PARTIAL):
                loaded = saved.load_checkpointables(saved.latest, target)
        except (ValueError, KeyError) as error:
            shapes = jax.tree.map(lambda leaf: leaf.shape, wanted)
            raise ValueError(
                f"{field}: its parameters are not those of this model, {shapes}: "
                f"{error}"
            ) from error
    return loaded["state"]["params"]


def reference_scorer(config: ConfigDict, mesh: jax.sharding.Mesh) -> LossScorer | None:
    """How hard examples are for the reference model; None if no tiers ask for it."""
    if all(ability.tiers.by != "loss" for ability in config.abilities.values()):
        return None

    def loss(examples, tokenizer) -> np.ndarray:
        rules = Rules.from_config(config.mesh.rules)
        model = ModelConfig.from_config(config.model, tokenizer.vocab_size, rules)
        rows = pack_examples(
            examples, tokenizer, config.data.seq_len, np.arange(len(examples))
        )
        with jax.set_mesh(mesh):
            abstract = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
            wanted = concretize(abstract, mesh)
            params = load_reference(config, tokenizer.content_hash, wanted)
            num_segments = rows.scored_NM.shape[1]
            batches = place_rows(rows, config.data, mesh, rules, num_segments)
            step = make_eval_step(model)
            scores = score_split(step, params, batches, rows.num_examples)
        # Of an example that was cut before its reply nothing is known: as the others.
        seen_N = scores.count_N > 0
        loss_N = scores.loss_sum_N / np.maximum(scores.count_N, 1)
        return np.where(seen_N, loss_N, np.mean(loss_N[seen_N]))

    run = Path(config.mixture.reference_run)
    summary = (run / "summary.json").read_bytes()
    identity = config_lib.content_hash((summary, config.data.seq_len))
    return LossScorer(identity, loss)

"""One LoRA step of SmolLM2 here and in transformers + peft, for vs_transformers.py."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import peft
import torch
import transformers
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from benchmarks.turns import Step
from dcft_jax.models import Params, save_pretrained
from dcft_jax.models.pretrained.peft import WEIGHTS, save_adapters
from dcft_jax.models.response import response_targets
from dcft_jax.sharding import logical_to_spec
from dcft_jax.training.loop import next_slots, read_mixture
from dcft_jax.training.program import build_program
from dcft_jax.training.run import Run, jit_init, tier_sizes
from dcft_jax.training.state import TrainState
from dcft_jax.training.step import ROW_FIELDS, slot_loss

IGNORED = -100  # the target that transformers leaves out of the loss


def first_batch(run: Run) -> tuple[TrainState, dict[str, jax.Array]]:
    """A state whose adapters are not zero, and the slots of the first step."""
    state = jit_init(run)
    leaves, structure = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [
        x + 0.02 * jax.random.normal(key, x.shape, x.dtype)
        for x, key in zip(leaves, keys, strict=True)
    ]
    batch, _, _ = next_slots(run, read_mixture(state))
    params = jax.tree.unflatten(structure, noisy)
    return dataclasses.replace(state, params=params), batch


def rows_of(run: Run, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The rows of all slots as one [B, L] batch."""
    spec = logical_to_spec(run.program.model.rules, ("batch", None))
    sharding = jax.NamedSharding(run.mesh, spec)
    length = batch["tokens_SBL"].shape[-1]
    return {
        name: jax.device_put(
            np.asarray(batch[f"{name}_SBL"]).reshape(-1, length), sharding
        )
        for name in ROW_FIELDS
    }


def plain_loss(run: Run, params: Params, rows: Mapping[str, jax.Array]) -> jax.Array:
    """Mean over all response tokens: no abilities."""
    loss, count = slot_loss(
        run.program.model,
        params,
        run.frozen,
        rows,
        max_predicted=run.data.max_predicted,
    )
    return loss / count


def plain_step(run: Run, params: Params, rows: Mapping[str, jax.Array]) -> Step:
    optimizer = optax.adamw(run.config.optimizer.learning_rate, weight_decay=0.0)

    @partial(jax.jit, donate_argnums=0)
    def step(carry, rows):
        params, opt_state = carry
        gradient = jax.grad(partial(plain_loss, run))(params, rows)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = jax.tree.map(jnp.copy, params)  # the step donates it
    carry = (params, optimizer.init(params))

    def run_step():
        nonlocal carry
        carry = jax.block_until_ready(step(carry, rows))

    return run_step


def our_step(run: Run, engine: str, params: Params, batch: dict[str, Any]) -> Step:
    """The step that the trainer takes: gradients of the abilities, conflicts resolved.

    Of the run, with this engine.
    """
    config = ConfigDict(run.config)
    config.conflict.engine = engine
    program = build_program(
        config, run.program.model, *tier_sizes(run.data), run.data.max_predicted
    )
    state = jax.jit(program.init)(jax.tree.map(jnp.copy, params))

    def run_step():
        nonlocal state
        state, _ = jax.block_until_ready(program.train_step(state, run.frozen, batch))

    return run_step


def torch_rows(rows: Mapping[str, jax.Array]) -> dict[str, torch.Tensor]:
    """The same rows for transformers, which shifts the labels itself.

    Positions that begin anew tell it that examples are packed.
    """
    targets_BL, mask_BL = response_targets(
        rows["tokens"], rows["loss_mask"], rows["segments"]
    )
    labels_BL = np.full(targets_BL.shape, IGNORED)
    labels_BL[:, 1:] = np.where(mask_BL, targets_BL, IGNORED)[:, :-1]
    return {
        "input_ids": torch.tensor(np.array(rows["tokens"])).long(),
        "position_ids": torch.tensor(np.array(rows["positions"])).long(),
        "labels": torch.from_numpy(labels_BL).long(),
    }


def load_theirs(run: Run, params: Params, folder: Path) -> peft.PeftModel:
    """The same weights and adapters in transformers and peft."""
    model = run.program.model
    base, adapters = folder / "base", folder / "adapters"
    save_pretrained(
        dataclasses.replace(model, lora=None), run.frozen, base, max_length=8192
    )
    save_adapters(model, params, adapters, base=str(base))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="sdpa"
    )
    theirs = peft.PeftModel.from_pretrained(loaded, adapters, is_trainable=True)
    return theirs.train()


def all_logits_loss(model: peft.PeftModel, rows: dict[str, torch.Tensor]):
    """As a Trainer computes it."""
    return model(**rows, use_cache=False).loss


def response_logits_loss(model: peft.PeftModel, rows: dict[str, torch.Tensor]):
    """With logits only where there is loss, as we do; nothing of peft does it."""
    causal = model.get_base_model()
    inner = {name: rows[name] for name in ("input_ids", "position_ids")}
    x_BLD = causal.model(**inner, use_cache=False).last_hidden_state
    targets_BL = rows["labels"][:, 1:]
    mask_BL = targets_BL != IGNORED
    logits_PV = causal.lm_head(x_BLD[:, :-1][mask_BL])
    return torch.nn.functional.cross_entropy(logits_PV, targets_BL[mask_BL])


def torch_step(
    model: peft.PeftModel, loss_of: Callable, rows: dict[str, torch.Tensor], rate: float
) -> Step:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)

    def run_step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, rows).backward()
        optimizer.step()

    return run_step


def check_same(
    run: Run, params: Params, rows: dict, theirs: peft.PeftModel, folder: Path
) -> tuple[float, float, float]:
    """Both losses, and how far the gradients are apart, as a share of their norm.

    Raises:
      AssertionError: it is not the same computation.
    """
    loss, gradient = jax.jit(jax.value_and_grad(partial(plain_loss, run)))(params, rows)
    save_adapters(run.program.model, gradient, folder / "gradient", base="")
    ours = load_file(folder / "gradient" / WEIGHTS)
    for loss_of in (all_logits_loss, response_logits_loss):
        theirs.zero_grad()
        their_loss = loss_of(theirs, torch_rows(rows))
        their_loss.backward()
        found = {
            name.replace(".default.", "."): p.grad.numpy()
            for name, p in theirs.named_parameters()
            if p.requires_grad
        }
        assert found.keys() == ours.keys()
        off = sum(np.sum((ours[name] - g) ** 2) for name, g in found.items())
        distance = float((off / sum(np.sum(g**2) for g in ours.values())) ** 0.5)
        assert abs(float(loss) - float(their_loss)) < 1e-4 * float(loss)
        assert distance < 1e-3, f"gradients are {distance} apart"
    return float(loss), float(their_loss), distance

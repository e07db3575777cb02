"""The same optimizer step in DCFT-JAX and in the ways of TorchJD, for vs_torchjd.py.

A side is a function without arguments that takes one whole step and waits for it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torchjd import aggregation, autojac
from torchjd.autogram import Engine

from benchmarks.torch_decoder import Decoder, ability_losses, to_torch
from benchmarks.turns import Step
from configs import base
from dcft_jax.conflict import RESOLVERS, Resolver, resolve_gradients, slot_gramian
from dcft_jax.models import ModelConfig, Params, init, score_responses

PEERS = {
    "pcgrad": (aggregation.PCGrad, aggregation.PCGradWeighting),
    "upgrad": (aggregation.UPGrad, aggregation.UPGradWeighting),
}
LEARNING_RATE = 1e-5  # small: the conflict is still there after the last round


def model_config() -> ModelConfig:
    config = base.get_config()
    config.model.update(num_layers=8, width=256, hidden=768)
    config.model.update(num_heads=8, num_kv_heads=4, head_dim=32)
    config.model.update(compute_dtype="float32", tie_embeddings=False)
    config.model.remat = "dots"  # on CPUs faster than to read all activations back
    return ModelConfig.from_config(config.model, 2048, config.mesh.rules)


def make_tokens(num_abilities: int, num_rows: int, length: int, seed=0) -> np.ndarray:
    """[K, B, L]: half of the tokens are of an ability's own 64, half of common ones."""
    rng = np.random.default_rng(seed)
    shape = (num_abilities, num_rows, length)
    first_K11 = 64 * np.arange(1, num_abilities + 1)[:, None, None]
    common = rng.random(shape) < 0.5
    tokens_KBL = rng.integers(0, 64, shape) + np.where(common, 0, first_K11)
    return tokens_KBL.astype(np.int32)


def token_mean_loss(config: ModelConfig, params: Params, tokens_BL: jax.Array):
    rows = dict(
        tokens=tokens_BL,
        loss_mask=jnp.ones_like(tokens_BL, bool),
        segments=jnp.ones_like(tokens_BL),
        positions=jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape),
    )
    nll_BL, _, mask_BL = score_responses(config, params, rows)
    return jnp.sum(nll_BL) / jnp.sum(mask_BL)


def ability_gradients(config: ModelConfig, params: Params, tokens_KBL: jax.Array):
    """Losses [K], and gradients with leaves [K, ...].

    One ability after the other, as the engine `accumulate` does: on a CPU this beats
    vmap, whose products of matrices come in batches.
    """
    gradient = jax.value_and_grad(partial(token_mean_loss, config))
    return jax.lax.map(partial(gradient, params), tokens_KBL)


def resolved_update(config: ModelConfig, resolver: Resolver, params, state, tokens_KBL):
    _, grads = ability_gradients(config, params, tokens_KBL)
    weights_K = jnp.full(len(tokens_KBL), 1 / len(tokens_KBL))
    update, state, _ = resolve_gradients(grads, weights_K, resolver, state)
    return update, state


def mean_update(config: ModelConfig, params: Params, state, tokens_KBL: jax.Array):
    rows_RL = tokens_KBL.reshape(
        -1, tokens_KBL.shape[-1]
    )  # all abilities weigh equally
    return jax.grad(partial(token_mean_loss, config))(params, rows_RL), state


def conflicting_params(config: ModelConfig, shape: tuple[int, int, int]) -> Params:
    """Trained until the mixture's frequencies of tokens are learnt, and no further.

    Each ability then wants its own tokens more often than that, at the others' expense.
    """
    optimizer, step = adam_step(partial(mean_update, config), 1e-3)
    params = init(config, jax.random.key(0))
    carry = (params, optimizer.init(params), ())
    for i in range(16):
        carry = step(carry, make_tokens(*shape, seed=i + 1))
    return carry[0]


def adam_step(update_fn, learning_rate: float):
    """`update_fn(params, state, tokens_KBL) -> (update, state)`, then Adam."""
    optimizer = optax.adam(learning_rate)

    @partial(jax.jit, donate_argnums=0)
    def step(carry, tokens_KBL):
        params, opt_state, state = carry
        update, state = update_fn(params, state, tokens_KBL)
        update, opt_state = optimizer.update(update, opt_state)
        return optax.apply_updates(params, update), opt_state, state

    return optimizer, step


def our_step(update_fn, params: Params, state: Any, tokens_KBL: np.ndarray) -> Step:
    optimizer, step = adam_step(update_fn, LEARNING_RATE)
    params = jax.tree.map(jnp.copy, params)  # the step donates it
    carry, tokens_KBL = (params, optimizer.init(params), state), jnp.array(tokens_KBL)

    def run():
        nonlocal carry
        carry = jax.block_until_ready(step(carry, tokens_KBL))

    return run


def our_sides(config: ModelConfig, params: Params, tokens_KBL: np.ndarray, names):
    """Name -> step; "mean" is the plain one."""
    plain = partial(mean_update, config)
    sides = {"mean": our_step(plain, params, (), tokens_KBL)}
    for name in names:
        resolver = RESOLVERS[name]()
        resolved = partial(resolved_update, config, resolver)
        state = resolver.init(len(tokens_KBL))
        sides[name] = our_step(resolved, params, state, tokens_KBL)
    return sides


def torch_model(config: ModelConfig, params: Params) -> Decoder:
    model = Decoder(config)
    model.load_state_dict(to_torch(params))
    return model


def mean_backward(model: Decoder, tokens_KBL: torch.Tensor) -> None:
    ability_losses(model, tokens_KBL).mean().backward()


def autojac_backward(model: Decoder, aggregator, tokens_KBL: torch.Tensor) -> None:
    autojac.backward(ability_losses(model, tokens_KBL))
    autojac.jac_to_grad(model.parameters(), aggregator)


def autogram_backward(model: Decoder, engine: Engine, weighting, tokens_KBL) -> None:
    losses_K = ability_losses(model, tokens_KBL)
    losses_K.backward(weighting(engine.compute_gramian(losses_K)))


def rows_backward(model: Decoder, aggregator, tokens_KBL: torch.Tensor) -> None:
    """One backward pass per ability: what TorchJD does not do for its users."""
    parameters = list(model.parameters())
    rows = []
    for tokens_BL in tokens_KBL:
        (loss,) = ability_losses(model, tokens_BL[None])
        grads = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([g.flatten() for g in grads]))
    update = aggregator(torch.stack(rows))
    for p, g in zip(
        parameters, update.split([p.numel() for p in parameters]), strict=True
    ):
        p.grad = g.view_as(p)


def torch_step(model: Decoder, backward: Callable, tokens_KBL: torch.Tensor) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def run():
        backward(model, tokens_KBL=tokens_KBL)
        optimizer.step()
        optimizer.zero_grad()

    return run


def torch_backwards(config: ModelConfig, params: Params, name: str):
    """Engine -> (model, backward); autogram hooks its model, so each has its own."""
    aggregator, weighting = (peer() for peer in PEERS[name])
    hooked = torch_model(config, params)
    # The abilities are the batch: the variant that the documentation recommends.
    engine = Engine(hooked, batch_dim=0)
    autogram = partial(autogram_backward, engine=engine, weighting=weighting)
    jac = partial(autojac_backward, aggregator=aggregator)
    rows = partial(rows_backward, aggregator=aggregator)
    return {
        "autojac": (torch_model(config, params), jac),
        "autogram": (hooked, autogram),
        "rows": (torch_model(config, params), rows),
    }


def torch_sides(config: ModelConfig, params: Params, tokens_KBL: np.ndarray, names):
    tokens_KBL = torch.from_numpy(tokens_KBL).long()
    plain = torch_step(torch_model(config, params), mean_backward, tokens_KBL)
    sides = {("mean", "backward"): plain}
    for name in names:
        for engine, (model, run) in torch_backwards(config, params, name).items():
            sides[name, engine] = torch_step(model, run, tokens_KBL)
    return sides


def check_gradients(
    config: ModelConfig, params: Params, tokens_KBL: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Compares losses and gradients.

    Returns:
      The Gramian, and by how much of its largest entry each way to compute it is off,
      against that of the same gradients in float64.

    Raises:
      AssertionError: if losses, gradients or a Gramian differ.
    """
    losses_K, grads = jax.jit(partial(ability_gradients, config))(params, tokens_KBL)
    model, hooked = (torch_model(config, params) for _ in range(2))
    torch_tokens = torch.from_numpy(tokens_KBL).long()
    torch_losses_K = ability_losses(model, torch_tokens)
    np.testing.assert_allclose(losses_K, torch_losses_K.detach(), rtol=1e-4)
    autojac.backward(torch_losses_K)
    jac_KP = torch.cat([p.jac.flatten(1) for p in model.parameters()], dim=1)
    exact_KK = (jac_KP.double() @ jac_KP.double().T).numpy()
    engine = Engine(hooked, batch_dim=0)
    grams = {
        "DCFT-JAX": slot_gramian(grads),
        "TorchJD autojac": jac_KP @ jac_KP.T,  # what its aggregators do
        "TorchJD autogram": engine.compute_gramian(
            ability_losses(hooked, torch_tokens)
        ),
    }
    off = {
        name: float(np.abs(np.asarray(gram_KK) - exact_KK).max() / exact_KK.max())
        for name, gram_KK in grams.items()
    }
    # Seven million float32 products in one sum lose digits in PyTorch.
    assert max(off.values()) < 1e-2 and off["DCFT-JAX"] < 1e-4, off
    return exact_KK, off


def check_update(config, params, tokens_KBL: np.ndarray, name: str) -> float:
    """Compares the resolved gradients; returns the largest relative distance.

    Raises:
      AssertionError: if one is more than 3e-3 away: the ridges of UPGrad differ.
    """
    scale = 1
    if name == "pcgrad":
        # TorchJD's is a sum, and in a random order from three abilities on.
        tokens_KBL, scale = tokens_KBL[:2], 2
    resolver = RESOLVERS[name]()
    update, _ = jax.jit(partial(resolved_update, config, resolver))(
        params, resolver.init(len(tokens_KBL)), tokens_KBL
    )
    ours = to_torch(jax.tree.map(lambda x: scale * x, update))
    torch_tokens = torch.from_numpy(tokens_KBL).long()
    distances = []
    for model, run in torch_backwards(config, params, name).values():
        run(model, tokens_KBL=torch_tokens)
        theirs = {n: p.grad for n, p in model.named_parameters()}
        off = sum(torch.sum((ours[n] - g) ** 2) for n, g in theirs.items())
        size = sum(torch.sum(g**2) for g in theirs.values())
        distances.append(float((off / size) ** 0.5))
    assert max(distances) < 3e-3, f"{name}: updates differ by {distances}"
    return max(distances)

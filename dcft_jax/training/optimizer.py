"""Learning-rate schedule and AdamW, applied after conflicts are resolved."""

import jax
import optax
from ml_collections import ConfigDict

# Norms, biases and embeddings are not decayed: shrinking them changes the
# scale of activations instead of regularising a matrix.
_UNDECAYED = ("norm", "scale", "bias", "embed")


def make_schedule(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """Warm-up, then constant, cosine, or warm-up-stable-decay (arXiv:2404.06395)."""
    peak, final = config.learning_rate, config.learning_rate * config.final_share
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    rest = num_steps - config.warmup_steps
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(rest, 1), config.final_share)
    else:
        decay = round(num_steps * config.decay_share)
        after = optax.join_schedules(
            [
                optax.constant_schedule(peak),
                optax.linear_schedule(peak, final, max(decay, 1)),
            ],
            [max(rest - decay, 0)],
        )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def decay_mask(params: optax.Params) -> optax.Params:
    """True for the leaves that weight decay touches."""

    def decays(path: tuple, _: jax.Array) -> bool:
        names = jax.tree_util.keystr(path).lower()
        return not any(word in names for word in _UNDECAYED)

    return jax.tree.map_with_path(decays, params)


def make_optimizer(
    config: ConfigDict, num_steps: int
) -> optax.GradientTransformationExtraArgs:
    """AdamW with decoupled weight decay (arXiv:1711.05101).

    Clipping comes first and only scales, so that whatever the resolver
    guarantees about the direction still holds afterwards.
    """
    parts = [
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(make_schedule(config, num_steps)),
    ]
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*parts)

"""Builds rules of `RULES`, and feedback in which every field is measured."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture import RULES, Feedback

SIZES = np.array([9000.0, 300.0, 2000.0, 40.0, 700.0])
NUM_ABILITIES = len(SIZES)
PRIOR = np.array([0.1, 0.3, 0.15, 0.25, 0.2], np.float32)
NUM_STEPS = 100


def build(name, order=range(NUM_ABILITIES)):
    """The rule with its defaults, for the abilities in this order."""
    order = list(order)
    given = {
        "sizes_K": SIZES[order],
        "seed": 3,
        "num_steps": NUM_STEPS,
        "max_weight_K": np.linspace(0.5, 0.9, NUM_ABILITIES)[order],
        "general": [order.index(1), order.index(3)],
    }
    parameters = inspect.signature(RULES[name]).parameters
    return RULES[name](**{key: given[key] for key in parameters if key in given})


@functools.cache
def jitted(name, order=tuple(range(NUM_ABILITIES))):
    """The same, compiled, once for all tests."""
    rule = build(name, order)
    return rule._replace(update=jax.jit(rule.update), weights=jax.jit(rule.weights))


def measured(rng, step, num_abilities=NUM_ABILITIES):
    """Plausible numbers in every field."""
    fields = {}
    for field in dataclasses.fields(Feedback):
        shape = (num_abilities,) * (len(field.name) - len(field.name.rstrip("K")))
        fields[field.name] = rng.uniform(0.3, 3.0, shape)
    for name in ("progress_K", "rise_K"):
        fields[name] = 0.1 * rng.standard_normal(num_abilities)
    for name in fields:
        if name.endswith("stderr_K"):
            fields[name] = 0.01 * fields[name]
    fields["reference_loss_K"] *= 0.2
    fields["initial_loss_K"] += 1.0
    fields["accuracy_K"] = rng.uniform(0, 1, num_abilities)
    root_KK = rng.standard_normal((num_abilities, num_abilities))
    fields["gram_KK"] = root_KK @ root_KK.T + np.eye(num_abilities)
    fields["transfer_KK"] += 1.0 - 2 * rng.random(root_KK.shape)
    arrays = {key: jnp.asarray(value, jnp.float32) for key, value in fields.items()}
    arrays["observed_K"] = jnp.ones(num_abilities, bool)
    arrays["step"] = jnp.asarray(step, jnp.int32)
    return Feedback(**arrays)


def changed(feedback, change):
    """Applies `change(name, array)` to every array with an ability axis."""
    fields = vars(feedback).items()
    new = {key: change(key, value) for key, value in fields if key.endswith("K")}
    return dataclasses.replace(feedback, **new)


def permuted(feedback, order):
    """The same for the abilities in another order."""
    order = np.asarray(order)

    def change(name, array):
        return array[order][:, order] if name.endswith("KK") else array[order]

    return changed(feedback, change)

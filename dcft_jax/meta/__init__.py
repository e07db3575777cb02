"""Initial mixtures for new tasks, predicted from the record of earlier runs."""

from pathlib import Path

from dcft_jax.meta.embed import embed
from dcft_jax.meta.experience import (
    LEARNT_FROM,
    PROVED,
    Outcome,
    Record,
    add_embedding,
    add_run,
    cases,
    merge,
    open_store,
)
from dcft_jax.meta.features import Features
from dcft_jax.meta.fitted import Fitted, load, save
from dcft_jax.meta.measure import MAX_SUPPORT, MIN_SUPPORT
from dcft_jax.meta.predict import Prediction, describe, predict, size_prior

# The network that comes with the package, and the experience it was fitted on.
SHIPPED = Path(__file__).with_name("shipped") / "network.safetensors"
EXPERIENCE = Path(__file__).with_name("shipped") / "experience.sqlite.gz"

__all__ = [
    "EXPERIENCE",
    "LEARNT_FROM",
    "MAX_SUPPORT",
    "MIN_SUPPORT",
    "PROVED",
    "SHIPPED",
    "Features",
    "Fitted",
    "Outcome",
    "Prediction",
    "Record",
    "add_embedding",
    "add_run",
    "cases",
    "describe",
    "embed",
    "load",
    "merge",
    "open_store",
    "predict",
    "save",
    "size_prior",
]

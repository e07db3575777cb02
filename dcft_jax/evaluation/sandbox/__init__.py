"""Runs model-written programs with their tests, contained (docs/sandbox.md)."""

from dcft_jax.evaluation.sandbox.backend import BACKENDS, Choice, choose_backend
from dcft_jax.evaluation.sandbox.limits import Limits
from dcft_jax.evaluation.sandbox.outcome import Outcome
from dcft_jax.evaluation.sandbox.process import Sandbox, run_program
from dcft_jax.evaluation.sandbox.runner import run_programs

__all__ = [
    "BACKENDS",
    "Choice",
    "Limits",
    "Outcome",
    "Sandbox",
    "choose_backend",
    "run_program",
    "run_programs",
]

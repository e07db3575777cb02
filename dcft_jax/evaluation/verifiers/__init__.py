"""Judges of what a model wrote: pure, bounded in time, and they run none of it."""

from dcft_jax.evaluation.verifiers.pass_at_k import pass_at_k

__all__ = ["pass_at_k"]

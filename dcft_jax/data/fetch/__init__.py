"""Public test sets for evaluation, out of packages: `python -m dcft_jax.data.fetch`.

They are written as rows of `dcft_jax.evaluation.items`, which reads them.
"""

"""Dynamic Compositional Fine-Tuning of language models in JAX."""

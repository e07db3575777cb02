"""For `jax.jit(..., compiler_options=OPTIMISED)`: see tests/conftest.py."""

OPTIMISED = {"xla_backend_optimization_level": 3}

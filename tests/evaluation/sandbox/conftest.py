"""Every backend that works here; the others are skipped with their reason."""

import functools

import pytest

from dcft_jax.evaluation.sandbox import BACKENDS, Sandbox, choose_backend


@functools.cache
def _choose(name: str) -> Sandbox | str:
    try:
        chosen = choose_backend(name, allow_weak=True).sandbox
    except RuntimeError as error:
        return str(error)
    assert chosen
    return chosen


@pytest.fixture(params=BACKENDS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    chosen = _choose(request.param)
    if isinstance(chosen, str):
        pytest.skip(chosen)
    return chosen


@pytest.fixture(params=[name for name in BACKENDS if name != "weak"])
def strong(request: pytest.FixtureRequest) -> Sandbox:
    chosen = _choose(request.param)
    if isinstance(chosen, str):
        pytest.skip(chosen)
    return chosen


@pytest.fixture
def weak() -> Sandbox:
    chosen = _choose("weak")
    if isinstance(chosen, str):
        pytest.skip(chosen)
    return chosen


@pytest.fixture(scope="session")
def any_sandbox() -> Sandbox:
    """The best backend that isolates."""
    chosen, reason = choose_backend()
    if chosen is None:
        pytest.skip(reason)
    return chosen

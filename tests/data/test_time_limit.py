"""Sources that hang."""

import threading

import pytest
from ml_collections import ConfigDict

from dcft_jax.data import prepare, splits
from dcft_jax.data.time_limit import within


def test_results_and_errors_come_through():
    assert within(60, lambda: 7) == 7
    with pytest.raises(KeyError, match="gone"):
        within(60, lambda: {}["gone"])


def test_a_hang_ends():
    forever = threading.Event()
    with pytest.raises(TimeoutError, match=r"not done after 0\.05 s"):
        within(0.05, forever.wait)
    forever.set()


def test_a_source_that_hangs_is_named(tiny_config: ConfigDict, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(splits, "open_source", lambda *_, **__: answer.wait())
    tiny_config.data.source_timeout_s = 0.2
    with pytest.raises(
        TimeoutError,
        match=r"abilities\.maths\.sources\.rows.*0\.2 s.*data\.source_timeout_s",
    ):
        prepare(tiny_config)
    answer.set()

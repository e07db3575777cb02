"""What a run says that dies because memory ran out."""

from io import StringIO

import jax
import pytest
from rich.console import Console

from dcft_jax import main as command
from dcft_jax.planning import exhausted
from tests.planning.conftest import small_config

OUT = "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nand a long dump"


def test_only_memory_counts():
    assert exhausted.is_exhausted(jax.errors.JaxRuntimeError(OUT))
    assert not exhausted.is_exhausted(jax.errors.JaxRuntimeError("INTERNAL: a bug"))
    assert not exhausted.is_exhausted(ValueError(OUT))


def test_the_report_follows_the_error(plan, monkeypatch):
    monkeypatch.setattr(exhausted, "make_plan", lambda config, console: plan)
    console = Console(file=StringIO(), width=100)
    error = jax.errors.JaxRuntimeError(OUT)
    exhausted.explain_exhausted(error, plan.config, console)
    text = console.file.getvalue()
    assert text.startswith("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\n")
    assert "Memory of one chip" in text and "long dump" not in text


def test_a_plan_that_fails_does_not_hide_the_error():
    config = small_config()
    config.mesh.update(ability=3, data=1, model=1)
    console = Console(file=StringIO(), width=100)
    exhausted.explain_exhausted(jax.errors.JaxRuntimeError(OUT), config, console)
    text = console.file.getvalue()
    assert text.startswith("RESOURCE_EXHAUSTED: Out of memory")
    assert "There is no plan: mesh.slice=1, mesh.ability=3" in text


@pytest.mark.parametrize(("message", "ending"), [(OUT, SystemExit), ("BUG", None)])
def test_the_command_explains_memory_and_nothing_else(monkeypatch, message, ending):
    def die(*_):
        raise jax.errors.JaxRuntimeError(message)

    asked = []
    monkeypatch.setattr(command, "open_run", die)
    monkeypatch.setattr(command, "explain_exhausted", lambda *a: asked.append(a))
    with pytest.raises(ending or jax.errors.JaxRuntimeError):
        command.run_config(small_config(), "nowhere")
    assert len(asked) == (1 if ending else 0)

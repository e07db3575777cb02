"""The plan of a run that died because memory ran out."""

import jax
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.planning.compiling import EXHAUSTED
from dcft_jax.planning.plan import make_plan
from dcft_jax.planning.show import show_plan


def is_exhausted(error: BaseException) -> bool:
    """Did a device, or the compiler for it, run out of memory?"""
    return isinstance(error, jax.errors.JaxRuntimeError) and EXHAUSTED in str(error)


def explain_exhausted(
    error: BaseException, config: ConfigDict, console: Console
) -> None:
    """Prints what `python -m dcft_jax.plan` says about the config on these devices.

    A plan that cannot be made is said too: it must not hide the error it is about.
    """
    first = str(error).strip().splitlines()[0]
    console.print(first, markup=False, highlight=False, soft_wrap=True)
    console.print("Memory ran out. What this config needs on these devices:")
    try:
        show_plan(make_plan(config, console=console), console)
    except (ValueError, OSError, ImportError, jax.errors.JaxRuntimeError) as failure:
        console.print(f"There is no plan: {failure}", markup=False, highlight=False)

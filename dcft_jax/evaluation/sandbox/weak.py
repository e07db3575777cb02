"""Contained by limits only: a program sees files and network as we do."""

import os

from dcft_jax.evaluation.sandbox import interpreter, privilege
from dcft_jax.evaluation.sandbox.process import Sandbox


def sandboxes() -> list[Sandbox]:
    """What to try, the best first."""
    plain = Sandbox("weak", tuple(interpreter.command()), own_folder=False)
    if os.geteuid() != 0:
        return [plain]
    try:
        command = (*privilege.become_nobody(), *interpreter.command())
    except FileNotFoundError:
        return [plain]
    # Not even nobody may start an interpreter in a folder of root's.
    return [Sandbox("weak", command, privilege.NOBODY, own_folder=False), plain]

"""Which sandbox this machine has."""

import os
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from dcft_jax.evaluation.sandbox import bwrap, unshare, weak
from dcft_jax.evaluation.sandbox.limits import Limits
from dcft_jax.evaluation.sandbox.process import Sandbox, run_program

_BACKENDS: dict[str, Callable[[], list[Sandbox]]] = {
    "bwrap": bwrap.sandboxes,
    "unshare": unshare.sandboxes,
    "weak": weak.sandboxes,
}
BACKENDS = tuple(_BACKENDS)
_STRONG = ("bwrap", "unshare")
_CONSENT = "allow_weak=True runs model-written code with limits on time and memory only"
_PROBE_LIMITS = Limits(cpu_seconds=20, wall_seconds=30)


class Choice(NamedTuple):
    """A sandbox, or None with the reason why there is none and the way out."""

    sandbox: Sandbox | None
    reason: str


def choose_backend(wanted: str = "auto", allow_weak: bool = False) -> Choice:
    """The best sandbox in which a program really ran just now.

    "auto" tries bubblewrap, then util-linux's unshare, then, only if `allow_weak`,
    limits without isolation. "none" runs nothing.

    Raises:
        ValueError: if `wanted` is unknown, or "weak" without `allow_weak`.
        RuntimeError: if a backend asked for by name does not work here; says why.
    """
    if wanted not in ("auto", "none", *_BACKENDS):
        raise ValueError(
            f"sandbox={wanted!r} is not known; choose auto, none or one of {BACKENDS}"
        )
    if wanted == "none":
        return Choice(None, "no code is run: sandbox='none'")
    if wanted == "weak" and not allow_weak:
        raise ValueError(f"sandbox='weak' needs consent: {_CONSENT}")
    if wanted != "auto":
        sandbox, why = _try(wanted)
        if sandbox is None:
            raise RuntimeError(f"sandbox={wanted!r} does not work here: {why}")
        return Choice(sandbox, f"{wanted}: asked for, and a probe ran in it")
    reasons = []
    for name in (*_STRONG, "weak") if allow_weak else _STRONG:
        sandbox, why = _try(name)
        if sandbox:
            return Choice(sandbox, "; ".join([*reasons, f"{name}: a probe ran in it"]))
        reasons.append(f"{name}: {why}")
    ways = "install bubblewrap (Debian and Ubuntu: apt install bubblewrap)"
    if not allow_weak:
        ways += f", or consent to less: {_CONSENT}"
    return Choice(None, f"no code is run: {'; '.join(reasons)}. Way out: {ways}")


def _try(name: str) -> tuple[Sandbox | None, str]:
    """The first of a backend's sandboxes that works, or why none does."""
    if not sys.platform.startswith("linux"):
        return None, f"needs Linux, this is {sys.platform}"
    try:
        sandboxes = _BACKENDS[name]()
    except FileNotFoundError as error:
        return None, str(error)
    reasons = []
    for sandbox in sandboxes:
        if not (why := _probe(sandbox)):
            return sandbox, ""
        if why not in reasons:
            reasons.append(why)
    return None, ", ".join(reasons)


def _probe(sandbox: Sandbox) -> str:
    """Why a program does not run as it should in the sandbox; empty if it does."""
    with tempfile.NamedTemporaryFile() as ours:
        os.chmod(ours.name, 0o644)
        code = f"def double(x): return x + x\nimport os, sys\nfile = {ours.name!r}"
        tests = (
            "assert double(21) == 42\n"
            # An interpreter that cannot read its libraries may find others.
            f"assert sys.version == {sys.version!r}, sys.version\n"
            f"assert sys.base_prefix == {sys.base_prefix!r}, sys.base_prefix"
        )
        if sandbox.name in _STRONG:
            tests += "\nassert not os.path.exists(file), 'it sees our files'"
            tests += f"\nassert os.getppid() != {os.getpid()}, 'it sees us'"
        try:
            outcome = run_program(code, tests, sandbox, _PROBE_LIMITS)
        except (OSError, RuntimeError) as error:
            return str(error)
    return outcome.error

"""Contained by bubblewrap: new namespaces and a root of few, read-only folders."""

import os
import subprocess

from dcft_jax.evaluation.sandbox import interpreter, privilege
from dcft_jax.evaluation.sandbox.process import Sandbox

SCRATCH_BYTES = 16 * 2**20
_SPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")
# For what setpriv does inside when bubblewrap itself runs as root.
_KEPT = ("CAP_SETUID", "CAP_SETGID")


def sandboxes() -> list[Sandbox]:
    """What to try, the best first.

    Raises:
        FileNotFoundError: if a program is missing; names its Debian package.
    """
    bwrap = privilege.find("bwrap", "bubblewrap")
    if os.geteuid() != 0:
        command = [bwrap, "--unshare-user", *_SPACES, *_options(bwrap), "--"]
        return [Sandbox("bwrap", (*command, *interpreter.command()))]
    drop = privilege.become_nobody()
    outside = [*drop, bwrap, "--unshare-user", *_SPACES, *_options(bwrap), "--"]
    # An interpreter in a folder that only root may enter has to be bound by root.
    kept = [word for name in _KEPT for word in ("--cap-add", name)]
    inside = [bwrap, *_SPACES, *_options(bwrap), *kept, "--", *drop]
    # A user namespace of its own counts processes apart from those of other programs.
    apart = [privilege.find("unshare", "util-linux"), "--user", "--"]
    return [
        Sandbox("bwrap", (*command, *interpreter.command()), privilege.NOBODY)
        for command in (outside, [*inside, *apart], inside)
    ]


def _options(bwrap: str) -> list[str]:
    view = interpreter.view()
    help_text = subprocess.run(
        [bwrap, "--help"], capture_output=True, text=True, check=False
    )
    # Since 0.8; before, only the machine's memory bounds what is written to /tmp.
    sized = "--size" in help_text.stdout + help_text.stderr
    return [
        "--die-with-parent",
        "--new-session",
        *("--cap-drop", "ALL"),
        *(word for folder in view.parents for word in ("--dir", folder)),
        *(word for folder in view.folders for word in ("--ro-bind", folder, folder)),
        *(word for path, to in view.links for word in ("--symlink", to, path)),
        *("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
        *(("--size", str(SCRATCH_BYTES)) if sized else ()),
        *("--perms", "1777", "--tmpfs", "/tmp", "--chdir", "/tmp"),
        *("--remount-ro", "/"),
    ]

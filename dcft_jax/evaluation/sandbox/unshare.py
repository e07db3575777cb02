"""Contained by util-linux alone: the same namespaces and root as with bubblewrap."""

import os

from dcft_jax.evaluation.sandbox import interpreter, privilege
from dcft_jax.evaluation.sandbox.bwrap import SCRATCH_BYTES
from dcft_jax.evaluation.sandbox.process import Sandbox

_SPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
_DEVICES = ("null", "zero", "full", "random", "urandom")


def sandboxes() -> list[Sandbox]:
    """What to try, the best first.

    Raises:
        FileNotFoundError: if a program is missing; names its Debian package.
    """
    unshare = privilege.find("unshare", "util-linux")
    shell = [privilege.find("sh", "dash"), "-euc"]
    as_root_of_own = [unshare, "--user", "--map-root-user", *_SPACES, "--", *shell]
    # Without capabilities: what the root of a user namespace can do ends here.
    setpriv = privilege.find("setpriv", "util-linux")
    bare = [setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    # In one more user namespace it is not even called root, and processes are counted
    # apart from those of other programs.
    apart = [unshare, "--user", "--"]
    script = _script([*bare, *apart])
    mapped = [*as_root_of_own, script, "sh", *interpreter.command()]
    if os.geteuid() != 0:
        return [Sandbox("unshare", tuple(mapped))]
    drop = privilege.become_nobody()
    # As in bwrap.py: for an interpreter that only root may read.
    by_root = [unshare, *_SPACES, "--", *shell]
    commands = [
        [*drop, *mapped],
        [*by_root, _script([*drop, *apart]), "sh"],
        [*by_root, _script(drop), "sh"],
    ]
    commands[1:] = [[*command, *interpreter.command()] for command in commands[1:]]
    return [Sandbox("unshare", tuple(c), privilege.NOBODY) for c in commands]


def _script(before: list[str]) -> str:
    """Makes the new root and runs the arguments in it, after the words `before`.

    The shell stays process 1 of the namespace. It dies with unshare(1), and everything
    in the namespace with it; the program, a child, has no power over it.
    """
    view = interpreter.view()
    mounted = "\n".join(
        f'mkdir -p ".{folder}"; mount --rbind "{folder}" ".{folder}"; '
        f'mount -o remount,bind,ro ".{folder}"'
        for folder in view.folders
    )
    links = "\n".join(f'ln -s "{target}" ".{path}"' for path, target in view.links)
    return f"""
# Hides /sys, which nothing here needs, in this mount namespace only.
mount -t tmpfs -o mode=0755,nosuid,nodev,size={SCRATCH_BYTES} none /sys
cd /sys
{mounted}
{links}
mkdir proc dev tmp old
mount -t proc none proc
for name in {" ".join(_DEVICES)}; do
    touch dev/$name; mount --bind /dev/$name dev/$name
done
mount -t tmpfs -o mode=1777,nosuid,nodev,size={SCRATCH_BYTES} none tmp
{privilege.find("pivot_root", "util-linux")} . old
umount -l old
rmdir old
mount -o remount,bind,ro,nosuid,nodev /
cd /tmp
set +e
{" ".join(before)} "$@"
exit $?
"""

"""Finding the programs that contain others, and being nobody when we are root."""

import os
import shutil

NOBODY = 65534


def find(program: str, package: str) -> str:
    """The path of a program.

    Raises:
        FileNotFoundError: if it is not there; names its Debian package.
    """
    # Administrators' folders are not on everybody's PATH.
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise FileNotFoundError(
            f"{program} is not installed (Debian and Ubuntu: apt install {package})"
        )
    return os.path.abspath(path)


def become_nobody() -> list[str]:
    """A command in front of another: without root's user, groups, capabilities.

    Dropping the bounding set too would make setpriv(1) keep its capabilities until the
    other command runs, and find an interpreter whose libraries it then cannot read.
    """
    return [
        find("setpriv", "util-linux"),
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--no-new-privs",
        "--",
    ]

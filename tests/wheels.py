"""Small wheels, and pip without a network."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from dcft_jax.data.archive import Archive


def write_wheel(
    index: Path, package: str, files: Mapping[str, str | bytes], version: str = "1.0"
) -> Archive:
    """Writes a wheel into a folder that `pip_finds` can make pip's only index."""
    name = package.replace("-", "_")
    file = index / f"{name}-{version}-py3-none-any.whl"
    file.parent.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return Archive(package, version, file.name, sha256(file))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pip_finds(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip knows the wheels of a folder and no other."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

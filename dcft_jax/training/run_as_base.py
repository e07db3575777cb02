"""A finished run as the model that another one starts from."""

import hashlib
from pathlib import Path

import jax

from dcft_jax.training.export_run import export_run


def is_run(path: str | Path) -> bool:
    """Whether it is the work directory of a run, and no folder of weights."""
    folder = Path(path)
    return (folder / "checkpoints").is_dir() and not any(folder.glob("*.safetensors"))


def run_as_base(workdir: str | Path, cache_dir: str | Path) -> Path:
    """A folder of HuggingFace files with the model of the run's latest checkpoint.

    Adapters are merged. It is written once and kept in `cache_dir/runs`, so the model
    is still there if the run goes on.

    Raises:
      ValueError, OSError: see `export_run`; or there are several processes, which
        cannot write one folder together.
    """
    folder = Path(cache_dir) / "runs" / _identity(Path(workdir))
    if not folder.is_dir():
        if jax.process_count() > 1:
            raise ValueError(
                f"config.pretrained.path = {str(workdir)!r}: is the work directory of "
                "a run, which one process has to export first: python -m "
                f"dcft_jax.export --workdir {workdir} --to DIR"
            )
        export_run(workdir, folder)
    return folder


def _identity(workdir: Path) -> str:
    """Of the settings and the latest checkpoint: Orbax's manifests name all its data.

    Raises:
      ValueError: there is no checkpoint.
    """
    steps = sorted(
        (p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()),
        key=lambda path: int(path.name),
    )
    if not steps:
        raise ValueError(
            f"config.pretrained.path = {str(workdir)!r}: the run has no checkpoint yet"
        )
    digest = hashlib.blake2b((workdir / "config.json").read_bytes(), digest_size=16)
    digest.update(steps[-1].name.encode())
    for manifest in sorted(steps[-1].rglob("manifest.ocdbt")):
        digest.update(manifest.read_bytes())
    return digest.hexdigest()

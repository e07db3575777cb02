"""Finds the files that a source names."""

import glob
from pathlib import Path


def find_files(pattern: str, field: str) -> list[Path]:
    """Files that match a path or a glob, sorted; `~` is the home directory.

    Args:
        pattern: path or glob, relative to the working directory.
        field: name of the field of the source, for messages.

    Raises:
        FileNotFoundError: nothing matches.
        ValueError: the pattern is no text, or the path of a directory.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"{field}={pattern!r} must be text: a path or a glob")
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]  # a name with brackets in it is no glob
    if path.is_dir():
        raise ValueError(
            f"{field}={pattern!r} is a directory; name its files, e.g. '{pattern}/*'"
        )
    matches = (Path(match) for match in glob.glob(str(path), recursive=True))
    files = sorted(match for match in matches if match.is_file())
    if not files:
        raise FileNotFoundError(
            f"{field}={pattern!r} matches no file (working directory: {Path.cwd()}); "
            "give an absolute path or one relative to the working directory"
        )
    return files

"""A folder of fetched tasks: one JSONL file for each, and a manifest of all."""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dcft_jax.data.archive import fetch_archive, read_members
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.fetch.task import Task

CACHE = ".cache/dcft"  # where tasks and wheels go unless told otherwise
MANIFEST = "manifest.json"

Entry = dict[str, Any]


def write_tasks(
    tasks: Sequence[Task],
    folder: Path,
    archives: Path,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Entry]:
    """Makes the files that are not there whole, and adds them to the manifest.

    Other tasks of the folder stay. Every file and the manifest is replaced whole.

    Args:
        folder: for the JSONL files and the manifest.
        archives: where what is downloaded is kept.
        report: is given a line about every task.

    Returns:
        the manifest: name of the task -> its entry.

    Raises:
        FileNotFoundError: an archive is needed and out of reach.
        ValueError: an archive is not the known one, or does not hold what it should.
    """
    manifest = read_manifest(folder)
    made_from = {task.name: _made_from(task) for task in tasks}
    missing = [
        task for task in tasks if not _is_there(folder, manifest, made_from, task)
    ]
    for task in missing:
        # So that readers know the folder is not whole until there is a file.
        manifest[task.name] = {**made_from[task.name], "rows_sha256": ""}
    if missing:
        _write_manifest(folder, manifest)
    for task in tasks:
        if task not in missing:
            report(f"{task.name}: {task.rows:,} rows, there already")
    for archive in dict.fromkeys(task.archive for task in missing):
        out_of = [task for task in missing if task.archive == archive]
        members = {member for task in out_of for member in task.members}
        contents = read_members(fetch_archive(archive, archives), members)
        for task in out_of:
            content = _content(task, contents)
            atomic_write(folder / f"{task.name}.jsonl", content)
            manifest[task.name]["rows_sha256"] = hashlib.sha256(content).hexdigest()
            _write_manifest(folder, manifest)
            report(f"{task.name}: {task.rows:,} rows")
    return manifest


def _is_there(
    folder: Path, manifest: dict[str, Entry], made_from: dict[str, Entry], task: Task
) -> bool:
    entry = manifest.get(task.name, {})
    return made_from[task.name].items() <= entry.items() and is_whole(folder, entry)


def remove_task(name: str, folder: Path) -> bool:
    """Removes a task that an earlier call has written; False if there is none."""
    manifest = read_manifest(folder)
    path = folder / f"{name}.jsonl"
    there = name in manifest or path.is_file()
    if there:
        path.unlink(missing_ok=True)
        manifest.pop(name, None)
        _write_manifest(folder, manifest)
    return there


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Name of the task -> its entry; without a readable manifest there are none.

    The files are then made again: the manifest is written from what the code knows.
    """
    try:
        tasks = json.loads((folder / MANIFEST).read_text())["tasks"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    if not isinstance(tasks, dict):
        return {}
    return {name: entry for name, entry in tasks.items() if isinstance(entry, dict)}


def is_whole(folder: Path, entry: Entry) -> bool:
    """Whether the file of a task is what was written."""
    path = folder / str(entry.get("file"))
    if not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == entry.get("rows_sha256")


def _write_manifest(folder: Path, manifest: dict[str, Entry]) -> None:
    about = "public test sets: for evaluation, never for training"
    content = {"about": about, "tasks": manifest}
    atomic_write(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def _made_from(task: Task) -> Entry:
    """All that decides the content of a file, and where it comes from."""
    return {
        "file": f"{task.name}.jsonl",
        "rows": task.rows,
        "split": task.split,
        "eval_only": True,
        "licence": task.licence,
        "licence_source": task.licence_source,
        "upstream": task.upstream,
        "note": task.note,
        "package": task.archive.package,
        "version": task.archive.version,
        "archive_sha256": task.archive.sha256,
        "members": list(task.members),
        "converter": _source_hash(task),
    }


def _source_hash(task: Task) -> str:
    """Of the module that makes the rows."""
    module = sys.modules[task.convert.__module__]
    return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()


def _content(task: Task, contents: Mapping[str, bytes]) -> bytes:
    """`contents`: at least the members of the task."""
    rows: dict[str, str] = {}
    for member in task.members:
        place = f"{task.archive.file}, {member}"
        for where, doc in task.read(contents[member], place):
            try:
                row = task.convert(doc, member)
            except KeyError as error:
                raise ValueError(f"{where}: there is no field {error}") from error
            except (ValueError, TypeError, AttributeError, SyntaxError) as error:
                raise ValueError(f"{where}: {error}") from error
            if row is not None:
                _add(rows, {"task": task.name, **row}, where)
    if len(rows) != task.rows:
        raise ValueError(
            f"{task.archive.file}: {task.name} has {len(rows):,} rows there, not "
            f"{task.rows:,}"
        )
    return "".join(f"{line}\n" for line in rows.values()).encode()


def _add(rows: dict[str, str], row: dict[str, Any], where: str) -> None:
    """Once: files of multiple choice repeat a document for every choice."""
    row["metadata"] = {**row.get("metadata", {}), "eval_only": True}
    line = json.dumps(row, ensure_ascii=False)
    if rows.setdefault(row["id"], line) != line:
        raise ValueError(f"{where}: another document with the id {row['id']!r}")

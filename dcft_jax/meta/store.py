"""The SQLite file under the experience store: opened, written to, merged and copied.

One SQLite file and not Parquet: several processes append to it at once under the locks
of SQLite, a process that dies in the middle of a record leaves no trace of it, and
stores are merged by primary key; a folder of Parquet files would need all three written
anew. The rollback journal is used, not the write-ahead log, whose shared memory does
not work on network file systems (sqlite.org/wal.html).
"""

import contextlib
import gzip
import os
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from dcft_jax.data.atomic_write import atomic_write

SCHEMA_VERSION = 1
BUSY_S = 60.0  # how long a writer waits for the others
ATTEMPTS = 5

_SCHEMA = """
CREATE TABLE models (
  id BLOB PRIMARY KEY, world TEXT NOT NULL, source TEXT NOT NULL,
  abilities TEXT NOT NULL, weights TEXT NOT NULL, weight_path TEXT NOT NULL,
  budget INTEGER NOT NULL, parameters INTEGER NOT NULL, seed INTEGER NOT NULL,
  config_hash TEXT NOT NULL, versions TEXT NOT NULL, created TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX models_world ON models (world);
CREATE TABLE outcomes (
  model_id BLOB NOT NULL, task TEXT NOT NULL, category TEXT NOT NULL,
  loss_before REAL, loss REAL, accuracy_before REAL, accuracy REAL,
  count INTEGER NOT NULL, PRIMARY KEY (model_id, task)
) WITHOUT ROWID;
CREATE TABLE embeddings (
  world TEXT NOT NULL, task TEXT NOT NULL, num_abilities INTEGER NOT NULL,
  task_G BLOB NOT NULL, ability_KF BLOB NOT NULL, pair_KKP BLOB NOT NULL,
  size_K BLOB NOT NULL, PRIMARY KEY (world, task)
) WITHOUT ROWID;
"""
_TABLES = ("models", "outcomes", "embeddings")


def open_store(path: str | os.PathLike) -> sqlite3.Connection:
    """Opens a store; makes one where there is no file.

    Raises:
      ValueError: the file is no database, is another one, or has another schema.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        if not _is_ready(store, path):
            with transaction(store):
                if not _is_ready(store, path):
                    _create(store)
    except sqlite3.DatabaseError as error:
        store.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise ValueError(f"{path} is no experience store: {error}") from error
    except ValueError:
        store.close()
        raise
    return store


def _is_ready(store: sqlite3.Connection, path: Path) -> bool:
    """False: the file is new."""
    # One statement: another process may be creating the tables.
    query = "SELECT user_version, name FROM pragma_user_version LEFT JOIN sqlite_master"
    found = store.execute(query).fetchall()
    version, names = found[0][0], {name for _, name in found if name is not None}
    if version == 0 and not names:
        return False
    if version == 0 or not names.issuperset(_TABLES):
        raise ValueError(
            f"{path} is a database, but no experience store: it has the tables "
            f"{sorted(names)}; give another path"
        )
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}, this version of dcft_jax reads "
            f"{SCHEMA_VERSION}; use the version that wrote it, or another path"
        )
    return True


def _create(store: sqlite3.Connection) -> None:
    for statement in filter(str.strip, _SCHEMA.split(";")):
        store.execute(statement)
    store.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextlib.contextmanager
def transaction(store: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; the write lock is taken at once, so nothing is read in vain."""
    for attempt in range(ATTEMPTS):
        try:
            store.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
            )
            if not busy or attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.05 * 2**attempt)
    try:
        yield
        store.execute("COMMIT")
    except BaseException:
        if store.in_transaction:  # a full disk ends it by itself
            store.execute("ROLLBACK")
        raise


def insert(store: sqlite3.Connection, table: str, rows: Sequence[tuple]) -> None:
    marks = ", ".join("?" * len(rows[0]))
    store.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)


def merge(into: sqlite3.Connection, paths: Sequence[str | os.PathLike]) -> None:
    """Adds what other stores hold, also exported ones (.gz); what is there stays.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file is no experience store of this schema version.
    """
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such experience store")
        with _unpacked(path) as file:
            open_store(file).close()
            into.execute("ATTACH DATABASE ? AS other", (str(file),))
            try:
                with transaction(into):
                    for table in _TABLES:
                        into.execute(
                            f"INSERT OR IGNORE INTO main.{table} "
                            f"SELECT * FROM other.{table}"
                        )
            finally:
                into.execute("DETACH DATABASE other")


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    if path.suffix != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.stem
        try:
            file.write_bytes(gzip.decompress(path.read_bytes()))
        except (gzip.BadGzipFile, EOFError) as error:
            raise ValueError(f"{path} is no experience store: {error}") from error
        yield file


def export(store: sqlite3.Connection, path: str | os.PathLike) -> None:
    """Writes a copy without free pages, packed if `path` ends in .gz; whole or not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        store.execute("VACUUM INTO ?", (str(partial),))
        content = partial.read_bytes()
    finally:
        partial.unlink(missing_ok=True)
    packed = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
    atomic_write(path, packed)

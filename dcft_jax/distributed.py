"""Several processes as one program: how they find each other, and what they agree on.

Every process runs the same command and does the same in the same order. What only one
may do, such as writing a file that all read, the first does.
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

# What one process tells the others outside of collectives, from any thread: Jax has
# no public name for it.
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

# Name -> type and help; the same on every command that several processes may run.
OPTIONS: dict[str, tuple[type, str]] = {
    "coordinator_address": (str, "host:port of the first process, which listens there"),
    "num_processes": (int, "how many there are; 1: this one alone, whatever is found"),
    "process_id": (int, "number of this one, from 0"),
    "heartbeat_timeout_seconds": (int, "silence after which a process counts as dead"),
}
# Jax's own; a process that compiles or saves is not silent, another thread speaks.
HEARTBEAT_TIMEOUT_S = 100
_WAIT_S = 7 * 24 * 3600  # what is waited for may be data preparation
_barriers = itertools.count()


def add_options(parser: argparse.ArgumentParser) -> None:
    """`OPTIONS`, for commands that parse with argparse; see `start_from`."""
    group = parser.add_argument_group("several processes")
    for name, (kind, what) in OPTIONS.items():
        group.add_argument(f"--{name}", type=kind, help=what)


def start_from(args: argparse.Namespace) -> None:
    """`start` with the options that `add_options` added."""
    start(**{name: getattr(args, name) for name in OPTIONS})


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_timeout_seconds: int | None = None,
) -> None:
    """Joins the other processes, if there are any; before devices are asked for.

    Without arguments they are found on Cloud TPU, under SLURM and Open MPI and in
    Kubernetes jobs; elsewhere this process is alone.

    Raises:
      ValueError: an option is missing or out of range.
      RuntimeError: the others were not found.
    """
    if num_processes == 1 or jax.distributed.is_initialized():
        return
    heartbeat_s = heartbeat_timeout_seconds or HEARTBEAT_TIMEOUT_S
    given = (coordinator_address, num_processes, process_id)
    if any(value is not None for value in given):
        _check_options(*given)
        # Jax would ask the cluster all the same, which may be another's.
        found = dict(zip(OPTIONS, given, strict=False))
        found["cluster_detection_method"] = "deactivate"
        _initialize(heartbeat_timeout_seconds=heartbeat_s, **found)
    else:
        _initialize_if_found(heartbeat_s)
    if jax.distributed.is_initialized():
        # Collectives of several programs in flight could meet in different orders.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        if jax.default_backend() == "cpu":
            # A program from the cache starts its collectives in another order than the
            # same program compiled (jaxlib 0.10.2), and JAX lets only the first process
            # have one: each then waits in another collective, for ever.
            jax.config.update("jax_enable_compilation_cache", False)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


@contextlib.contextmanager
def first_goes_first(wait: bool = True) -> Iterator[None]:
    """The body runs on the first process, then on the others: they find what it wrote.

    Args:
      wait: False: on all at once, as a body must that computes on the devices.
    """
    several = wait and jax.process_count() > 1
    if several and not is_first():
        meet()
    yield
    if several and is_first():
        meet()


def check_same(what: str, *values: object) -> None:
    """Raises RuntimeError, on all processes, unless they have the same values.

    Args:
      what: for the message.
      values: arrays, or what has a `repr` that tells it.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        is_array = isinstance(value, np.ndarray)
        digest.update(value.tobytes() if is_array else repr(value).encode())
    meet()  # Gloo waits 30 s for those who are late to its first collective
    mine = np.frombuffer(digest.digest(), np.uint32)
    all_PD = np.asarray(multihost_utils.process_allgather(mine))
    others = np.flatnonzero((all_PD != all_PD[0]).any(axis=1)).tolist()
    if others:
        raise RuntimeError(
            f"{what}: processes {others} differ from process 0. All must be started "
            "with the same command and version, on the same data"
        )


def of_all(value: int) -> list[int]:
    """The value of every process. All call it, in their main threads."""
    if jax.process_count() == 1:
        return [value]
    meet()
    return multihost_utils.process_allgather(np.int32(value)).tolist()


def meet() -> None:
    """Until all processes are here. All call it, in their main threads."""
    if jax.process_count() > 1:
        wait_for_all(f"dcft_jax.{next(_barriers)}")


def words_of_all(text: str) -> list[str]:
    """What every process says. All call it, in their main threads."""
    if jax.process_count() == 1:
        return [text]
    topic = f"words/{next(_barriers)}"
    tell(topic, text)
    texts = told(topic)
    meet()
    forget(topic)
    return texts


def tell(topic: str, text: str) -> None:
    """Says something once, for `told`; from any thread. There are several processes."""
    _client().key_value_set(_key(topic, jax.process_index()), text)


def told(topic: str) -> list[str]:
    """What every process says about a topic; waits for all of them."""
    return [
        _client().blocking_key_value_get(_key(topic, index), _WAIT_S * 1000)
        for index in range(jax.process_count())
    ]


def forget(topic: str) -> None:
    """Takes back what this process said, once nobody asks any more."""
    _client().key_value_delete(_key(topic, jax.process_index()))


def wait_for_all(key: str) -> None:
    """Until all processes are here; from any thread. Not a collective of the devices,
    whose patience is short.
    """
    multihost.get_barrier_sync_fn()(key=key, timeout_ms=_WAIT_S * 1000)


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Ends this process at once if the body fails: others must not wait for it.

    An orderly exit would wait for them, and they for a result of this one.
    """
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized() or not _code(error):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
            print(
                f"Process {jax.process_index()} ends. If another ended before, the "
                "reason is in the output of that one. Start all of them again with "
                "the same command: a run goes on from its last checkpoint.",
                file=sys.stderr,
            )
        elif isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_code(error))


def _code(error: BaseException) -> int:
    """What the process would exit with."""
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else int(bool(error.code))


def _client() -> Any:
    return jax_distributed.global_state.client


def _key(topic: str, process: int) -> str:
    return f"dcft_jax/{topic}/{process}"


def _initialize_if_found(heartbeat_s: int) -> None:
    try:
        _initialize(heartbeat_timeout_seconds=heartbeat_s)
    except ValueError as error:
        # What jax says where it knows no cluster.
        if "coordinator_address" not in str(error):
            raise


def _initialize(**options) -> None:
    try:
        jax.distributed.initialize(**options)
    except RuntimeError as error:
        # A notebook, or another caller that has used devices, is alone with them.
        if "before any JAX calls" in " ".join(str(error).split()):
            return
        raise RuntimeError(
            f"the processes did not find each other: {error}\nGive "
            "--coordinator_address, --num_processes and --process_id, or "
            "--num_processes=1 for this process alone"
        ) from error


def _check_options(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    given = dict(
        coordinator_address=coordinator_address,
        num_processes=num_processes,
        process_id=process_id,
    )
    for name, value in given.items():
        if value is None:
            raise ValueError(
                f"--{name}: is missing; give {', '.join(f'--{n}' for n in given)}, or "
                "none of them where processes are found (Cloud TPU, SLURM, Kubernetes)"
            )
    assert coordinator_address and num_processes is not None and process_id is not None
    host, _, port = coordinator_address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(
            f"--coordinator_address {coordinator_address!r}: must be host:port, such "
            "as 10.0.0.1:8476"
        )
    if num_processes < 1:
        raise ValueError(f"--num_processes {num_processes}: must be at least 1")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id {process_id}: must be in [0, --num_processes "
            f"{num_processes})"
        )

"""A checkpoint of several processes is saved by all of them, or by none.

Every process writes its shards, and Orbax commits them when all have. Where one fails,
Orbax lets the others wait for it for 20 minutes and then fail in their turn. So they
wait here: who reaches a stage of the save says so, who fails says that, and all have
their error at once.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import jax
from orbax.checkpoint import options as orbax_options
from orbax.checkpoint import v1 as ocp

from dcft_jax import distributed

STATE = "state"
_SHARDS = "shards"
# The other two are in the names that Orbax gives its barriers.
_STAGES = (_SHARDS, "async_write_complete", "async_commit_complete")
_DONE, _FAILED = "done", "failed"


class ElsewhereError(OSError):
    """Another process could not do its part of a save; its own error says why."""


class Save:
    """One save: how far this process is, and the others."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self.writing: Sequence[Any] = ()  # futures of shards

    def reach(self, stage: str) -> None:
        """Waits until all processes are there.

        Raises:
          ElsewhereError: one will never be.
        """
        self._say(stage, _DONE)
        texts = distributed.told(self._topic(stage))
        failed = [index for index, text in enumerate(texts) if text != _DONE]
        if failed:
            raise ElsewhereError(f"processes {failed} could not save")

    def fail(self) -> None:
        """This process will reach no other stage."""
        for stage in _STAGES:
            self._say(stage, _FAILED)

    def forget(self) -> None:
        for stage in self._said:
            distributed.forget(self._topic(stage))

    def _say(self, stage: str, text: str) -> None:
        with self._lock:
            if stage not in self._said:
                self._said.add(stage)
                distributed.tell(self._topic(stage), text)

    def _topic(self, stage: str) -> str:
        return f"save/{self._number}/{stage}"


class Saves:
    """The saves of one `Checkpointer`, one after the other."""

    _numbers = itertools.count()  # all processes save the same in the same order
    latest: Save | None = None

    def __init__(self) -> None:
        self._now: Save | None = None
        self._before: Save | None = None

    def __deepcopy__(self, memo: dict) -> "Saves":
        return self  # Orbax copies its options, and `barrier` with them

    def begin(self) -> Save:
        self._now = Saves.latest = Save(next(self._numbers))
        return self._now

    def barrier(self, *, key: str, timeout_ms: int) -> None:
        """Where Orbax waits for the other processes, in the threads of a save."""
        del timeout_ms  # others may be at work for as long as Orbax waits for them
        stage = next((stage for stage in _STAGES if stage in key), None)
        if stage is not None and self._now is not None:
            return self._now.reach(stage)
        # Orbax begins and ends a save with such a barrier, also one that failed.
        if self._now is not None:
            self._now.fail()
        distributed.wait_for_all(key)
        if self._now is not None:
            # Nobody asks any more what became of the one before.
            if self._before is not None:
                self._before.forget()
            self._before, self._now = self._now, None


def settle() -> None:
    """Waits until no thread of a save that failed writes shards any more."""
    for future in Saves.latest.writing if Saves.latest else ():
        with contextlib.suppress(Exception):  # the save itself has raised it
            future.result()


def make_context() -> ocp.Context | None:
    """For a `Checkpointer` and, active, for its saves; None: there is one process."""
    if jax.process_count() == 1:
        return None
    saves = Saves()
    context = ocp.Context()
    # Passed to its constructor, options make Orbax log a warning.
    context._async_options = _AsyncOptions(saves.barrier)
    registry = ocp.handlers.local_registry(include_global_registry=False)
    for handler, name in ocp.handlers.global_registry().get_all_entries():
        if name != STATE:
            registry.add(handler, checkpointable_name=name)
    registry.add(_make_handler(saves), checkpointable_name=STATE)
    context.checkpointables.registry = registry
    return context


class _AsyncOptions(ocp.options.AsyncOptions):
    """With the barrier that only Orbax's older options have."""

    def __init__(self, barrier: Callable[..., None]) -> None:
        super().__init__()
        self._barrier = barrier

    def v0(self) -> orbax_options.AsyncOptions:
        options = super().v0()
        options.barrier_sync_fn = self._barrier
        return options


def _make_handler(saves: Saves) -> type[ocp.handlers.CheckpointableHandler]:
    """Orbax makes one object of a handler per save, without arguments."""

    class StateHandler:
        """Writes as Orbax does, but waits for the others as `Save` does."""

        def __init__(self) -> None:
            alone = ocp.Context()
            # Else it waits by itself, and the first merges the shards after that.
            alone.multiprocessing.active_processes = {ocp.multihost.process_index()}
            self._orbax = ocp.handlers.PyTreeHandler(context=alone)

        async def save(self, directory: Any, checkpointable: Any) -> Awaitable[None]:
            save = saves.begin()
            writing: Any = await self._orbax.save(directory, checkpointable)
            save.writing = writing.commit_futures
            return self._finish(save, writing)

        async def _finish(self, save: Save, writing: Any) -> None:
            try:
                for future in writing.commit_futures:
                    await asyncio.to_thread(future.result)
            except BaseException:
                await asyncio.to_thread(save.fail)
                raise
            await asyncio.to_thread(save.reach, _SHARDS)
            await writing  # the first process merges the shards of all

        async def load(
            self, directory: Any, abstract_checkpointable: Any = None
        ) -> Awaitable[Any]:
            return await self._orbax.load(directory, abstract_checkpointable)

        async def metadata(self, directory: Any) -> Any:
            return await self._orbax.metadata(directory)

        def is_handleable(self, checkpointable: Any) -> bool:
            return self._orbax.is_handleable(checkpointable)

        def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
            return self._orbax.is_abstract_handleable(abstract_checkpointable)

    # Checkpoints name who wrote them, and Orbax warns of a name that it does not know.
    StateHandler.__module__ = ocp.handlers.PyTreeHandler.__module__
    StateHandler.__qualname__ = ocp.handlers.PyTreeHandler.__qualname__
    return StateHandler

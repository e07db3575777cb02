"""The suites that can be fetched, by name."""

from dcft_jax.data.fetch.offline import OFFLINE
from dcft_jax.data.fetch.task import Task
from dcft_jax.data.fetch.unseen import UNSEEN

FETCHED: dict[str, tuple[Task, ...]] = {"offline": OFFLINE, "unseen": UNSEEN}

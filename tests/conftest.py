"""Eight fake CPU devices for every test, and a run small enough to train in one."""

import atexit
import gc
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from configs import base

# Nearly all of the time of these tests is compilation: a third of it is left without
# optimisation and with XLA's older emitters. The flags are read when the first device
# is asked for; programs that tests start have them too. Tests of long loops turn
# optimisation on again (tests/compiling.py).
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
    ]
)
jax.config.update("jax_num_cpu_devices", 8)

# Many tests compile the same programs, in several processes: compiled once, for the
# time of this call.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
if _CACHE not in os.environ:
    os.environ[_CACHE] = tempfile.mkdtemp(prefix="dcft-jax-compiled-")
    atexit.register(shutil.rmtree, os.environ[_CACHE], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that all workers end at the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    number = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -number[item.path], item.path))


@pytest.fixture(scope="module", autouse=True)
def _few_programs() -> Iterator[None]:
    """Lets go of compiled programs when there are many.

    Every one of them maps some pages, and Linux allows a process 65,530 maps: the
    compiler dies at the next one.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


def _tasks() -> dict[str, Callable[[random.Random], tuple[str, str]]]:
    def add(rng: random.Random) -> tuple[str, str]:
        a, b = rng.randrange(1000), rng.randrange(1000)
        return f"{a} + {b}", str(a + b)

    def code(rng: random.Random) -> tuple[str, str]:
        name, n = rng.choice("abcdefgh"), rng.randrange(10_000)
        return f"add {n} to {name}", f"return {name} + {n}"

    def words(rng: random.Random) -> tuple[str, str]:
        picked = ["".join(rng.choices("abcdef", k=3)) for _ in range(3)]
        return f"reverse: {' '.join(picked)}", " ".join(reversed(picked))

    return {"maths": add, "code": code, "general": words}


@pytest.fixture(scope="session")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One JSONL file of 400 prompts and replies for each of three abilities."""
    folder = tmp_path_factory.mktemp("tasks")
    files = {}
    for name, task in _tasks().items():
        rng = random.Random(name)
        rows = [task(rng) for _ in range(400)]
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text(
            "".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows)
        )
    return files


def make_tiny_config(task_files: dict[str, Path], cache_dir: Path) -> ConfigDict:
    """Three abilities, a 2-layer decoder, 6 steps; every part of the loop runs."""
    config = base.get_config()
    for name, path in task_files.items():
        source = dict(kind="jsonl", path=str(path), single_reference=True)
        config.abilities[name] = base.ability({"rows": source}, mix_val=24, test=24)
    config.run.update(num_steps=6, eval_every=2, save_every=2, log_every=2)
    config.data.update(
        seq_len=64, num_slots=4, rows_per_slot=2, cache_dir=str(cache_dir)
    )
    config.tokenizer.vocab_size = 320
    config.model.update(
        num_layers=2, width=32, hidden=64, num_heads=4, num_kv_heads=2, head_dim=8
    )
    config.model.compute_dtype = "float32"
    config.optimizer.update(learning_rate=3e-3, warmup_steps=1)
    config.logging.tensorboard = False
    return config


@pytest.fixture
def tiny_config(task_files: dict[str, Path], tmp_path: Path) -> ConfigDict:
    return make_tiny_config(task_files, tmp_path / "cache")

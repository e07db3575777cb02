"""One plan of a small config, compiled once for eight fake CPU devices."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base
from dcft_jax.planning import Plan, make_plan


def small_config() -> ConfigDict:
    """Two abilities whose data do not exist, on a mesh of eight."""
    config = base.get_config()
    config.abilities.update(base.from_jsonl("maths", "code"))
    config.data.update(seq_len=32, num_slots=2, rows_per_slot=4)
    config.tokenizer.vocab_size = 512
    config.model.update(num_layers=3, width=32, hidden=64, num_heads=4, head_dim=8)
    config.model.update(remat="full")
    config.mesh.update(ability=2, data=2, model=2)
    return config


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    assert not Path("data/maths.jsonl").exists()
    return make_plan(small_config())

"""Programs compiled for TPUs that are not there."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

SMALL = {
    "pretrained.path": "",
    "pretrained.settings": "",
    "model.logits_chunk": 0,
    "model.num_layers": 2,
    "model.width": 256,
    "model.hidden": 512,
    "model.num_heads": 4,
    "model.num_kv_heads": 4,
    "data.seq_len": 128,
    "data.num_slots": 4,
    "data.rows_per_slot": 4,
    "tokenizer.vocab_size": 512,
    "mesh.ability": 2,
    "mesh.data": -1,
    "mesh.model": 1,
}


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install dcft-jax[tpu]",
)
@pytest.mark.parametrize(
    ("topology", "kind", "capacity", "fields"),
    [
        ("v4:2x2x2", "TPU v4", 32, {}),
        ("v5e:2x4", "TPU v5 lite", 16, {}),
        ("2*v4:2x2x1", "TPU v4", 32, {"mesh.slice": 2}),
    ],
)
def test_plan_for_a_tpu(topology: str, kind: str, capacity: int, fields):
    fields = SMALL | fields
    result = subprocess.run(
        [
            *(sys.executable, "-m", "dcft_jax.plan", "--config", "configs/tpu_v4.py"),
            *("--topology", topology, "--json"),
            *(f"--config.{field}={value}" for field, value in fields.items()),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["device_kind"], found["num_chips"]) == (kind, 8)
    assert found["hbm_capacity_gib"] == capacity and found["fits"]
    assert 0 < found["hbm_gib_per_chip"] < 1
    assert 0 < found["mfu_estimate"] < 1
    # The loop over the layers has no trip count in this compiler's text.
    gathered = found["trained_parameters"] * 2
    moved = found["collective_bytes"]
    assert moved["all-gather"]["data"] > gathered
    if fields.get("mesh.slice"):
        # Of the gradients of a chip's two slots, the half that it keeps; once.
        kept = found["trained_parameters"] * 2 / 2
        assert kept * 2 <= moved["all-reduce"]["slice"] < 1.5 * kept * 2
        assert not any("+slice" in axes for axes in moved["all-reduce"])
        assert found["step_seconds_by_resource"]["dcn"] > 0

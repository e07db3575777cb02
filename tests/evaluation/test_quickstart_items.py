"""The test split of the quickstart: its own references are judged right."""

import pytest
from ml_collections import ConfigDict

from configs import quickstart
from dcft_jax.config import to_plain
from dcft_jax.evaluate import test_items as read_test_items
from dcft_jax.evaluation.judge import judge
from dcft_jax.evaluation.sandbox import choose_backend


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigDict:
    for package in ("reasoning_gym", "chatterbot_corpus", "toolz"):
        pytest.importorskip(package)
    config = quickstart.get_config()
    config.data.cache_dir = str(tmp_path_factory.mktemp("cache"))
    return config


@pytest.mark.slow
def test_references_are_right_and_repeated_prompts_are_not(config: ConfigDict):
    execution = choose_backend(allow_weak=True)
    tasks = read_test_items(to_plain(config))
    assert list(tasks) == ["maths", "code", "general"]
    for name, items in tasks.items():
        items = [item for item in items if item.kind != "reference"]
        assert len(items) > 240
        if name == "code":
            if execution.sandbox is None:
                continue
            sources = [item.metadata["source"] for item in items]
            assert len(set(sources)) == 2, set(sources)
            library = [i for i in items if i.metadata["source"] != sources[-1]]
            items = [*library[:20], *items[-20:]]
        replies = [[item.reference, item.prompt] for item in items]
        judged = judge(items, replies, execution)
        assert all(one is not None and one[0].correct for one in judged)
        repeated = sum(one is not None and bool(one[1].correct) for one in judged)
        # The last number of "Calculate 0 + 0." is the sum.
        assert repeated <= (0.05 * len(items) if name == "maths" else 0)

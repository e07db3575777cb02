"""Difficulty tiers: who is in which, what is packed, and what stays as it was."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from configs import base
from dcft_jax.data.difficulty import assign, cut_points
from dcft_jax.data.example import Example
from dcft_jax.data.example_losses import LossScorer, example_losses
from dcft_jax.data.packing import pack_examples
from dcft_jax.data.prepare import prepare
from dcft_jax.data.sentencepiece_tokenizer import train_tokenizer
from dcft_jax.data.splits import load_ability
from dcft_jax.data.streams import ability_seed, make_stream, tier_streams
from dcft_jax.data.tiers import plan_tiers

# ------------------------------------------------------------------- cuts

FEW_VALUES = st.lists(st.integers(-3, 5), min_size=1, max_size=60)
MANY_VALUES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60)


@settings(deadline=None)
@given(FEW_VALUES | MANY_VALUES, st.integers(1, 7), st.randoms())
def test_tiers_partition_the_examples_by_difficulty(values, count, random):
    difficulty = np.array(values, np.float64)
    cuts = cut_points(difficulty, count)
    tier = assign(difficulty, cuts)
    num_tiers = min(count, len(set(values)))
    assert sorted(set(tier)) == list(range(num_tiers))
    for low in range(num_tiers - 1):
        assert difficulty[tier == low].max() < difficulty[tier == low + 1].min()
    # Where an example stands among the others does not matter.
    order = list(range(len(values)))
    random.shuffle(order)
    moved = assign(difficulty[order], cut_points(difficulty[order], count))
    np.testing.assert_array_equal(moved, tier[order])


@given(st.integers(1, 200), st.integers(1, 9))
def test_different_values_are_cut_into_equal_parts(size, count):
    difficulty = np.random.default_rng(size).permutation(size).astype(float)
    sizes = np.bincount(assign(difficulty, cut_points(difficulty, count)))
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("sizes", [(437, 894, 1131, 1214, 1324), (1, 1, 500), (9, 1)])
def test_as_many_levels_as_tiers_are_the_tiers(sizes):
    difficulty = np.repeat(np.arange(len(sizes)), sizes)
    cuts = cut_points(difficulty, len(sizes))
    np.testing.assert_array_equal(assign(difficulty, cuts), difficulty)


def test_neighbouring_levels_are_joined_where_that_is_most_even():
    difficulty = np.repeat([1, 2, 3, 4, 5], [10, 10, 20, 18, 2])
    cuts = cut_points(difficulty, 3)
    np.testing.assert_array_equal(cuts, [3, 4])


def test_mix_val_is_cut_where_train_is():
    plan = plan_tiers(np.array([1.0, 2.0, 3.0, 4.0]), np.array([-7.0, 2.4, 3.0, 99]), 2)
    np.testing.assert_array_equal(plan.cuts, [3.0])
    np.testing.assert_array_equal(plan.train_tier_N, [0, 0, 1, 1])
    np.testing.assert_array_equal(plan.mix_val_tier_N, [0, 0, 1, 1])
    assert plan.mix_val_tier_N.dtype == plan.train_tier_N.dtype == np.int8
    assert plan.ranges == ((1.0, 2.0), (3.0, 4.0))


# ------------------------------------------------------------------- rows


def write_rows(path, num_rows=120):
    with path.open("w") as file:
        for i in range(num_rows):
            reply = " ".join([f"{i}"] * (1 + i % 6))
            row = dict(prompt=f"say {i} again", response=reply, grade=i % 6)
            file.write(json.dumps(row) + "\n")


@pytest.fixture
def config(tmp_path):
    write_rows(tmp_path / "a.jsonl")
    source = dict(
        kind="jsonl", path=str(tmp_path / "a.jsonl"), difficulty_field="grade"
    )
    config = base.get_config()
    for name in ("math", "code"):
        config.abilities[name] = base.ability(dict(a=source), mix_val=20, test=20)
    config.abilities.code.sources.a.path = str(tmp_path / "b.jsonl")
    write_rows(tmp_path / "b.jsonl", 90)
    # Distinct prompts: what one ability holds out the other must not train on.
    text = (tmp_path / "b.jsonl").read_text().replace("say", "tell")
    (tmp_path / "b.jsonl").write_text(text)
    config.data.update(seq_len=64, decontamination_ngram=0)
    config.data.cache_dir = str(tmp_path / "cache")
    config.tokenizer.vocab_size = 300
    return config


def with_tiers(config, by, count=3):
    """The config itself, changed: copies do not keep the order of the abilities."""
    config.abilities.math.tiers = ConfigDict(dict(by=by, count=count))
    return config


def text_of(tokenizer, rows):
    return tokenizer.decode(rows.tokens_NL[rows.segments_NL > 0])


def test_by_level_every_train_example_is_in_the_row_of_its_tier(config):
    prepared = prepare(with_tiers(config, "level"))
    data = load_ability("math", config.abilities.math, config.data)
    tiers = prepared.tiers["math"]
    assert len(tiers) == 3 and set(prepared.rows["math"]) == {"mix_val", "test"}
    found = np.concatenate([r.example_NM[r.example_NM >= 0] for r in tiers.train])
    assert sorted(found) == list(range(len(data.train)))
    for tier, rows in enumerate(tiers.train):
        members = rows.example_NM[rows.example_NM >= 0]
        assert {data.train[i].metadata["difficulty"] for i in members} == {
            2 * tier,
            2 * tier + 1,
        }
        text = text_of(prepared.tokenizer, rows)
        assert all(data.train[i].messages[0][1] in text for i in members)
    grades = np.array([row.metadata["difficulty"] for row in data.mix_val])
    np.testing.assert_array_equal(tiers.plan.mix_val_tier_N, grades // 2)


def test_by_length_replies_grow_from_tier_to_tier(config):
    prepared = prepare(with_tiers(config, "length", count=4))
    means = [
        rows.num_response_tokens / rows.num_examples
        for rows in prepared.tiers["math"].train
    ]
    assert len(means) == 4 and means == sorted(means)
    (low, high), *_ = prepared.tiers["math"].plan.ranges
    assert low < high  # tokens, not the grade


def answer_is_hard(examples, tokenizer):
    return np.array([int(e.prompt[0][1].split()[1]) % 10 for e in examples], float)


def test_by_loss_the_scorer_decides_and_is_asked_once(config):
    calls = []

    def loss(examples, tokenizer):
        calls.append(len(examples))
        return answer_is_hard(examples, tokenizer)

    scorer = LossScorer("one", loss)
    prepared = prepare(with_tiers(config, "loss"), scorer=scorer)
    data = load_ability("math", config.abilities.math, config.data)
    assert calls == [len(data.train), len(data.mix_val)]
    expected = assign(
        answer_is_hard(data.train, None), prepared.tiers["math"].plan.cuts
    )
    np.testing.assert_array_equal(prepared.tiers["math"].plan.train_tier_N, expected)
    again = prepare(with_tiers(config, "loss"), scorer=scorer)
    assert len(calls) == 2 and again.content_hash == prepared.content_hash
    prepare(with_tiers(config, "loss"), scorer=LossScorer("other", loss))
    assert len(calls) == 4


def test_by_loss_without_a_model_and_levels_without_a_field_are_refused(config):
    with pytest.raises(ValueError, match=r"math.tiers.by='loss' needs a model"):
        prepare(with_tiers(config, "loss"))
    config.abilities.math.sources.a.difficulty_field = ""
    message = r"source 'a' says of an example not .*math.sources.a.difficulty for all"
    with pytest.raises(ValueError, match=message):
        prepare(with_tiers(config, "level"))


def same_rows(one, other):
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("by", "count"), [("none", 3), ("length", 1), ("level", 1)])
def test_one_tier_changes_nothing(config, by, count):
    plain = prepare(config)
    prepared = prepare(with_tiers(config, by, count))
    assert prepared.content_hash == plain.content_hash
    data = load_ability("math", config.abilities.math, config.data)
    seed = ability_seed(config.data.seed, "math")
    order_N = np.random.default_rng(seed).permutation(len(data.train))
    rows = pack_examples(data.train, plain.tokenizer, config.data.seq_len, order_N)
    same_rows(prepared.rows["math"]["train"], rows)
    (tier,) = prepared.tiers["math"].train
    same_rows(tier, rows)
    (stream,) = tier_streams(prepared.tiers["math"].train, config.data.seed, "math")
    expected = make_stream(rows, seed)
    for index in (0, 1, 17, len(rows), 10**12):
        for name, value in expected[index].items():
            np.testing.assert_array_equal(stream[index][name], value)


def test_tiers_of_one_ability_leave_the_other_alone(config):
    plain, tiered = prepare(config), prepare(with_tiers(config, "level"))
    assert tiered.content_hash != plain.content_hash
    same_rows(tiered.rows["code"]["train"], plain.rows["code"]["train"])
    for split in ("mix_val", "test"):
        same_rows(tiered.rows["math"][split], plain.rows["math"][split])


def test_streams_of_tiers_have_orders_of_their_own(config):
    train = prepare(config).tiers["code"].train
    rows = train[0]
    orders = set()
    for stream in [
        *tier_streams([rows], 0, "code"),
        *tier_streams([rows, rows, rows], 0, "code"),
        *tier_streams([rows, rows], 0, "math"),
    ]:
        items = [stream[i]["tokens"].tobytes() for i in range(len(rows))]
        assert sorted(items) == sorted(row.tobytes() for row in rows.tokens_NL)
        orders.add(tuple(items))
    assert len(orders) == 6


def test_the_report_shows_the_tiers_and_what_was_merged(config):
    report = prepare(with_tiers(config, "level")).reports["math"]
    assert report.tiers_by == "level" and len(report.tiers) == 3
    assert sum(tier.examples for tier in report.tiers) == report.total("train") == 80
    assert sum(tier.mix_val for tier in report.tiers) == 20
    lines = report.lines()
    assert "  3 tiers by level" in lines
    (line,) = [line for line in lines if line.startswith("    1: 2 to 3: ")]
    assert "examples in" in line and "response tokens, mean length" in line
    merged = prepare(with_tiers(config, "level", 9)).reports["math"].lines()
    assert any("6 tiers by level instead of 9" in line for line in merged)
    config.abilities.math.sources.a.difficulty = 1
    single = prepare(with_tiers(config, "level")).reports["math"].lines()
    assert any("1 tier by level instead of 3" in line for line in single)
    plain = prepare(with_tiers(config, "none")).reports["math"].lines()
    assert not any("tier" in line for line in plain)


# ----------------------------------------------------------------- losses


def test_losses_are_kept_by_content_and_identity(tmp_path):
    tokenizer = train_tokenizer(["yes no? ab"], 275, tmp_path / "t.model")
    examples = [
        Example((("user", f"{i}?"), ("assistant", "yes")), "s") for i in range(3)
    ]
    calls = []

    def loss(examples, tokenizer):
        calls.append(examples)
        return np.arange(len(examples)) + 0.5

    def losses(examples, identity="a"):
        return example_losses(LossScorer(identity, loss), examples, tokenizer, tmp_path)

    np.testing.assert_array_equal(losses(examples), [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(losses(list(examples)), [0.5, 1.5, 2.5])
    assert len(calls) == 1
    losses(examples, "b")
    losses(examples[:2])
    changed = dataclasses.replace(
        examples[0], messages=(("user", "0?"), ("assistant", "no"))
    )
    losses([changed, *examples[1:]])
    assert len(calls) == 4
    assert not [path for path in (tmp_path / "losses").iterdir() if path.name[0] == "."]


@pytest.mark.parametrize("bad", [[1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]])
def test_losses_that_are_none_are_refused_and_not_kept(tmp_path, bad):
    tokenizer = train_tokenizer(["yes no? ab"], 275, tmp_path / "t.model")
    examples = [
        Example((("user", f"{i}?"), ("assistant", "yes")), "s") for i in range(2)
    ]
    scorer = LossScorer("bad", lambda examples, tokenizer: np.array(bad))
    with pytest.raises(ValueError, match="scorer 'bad' gave losses of shape"):
        example_losses(scorer, examples, tokenizer, tmp_path)
    assert not (tmp_path / "losses").exists()

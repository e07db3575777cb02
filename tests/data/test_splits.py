import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from scipy.stats import chi2_contingency

from configs.base import ability, get_config
from dcft_jax.data import splits as splits_module
from dcft_jax.data.example import Example, SourceData, prompt_key
from dcft_jax.data.splits import apportion, keep_apart, load_ability


def sums(largest=99):
    return [
        (f"{a} + {b} =", str(a + b)) for a in range(largest) for b in range(largest)
    ]


def numbered(count, first=0):
    return [(f"question {i}", str(i)) for i in range(first, first + count)]


def example(prompt, reply, source="?"):
    return Example((("user", prompt), ("assistant", reply)), source)


def make_load(patch):
    """Loads an ability whose sources are given as {split: [(prompt, reply)]}."""

    def open_source(source, *, held_out, seed, on_bad_row):
        rows = {s: [example(*row) for row in rows] for s, rows in source.items()}
        return SourceData(rows, skipped=2)

    def load(sources, mix_val=4, test=6, **data):
        config = get_config().data
        config.update(data)
        wanted = ConfigDict(dict(sources=sources, mix_val=mix_val, test=test))
        return load_ability("maths", wanted, config)

    patch.setattr(splits_module, "open_source", open_source)
    return load


@pytest.fixture
def load(monkeypatch):
    return make_load(monkeypatch)


def prompts(examples):
    return [row.prompt[0][1] for row in examples]


def keys(examples):
    return {prompt_key(row) for row in examples}


def assert_disjoint(data):
    for split in (data.train, data.mix_val, data.test):
        assert len(keys(split)) == len(split)
    assert keys(data.train).isdisjoint(keys(data.mix_val) | keys(data.test))
    assert keys(data.mix_val).isdisjoint(keys(data.test))


def test_a_finite_source_is_split_exactly(load):
    data = load({"toy": {"all": numbered(100)}})
    assert (len(data.train), len(data.mix_val), len(data.test)) == (90, 4, 6)
    assert_disjoint(data)
    assert data.report.counts == {"toy": {"train": 90, "mix_val": 4, "test": 6}}
    assert data.report.removed == {}


def last_digits(examples):
    return Counter(int(row.reply) % 10 for row in examples)


def p_value(*splits):
    """Of the hypothesis that last digits of answers are spread alike in all splits."""
    counts = [last_digits(split) for split in splits]
    table = [[count[digit] for digit in range(10)] for count in counts]
    return chi2_contingency(table).pvalue


@pytest.mark.parametrize("seed", range(5))
def test_answers_are_distributed_alike_in_all_splits(load, seed):
    data = load({"toy": {"all": sums()}}, mix_val=800, test=1000, seed=seed)
    # Five seeds: a fair hash fails this once in ten thousand runs of the suite.
    assert p_value(data.train, data.mix_val, data.test) > 2e-5


def test_the_distribution_check_sees_a_biased_split(load, monkeypatch):
    def biased(example, seed):
        answer_first = b"\0" if int(example.reply) % 10 == 0 else b"\1"
        return answer_first + prompt_key(example)

    monkeypatch.setattr(splits_module, "_rank", biased)
    data = load({"toy": {"all": sums()}}, mix_val=200, test=300)
    assert set(last_digits(data.test)) == {0}
    assert p_value(data.train, data.mix_val, data.test) < 1e-100


def test_a_prefix_of_a_held_out_set_mixes_sources(load):
    sources = {"a": {"all": numbered(500)}, "b": {"all": numbered(500, first=500)}}
    data = load(sources, mix_val=100, test=100)
    share = sum(row.source == "a" for row in data.test[:50]) / 50
    assert 0.2 < share < 0.8


def test_splits_depend_on_the_seed_but_not_on_the_order_of_rows(load):
    rows = numbered(200)
    shuffled = random.Random(0).sample(rows, len(rows))
    first = load({"toy": {"all": rows}})
    assert prompts(first.test) == prompts(load({"toy": {"all": shuffled}}).test)
    assert prompts(first.test) != prompts(load({"toy": {"all": rows}}, seed=1).test)


def test_splits_are_the_same_in_every_process(load, tmp_path):
    path = tmp_path / "toy.jsonl"
    rows = [json.dumps({"prompt": p, "response": r}) for p, r in numbered(60)]
    path.write_text("\n".join(rows))
    program = f"""
from configs.base import ability, get_config
from dcft_jax.data.splits import load_ability
sources = dict(toy=dict(kind="jsonl", path={str(path)!r}))
data = load_ability("maths", ability(sources, mix_val=4, test=6), get_config().data)
print(*[row.reply for row in data.test])
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    expected = [row.reply for row in load({"toy": {"all": numbered(60)}}).test]
    assert outputs == {" ".join(expected).encode() + b"\n"}


def test_test_wins_over_mix_val_wins_over_train(load):
    sources = {
        "toy": {
            "train": [*numbered(40), ("Question  7", "again")],
            "mix_val": numbered(10, first=5),
            "test": numbered(10),
        }
    }
    data = load(sources)
    assert_disjoint(data)
    # Mix-val loses 5..9 to test, train loses 0..9 to test and 10..14 to mix-val; the
    # variant of question 7 is one more train/test overlap.
    assert data.report.removed == {
        "mix_val/test": 5,
        "train/test": 11,
        "train/mix_val": 5,
    }
    assert sorted(int(row.reply) for row in data.train) == list(range(15, 40))
    assert data.report.unused == (5 - 4) + (10 - 6)
    assert all(row.source == "toy" for row in data.train)


def test_overlaps_between_sources_are_removed(load):
    sources = {
        "a": {"all": numbered(50)},
        "b": {"all": numbered(50, first=25)},
        "c": {"train": numbered(80), "mix_val": [], "test": [("question 60", "60")]},
    }
    data = load(sources)
    assert_disjoint(data)
    total = len(data.train) + len(data.mix_val) + len(data.test)
    assert total == 80 - data.report.unused
    removed = data.report.removed
    # 60 is the test row of c, in b and in the train rows of c. Apart from it, a and b
    # share 25..49, and the train rows of c repeat 0..74.
    assert removed["train/test"] == 2
    assert removed["duplicates"] == 25 + 74


def test_a_source_with_its_own_test_set_gives_mix_val_from_the_rest(load):
    sources = {"toy": {"all": numbered(50), "test": numbered(6, first=100)}}
    data = load(sources)
    assert sorted(int(row.reply) for row in data.test) == list(range(100, 106))
    assert all(int(row.reply) < 50 for row in data.mix_val)
    assert len(data.train) == 46


def test_held_out_sets_follow_the_sizes_of_sources(load):
    sources = {"big": {"all": numbered(300)}, "small": {"all": numbered(100, 300)}}
    counts = load(sources, mix_val=40, test=80).report.counts
    assert counts["big"] == {"train": 210, "mix_val": 30, "test": 60}
    assert counts["small"] == {"train": 70, "mix_val": 10, "test": 20}


rows = st.lists(
    st.tuples(st.sampled_from([f"Q{i}" for i in range(30)]), st.just("x")),
    min_size=3,
    max_size=40,
)
source = st.fixed_dictionaries({"train": rows, "mix_val": rows, "test": rows}) | (
    st.fixed_dictionaries({"all": rows}, optional={"test": rows})
)


@settings(deadline=None)
@given(st.lists(source, min_size=1, max_size=3), st.integers(0, 3))
def test_splits_never_share_a_prompt(sources, seed):
    named = {f"source_{i}": rows for i, rows in enumerate(sources)}
    with pytest.MonkeyPatch.context() as patch:
        try:
            data = make_load(patch)(named, mix_val=2, test=1, seed=seed)
        except ValueError as error:
            event("refused")
            assert "are left to hold out" in str(error) or "nothing is" in str(error)
            return
    event("split")
    assert_disjoint(data)
    assert (len(data.mix_val), len(data.test)) == (2, 1)
    report = data.report
    given_rows = sum(len(rows) for source in sources for rows in source.values())
    kept = sum(report.total(split) for split in ("train", "mix_val", "test"))
    assert kept + report.unused + sum(report.removed.values()) == given_rows


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1), st.data()
)
def test_apportion_fills_the_total_within_limits(pairs, data):
    sizes = {str(i): size for i, (size, _) in enumerate(pairs)}
    limits = {str(i): limit for i, (_, limit) in enumerate(pairs)}
    total = data.draw(st.integers(0, sum(limits.values())))
    shares = apportion(total, sizes, limits)
    assert sum(shares.values()) == total
    assert all(0 <= shares[name] <= limits[name] for name in sizes)


STORY = "a farmer has seven red hens and sells three of them at the market"


def test_whole_held_out_texts_leave_train(load):
    test = [(f"{STORY} number {i}", "x") for i in range(6)]
    train = [(f"Please answer: {prompt}", "x") for prompt, _ in test] + numbered(10)
    sources = {"toy": {"train": train, "mix_val": numbered(4, 100), "test": test}}
    data = load(sources, decontamination_ngram=8)
    assert sorted(prompts(data.train)) == sorted(p for p, _ in numbered(10))
    assert data.report.ngram_removed == data.report.ngram_shared == 6
    assert data.report.lines()[-1] == (
        "  6 training examples share 8 words in a row with a held-out text; "
        "6 of them overlapped a whole text and were removed"
    )
    assert len(load(sources, decontamination_ngram=0).train) == 16


def test_report_lines_say_what_happened(load):
    sources = {"toy": {"all": [*numbered(1500), *numbered(3)]}}
    assert load(sources).report.lines() == [
        "maths: 1,490 train, 4 mix_val, 6 test",
        "  toy: 1,490 train, 4 mix_val, 6 test",
        "  removed: 3 duplicates",
        "  toy: 2 malformed rows skipped",
    ]


@pytest.mark.parametrize(
    ("sources", "sizes", "message"),
    [
        ({}, {}, r"ability maths has no source; .*abilities\.maths\.sources"),
        ({"toy": {"all": []}}, {}, r"abilities\.maths\.sources\.toy has no examples"),
        ({"toy": {"all": numbered(9)}}, {"test": 0}, r"maths\.test=0 must be at least"),
        ({"toy": {"all": numbered(9)}}, {"mix_val": 0}, r"maths\.mix_val=0 must be"),
        (
            {"toy": {"all": numbered(40)}},
            {"test": 256},
            "test=256 but only 40 examples are left .*abilities.maths.test",
        ),
        (
            {"toy": {"all": numbered(40)}},
            {"test": 38},
            "mix_val=4 but only 2 examples are left .*abilities.maths.mix_val",
        ),
        ({"toy": {"all": numbered(10)}}, {}, "nothing is left to train on"),
        ({"toy": {"all": numbered(99)}}, {"on_bad_row": "ask"}, "on_bad_row='ask'"),
    ],
)
def test_impossible_requests_are_refused(load, sources, sizes, message):
    with pytest.raises(ValueError, match=message):
        load(sources, **sizes)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        (dict(kind="csv"), ValueError, "kind='csv' is not a source"),
        (dict(kind="jsonl", path="nowhere"), FileNotFoundError, "path='nowhere'"),
    ],
)
def test_errors_of_a_source_say_whose_it_is(fields, kind, message):
    wanted = ability(dict(toy=fields))
    with pytest.raises(kind, match=rf"abilities\.maths\.sources\.toy: {message}"):
        load_ability("maths", wanted, get_config().data)


def test_what_one_ability_holds_out_no_other_trains(load):
    shared = [(f"shared {i}", "x") for i in range(60)]
    one, two = (
        load({"s": {"all": [*shared, *numbered(60, first)]}}, 15, 15, seed=seed)
        for first, seed in ((0, 1), (1000, 2))
    )
    assert (keys(one.mix_val) | keys(one.test)) & keys(two.train)
    apart = keep_apart({"one": one, "two": two})
    for name, other in (("one", "two"), ("two", "one")):
        foreign = keys(apart[other].mix_val) | keys(apart[other].test)
        assert not foreign & keys(apart[name].train)
        dropped = len({"one": one, "two": two}[name].train) - len(apart[name].train)
        assert apart[name].report.removed["train/other abilities"] == dropped > 0
        assert apart[name].report.total("train") == len(apart[name].train)

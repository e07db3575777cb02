import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from dcft_jax.data.example import prompt_key
from dcft_jax.data.sources.general import chatterbot, instructions
from dcft_jax.data.sources.instructions import CONSTRAINTS, instruction
from dcft_jax.data.sources.words import WORDS

# What a reply has to be, told from the metadata alone.
EXPECTED = {
    "upper_case": lambda words: " ".join(word.upper() for word in words),
    "lower_case": lambda words: " ".join(words),
    "capitalise": lambda words: " ".join(words).title(),
    "repeat": lambda words, times: " ".join(words * times),
    "reverse_words": lambda words: " ".join(words[::-1]),
    "sort_words": lambda words: " ".join(sorted(words)),
    "first_and_last": lambda words: " ".join([words[0], words[-1]]),
    "pick_word": lambda words, position: words[position - 1],
    "bullets": lambda words: "- " + "\n- ".join(words),
    "numbered": lambda words: "\n".join(
        f"{words.index(word) + 1}. {word}" for word in words
    ),
    "ends_with": lambda words, end: f"{' '.join(words)} {end}",
    "starts_with": lambda words, start: f"{start} {' '.join(words)}",
    "commas": lambda words: str(words)[1:-1].replace("'", ""),
    "json_list": lambda words: json.dumps(words),
    "quotes": lambda words: json.dumps(" ".join(words)),
    "leave_out": lambda words, word: " ".join(_without(words, word)),
    "replace": lambda words, old, new: " ".join(words).replace(old, new),
    "count_words": lambda words: str(len(words)),
}


def _without(words, word):
    position = words.index(word)
    return words[:position] + words[position + 1 :]


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**60))
def test_replies_meet_their_constraint(index):
    example = instruction(index)
    name = example.metadata["constraint"]
    arguments = example.metadata["arguments"]
    if name == "replace":  # the expectation above replaces inside words as well
        assume(" ".join(arguments["words"]).count(arguments["old"]) == 1)
    assert example.reply == EXPECTED[name](**arguments)
    assert example.single_reference
    assert json.loads(json.dumps(dict(example.metadata))) == example.metadata


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**60))
def test_prompts_name_all_that_their_reply_needs(index):
    example = instruction(index)
    prompt = example.prompt[-1][1].lower()
    words = [word for word in WORDS if word in example.reply.lower().split()]
    assert all(word in prompt for word in words)


def test_every_constraint_has_room_for_held_out_prompts():
    prompts = {name: set() for name in CONSTRAINTS}
    count = 9000
    for index in range(count):
        example = instruction(index)
        prompts[example.metadata["constraint"]].add(prompt_key(example))
    assert set(EXPECTED) == set(CONSTRAINTS)
    assert sum(map(len, prompts.values())) > 0.99 * count
    # Every constraint is drawn as often as any other.
    share = count / len(CONSTRAINTS)
    assert all(0.7 * share < len(keys) < 1.3 * share for keys in prompts.values())


def test_words_are_distinct():
    assert len(set(WORDS)) == len(WORDS) > 250


def test_instructions_are_the_same_every_time():
    source = ConfigDict(dict(kind="instructions", examples=50))
    first, again = (instructions(source, held_out=10, seed=3) for _ in range(2))
    assert first == again
    assert {split: len(rows) for split, rows in first.splits.items()} == {
        "train": 50,
        "mix_val": 10,
        "test": 10,
    }


def _chat(**fields):
    pytest.importorskip("chatterbot_corpus")
    source = ConfigDict(dict(kind="chatterbot", **fields))
    return chatterbot(source, held_out=0, seed=0)


def test_conversations_alternate_end_with_a_reply_and_come_once():
    data = _chat()
    examples = data.splits["all"]
    assert len(examples) > 500
    assert len({example.messages for example in examples}) == len(examples)
    for example in examples:
        roles = [role for role, _ in example.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(text.strip() for _, text in example.messages)
        assert not example.single_reference


def test_the_malformed_trivia_entry_is_counted():
    assert _chat(topics=("trivia",)).skipped == 1


def test_repeated_entries_of_tech_support_come_once():
    assert len(_chat(topics=("tech_support",)).splits["all"]) == 10


def test_alternative_replies_are_not_turns():
    for example in _chat(topics=("emotion",)).splits["all"]:
        assert len(example.messages) == 2


def test_longer_conversations_keep_their_turns():
    examples = _chat(topics=("conversations",)).splits["all"]
    assert max(len(example.messages) for example in examples) > 4


def test_unsuitable_prompts_are_left_out():
    prompts = [e.messages[0][1].lower() for e in _chat(topics=("ai",)).splits["all"]]
    assert "can you mate" not in prompts
    assert len(prompts) > 80


def test_max_chars_bounds_a_conversation():
    examples = _chat(max_chars=100).splits["all"]
    lengths = [sum(len(text) for _, text in example.messages) for example in examples]
    assert 0 < max(lengths) <= 100


def test_bad_fields_are_refused():
    with pytest.raises(ValueError, match="unknown chatterbot topic 'nope'"):
        _chat(topics=("nope",))
    with pytest.raises(ValueError, match="max_chars=1"):
        _chat(max_chars=1)
    with pytest.raises(ValueError, match="no field 'topic'"):
        _chat(topic="ai")


def test_constraints_can_be_chosen():
    source = ConfigDict(dict(examples=50, constraints=("bullets", "commas")))
    splits = instructions(source, held_out=10, seed=0).splits
    found = {e.metadata["constraint"] for split in splits.values() for e in split}
    assert found == {"bullets", "commas"}
    source.constraints = ("bullets", "comma")
    with pytest.raises(ValueError, match="unknown comma; choose from upper_case"):
        instructions(source, held_out=10, seed=0)

import numpy as np
import pytest

from dcft_jax.data.chat import encode_example, encode_examples
from dcft_jax.data.example import Example
from dcft_jax.data.sentencepiece_tokenizer import train_tokenizer

MULTI = Example(
    (
        ("system", "Be short."),
        ("user", "1 + 1?"),
        ("assistant", "2"),
        ("user", "Say <end>"),
        ("assistant", "<end> it is\n"),
    ),
    "s",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "t.model"
    return train_tokenizer(["Be short. Say it is so, 1 + 1?\n"] * 4, 285, path)


def test_layout(tokenizer):
    tokens, mask = encode_example(MULTI, tokenizer)
    expected, trained = [tokenizer.bos_id], [False]
    for role, content in MULTI.messages:
        ids = tokenizer.encode(f" {content}")
        expected += [tokenizer.role_ids[role], *ids, tokenizer.end_id]
        trained += [False] + [role == "assistant"] * (len(ids) + 1)
    assert tokens.tolist() == expected
    assert mask.tolist() == trained
    assert tokens.dtype == np.int32 and mask.dtype == bool


def test_trained_tokens_are_the_replies_and_their_ends(tokenizer):
    tokens, mask = encode_example(MULTI, tokenizer)
    assert tokenizer.decode(tokens[mask]) == " 2 <end> it is\n"
    assert (tokens[mask] == tokenizer.end_id).sum() == 2
    assert not mask[np.isin(tokens, [1, *tokenizer.role_ids.values()])].any()


def test_empty_reply_trains_its_end(tokenizer):
    example = Example((("user", "x"), ("assistant", "")), "s")
    tokens, mask = encode_example(example, tokenizer)
    assert tokenizer.decode(tokens[mask]) == " "
    assert tokens[mask][-1] == tokenizer.end_id


def test_a_word_is_the_same_tokens_at_the_start_of_a_reply(tokenizer):
    example = Example((("user", "Say it"), ("assistant", "it")), "s")
    tokens, mask = encode_example(example, tokenizer)
    reply = tokens[mask][:-1].tolist()
    assert tokens[~mask][-2 - len(reply) : -2].tolist() == reply


def test_batch_equals_single(tokenizer):
    short = Example((("user", "it"), ("assistant", "so")), "s")
    for got, example in zip(
        encode_examples([MULTI, short, MULTI], tokenizer),
        [MULTI, short, MULTI],
        strict=True,
    ):
        np.testing.assert_array_equal(got, encode_example(example, tokenizer))


@pytest.mark.parametrize(
    "messages",
    [(), (("user", "a"),), (("human", "a"), ("assistant", "b"))],
)
def test_bad_roles_name_the_source(tokenizer, messages):
    with pytest.raises(ValueError, match="source 'bad'"):
        encode_example(Example(messages, "bad"), tokenizer)

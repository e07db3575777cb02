"""Replies to many conversations: the same in any batch, and fair if time is short."""

import itertools

import pytest

from dcft_jax.data import reply_text
from dcft_jax.evaluation import replies as replies_lib
from dcft_jax.evaluation.replies import generate_replies
from dcft_jax.models import Sampling, generate
from tests.evaluation.conftest import WORDS

CONVERSATIONS = [[("user", " ".join(WORDS[i : i + 1 + 3 * (i % 3)]))] for i in range(7)]


def answer(model, params, tokenizer, **options):
    options = dict(max_new_tokens=6, batch_size=4) | options
    return generate_replies(model, params, tokenizer, CONVERSATIONS, **options)


def test_replies_are_those_of_generate(model, params, tokenizer):
    prompts = [tokenizer.chat.encode_prompt(one).tolist() for one in CONVERSATIONS]
    stop_ids = tokenizer.chat.stop_ids
    expected = generate(
        model, params, prompts, max_new_tokens=6, stop_ids=stop_ids, batch_size=4
    )
    got = answer(model, params, tokenizer)
    for (reply,), tokens in zip(got, expected, strict=True):
        assert reply.text == reply_text(tokens, tokenizer)
        assert reply.num_tokens == len(tokens)
        assert reply.cut == (tokens[-1] not in stop_ids)


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock finds that a second has passed."""
    ticks = itertools.count()
    monkeypatch.setattr(replies_lib, "monotonic", lambda: float(next(ticks)))


def test_time_decides_how_many_and_nothing_else(model, params, tokenizer, clock):
    sampling = Sampling(temperature=1.0)
    every = answer(model, params, tokenizer, sampling=sampling, seed=3)
    some = answer(
        model, params, tokenizer, sampling=sampling, seed=3, batch_size=2, seconds=1.5
    )
    assert sum(one is not None for one in some) == 4
    assert all(a is None or a == b for a, b in zip(some, every, strict=True))


def test_one_batch_is_answered_however_short_the_time(model, params, tokenizer, clock):
    found = answer(model, params, tokenizer, batch_size=2, seconds=1e-9)
    assert sum(one is not None for one in found) == 2


def test_those_there_was_time_for_are_not_the_first(model, params, tokenizer, clock):
    chosen = set()
    for seed in range(6):
        found = answer(model, params, tokenizer, batch_size=2, seconds=0.5, seed=seed)
        chosen |= {i for i, one in enumerate(found) if one is not None}
    assert len(chosen) > 4


def test_prompts_that_are_too_long_have_no_reply(model, params, tokenizer):
    lengths = [len(tokenizer.chat.encode_prompt(one)) for one in CONVERSATIONS]
    limit = sorted(lengths)[3]
    found = answer(model, params, tokenizer, max_length=limit)
    assert [one is not None for one in found] == [n <= limit for n in lengths]
    every = answer(model, params, tokenizer)
    assert all(
        one is None or one == all_ for one, all_ in zip(found, every, strict=True)
    )
    assert answer(model, params, tokenizer, max_length=1) == [None] * 7


def test_samples_of_one_conversation_differ(model, params, tokenizer):
    sampling = Sampling(temperature=1.0)
    found = answer(model, params, tokenizer, num_samples=3, sampling=sampling)
    assert all(one is not None and len(one) == 3 for one in found)
    assert any(len({reply.text for reply in one}) > 1 for one in found)


def test_progress_counts_conversations(model, params, tokenizer):
    counts: list[int] = []
    answer(model, params, tokenizer, advance=counts.append)
    assert counts == [4, 3]


def test_samples_without_temperature_are_refused(model, params, tokenizer):
    with pytest.raises(ValueError, match="num_samples=2: at temperature 0"):
        answer(model, params, tokenizer, num_samples=2)

"""Exact match of short texts: what counts and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_jax.evaluation.verifiers import Verdict, normalise_text, verify_text


@pytest.mark.parametrize(
    "reply",
    [
        "go to the store",
        "Go to the store.",
        "  go  to\nthe store!  ",
        '"Go to the store."',
        "GO TO THE STORE",
        "\uff47\uff4f to the\u00a0store",
    ],
)
def test_dressing_does_not_count(reply):
    assert verify_text(reply, "go to the store").correct


@pytest.mark.parametrize(
    "reply",
    [
        "go to a store",
        "go to the store and back",
        "do not go to the store",
        "to go the store",
        "go, to the store",
        "gotothestore",
        "A: go to the store",
    ],
)
def test_words_and_their_order_count(reply):
    verdict = verify_text(reply, "go to the store")
    assert not verdict.correct and verdict.reason == "different text"


def test_apostrophes_within_words_are_kept():
    assert normalise_text("Don\u2019t!") == "don't"
    assert not verify_text("dont", "don't").correct


@given(st.text())
def test_normalising_is_idempotent_and_reflexive(text):
    once = normalise_text(text)
    assert normalise_text(once) == once
    if once:
        assert verify_text(text, text) == Verdict(True, once, "same text")
        assert verify_text(f" {text}. ", text).correct


def test_empty_texts():
    assert verify_text(" ... ", "yes") == Verdict(False, None, "empty reply")
    with pytest.raises(ValueError, match=r"gold='\?\?'"):
        verify_text("yes", "??")

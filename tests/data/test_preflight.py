import dataclasses

import numpy as np
import pytest

from dcft_jax.data.example import Example
from dcft_jax.data.packing import pack_examples
from dcft_jax.data.preflight import check_ability, check_tokenizer, preview
from dcft_jax.data.sentencepiece_tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "t.model"
    return train_tokenizer(["one plus one is two\n"] * 4, 275, path)


def make_rows(tokenizer, replies, seq_len=64):
    examples = [
        Example(
            (("system", "add"), ("user", "one plus one?"), ("assistant", reply)), "s"
        )
        for reply in replies
    ]
    return pack_examples(examples, tokenizer, seq_len)


def test_good_rows_pass(tokenizer):
    rows = make_rows(tokenizer, ["two", "is two", ""])
    check_ability("math", {"train": rows, "test": rows}, tokenizer, 0.0)


def test_masks_of_zero_are_refused(tokenizer):
    rows = make_rows(tokenizer, ["two"])
    mask_NL = np.zeros_like(rows.loss_mask_NL)
    dead = dataclasses.replace(rows, loss_mask_NL=mask_NL)
    with pytest.raises(
        ValueError, match=r"abilities\.math \(test\): none of \d+ tokens"
    ):
        check_ability("math", {"train": rows, "test": dead}, tokenizer, 0.0)


def test_prompts_that_fill_all_rows_are_refused(tokenizer):
    rows = make_rows(tokenizer, ["two"], seq_len=8)
    with pytest.raises(ValueError, match=r"none of 8 tokens.*data\.seq_len=8"):
        check_ability("math", {"train": rows}, tokenizer, 1.0)


def test_end_outside_the_loss_is_refused(tokenizer):
    rows = make_rows(tokenizer, ["two", "is two"])
    mask_NL = rows.loss_mask_NL & (rows.tokens_NL != tokenizer.end_id)
    endless = dataclasses.replace(rows, loss_mask_NL=mask_NL)
    with pytest.raises(ValueError, match=r"abilities\.math \(train\).*0 of 2 whole"):
        check_ability("math", {"train": endless}, tokenizer, 0.0)


def test_end_outside_the_loss_of_one_example_is_refused(tokenizer):
    rows = make_rows(tokenizer, ["two", "is two"])
    mask_NL = rows.loss_mask_NL.copy()
    n, last = (array[-1] for array in np.nonzero(mask_NL))
    mask_NL[n, last] = False
    endless = dataclasses.replace(rows, loss_mask_NL=mask_NL)
    with pytest.raises(ValueError, match="1 of 2 whole"):
        check_ability("math", {"train": endless}, tokenizer, 0.0)


def test_padding_that_is_the_end_is_refused(tokenizer):
    confused = dataclasses.replace(tokenizer, pad_id=tokenizer.end_id)
    with pytest.raises(
        ValueError, match=r"padding and the end of a turn are both token 2 \(<end>\)"
    ):
        check_tokenizer(confused)
    rows = make_rows(tokenizer, ["two"])
    with pytest.raises(ValueError, match="padding and the end"):
        check_ability("math", {"train": rows}, confused, 0.0)


def test_truncation_beyond_the_limit_is_refused(tokenizer):
    rows = make_rows(tokenizer, ["two"] * 9 + ["two " * 60])
    check_ability("math", {"train": rows}, tokenizer, 0.1)
    message = (
        r"abilities\.math: 1 of 10 examples \(10\.0%\) exceed data\.seq_len=64, "
        r"more than data\.max_truncated_share=0\.09; "
        rf"the longest has {rows.longest} tokens"
    )
    with pytest.raises(ValueError, match=message):
        check_ability("math", {"train": rows}, tokenizer, 0.09)


def test_preview_marks_what_is_trained(tokenizer):
    rows = make_rows(tokenizer, ["is\ntwo"])
    text = preview({"math": rows, "code": rows}, tokenizer)
    shown = (
        "<bos><system> add<end><user> one plus one?<end><assistant>⟦ is\ntwo<end>⟧\n\n"
    )
    assert text.plain == f"math\n{shown}code\n{shown}"
    bold = [text.plain[s.start : s.end] for s in text.spans if s.style == "bold green"]
    assert bold == ["⟦ is\ntwo<end>⟧"] * 2
    dim = "".join(text.plain[s.start : s.end] for s in text.spans if s.style == "dim")
    assert "two" not in dim and "plus" in dim

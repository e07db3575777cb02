"""Exported SentencePiece tokenizers give the ids of ours, here and in transformers."""

from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcft_jax.data import load_chat_tokenizer, train_tokenizer
from dcft_jax.data.hf_tokenizer import HFTokenizer
from dcft_jax.data.sentencepiece_export import to_huggingface
from dcft_jax.data.sentencepiece_tokenizer import (
    _TRAINER_OPTIONS,
    SentencePieceTokenizer,
    load_tokenizer,
)

TEXTS = [
    "Calculate 57 + 33. The sum of 57 and 33 is 90.",
    "def add(a, b):\n    return a + b\n\n\ndef banana(n):\n\treturn 'banana' * n",
    "What is it? It is what it is; it is not what it was. naïve façade 日本",
    "aaaa aaa aa a bbbb abab baba aabb <end> <user> <system> end user system",
    "    if x == 100:\n        return 1000\n    #  ---- ==== ....",
] * 3
# Mostly what merges are about: words of the texts, runs, spaces, spelt-out symbols.
PARTS = st.sampled_from(
    [
        *("a", "aa", "aba", "b", "ab", "banana", "return", "is", "it", "what", "57"),
        *(" ", "  ", "    ", "\n", "\t", "\r\n", "\u2581", "\u00a0", "\x00", "\ufeff"),
        *("<end>", "<user>", "<pad>", "<unk>", "<0x0A>", "<", "end>", "<\ufdd2"),
        *("naïve", "日本", "😀", "e\u0301", "\ufffd", "\ufdd0"),
    ]
)
TEXT = st.one_of(
    st.text(), st.text("ab 1\n<>endusr"), st.lists(PARTS).map("".join)
).filter(lambda text: "<\ufdd2" not in text)
ROLES = st.sampled_from(["system", "user", "assistant"])


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    return train_tokenizer(TEXTS, 420, tmp_path_factory.mktemp("t") / "t.model")


@pytest.fixture(scope="module")
def folder(ours: SentencePieceTokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    to_huggingface(ours, "ours").save(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> HFTokenizer:
    loaded = load_chat_tokenizer(folder)
    assert isinstance(loaded, HFTokenizer)
    return loaded


def test_merges_are_at_work(ours: SentencePieceTokenizer):
    lengths = [len(ours.encode(text)) / len(text) for text in TEXTS[:3]]
    assert max(lengths) < 0.6, "a vocabulary of characters proves little"


@settings(max_examples=400, deadline=None)
@given(TEXT)
@example("aaaaaaa ababa babab   \u2581\u2581 a\u2581b  ")
@example("12345 007 1a2b")
def test_texts_have_the_same_ids(ours, theirs, text: str):
    ids = theirs.backend.encode(_hide(text, theirs), add_special_tokens=False).ids
    assert ids == ours.encode(text)
    assert theirs.backend.decode(ids, skip_special_tokens=True) == text
    assert ours.decode(ids) == text


def _hide(text: str, tokenizer: HFTokenizer) -> str:
    """As the exported template does."""
    for symbol in tokenizer.control:
        text = text.replace(symbol, f"{symbol[0]}\ufdd2{symbol[1:]}")
    return text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ROLES, TEXT), max_size=4), TEXT)
def test_chats_have_the_same_ids_and_masks(ours, theirs, messages, reply):
    if any(symbol in text for _, text in [*messages, ("", reply)] for symbol in "<>"):
        # Symbols that are spelt out are cut otherwise by the loader of other people's
        # tokenizers; transformers, below, gives our ids for them too.
        strip = str.maketrans("", "", "<>")
        messages = [(role, text.translate(strip)) for role, text in messages]
        reply = reply.translate(strip)
    if "\ufdd0" in reply + "".join(text for _, text in messages):
        return  # refused by every Jinja template
    messages = [*messages, ("user", "is it"), ("assistant", reply)]
    for mine, other in zip(
        ours.chat.encode(messages), theirs.chat.encode(messages), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(
        ours.chat.encode_prompt(messages[:-1]), theirs.chat.encode_prompt(messages[:-1])
    )


def test_control_symbols_keep_their_part(ours, theirs):
    assert theirs.vocab_size == ours.vocab_size
    assert (theirs.pad_id, theirs.bos_id) == (ours.pad_id, ours.bos_id)
    assert theirs.chat.stop_ids == ours.chat.stop_ids
    for i in range(ours.vocab_size):
        assert theirs.is_control(i) == ours.is_control(i)


def test_transformers_gives_the_same_ids(ours, folder: Path):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.vocab_size == len(tokenizer) == ours.vocab_size
    assert tokenizer.eos_token_id == ours.end_id
    assert tokenizer.pad_token_id == ours.pad_id

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(ROLES, TEXT), max_size=4), TEXT)
    @example([("user", "a<end><user> <pad>b")], "<assistant> it<end>")
    def compare(messages, reply):
        messages = [*messages, ("user", "is it"), ("assistant", reply)]
        dicts = [{"role": role, "content": text} for role, text in messages]
        prompt = tokenizer.apply_chat_template(dicts[:-1], add_generation_prompt=True)
        assert prompt["input_ids"] == ours.chat.encode_prompt(messages[:-1]).tolist()
        whole = tokenizer.apply_chat_template(
            dicts, return_dict=True, return_assistant_tokens_mask=True
        )
        tokens_L, mask_L = ours.chat.encode(messages)
        assert whole["input_ids"] == tokens_L.tolist()
        assert whole["assistant_masks"] == mask_L.astype(int).tolist()
        text = tokenizer.decode(ours.encode(reply), skip_special_tokens=True)
        assert text == reply

    compare()
    with pytest.raises(Exception, match="roles are system, user and assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(model_type="unigram"), "model_type is not BPE"),
        (dict(add_dummy_prefix=True), "add_dummy_prefix"),
        (dict(remove_extra_whitespaces=True), "remove_extra_whitespaces"),
        (dict(normalization_rule_name="nfkc"), "normalization rule 'nfkc'"),
        (dict(user_defined_symbols=["banana"]), "unused piece 'banana'"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, options, message: str):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(tmp_path / "t"),
        vocab_size=330,
        **_TRAINER_OPTIONS | options,
    )
    with pytest.raises(ValueError, match=f"tokenizer of x: .*{message}"):
        to_huggingface(load_tokenizer(tmp_path / "t.model"), "x")

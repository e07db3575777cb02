import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcft_jax.data.sentencepiece_tokenizer import (
    cached_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

TEXTS = [f"def f{i}(x):\n    return x + {i}\n" for i in range(50)]
TEXTS += [f"What is {i} plus {i + 7}? It is naïve, {2 * i + 7}." for i in range(50)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(TEXTS, 340, tmp_path_factory.mktemp("t") / "t.model")


@given(st.text())
@example("")
@example("  if x:\n\t\treturn  1 \r\n\n")
@example("a\u2581b \u2581\u2581")
@example("\x00\ufeff ﬁ e\u0301 \u3000\u200b 日本 😀")
@example("<end><user> <unk> <0x41> <pad>")
@settings(deadline=None)
def test_text_comes_back_exactly(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "x"]) == [ids, tokenizer.encode("x")]


@given(st.text(alphabet="<>/_ endusrpaosiytmb"))
@example("<end>")
@example("<assistant>")
@settings(deadline=None)
def test_text_cannot_forge_control_symbols(tokenizer, text):
    assert not any(tokenizer.is_control(i) for i in tokenizer.encode(text))


def test_every_digit_is_a_token(tmp_path):
    texts = ["In 2024 and 2024, 2024 + 2024"] * 20  # worth a merge, if it were allowed
    tokenizer = train_tokenizer(texts, 279, tmp_path / "t.model")
    assert len(tokenizer.encode("2024")) == 4


def test_symbols_are_distinct_and_padding_is_zero(tokenizer):
    ids = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.end_id]
    ids += tokenizer.role_ids.values()
    assert tokenizer.pad_id == 0
    assert len(set(ids)) == 6
    assert all(tokenizer.is_control(i) for i in ids)
    assert tokenizer.vocab_size == 340


def test_training_is_deterministic(tokenizer, tmp_path):
    again = train_tokenizer(iter(TEXTS), 340, tmp_path / "again.model")
    assert again == tokenizer
    assert load_tokenizer(tmp_path / "again.model") == tokenizer
    assert train_tokenizer(TEXTS, 330, tmp_path / "other.model") != tokenizer


def test_long_texts_are_not_left_out(tmp_path):
    texts = [" ".join(["zebra"] * 2000)]  # 12 kB; the trainer's own limit is 4 kB
    tokenizer = train_tokenizer(texts, 274, tmp_path / "t.model")
    assert len(tokenizer.encode("zebra zebra")) < len("zebra zebra")


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (TEXTS, 100_000, r"vocab_size=100000 .*set at most \d+"),
        (TEXTS, 100, r"vocab_size=100 .*at least \d+"),
        ([], 300, "no text"),
    ],
)
def test_unfit_vocabulary_is_explained(tmp_path, texts, size, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(texts, size, tmp_path / "t.model")
    assert not list(tmp_path.iterdir())


def test_unfit_model_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.path"):
        load_tokenizer(tmp_path / "none.model")
    (tmp_path / "bad.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="no SentencePiece model"):
        load_tokenizer(tmp_path / "bad.model")
    prefix = str(tmp_path / "plain")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=prefix, vocab_size=60, minloglevel=2
    )
    with pytest.raises(ValueError, match=r"lacks .*<assistant>.*byte fallback"):
        load_tokenizer(f"{prefix}.model")


def test_cache_depends_on_texts_and_size(tmp_path):
    first = cached_tokenizer(TEXTS, 340, tmp_path)
    cached_tokenizer(TEXTS, 340, tmp_path)
    assert len(list(tmp_path.glob("tokenizers/*"))) == 1
    assert cached_tokenizer(TEXTS, 341, tmp_path) != first
    cached_tokenizer([*TEXTS, "more"], 340, tmp_path)
    assert len(list(tmp_path.glob("tokenizers/*.model"))) == 3

"""Tokenizers of other people's models: which file says what, and what is refused."""

import json
import shutil

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import pre_tokenizers

from dcft_jax.data.pretrained_tokenizer import load_chat_tokenizer, load_gguf_tokenizer
from dcft_jax.data.sentencepiece_convert import Kind, Piece, byte_pair_backend
from dcft_jax.data.sentencepiece_tokenizer import train_tokenizer
from dcft_jax.data.tokenizer import check_vocabulary
from tests.data.chat_families import (
    BY_NAME,
    CHATML,
    SPLITS,
    byte_level,
    write_family,
)

WRITTEN = ["<s>", "</s>", "<|im_end|>", "<bos>", "<end_of_turn>", "12 + 30", "\u2581"]
ANY = st.text() | st.lists(st.sampled_from([*WRITTEN, " ", "\n", "It"])).map("".join)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("pretrained")


@pytest.fixture(scope="module")
def smollm(root):
    return write_family(BY_NAME["smollm2"], root / "smollm2")


@pytest.fixture(scope="module")
def byte_tokenizer(smollm):
    return load_chat_tokenizer(smollm)


@given(ANY)
@example("<|im_end|>")
@example(" a<|im_start|><|im_end|>\n")
@settings(deadline=None)
def test_text_comes_back_and_holds_no_control_token(byte_tokenizer, text):
    ids = byte_tokenizer.encode(text)
    assert byte_tokenizer.decode(ids) == text
    assert not any(map(byte_tokenizer.is_control, ids))
    assert byte_tokenizer.encode_batch([text, "It"]) == [
        ids,
        byte_tokenizer.encode("It"),
    ]


def test_pieces_and_control(byte_tokenizer):
    end = byte_tokenizer.chat.end_id
    assert byte_tokenizer.piece(end) == "<|im_end|>" and byte_tokenizer.is_control(end)
    assert byte_tokenizer.decode([end]) == ""
    assert byte_tokenizer.piece(10**6) == "<token 1000000>"
    assert not byte_tokenizer.is_control(10**6)


# --------------------------------------------------------------- SentencePiece alone


def sentencepiece_of(folder):
    model = str(folder / "tokenizer.model")
    return sentencepiece.SentencePieceProcessor(model_file=model)


@pytest.fixture(scope="module")
def gemma(root):
    folder = write_family(BY_NAME["gemma2"], root / "gemma2")
    return load_chat_tokenizer(folder), sentencepiece_of(folder)


@pytest.fixture(scope="module")
def llama(root):
    folder = write_family(BY_NAME["llama2"], root / "llama2")
    return load_chat_tokenizer(folder), sentencepiece_of(folder)


@given(st.text() | st.text(alphabet="aeiqstI nm\u258142+"))
@example("What is 12 + 30?\n\n   It is")
@settings(deadline=None)
def test_gemma_has_the_ids_of_sentencepiece(gemma, text):
    tokenizer, processor = gemma
    assert tokenizer.encode(text) == processor.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == processor.decode(
        processor.encode(text)
    )


@given(st.text() | st.text(alphabet="aeiqstI nm42+"))
@example("What is 12 + 30?\n\n   It is")
@settings(deadline=None)
def test_llama_has_the_ids_of_sentencepiece(llama, text):
    """The library adds no space to a text that begins with one, SentencePiece does."""
    tokenizer, processor = llama
    if not text.startswith((" ", "\u2581")):
        assert tokenizer.encode(text) == processor.encode(text)


def test_control_pieces_take_no_part_in_merges():
    """Llama 2 has "</" and "s>", which would merge to the end of a sequence."""
    texts = ["<unk>", "</s>", "<", "/", "s", ">", "</", "s>", "ss"]
    kinds = [Kind.UNKNOWN, Kind.CONTROL] + [Kind.NORMAL] * 7
    pieces = [
        Piece(text, i, k) for i, (text, k) in enumerate(zip(texts, kinds, strict=True))
    ]
    backend = byte_pair_backend(pieces, "<unk>", "never")
    merges = json.loads(backend.to_str())["model"]["merges"]
    assert merges == [["<", "/"], ["s", ">"], ["s", "s"]]


@pytest.mark.parametrize(
    ("legacy", "after"), [(True, "\u2581It"), (False, "It"), (None, "It")]
)
def test_prefix_after_a_control_token(root, llama, legacy, after):
    folder = shutil.copytree(root / "llama2", root / f"legacy-{legacy}")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = (
        "{% for m in messages %}{{ bos_token + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ bos_token }}{% endif %}"
    )
    config["legacy"] = legacy
    path.write_text(json.dumps(config))
    tokenizer = load_chat_tokenizer(folder)
    tokens, mask = tokenizer.chat.encode((("user", "It"), ("assistant", "It")))
    shown = "".join(map(tokenizer.piece, tokens))
    assert shown == f"<s>{after}</s><s>{after}</s>"
    assert "".join(map(tokenizer.piece, tokens[mask])) == f"{after}</s>"
    assert tokenizer.decode(tokens[mask]) == "It"


@pytest.mark.parametrize("how", ["prepend", "metaspace", "byte level"])
def test_space_in_front_is_added_where_the_whole_text_has_it(root, llama, how):
    """After control tokens, but not where a reply continues the text of its prompt."""
    spec = json.loads(llama[0].backend.to_str())
    if how == "prepend":  # as in the tokenizer.json of Llama 2
        steps = [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        ]
        spec["normalizer"] = {"type": "Sequence", "normalizers": steps}
        spec["pre_tokenizer"] = None
    elif how == "metaspace":
        spec["pre_tokenizer"]["prepend_scheme"] = "always"
    else:
        backend = byte_level(BY_NAME["llama2"].control)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        spec = json.loads(backend.to_str())
    folder = root / how
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    shutil.copy(root / "llama2" / "tokenizer_config.json", folder)
    tokenizer = load_chat_tokenizer(folder)
    messages = (("user", "It"), ("assistant", "is"), ("user", "so"), ("assistant", ""))
    text, _ = tokenizer.chat.template.render(messages)
    tokens, mask = tokenizer.chat.encode(messages)
    assert tokens.tolist() == tokenizer.backend.encode(text).ids
    space = tokenizer.piece(tokens[1])[0]
    assert space in "\u2581\u0120" and tokenizer.piece(tokens[1])[1] == "["
    trained = "".join(map(tokenizer.piece, tokens[mask]))
    assert trained.replace(space, " ") == " is </s>  </s>"


def test_added_tokens_of_an_older_file(root, llama):
    folder = shutil.copytree(root / "llama2", root / "added")
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 400}))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": "<pad>"}))
    tokenizer = load_chat_tokenizer(folder)
    assert (tokenizer.vocab_size, tokenizer.pad_id) == (401, 400)
    assert llama[0].vocab_size == 400


def test_unfit_sentencepiece_models_are_refused(root, llama, tmp_path):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((root / "llama2" / "tokenizer.model").read_bytes())
    path = tmp_path / "tokenizer.model"
    proto.trainer_spec.model_type = 1
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match="no byte-pair model"):
        load_chat_tokenizer(tmp_path)
    proto.trainer_spec.model_type = 2
    proto.normalizer_spec.remove_extra_whitespaces = True
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match="remove_extra_whitespaces=True"):
        load_chat_tokenizer(path)
    path.write_bytes(b"\xffno model")
    with pytest.raises(ValueError, match="no SentencePiece model"):
        load_chat_tokenizer(path)


def test_our_own_models_keep_their_role_symbols(tmp_path):
    ours = train_tokenizer(["What is it?"] * 4, 275, tmp_path / "w" / "tokenizer.model")
    for path in (tmp_path / "w", tmp_path / "w" / "tokenizer.model"):
        assert load_chat_tokenizer(path) == ours
    ours.save(tmp_path / "saved")
    assert load_chat_tokenizer(tmp_path / "saved") == ours
    tokens, mask = ours.chat.encode((("user", "it"), ("assistant", "is")))
    prompt = ours.chat.encode_prompt((("user", "it"),))
    assert tokens[: len(prompt)].tolist() == prompt.tolist()
    assert mask[len(prompt) :].all() and not mask[: len(prompt)].any()
    assert ours.chat.stop_ids == (ours.end_id,)
    (tmp_path / "t.jinja").write_text("x")
    with pytest.raises(ValueError, match="role symbols; they are its chat format"):
        load_chat_tokenizer(tmp_path / "w", chat_template=str(tmp_path / "t.jinja"))


# ------------------------------------------------------------------------------ GGUF


def byte_metadata(backend, pre):
    vocab = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    added = backend.get_added_tokens_decoder()
    types = [(3 if added[i].special else 4) if i in added else 1 for _, i in vocab]
    merges = json.loads(backend.to_str())["model"]["merges"]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [token for token, _ in vocab],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": "{%- set DEFAULT = '' -%}" + CHATML,
    }


PRE = {
    pre: byte_level(CHATML_TOKENS, ("<think>", "</think>"), pre)
    for pre in sorted(SPLITS)
}
GGUF = {pre: load_gguf_tokenizer(byte_metadata(b, pre), pre) for pre, b in PRE.items()}


@given(text=st.text() | st.text(alphabet="ab'st1234567890 \n\t.,!éÉ日\u0301"))
@example("It's 12345, it'S\r\n\r\n  x  \n")
@example("<think>\nso\n</think>\n\n")
@settings(deadline=None, max_examples=50)
@pytest.mark.parametrize("pre", SPLITS)
def test_byte_level_gguf_has_the_ids_of_its_json(pre, text):
    assert GGUF[pre].encode(text) == PRE[pre].encode(text, add_special_tokens=False).ids


def test_gguf_special_tokens_and_template():
    tokenizer = GGUF["smollm"]
    assert (tokenizer.chat.end_id, tokenizer.bos_id, tokenizer.pad_id) == (2, 1, 0)
    assert tokenizer.chat.stop_ids == (2,)
    tokens, mask = tokenizer.chat.encode((("user", "It"), ("assistant", "is 42")))
    assert tokenizer.decode(tokens[mask]) == "is 42"
    metadata = byte_metadata(PRE["smollm"], "smollm")
    metadata["tokenizer.ggml.eot_token_id"] = 0
    assert load_gguf_tokenizer(metadata, "m").chat.stop_ids == (2, 0)


def sentencepiece_metadata(folder, architecture):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    return {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [p.piece for p in proto.pieces],
        "tokenizer.ggml.scores": [p.score for p in proto.pieces],
        "tokenizer.ggml.token_type": [p.type for p in proto.pieces],
        "tokenizer.ggml.bos_token_id": proto.trainer_spec.bos_id,
        "tokenizer.ggml.eos_token_id": proto.trainer_spec.eos_id,
        "tokenizer.ggml.unknown_token_id": proto.trainer_spec.unk_id,
    }


@pytest.mark.parametrize(("name", "arch"), [("llama2", "llama"), ("gemma2", "gemma2")])
def test_sentencepiece_gguf_has_the_ids_of_its_model(root, name, arch, llama, gemma):
    metadata = sentencepiece_metadata(root / name, arch)
    family = BY_NAME[name]
    tokenizer = load_gguf_tokenizer(metadata, "m", template=family.template)
    from_model, _ = llama if name == "llama2" else gemma
    for text in ("What is 12 + 30?\n\n   It is", "é 日本", "a</s><eos><bos>"):
        assert tokenizer.encode(text) == from_model.encode(text)
    messages = (("user", "It </s>"), ("assistant", "is  so"))
    for got, want in zip(
        tokenizer.chat.encode(messages), from_model.chat.encode(messages), strict=True
    ):
        assert got.tolist() == want.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.pre": "new"}, r"pre is 'new'.*'llama-bpe'"),
        ({"tokenizer.ggml.pre": None}, r"pre is None"),
        ({"tokenizer.ggml.model": "t5"}, r"model is 't5'; supported"),
        ({"tokenizer.ggml.tokens": None}, r"no tokenizer\.ggml\.tokens"),
        ({"tokenizer.ggml.model": "llama"}, r"no tokenizer\.ggml\.scores"),
    ],
)
def test_unfit_gguf_metadata_are_refused(change, message):
    metadata = byte_metadata(PRE["gpt-2"], "gpt-2") | change
    metadata = {k: v for k, v in metadata.items() if v is not None or k.endswith("pre")}
    with pytest.raises(ValueError, match=message):
        load_gguf_tokenizer(metadata, "m.gguf")


def test_gguf_files(tmp_path):
    gguf = pytest.importorskip("gguf")
    metadata = byte_metadata(PRE["smollm"], "smollm")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_token_merges(metadata["tokenizer.ggml.merges"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(metadata["tokenizer.chat_template"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tokenizer = load_chat_tokenizer(path)
    assert tokenizer == GGUF["smollm"]
    assert tokenizer.chat.content_hash == GGUF["smollm"].chat.content_hash
    path.write_bytes(b"no gguf file at all")
    with pytest.raises(ValueError, match=r"m\.gguf' is no GGUF file"):
        load_chat_tokenizer(path)


# ------------------------------------------------------------------- what is refused


def test_missing_and_broken_files(smollm, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none': there is no such file"):
        load_chat_tokenizer(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor"):
        load_chat_tokenizer(tmp_path)
    folder = shutil.copytree(smollm, tmp_path / "m")
    (folder / "tokenizer.json").write_text(
        (smollm / "tokenizer.json").read_text()[:999]
    )
    with pytest.raises(ValueError, match=r"tokenizer\.json' is no tokenizer\.json"):
        load_chat_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not valid JSON"):
        load_chat_tokenizer(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"eos_token": "<|eot|>"},
            r"eos_token is '<\|eot\|>', which the vocabulary lacks",
        ),
        (
            {"added_tokens_decoder": {"5": {"content": "<|im_end|>"}}},
            r"'<\|im_end\|>' has id 5 in tokenizer_config\.json and 2",
        ),
        (
            {"added_tokens_decoder": {"999": {"content": "<new>"}}},
            r"'<new>' has id 999",
        ),
    ],
)
def test_files_of_different_models_are_refused(smollm, tmp_path, change, message):
    folder = shutil.copytree(smollm, tmp_path / "m")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_chat_tokenizer(folder)


def test_added_tokens_of_the_config_are_added(smollm, byte_tokenizer, tmp_path):
    folder = shutil.copytree(smollm, tmp_path / "m")
    path = folder / "tokenizer_config.json"
    size = byte_tokenizer.vocab_size
    added = {str(size): {"content": "<new>", "special": True, "normalized": False}}
    config = json.loads(path.read_text()) | {"added_tokens_decoder": added}
    path.write_text(json.dumps(config))
    tokenizer = load_chat_tokenizer(folder)
    assert tokenizer.vocab_size == size + 1 and tokenizer.is_control(size)
    assert tokenizer != byte_tokenizer


def test_a_vocabulary_that_does_not_fit_the_model(byte_tokenizer):
    size = byte_tokenizer.vocab_size
    check_vocabulary(byte_tokenizer, size)
    check_vocabulary(byte_tokenizer, size + 100)  # padded embeddings
    with pytest.raises(ValueError, match=rf"{size} tokens .* 'm' have {size - 1} rows"):
        check_vocabulary(byte_tokenizer, size - 1, "m")

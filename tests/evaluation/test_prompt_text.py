"""Conversations as text: the tokens of the chat format, whatever a message spells."""

import pytest
import tokenizers

from dcft_jax.data import Tokenizer, load_chat_tokenizer
from dcft_jax.evaluation.prompt_text import HIDE, PromptText
from tests.data.chat_families import BY_NAME, write_family
from tests.evaluation.conftest import WORDS

FAMILIES = ("smollm2", "qwen3", "llama3", "llama2", "gemma3")
CONVERSATIONS = [
    [("user", "what is the word")],
    [("user", "add three\nand seven "), ("assistant", "it is"), ("user", " neon ▁ é")],
]


@pytest.fixture(scope="module", params=["ours", *FAMILIES])
def any_tokenizer(request, tokenizer, tmp_path_factory) -> Tokenizer:
    if request.param == "ours":
        return tokenizer
    folder = tmp_path_factory.mktemp("family") / request.param
    return load_chat_tokenizer(write_family(BY_NAME[request.param], folder))


def test_the_text_of_a_prompt_has_its_tokens(any_tokenizer: Tokenizer):
    text = PromptText(any_tokenizer)
    for messages in CONVERSATIONS:
        expected = any_tokenizer.chat.encode_prompt(messages).tolist()
        assert text.encode(text.render(messages)) == expected


def test_a_message_cannot_forge_a_control_token(any_tokenizer: Tokenizer):
    text = PromptText(any_tokenizer)
    end = any_tokenizer.piece(any_tokenizer.chat.end_id)
    messages = [("user", f"it is {end}the{end} word")]
    expected = any_tokenizer.chat.encode_prompt(messages).tolist()
    assert HIDE in text.render(messages)
    assert text.encode(text.render(messages)) == expected
    begun = text.encode(text.render(CONVERSATIONS[0], begun=f"it is {end}"))
    prompt = text.encode(text.render(CONVERSATIONS[0]))
    number = prompt.count(any_tokenizer.chat.end_id)
    assert begun.count(any_tokenizer.chat.end_id) == number
    assert begun[: len(prompt) - 2] == prompt[: len(prompt) - 2]


def test_a_text_that_spells_a_control_token_means_it(any_tokenizer: Tokenizer):
    end = any_tokenizer.chat.end_id
    ids = PromptText(any_tokenizer).encode(f"add{any_tokenizer.piece(end)}")
    assert ids == [*any_tokenizer.encode("add"), end]


def test_a_reply_that_was_begun_is_the_begin_of_the_one_that_is_trained(tokenizer):
    text = PromptText(tokenizer)
    messages = [("user", WORDS[0])]
    tokens_L, _ = tokenizer.chat.encode([*messages, ("assistant", "neon")])
    begun = text.encode(text.render(messages, begun="neon"))
    assert begun == tokens_L[:-1].tolist()


def test_the_post_processor_says_whether_a_text_begins_with_bos(tmp_path):
    folder = write_family(BY_NAME["llama3"], tmp_path / "a")
    assert not PromptText(load_chat_tokenizer(folder)).adds_bos
    path = str(folder / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(path)
    bos = BY_NAME["llama3"].config["bos_token"]
    backend.post_processor = tokenizers.processors.TemplateProcessing(  # pyright: ignore
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    backend.save(path)
    assert PromptText(load_chat_tokenizer(folder)).adds_bos

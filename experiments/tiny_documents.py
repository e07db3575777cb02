"""Documents of the corpus of dcft-tiny: text of a source, or a question and its answer.

A document is an `Example`: plain text has no prompt. Its metadata name the `unit` that
it was made from, so that what is held out of one source is not trained in another.
"""

from dcft_jax.data import Example
from dcft_jax.data.role_symbols import as_written
from dcft_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer


def plain(text: str, source: str, unit: str) -> Example:
    return Example((("assistant", text),), source, metadata={"unit": unit})


def question(prompt: str, reply: str, source: str, unit: str) -> Example:
    messages = (("user", prompt), ("assistant", reply))
    return Example(messages, source, metadata={"unit": unit})


def is_plain(document: Example) -> bool:
    return not document.prompt


def text_of(document: Example) -> str:
    return "\n".join(text for _, text in document.messages)


def num_bytes(document: Example) -> int:
    return sum(len(text.encode()) for _, text in document.messages)


def encode(
    documents: list[Example], tokenizer: SentencePieceTokenizer
) -> list[list[int]]:
    """Questions in the chat layout; of plain text, `<bos>`, the text, `<end>`."""
    chat = tokenizer.chat
    questions = [d for d in documents if not is_plain(d)]
    laid_out = iter(chat.encode_batch([d.messages for d in questions]))
    texts = [as_written(text_of(d)) for d in documents if is_plain(d)]
    contents = iter(tokenizer.encode_batch(texts))
    return [
        [tokenizer.bos_id, *next(contents), tokenizer.end_id]
        if is_plain(document)
        else next(laid_out)[0].tolist()
        for document in documents
    ]

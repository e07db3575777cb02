"""Training examples that repeat a test item."""

from collections.abc import Iterable, Sequence

from dcft_jax.data.decontamination import find_contamination
from dcft_jax.data.example import Example, prompt_key
from dcft_jax.evaluation.items import Item

# Keys of `Item.metadata` with the task as it was published.
_PUBLISHED = ("text", "code_prefix")


def held_out_examples(items: Iterable[Item]) -> list[Example]:
    """Items as `find_contamination` takes what must not be learnt by heart.

    An item whose prompt was made out of a published text gives that text as well: a
    training example will not repeat what we added to it.
    """
    return [
        Example((("user", prompt), ("assistant", item.reference)), item.task)
        for item in items
        for prompt in _prompts(item)
    ]


def _prompts(item: Item) -> list[str]:
    published = [item.metadata[key] for key in _PUBLISHED if key in item.metadata]
    return [item.prompt, *published]


def overlapping(
    train: Sequence[Example], items: Iterable[Item], ngram: int = 13
) -> frozenset[int]:
    """Indices of the training examples to remove before `items` may judge the model.

    Those with the prompt of an item, and those that hold one of its texts whole or are
    held by it; see `find_contamination`.

    Args:
        ngram: texts of fewer words are compared as whole prompts only. 13 is the n of
            GPT-3 (arXiv:2005.14165, appendix C).

    Raises:
        ValueError: a negative n.
    """
    held_out = held_out_examples(items)
    keys = {prompt_key(example) for example in held_out}
    same = {i for i, example in enumerate(train) if prompt_key(example) in keys}
    return find_contamination(train, held_out, ngram).contained | same

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.data.decontamination import find_contamination
from dcft_jax.data.example import Example

STORY = "a farmer has seven red hens and sells three of them at the market"  # 14 words


def example(prompt, reply="4", system=None):
    opening = () if system is None else (("system", system),)
    return Example((*opening, ("user", prompt), ("assistant", reply)), "toy")


def find(train, held_out, ngram=8):
    return find_contamination(train, held_out, ngram)


def test_a_whole_held_out_prompt_in_a_longer_one_is_removed():
    train = [
        example(f"Read with care: {STORY.upper()}!  How many are left?"),
        example("A different question about geese and ducks and other birds on a pond"),
    ]
    found = find(train, [example(STORY)])
    assert found.contained == {0}
    assert found.shared == 1


def test_a_train_prompt_inside_a_held_out_one_is_removed():
    found = find([example(STORY)], [example(f"Please answer: {STORY} today")])
    assert found.contained == {0}


def test_a_leaked_reply_is_removed_wherever_it_stands():
    held_out = [example("short question", reply=STORY)]
    train = [example("other", reply=f"Sure: {STORY}."), example(f"Rewrite: {STORY}")]
    assert find(train, held_out).contained == {0, 1}


def test_rows_of_a_template_share_n_grams_but_stay():
    template = "work out the sum of these two numbers and give only the result {} + {}"
    train = [example(template.format(i, 2)) for i in range(20)]
    held_out = [example(template.format(i, 3)) for i in range(20)]
    found = find(train, held_out)
    assert found.shared == 20
    assert found.contained == frozenset()


def test_numbers_and_operators_are_words_of_their_own():
    text = "work out this: what is {} {} 2 if you count in base ten"
    held_out = [example(text.format("-3", "+"))]
    for number, operator in [("3", "+"), ("-3", "-"), ("-3.5", "+")]:
        assert not find([example(text.format(number, operator))], held_out).contained
    assert find([example(text.format("(-3)", "+"))], held_out).contained


def test_texts_below_n_words_and_system_prompts_do_not_count():
    system = "you are a patient teacher who explains every step in simple words"
    train = [example("1 + 1", system=system)]
    held_out = [example("2 + 2", system=system)]
    found = find(train, held_out)
    assert (found.shared, found.contained) == (0, frozenset())


def test_zero_turns_it_off_and_negative_is_refused():
    same = [example(STORY)]
    assert find(same, same, 0).contained == frozenset()
    with pytest.raises(ValueError, match="decontamination_ngram=-1"):
        find(same, same, -1)


words = st.lists(st.sampled_from("abc"), min_size=1, max_size=7).map(tuple)


def inside(short, long):
    return any(
        long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1)
    )


def grams(text, n):
    return {text[i : i + n] for i in range(len(text) - n + 1)}


@settings(deadline=None)
@given(st.lists(words, max_size=4), st.lists(words, max_size=4), st.integers(1, 3))
def test_agrees_with_the_definition(train, held_out, n):
    found = find(
        [example(" ".join(text), "") for text in train],
        [example(" ".join(text), "") for text in held_out],
        n,
    )
    pairs = [(t, h) for t in range(len(train)) for h in held_out]
    assert found.contained == {
        t
        for t, h in pairs
        if min(len(train[t]), len(h)) >= n
        and (inside(train[t], h) or inside(h, train[t]))
    }
    assert found.shared == len(
        {t for t, h in pairs if grams(train[t], n) & grams(h, n)}
    )

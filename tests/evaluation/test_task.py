"""The scores of a task against numbers worked out from the model itself."""

import math

import jax
import numpy as np
import pytest

from dcft_jax.data import Example
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.likelihood import score_replies
from dcft_jax.evaluation.sandbox import Choice
from dcft_jax.evaluation.task import Options, Subject, answer, evaluate_task
from dcft_jax.models import Sampling
from dcft_jax.sharding import make_mesh
from tests.evaluation.conftest import WORDS

FEW = Options(max_new_tokens=5, batch_size=4)


@pytest.fixture(scope="module")
def subject(model, params, tokenizer) -> Subject:
    mesh = make_mesh(dict(ability=1, data=1, model=1), jax.devices()[:1])
    return Subject(model, params, tokenizer, mesh)


@pytest.fixture(autouse=True)
def _mesh(subject: Subject):
    with jax.set_mesh(subject.mesh):
        yield


def items(kind: str, number: int = 6, **fields) -> list[Item]:
    fields = dict(reference="") | fields
    return [
        Item(f"t/{i}", "t", prompt=WORDS[i], kind=kind, **fields) for i in range(number)
    ]


def nats(subject: Subject, prompts: list[str], replies: list[str]) -> np.ndarray:
    pairs = zip(prompts, replies, strict=True)
    examples = [Example((("user", p), ("assistant", r)), "t") for p, r in pairs]
    return score_replies(*subject[:3], examples, subject.mesh).nats_N


def test_bits_per_byte_of_references(subject: Subject):
    asked = items("reference", reference="the word é")
    calls: list = []
    ((score,), records) = evaluate_task(
        "t", asked, subject, FEW, advance=lambda *call: calls.append(call)
    )
    nats_N = nats(subject, WORDS[:6], ["the word é"] * 6)
    assert score.metric == "bits per byte" and math.isnan(score.chance)
    # 11 bytes: "é" is two.
    expected = nats_N.sum() / math.log(2) / (11 * 6)
    assert score.estimate.value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose([r["reference_nats"] for r in records], nats_N)
    assert calls[-1][0] == "likelihoods" and calls[-1][1] == calls[-1][2]


def test_the_most_likely_choice_counts(subject: Subject):
    choices = ("sun", "reverse the word please", "it")
    asked = items("choice", choices=choices, gold=1)
    (plain, by_byte), records = evaluate_task("t", asked, subject, FEW)
    nats_NC = np.array([nats(subject, [w] * 3, list(choices)) for w in WORDS[:6]])
    lengths_C = np.array([len(choice) for choice in choices])
    assert plain.estimate.value == np.mean(nats_NC.argmin(axis=1) == 1)
    assert by_byte.estimate.value == np.mean((nats_NC / lengths_C).argmin(axis=1) == 1)
    assert plain.chance == pytest.approx(1 / 3)
    np.testing.assert_allclose([r["nats"] for r in records], nats_NC, rtol=1e-5)


def test_a_choice_that_is_too_long_is_not_counted(subject: Subject):
    asked = items("choice", choices=("sun", "reverse " * 40), gold=0)
    options = Options(max_length=48)
    (plain, _), _ = evaluate_task("t", asked, subject, options)
    assert (plain.estimate.n, plain.total) == (0, 6)
    assert plain.note == "6 too long"


def test_accuracy_counts_what_the_model_says(subject: Subject):
    asked = items("verbatim", gold="?")
    said = [one[0].text for one in answer(asked, subject, FEW) if one is not None]
    # Right about the first two, and with a text that nothing says about the others.
    asked = [
        Item(f"t/{i}", "t", WORDS[i], "verbatim", "", gold=said[i] if i < 2 else "§")
        for i in range(6)
    ]
    ((score,), records) = evaluate_task("t", asked, subject, FEW)
    right = [i for i in range(6) if said[i].strip() == str(asked[i].gold).strip()]
    assert {0, 1} <= set(right) and len(right) < 6
    assert score.metric == "accuracy"
    assert score.estimate.value == len(right) / 6
    assert 0 < score.estimate.low < score.estimate.value < score.estimate.high
    assert score.chance == 4 / 6  # always "§"
    assert [r["replies"][0]["text"] for r in records] == said
    assert score.note == "6 of 6 cut at 5"


def test_samples_give_pass_at_k(subject: Subject):
    options = Options(
        max_new_tokens=3, num_samples=4, sampling=Sampling(temperature=1.0), ks=(1, 4)
    )
    scores, records = evaluate_task("t", items("exact", gold="x"), subject, options)
    assert [score.metric for score in scores] == ["pass@1", "pass@4"]
    assert scores[0].estimate.value <= scores[1].estimate.value
    assert all(len(record["replies"]) == 4 for record in records)


def test_programs_without_a_sandbox_have_no_accuracy(subject: Subject):
    asked = items("program", tests=("assert f()",), reference="def f(): return 1")
    ((bits, passed), records) = evaluate_task(
        "t", asked, subject, FEW, Choice(None, "no sandbox here")
    )
    assert math.isfinite(bits.estimate.value)
    assert passed.metric == "pass@1" and passed.estimate.n == 0
    assert math.isnan(passed.estimate.value) and math.isnan(passed.chance)
    assert "no sandbox here" in passed.note
    assert records[0]["replies"][0]["correct"] is None


def test_likelihoods_alone(subject: Subject):
    asked = items("answer", gold="4", reference="4")
    scores, _ = evaluate_task("t", asked, subject, Options(generate=False))
    assert [score.metric for score in scores] == ["bits per byte"]


def test_choices_need_a_task_of_their_own(subject: Subject):
    mixed = [*items("choice", choices=("a", "b"), gold=0), *items("exact", gold="a")]
    with pytest.raises(ValueError, match="kinds choice, exact; choices need"):
        evaluate_task("t", mixed, subject, FEW)

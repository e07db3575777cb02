"""The task embedding against what its definitions say, one gradient at a time."""

import dataclasses
import random
from functools import partial

import jax
import numpy as np
import pytest

from configs.base import get_config
from dcft_jax.data import Example, pack_examples, train_tokenizer
from dcft_jax.meta import measure as module
from dcft_jax.meta.embed import embed, make_features
from dcft_jax.meta.features import ABILITY, TASK, permute
from dcft_jax.meta.measure import gradient_part, measure, pack_halves, with_part
from dcft_jax.meta.proxy import proxy_model
from dcft_jax.models import LoRA, combine, init, score_responses
from dcft_jax.models.lora import select
from dcft_jax.sharding import Rules, make_mesh

LENGTH = 32


def _examples(kind: int, count: int = 16) -> list[Example]:
    rng = random.Random(kind)
    found = []
    for _ in range(count):
        a, b = rng.randrange(100), rng.randrange(100)
        prompt = (f"{a}+{b}", f"{a}-{b}", f"say {a}", f"{a} then {b}")[kind]
        reply = (str(a + b), str(a - b), f"{a}" * 3, f"{b} {a}")[kind]
        found.append(Example((("user", prompt), ("assistant", reply)), "made", True))
    return found


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [t for kind in range(4) for e in _examples(kind) for _, t in e.messages]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return train_tokenizer(texts, 290, path)


@pytest.fixture(scope="module")
def base(tokenizer):
    model = proxy_model(tokenizer.vocab_size, width=32, num_layers=2)
    return model, init(model, jax.random.key(0))


@pytest.fixture(scope="module")
def measured(tokenizer, base):
    groups = [pack_halves(_examples(kind), tokenizer, LENGTH) for kind in range(4)]
    return measure(*base, groups)


@partial(jax.jit, static_argnums=0)
def _one(model, params, rows):
    """Loss, count and gradient of one half, of all parameters."""

    def loss(params):
        nll, correct, mask = score_responses(model, params, rows)
        return nll.sum(), (correct, mask)

    (nll, (correct, mask)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return nll, correct, mask, gradient


def _arrays(rows):
    """Padded to as many rows as any half has, so that there is one program."""
    arrays = {
        name: np.zeros((8, LENGTH), getattr(rows, f"{name}_NL").dtype)
        for name in ("tokens", "loss_mask", "segments", "positions")
    }
    for name, array in arrays.items():
        array[: len(rows)] = getattr(rows, f"{name}_NL")
    return arrays


def _reference(model, params, tokenizer):
    """Per half: sums and the flat gradient of the last block and the final norm."""
    found = []
    for kind in range(4):
        for start in range(2):
            rows = pack_examples(_examples(kind)[start::2], tokenizer, LENGTH)
            arrays = _arrays(rows)
            nll, correct, mask, gradient = _one(model, params, arrays)
            last = jax.tree.map(lambda x: x[-1], gradient["layers"])
            leaves = jax.tree.leaves((gradient["final_norm"], last))
            flat = np.concatenate([np.ravel(x) for x in leaves]).astype(np.float64)
            right = 0
            for n, m in np.argwhere(rows.scored_NM):
                at = mask[n] & (arrays["segments"][n] == m + 1)
                right += bool(np.all(correct[n][at]))
            found.append((float(nll), int(mask.sum()), right, flat))
    return found


def test_against_plain_gradients(tokenizer, base, measured):
    halves = _reference(*base, tokenizer)
    for g in range(4):
        (nll, n, right, a), (nll2, n2, right2, b) = halves[2 * g : 2 * g + 2]
        np.testing.assert_allclose(measured.loss_G[g], (nll + nll2) / (n + n2), 1e-5)
        assert measured.accuracy_G[g] == (right + right2) / 16
        assert measured.response_tokens_G[g] == (n + n2) / 16
        # Of two halves only the product of the two is without noise.
        np.testing.assert_allclose(measured.signal_G[g], a @ b / (n * n2), 1e-4)
    means = [
        (halves[2 * g][3] + halves[2 * g + 1][3])
        / (halves[2 * g][1] + halves[2 * g + 1][1])
        for g in range(4)
    ]
    gram = np.array([[a @ b for a in means] for b in means])
    np.testing.assert_allclose(measured.gram_GG, gram, rtol=1e-4, atol=1e-7)


def test_features_are_what_they_say(measured):
    features = make_features(
        measured, 0, [1, 2, 3], np.array([10, 20, 70]), 3200, 9, 32
    )
    at = {name: features.ability_KF[:, i] for i, name in enumerate(ABILITY)}
    task = dict(zip(TASK, features.task_G, strict=True))
    assert task["loss"] == measured.loss_G[0]
    np.testing.assert_allclose(task["support"], np.log(16), 1e-6)
    np.testing.assert_allclose(task["budget"], np.log(3200), 1e-6)
    np.testing.assert_allclose(np.exp(at["share"]), [0.1, 0.2, 0.7], 1e-5)
    np.testing.assert_allclose(np.exp(at["epochs"]), [10, 5, 100 / 70], 1e-5)
    np.testing.assert_allclose(
        at["loss_ratio"], np.log(measured.loss_G[1:] / measured.loss_G[0]), 1e-4, 1e-6
    )
    x = measured.hidden_GD - measured.hidden_GD.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(at["kernel"], x[1:] @ x[0], 1e-4, 1e-5)
    np.testing.assert_allclose(features.pair_KKP[..., 1], x[1:] @ x[1:].T, 1e-4, 1e-5)
    np.testing.assert_array_equal(np.diagonal(features.pair_KKP[..., 0]), 1.0)
    assert np.all(np.isfinite(features.ability_KF)) and np.all(
        at["alignment_stderr"] > 0
    )
    assert np.all(np.abs(at["alignment"]) <= 1)


def test_the_order_of_abilities_does_not_matter(measured):
    size_K = np.array([10.0, 20.0, 70.0])
    features = make_features(measured, 0, [1, 2, 3], size_K, 3200, 9, 32)
    order = [2, 0, 1]
    other = make_features(measured, 0, [3, 1, 2], size_K[order], 3200, 9, 32)
    for a, b in zip(permute(features, order), other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_adapters_if_there_are_some(tokenizer, base):
    lora = LoRA(rank=2, alpha=4.0, targets=("query", "up"), rank_stabilised=False)
    model = dataclasses.replace(base[0], lora=lora)
    params = init(model, jax.random.key(1))
    part = gradient_part(params)
    names = {jax.tree_util.keystr(p)[-8:-2] for p in _paths(part)}
    assert names == {"lora_a", "lora_b"}
    moved = jax.tree.map(lambda x: x + 0.5, part)
    others = combine(params, jax.tree.map(jax.numpy.zeros_like, part))
    assert _same(combine(with_part(params, moved), part), params)
    assert not _same(with_part(params, moved), params) and not _same(others, params)
    groups = [pack_halves(_examples(kind), tokenizer, LENGTH) for kind in range(2)]
    found = measure(model, params, groups)
    total = np.zeros(2)
    for g, halves in enumerate(groups):
        sums, count = 0, 0
        for rows in halves:
            _, _, mask, gradient = _one(model, params, _arrays(rows))
            leaves = jax.tree.leaves(select(gradient, part))
            sums = sums + np.concatenate([np.ravel(x) for x in leaves])
            count += int(mask.sum())
        total[g] = np.sum((sums / count) ** 2)
    np.testing.assert_allclose(np.diagonal(found.gram_GG), total, rtol=1e-4)


def _paths(tree):
    return [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_results_are_kept_by_content(tokenizer, base, measured, tmp_path, monkeypatch):
    model, params = base
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return measured

    monkeypatch.setattr(module, "_measure", counted)
    groups = [pack_halves(_examples(kind), tokenizer, LENGTH) for kind in range(2)]
    first = measure(model, params, groups, cache_dir=tmp_path)
    again = measure(model, params, groups, cache_dir=tmp_path)
    assert len(calls) == 1
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    groups[1][0].tokens_NL[0, 0] += 1
    measure(model, params, groups, cache_dir=tmp_path)
    changed = jax.tree.map(lambda x: x + 1e-3, params)
    measure(model, changed, groups, cache_dir=tmp_path)
    assert len(calls) == 3 == len(list(tmp_path.rglob("*.npz")))


def test_an_odd_number_of_groups_on_a_mesh(tokenizer, base, measured):
    """With a single head of keys, which a mesh axis splits."""
    model, _ = base
    assert model.num_kv_heads == 1
    mesh = make_mesh(get_config().mesh, jax.devices()[:1])
    pairs = dict(get_config().mesh.rules) | {"slot": None, "batch": None}
    model = dataclasses.replace(model, rules=Rules.from_config(pairs))
    groups = [pack_halves(_examples(kind), tokenizer, LENGTH) for kind in range(3)]
    with jax.set_mesh(mesh):
        found = measure(model, init(model, jax.random.key(0)), groups)
    np.testing.assert_allclose(found.loss_G, measured.loss_G[:3], rtol=1e-5)
    close = dict(rtol=1e-3, atol=1e-3 * np.abs(measured.gram_GG).max())
    np.testing.assert_allclose(found.gram_GG, measured.gram_GG[:3, :3], **close)


def test_embed_is_all_of_it(tokenizer, base, measured):
    features = embed(
        *(*base, _examples(0), [_examples(kind) for kind in (1, 2, 3)]),
        *(tokenizer, LENGTH, np.array([10, 20, 70]), 3200),
    )
    parameters = sum(x.size for x in jax.tree.leaves(base[1]))
    expected = make_features(
        measured, 0, [1, 2, 3], np.array([10, 20, 70]), 3200, parameters, LENGTH
    )
    for a, b in zip(features, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("count", [15, 129])
def test_too_few_and_too_many_examples(tokenizer, count):
    with pytest.raises(ValueError, match=f"by 16 to 128 examples, got {count}"):
        pack_halves(_examples(0, count), tokenizer, LENGTH)


def test_wrong_arguments(tokenizer, base):
    with pytest.raises(ValueError, match="no group"):
        measure(*base, [])
    groups = [pack_halves(_examples(2), tokenizer, LENGTH)]
    with pytest.raises(ValueError, match="max_predicted=2, but a row has"):
        measure(*base, groups, max_predicted=2)


def test_a_size_for_every_ability(measured):
    with pytest.raises(ValueError, match=r"size_K=\[10.0\] must be 2 numbers of rows"):
        make_features(measured, 0, [1, 2], np.array([10]), 3200, 9, 32)

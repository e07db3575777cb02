"""Balancers against plain transcriptions of their papers, over sequences of losses."""

import functools

import jax
import numpy as np
import pytest

from dcft_jax.conflict import RESOLVERS, Observation
from tests.conflict.matrix_families import make_rows
from tests.conflict.running import BALANCERS, gramian

STEPS, ABILITIES = 30, 3
WEIGHTS = np.array([0.5, 0.3, 0.2])
GRAM = gramian(make_rows("normal", ABILITIES, 0))
SHORT = {"coba": {"window": 8, "warmup": 5}, "dwa": {"window": 4}}


@functools.cache
def build(name):
    resolver = RESOLVERS[name](**SHORT.get(name, {}))
    return resolver, jax.jit(resolver.resolve)


def losses(seed=0):
    """`[T, K]`: a fast one, a slow one, and one that turns and diverges."""
    rng, t = np.random.default_rng(seed), np.arange(STEPS)[:, None]
    noise = np.exp(0.05 * rng.standard_normal((STEPS, ABILITIES)))
    slow = 1.5 - 0.01 * t
    turning = 2 - 0.08 * t + 0.004 * t**2
    return np.concatenate([3 * 0.9**t + 0.2, slow, turning], axis=1) * noise


def run(name, losses_TK, weights=WEIGHTS, gram=GRAM):
    resolver, resolve = build(name)
    state, seen = resolver.init(len(weights)), []
    for loss in losses_TK:
        observation = Observation(loss_K=np.float32(loss))
        c, state = resolve(gram, np.float32(weights), state, observation)
        seen.append(np.asarray(c))
    return np.array(seen), state


def softmax(x, prior=1.0, axis=-1):
    raised = prior * np.exp(x - np.max(x, axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


def adam(lr, decay=0.0):
    """torch.optim.Adam, with its L2 decay."""
    m, v, t = 0.0, 0.0, 0

    def step(x, gradient):
        nonlocal m, v, t
        gradient, t = gradient + decay * x, t + 1
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        return x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return step


def famo_of_the_paper(losses_TK):
    xi, update, last, out = np.zeros(ABILITIES), adam(0.025, 1e-3), None, []
    for loss in losses_TK:
        if last is not None:
            z = softmax(xi, WEIGHTS)
            jacobian = np.diag(z) - np.outer(z, z)
            xi = update(xi, jacobian @ (np.log(last) - np.log(loss)))
        z = softmax(xi, WEIGHTS)
        c_t = 1 / np.sum(z / loss)
        out.append(c_t * z / loss)
        last = loss
    return np.array(out)


def uw_of_the_paper(losses_TK):
    s, update, out = np.zeros(ABILITIES), adam(0.025), []
    for loss in losses_TK:
        out.append(WEIGHTS * np.exp(-s) / np.sum(WEIGHTS * np.exp(-s)))
        s = update(s, -0.5 * np.exp(-s) * loss + 0.5)
    return np.array(out)


def dwa_of_the_paper(losses_TK, window=4, temperature=2.0):
    out = []
    for t in range(STEPS):
        done = t // window
        means = [losses_TK[i * window : (i + 1) * window].mean(0) for i in range(done)]
        ratio = means[-1] / means[-2] if done > 1 else np.ones(ABILITIES)
        out.append(softmax(ratio / temperature, WEIGHTS))
    return np.array(out)


def coba_of_the_paper(losses_TK, window=8, warmup=5, tau=5.0):
    ratio, slopes, out = losses_TK / losses_TK[0], [], []
    for t in range(STEPS):
        if t + 1 < warmup:
            out.append(WEIGHTS)
            continue
        x = np.arange(max(0, t + 1 - window), t + 1)
        slope = np.polyfit(x, ratio[x], 1)[0]
        slopes = [*slopes, slope][-window:]
        past, n = np.array(slopes), len(slopes)
        rcs = softmax(ABILITIES * slope / np.abs(slope).sum())
        acs = softmax(-n * slope / np.abs(past).sum(axis=0))
        worst = past.max(axis=1)
        df = n * softmax(-tau * n * worst / np.abs(worst).sum())[-1]
        df = min(df, 1.0)
        omega = WEIGHTS * (df * rcs + (1 - df) * acs)
        out.append(omega / omega.sum())
    return np.array(out)


PAPERS = {
    "famo": famo_of_the_paper,
    "uw": uw_of_the_paper,
    "dwa": dwa_of_the_paper,
    "coba": coba_of_the_paper,
}


@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_paper(name, seed):
    losses_TK = losses(seed)
    expected = PAPERS[name](losses_TK)
    seen, _ = run(name, losses_TK)
    np.testing.assert_allclose(seen, expected, rtol=2e-4, atol=1e-5)
    # It moved: agreement on the weights alone would say nothing.
    assert np.abs(seen[-1] - WEIGHTS).max() > 0.01


@pytest.mark.parametrize("name", BALANCERS)
def test_the_sum_of_the_weights_is_kept(name):
    seen, _ = run(name, losses(), 3 * WEIGHTS)
    np.testing.assert_allclose(seen.sum(axis=1), 3, rtol=1e-5)
    once, _ = run(name, losses())
    np.testing.assert_allclose(seen, 3 * once, rtol=1e-4)


@pytest.mark.parametrize("name", BALANCERS)
def test_permuted_abilities_get_permuted_coefficients(name):
    order = np.array([2, 0, 1])
    seen, _ = run(name, losses())
    permuted, _ = run(name, losses()[:, order], WEIGHTS[order])
    np.testing.assert_allclose(permuted, seen[:, order], rtol=1e-4)


@pytest.mark.parametrize("name", BALANCERS)
def test_an_ability_that_never_comes_takes_no_part(name):
    """Absent from the Gramian, or without a loss and so at its weight."""
    gram = GRAM.copy()
    gram[2] = gram[:, 2] = 0
    without, _ = run(name, losses(), gram=gram)
    assert np.all(without[:, 2] == 0)
    np.testing.assert_allclose(without.sum(axis=1), 0.8, rtol=1e-5)
    unknown = losses()
    unknown[:, 2] = np.nan
    seen, _ = run(name, unknown)
    np.testing.assert_array_equal(seen[:, 2], np.float32(0.2))
    np.testing.assert_allclose(seen[:, :2], without[:, :2], rtol=1e-5)


@pytest.mark.parametrize("name", BALANCERS)
def test_an_ability_may_miss_steps(name):
    holes = losses()
    holes[3::4, 1] = np.nan
    holes[5, :] = np.nan
    seen, _ = run(name, holes)
    assert np.all(np.isfinite(seen)) and np.all(seen > 0)
    np.testing.assert_allclose(seen.sum(axis=1), 1, rtol=1e-5)
    whole, _ = run(name, losses())
    # Losses of the same course, so nearly the same balance.
    assert np.abs(seen[-1] - whole[-1]).max() < 0.15


@pytest.mark.parametrize("name", BALANCERS)
def test_a_missing_observation_names_the_way_out(name):
    resolver = RESOLVERS[name]()
    with pytest.raises(ValueError, match=rf"{name}: observation\.loss_K is None.*pass"):
        resolver.resolve(GRAM, np.float32(WEIGHTS), resolver.init(3))


def test_famo_first_weighs_by_the_inverse_of_the_loss():
    seen, _ = run("famo", [[1.0, 2.0, 4.0]])
    shares = WEIGHTS / [1, 2, 4]
    np.testing.assert_allclose(seen[0], shares / shares.sum(), rtol=1e-6)


def test_coba_favours_the_slow_while_all_converge():
    t = np.arange(STEPS)[:, None]
    falling = 1 - np.array([0.02, 0.01, 0.001]) * t
    seen, _ = run("coba", falling, np.full(3, 1 / 3))
    assert np.all(np.diff(seen[-1]) > 0)


def test_coba_drops_what_starts_to_diverge():
    t = np.arange(STEPS)[:, None]
    course = np.where(t < 15, 1 - 0.01 * t, 0.85 + 0.04 * (t - 15))
    falling = 1 - 0.01 * np.repeat(t, 2, axis=1)
    seen, _ = run("coba", np.concatenate([falling, course], 1), np.full(3, 1 / 3))
    assert seen[20, 2] < 0.2 < seen[20, 0]


def test_coba_slopes_do_not_lose_digits_late_in_a_run():
    """Step numbers of a million would, squared in float32."""
    resolver, resolve = build("coba")
    state = resolver.init(3)
    expected, _ = run("coba", losses())
    state = state._replace(step=np.int32(8 * 125_000))
    for loss in losses():
        observation = Observation(loss_K=np.float32(loss))
        late, state = resolve(GRAM, np.float32(WEIGHTS), state, observation)
    np.testing.assert_allclose(late, expected[-1], rtol=1e-5)


def test_uw_follows_the_losses():
    steady = np.tile([0.5, 1.0, 2.0], (400, 1))
    _, state = run("uw", steady)
    np.testing.assert_allclose(np.exp(state.log_variance_K), [0.5, 1, 2], rtol=0.02)

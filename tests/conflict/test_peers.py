"""Our resolvers against TorchJD's, on the same Gramians.

    pip install -e ".[dev,peers]" && pytest tests/conflict/test_peers.py

TorchJD runs in float64, without its absolute threshold and with a negligible ridge, so
that it is the reference. Where it sums we average, and where it has no weights ours are
equal. Rows are left out where definitions part: IMTL-G and ConFIG of dependent rows,
whose pseudo-inverses are of different matrices, and rows that a float32 Gramian cannot
tell from dependent ones.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.conflict import RESOLVERS
from tests.conflict.matrix_families import make_rows, simplex

torch = pytest.importorskip("torch")
aggregation = pytest.importorskip("torchjd.aggregation")
linalg = pytest.importorskip("torchjd.linalg")
pytestmark = pytest.mark.slow

SIZES = (2, 3, 8)
FAMILIES = ("normal", "low_rank", "antiparallel", "duplicated", "scaled", "stationary")
INDEPENDENT = ("normal", "duplicated", "scaled")
seeds = pytest.mark.parametrize("seed", range(3))
everywhere = pytest.mark.parametrize("family", FAMILIES)
where_independent = pytest.mark.parametrize("family", INDEPENDENT)


@functools.cache
def jitted(name, **options):
    return jax.jit(RESOLVERS[name](**options).resolve)


def ours(name, gram, weights=None, state=None, **options):
    """Coefficients, float64; equal weights unless given."""
    size = len(gram)
    weights = np.full(size, 1 / size) if weights is None else weights
    state = RESOLVERS[name](**options).init(size) if state is None else state
    arrays = np.asarray(gram, np.float32), np.asarray(weights, np.float32)
    return np.asarray(jitted(name, **options)(*arrays, state)[0], np.float64)


def theirs(weighting, gram):
    return weighting(torch.from_numpy(np.asarray(gram, np.float64))).numpy()


def cases(family):
    """Rows of several sizes and seeds, their Gramian, and weights."""
    for num_rows in SIZES:
        for seed in range(3):
            rows = make_rows(family, num_rows, seed)
            yield rows, gramian(rows), simplex(num_rows, seed)


def gramian(rows):
    return rows @ rows.T


def apart(gram, one, other):
    """Distance of two updates, over the lengths that they are summed from."""
    difference = one - other
    square = max(difference @ gram @ difference, 0.0)
    return np.sqrt(square) / np.max(np.abs([one, other]) @ np.sqrt(np.diagonal(gram)))


def paired_rows(num_pairs, seed):
    """Each gradient conflicts with one other at most: the order does not matter."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((2 * num_pairs, 3 * num_pairs))
    for i in range(num_pairs):
        rows[2 * i : 2 * i + 2, 3 * i : 3 * i + 3] = rng.standard_normal((2, 3))
    return rows


@seeds
@pytest.mark.parametrize("name", ["pcgrad", "gradvac"])
@pytest.mark.parametrize("num_pairs", [1, 3])
def test_projections_where_the_order_does_not_matter(name, num_pairs, seed):
    peers = [aggregation.PCGradWeighting(), aggregation.GradVacWeighting()]
    gram = gramian(paired_rows(num_pairs, seed))
    mean_form = theirs(peers[name == "gradvac"], gram) / len(gram)
    np.testing.assert_allclose(ours(name, gram), mean_form, rtol=1e-4)


@pytest.mark.parametrize("num_rows", [3, 5])
def test_pcgrad_has_the_same_distribution(num_rows):
    rows = make_rows("stationary", num_rows, 2)
    gram = gramian(rows)
    resolver, steps = RESOLVERS["pcgrad"](), jnp.arange(4000, dtype=jnp.int32)
    state = resolver.init(num_rows)._replace(step=steps)
    weights = jnp.full(num_rows, 1 / num_rows)
    resolve = jax.vmap(resolver.resolve, (None, None, 0))
    one = np.asarray(jax.jit(resolve)(gram.astype(np.float32), weights, state)[0])
    torch.manual_seed(0)
    peer = aggregation.PCGradWeighting()
    other = np.stack([theirs(peer, gram) for _ in range(500)]) / num_rows
    stderr = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    assert np.all(stderr > 0)  # the order does matter here
    assert np.all(np.abs(one.mean(0) - other.mean(0)) < 4.5 * stderr)
    np.testing.assert_allclose(one.std(0), other.std(0), rtol=0.2)


def test_gradvac_follows_the_same_targets():
    peer, resolve = aggregation.GradVacWeighting(0.3), jitted("gradvac", beta=0.3)
    state, weights = RESOLVERS["gradvac"]().init(2), np.full(2, 0.5, np.float32)
    for seed in range(10):
        gram = gramian(make_rows("normal", 2, seed))
        coefficients, state = resolve(gram.astype(np.float32), weights, state)
        np.testing.assert_allclose(coefficients, theirs(peer, gram) / 2, rtol=1e-3)


@everywhere
@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
def test_projections_on_the_dual_cone(name, family):
    """Theirs on cosines: on a Gramian of six decades its ridge hides the small rows."""
    peer = dict(
        upgrad=aggregation.UPGradWeighting, dualproj=aggregation.DualProjWeighting
    )
    projector = linalg.QuadprogProjector(norm_eps=0.0, reg_eps=1e-10)
    for _, gram, weights in cases(family):
        norms = np.sqrt(np.diagonal(gram))
        preference = torch.from_numpy(weights * norms / norms.max())
        weighting = peer[name](preference, projector)
        on_cosines = theirs(weighting, gram / np.outer(norms, norms))
        expected = on_cosines * norms.max() / norms
        assert apart(gram, ours(name, gram, weights), expected) < 1e-3


@everywhere
@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0, 3.0])
def test_cagrad(radius, family):
    pytest.importorskip("cvxpy")
    peer = aggregation.CAGradWeighting(radius, norm_eps=0.0)
    for _, gram, _ in cases(family):
        one = ours("cagrad", gram, radius=radius)
        assert apart(gram, one, theirs(peer, gram)) < 1e-3


@everywhere
def test_mgda_is_at_least_as_short(family):
    """Theirs is Frank and Wolfe's method, which is far from its end after 100 steps."""
    peer = aggregation.MGDAWeighting()
    for _, gram, _ in cases(family):
        one, other = ours("mgda", gram), theirs(peer, gram)
        assert np.all(one >= 0) and np.isclose(one.sum(), 1.0)
        assert one @ gram @ one <= other @ gram @ other + 1e-5 * np.trace(gram)


@where_independent
def test_imtl_g(family):
    peer = aggregation.IMTLGWeighting()
    for _, gram, _ in cases(family):
        np.testing.assert_allclose(
            ours("imtl_g", gram), theirs(peer, gram), rtol=1e-3, atol=1e-5
        )


@where_independent
def test_con_fig(family):
    for rows, gram, weights in cases(family):
        peer = aggregation.ConFIG(torch.from_numpy(weights))
        direction = peer(torch.from_numpy(rows)).numpy()
        # Theirs is as long as the plain sum of the projections, ours as the weighted.
        direction /= np.linalg.norm(direction)
        expected = np.sum(weights * (rows @ direction)) * direction
        update = ours("con_fig", gram, weights) @ rows
        np.testing.assert_allclose(
            update, expected, atol=1e-3 * np.linalg.norm(expected)
        )


@pytest.mark.parametrize("family", ["normal", "low_rank", "duplicated", "stationary"])
@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl(scale, family):
    for _, gram, weights in cases(family):
        peer = aggregation.AlignedMTLWeighting(torch.from_numpy(weights), scale)
        update = ours("aligned_mtl", gram, weights, scale=scale)
        assert apart(gram, update, theirs(peer, gram)) < 1e-4


@pytest.mark.parametrize("family", ["normal", "duplicated"])
def test_nash_mtl(family):
    pytest.importorskip("ecos")
    for rows, gram, _ in cases(family):
        peer = aggregation.NashMTL(len(rows), max_norm=0.0, optim_niter=100)
        other = peer.weighting(torch.from_numpy(rows)).numpy()
        other = other / np.sqrt(other @ gram @ other)  # theirs is of another length
        assert apart(gram, ours("nash_mtl", gram), other) < 1e-4


@where_independent
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad(alpha, family):
    peer, compared = aggregation.FairGradWeighting(alpha), 0
    for _, gram, _ in cases(family):
        size = len(gram)
        # Theirs: `G x = x^(-1/alpha)`; ours: `(G c)_k = c_k^(-1/alpha) / K`.
        other = theirs(peer, gram) * size ** (-alpha / (1 + alpha))
        names = ["fairgrad", "nash_mtl"] if alpha == 1 else ["fairgrad"]
        for name in names:
            options = dict(alpha=alpha) if name == "fairgrad" else {}
            one = ours(name, gram, **options)
            assert unfair(gram, one, alpha) < 5e-3
            # On rows of many lengths theirs may stop before it is there.
            if unfair(gram, other, alpha) < 1e-6:
                assert apart(gram, one, other) < 1e-4
                compared += 1
    assert compared >= 6


def unfair(gram, coefficients, alpha):
    """Largest relative residual of `(G c)_k = c_k^(-1/alpha) / K`."""
    pull = len(gram) * (gram @ coefficients) * coefficients ** (1 / alpha)
    return np.max(np.abs(pull - 1))


@everywhere
@pytest.mark.parametrize("tau", [0.02, 0.5])
def test_pcd(tau, family):
    for _, gram, _ in cases(family):
        expected = theirs(aggregation.PCDWeighting(tau, eps=0.0), gram)
        assert apart(gram, ours("pcd", gram, tau=tau), expected) < 3e-3


def test_pcd_averages_the_same_norms():
    resolve = jitted("pcd", tau=0.1, beta=0.9)
    peer = aggregation.PCDWeighting(tau=0.1, beta=0.9, eps=0.0)
    state, weights = RESOLVERS["pcd"]().init(4), np.full(4, 0.25, np.float32)
    for seed in range(10):
        gram = gramian((1 + seed) * make_rows("normal", 4, seed))
        coefficients, state = resolve(gram.astype(np.float32), weights, state)
        assert apart(gram, np.asarray(coefficients), theirs(peer, gram)) < 1e-4


def test_small_gradients_are_no_reason_to_give_up():
    """Below a trace of 1e-4 their UPGrad is the mean and their CAGrad does not move."""
    pytest.importorskip("cvxpy")
    gram = gramian(np.array([[-4.0, 1, 1], [6, 1, 1]]))
    small = 0.9e-4 / np.trace(gram) * gram
    upgrad, cagrad = aggregation.UPGradWeighting(), aggregation.CAGradWeighting(0.5)
    assert np.min(gram @ theirs(upgrad, gram)) > -1e-2
    np.testing.assert_allclose(theirs(upgrad, small), [0.5, 0.5])
    assert np.min(small @ theirs(upgrad, small)) < -0.02 * np.trace(small)
    np.testing.assert_array_equal(theirs(cagrad, small), [0, 0])
    for name in ("upgrad", "dualproj", "cagrad", "mgda", "pcgrad"):
        np.testing.assert_allclose(ours(name, small), ours(name, gram), rtol=1e-5)
    for name in ("upgrad", "dualproj", "mgda", "pcgrad"):
        assert np.min(small @ ours(name, small)) > -1e-4 * np.trace(small)

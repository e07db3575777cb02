"""Categories are truly left out, and what is summed up is what was found."""

import io
import json
from functools import partial

import numpy as np
import pytest
from rich.console import Console

from dcft_jax.meta.ablation import ablations
from dcft_jax.meta.baselines import uniform
from dcft_jax.meta.features import PARTS, TASK
from dcft_jax.meta.leave_out import Row, leave_one_category_out, measured_regret
from dcft_jax.meta.measured import measured_table, show_measured
from dcft_jax.meta.regret import solve
from dcft_jax.meta.report import _as_methods, _headline, report, show, table_of
from dcft_jax.meta.surrogate import KINDS
from dcft_jax.meta.until_uniform import share_until_uniform, stops_of
from tests.meta.synthetic_cases import CATEGORIES, OPTIONS, make_case, make_cases


def spy(seen):
    def method(train, case, prior_K):
        seen.append((case, [one.case for one in train], prior_K))
        return uniform(train, case, prior_K)

    return {"spy": method}


def solved_cases(**options):
    return solve(make_cases(tasks_per_category=2, num_worlds=2, **options), "quadratic")


def test_nothing_of_the_category_is_learnt_from():
    seen = []
    rows = leave_one_category_out(solved_cases(), seeds=(), methods=spy(seen))
    assert len(rows) == len(CATEGORIES) * 2 * 2
    for case, train, prior_K in seen:
        assert {one.category for one in train} == {*CATEGORIES} - {case.category}
        size_K = case.features.size_K
        np.testing.assert_allclose(prior_K, size_K / size_K.sum(), rtol=1e-6)
    cases = {(row.world, row.task) for row in rows}
    assert len(cases) == len(rows)


def test_reserved_tasks_are_tested_and_never_learnt_from():
    seen, reserved = [], {"logic-0", "code-1"}
    rows = leave_one_category_out(
        solved_cases(), seeds=(), methods=spy(seen), test_tasks=reserved
    )
    assert {row.task for row in rows} == reserved
    for _, train, _ in seen:
        assert not reserved & {one.task for one in train}


def test_of_other_worlds_only_is_learnt():
    seen, solved = [], solved_cases()
    world = solved[0].case.world
    rows = leave_one_category_out(
        solved, seeds=(), methods=spy(seen), test_worlds={world}
    )
    assert {row.world for row in rows} == {world}
    assert len(rows) == len(solved) // 2
    for _, train, _ in seen:
        assert len({one.world for one in train}) == 2


def test_tasks_for_testing_are_not_learnt_from_whichever_are_tested():
    solved = solved_cases()
    case = next(s.case for s in solved if s.case.task == "code-1")
    reserved = [
        one._replace(case=one.case._replace(task="bf"))
        if one.case.task == case.task
        else one
        for one in solved
    ]
    seen = []
    leave_one_category_out(
        reserved, seeds=(), methods=spy(seen), test_tasks=["logic-0"]
    )
    assert {one.task for one in seen[0][1]} & {"bf", "code-0"} == {"code-0"}


def test_an_ability_is_no_new_task_of_its_world():
    solved = solved_cases()
    case = solved[0].case
    own = case._replace(abilities=(case.task, *case.abilities[1:]))
    solved[0] = solved[0]._replace(case=own)
    seen = []
    rows = leave_one_category_out(solved, seeds=(), methods=spy(seen))
    assert len(rows) == len(solved) - 1
    assert any(one is not None and own.task in one.abilities for one in seen[-1][1])


def test_methods_see_only_the_part():
    seen = []
    leave_one_category_out(solved_cases(), seeds=(), methods=spy(seen), part="sizes")
    for case, train, _ in seen:
        for one in (case, *train):
            assert np.all(np.isnan(one.features.pair_KKP))


def test_regret_of_rows_is_that_of_the_law():
    solved = solved_cases()
    (row, *_) = leave_one_category_out(solved, seeds=(), methods={"u": uniform})
    (one,) = [s for s in solved if (s.case.task, s.case.world) == (row.task, row.world)]
    K = len(row.weights_K)
    expected = (
        one.law.constant
        + one.law.linear_K.mean()
        + one.law.quadratic_KK.sum() / K**2
        - one.minimum
    )
    assert row.regret == pytest.approx(expected)
    assert row.relative == pytest.approx(expected / one.spread)
    # The middle is one of the mixtures tried.
    middle = one.case.loss_N[K]
    assert row.measured == pytest.approx(
        float(middle - one.case.loss_N.min()), rel=1e-5
    )


def test_measured_regret_needs_a_model_nearby():
    case = make_case(np.random.default_rng(0), num_abilities=2, count=4)
    case = case._replace(
        weights_NK=np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]], np.float32),
        loss_N=np.array([1.0, 2.0, 1.2, 1.6]),
        accuracy_N=np.array([0.1, 0.5, 0.2, 0.4]),
    )
    middle = measured_regret(case, np.array([0.52, 0.48]))
    assert middle == pytest.approx((0.4, 0.2))
    assert measured_regret(case, np.array([0.98, 0.02])) == (0.0, pytest.approx(0.4))
    assert np.isnan(measured_regret(case, np.array([0.7, 0.3]))).all()
    unknown = case._replace(accuracy_N=np.full(4, np.nan))
    loss, accuracy = measured_regret(unknown, np.array([0.98, 0.02]))
    assert loss == 0.0 and np.isnan(accuracy)


def test_models_that_nothing_is_learnt_from_are_measured_by():
    solved = solved_cases()
    case = next(s.case for s in solved if s.case.task == "logic-0")
    middle_K = np.full((1, len(case.abilities)), 1 / len(case.abilities))
    proved = case._replace(
        weights_NK=middle_K, loss_N=np.array([9.0]), accuracy_N=np.array([0.5])
    )
    proved = proved._replace(seed_N=np.zeros(1, int))
    arguments = dict(seeds=(), methods={"u": uniform}, test_tasks={"logic-0"})
    before = leave_one_category_out(solved, **arguments)
    after = leave_one_category_out(solved, proved=[proved], **arguments)
    for one, other in zip(before, after, strict=True):
        assert one.regret == other.regret
        if one.world == case.world:  # its only model is the best and where it should be
            assert (other.measured, other.measured_accuracy) == (0.0, 0.0)
            assert one.measured > 0 and np.isnan(one.measured_accuracy)
        else:
            assert one.measured == other.measured


def test_tokens_until_the_uniform_mixture_ends_are_those_of_its_stops():
    case = make_case(np.random.default_rng(0), num_abilities=2, count=4)
    budget = TASK.index("budget")

    def stop(steps: int, tokens: float, loss_N: list[float]):
        task_G = case.features.task_G.copy()
        task_G[budget] = np.log(tokens)
        return case._replace(
            world=f"w@{steps}",
            features=case.features._replace(task_G=task_G),
            weights_NK=np.array([[1, 0], [0, 1], [0.5, 0.5], [0.25, 0.75]], np.float32),
            loss_N=np.array(loss_N),
            before=3.0,
        )

    stops = stops_of([stop(2, 1e5, [2.0, 2.8, 2.5, 4.0]), stop(4, 2e5, [1, 2, 2.2, 3])])
    assert [len(some) for some in stops.values()] == [2, 1]
    share = partial(share_until_uniform, stops["w@4", "task"])
    # From 3.0 over 2.0 at half of the tokens.
    assert share(np.array([0.99, 0.01])) == pytest.approx(0.4, abs=1e-6)
    assert share(np.array([0.01, 0.99])) == pytest.approx(0.875, abs=1e-6)
    assert share(np.array([0.5, 0.5])) == pytest.approx(1.0)
    assert share(np.array([0.25, 0.75])) == 1.0  # never
    assert np.isnan(share(np.array([0.8, 0.2])))  # nothing near was trained
    early = share_until_uniform(stops["w@2", "task"], np.array([0.99, 0.01]))
    assert early == pytest.approx(0.5)
    worse = [one._replace(before=2.0) for one in stops["w@4", "task"]]
    assert np.isnan(share_until_uniform(worse, np.array([0.99, 0.01])))


def test_only_what_all_methods_have_is_compared_as_measured():
    rows = [
        row("u", "a", "a1", 0.0, measured=0.4, right=0.1)._replace(until_uniform=1.0),
        row("u", "a", "a1", 0.0, world="v", measured=0.2, right=0.3),
        row("u", "b", "b1", 0.0, measured=9.0),
        row("meta", "a", "a1", 0.0, measured=0.1, right=0.0)._replace(
            until_uniform=0.4
        ),
        row("meta", "a", "a1", 0.0, seed=1, measured=0.3, right=0.2),
        row("meta", "a", "a1", 0.0, world="v", measured=0.1, right=0.3),
        row("meta", "a", "a1", 0.0, world="v", seed=1),
        row("meta", "b", "b1", 0.0),
        row("meta", "b", "b1", 0.0, seed=1, measured=1.0, right=np.nan),
    ]
    found = measured_table(rows)
    assert (found["cases"], found["tasks"], found["categories"]) == (2, 1, 1)
    of = {m: {k: v["mean"] for k, v in x.items()} for m, x in found["methods"].items()}
    assert of["u"] == pytest.approx(dict(nats=0.3, relative=0.6, accuracy=0.2))
    assert of["meta"] == pytest.approx(dict(nats=0.15, relative=0.3, accuracy=0.2))
    assert found["difference"]["u"]["nats"]["mean"] == pytest.approx(-0.15)
    assert found["until_uniform"]["cases"] == 1
    less = found["until_uniform"]["difference"]["u"]["share"]["mean"]
    assert less == pytest.approx(-0.6)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(show_measured(found))
    text = console.export_text()
    assert "final loss, 1 cases" in " ".join(text.split()) and "40.0" in text
    assert "Measured regret on 2 cases of 1 tasks" in text and "20.00" in text
    nothing = measured_table(rows[2:])
    assert (nothing["cases"], nothing["methods"]) == (0, {})
    assert "`prove` trains them" in show_measured(nothing)


def row(
    method, category, task, relative, world="w", seed=0, measured=np.nan, right=0.0
):
    weights_K = np.array([0.5, 0.5])
    found = (measured, 2 * measured, right)
    values = (relative / 10, relative, *found, True, seed)
    return Row(method, world, task, category, weights_K, *values)


def test_a_task_counts_once():
    rows = [
        row("u", "a", "a1", 1.0),
        row("u", "a", "a1", 3.0, world="v"),
        row("u", "b", "b1", 5.0, measured=0.5),
        row("meta", "a", "a1", 1.0),
        row("meta", "a", "a1", 1.0, world="v"),
        row("meta", "b", "b1", 1.0, seed=0),
        row("meta", "b", "b1", 2.0, seed=1),
    ]
    found = table_of(rows)
    assert found["relative"] == {"u": 3.5, "meta": 1.25}
    assert found["regret"]["u"] == pytest.approx(0.35)
    # Of two categories either may be drawn twice.
    assert found["relative_interval"]["u"] == [2.0, 5.0]
    assert found["difference"] == {"u": -2.25}
    assert found["difference_interval"] == {"u": [-3.5, -1.0]}
    assert found["measured"]["u"] == {"mean": 0.5, "cases": 1}
    assert found["measured"]["meta"] == {"mean": None, "cases": 0}


def test_intervals_of_many_tasks_are_as_wide_as_they_should_be():
    rng = np.random.default_rng(0)
    rows = [
        row("u", f"c{c}", f"t{c}-{t}", rng.standard_normal())
        for c in range(30)
        for t in range(4)
    ]
    low, high = table_of(rows)["relative_interval"]["u"]
    # Twice: categories are drawn, then tasks of each; 120 tasks of variance 1.
    assert 2 * 1.96 / np.sqrt(120) < high - low < 2 * 2.1 * 1.96 / np.sqrt(120)


@pytest.mark.slow
def test_report_is_json_and_has_every_method():
    told = []
    found = report(
        make_cases(),
        options=OPTIONS,
        seeds=(0, 1),
        ablation_seeds=(0,),
        test_tasks={"logic-0", "logic-1"},
        progress=told.append,
    )
    again = json.loads(json.dumps(found, allow_nan=False))
    methods = {"meta", "uniform", "proportional", "mean", "knn", "ridge", "chameleon"}
    assert methods | {"oracle"} <= again["regret"].keys()
    for method, value in again["regret"].items():
        low, high = again["regret_interval"][method]
        assert 0 <= low <= value <= high
    assert again["regret"]["oracle"] < again["regret"]["uniform"]
    assert again["ablation"].keys() == PARTS.keys()
    assert again["ablation_surrogate"].keys() == {*KINDS}
    assert again["surrogate"]["held_out"]["two-domain"]["r2"] > 0.9
    assert again["proved"]["cases"] == 0  # accuracies are not measured here
    assert again["proved"]["ablation"]["cases"] == 0
    assert again["judged_by"] == "laws" and again["regret"] == again["laws"]["regret"]
    assert 0 <= again["laws"]["trusted"] <= 1 and again["laws"]["num_tasks"] == 2
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(show(found["laws"]))
    text = console.export_text()
    assert (
        all(method in text for method in methods)
        and max(map(len, text.splitlines())) <= 80
    )
    assert any("logic" in line for line in told)


def test_trained_models_have_the_last_word():
    rows = [
        row("u", "a", "a1", 1.0, measured=0.4),
        row("meta", "a", "a1", 2.0, measured=0.1),
    ]
    found = _headline(table_of(rows), measured_table(rows))
    assert found["judged_by"] == "trained models"
    assert found["regret"] == {"u": 0.4, "meta": 0.1}
    assert found["regret_interval"] == {"u": [0.4, 0.4], "meta": [0.1, 0.1]}
    some = [rows[0], rows[1]._replace(measured=np.nan)]
    found = _headline(table_of(some), measured_table(some))
    assert found["judged_by"] == "laws" and found["regret"] == {"u": 0.1, "meta": 0.2}


def test_ablations_are_of_the_network_alone_and_compared_with_the_whole():
    asked = []

    def rows_of(**arguments):
        asked.append(arguments)
        name = arguments.get("part", "teachers")
        loss = {"all": 0.1, "losses": 0.4}.get(name, 0.3)
        return [row("meta", "a", "a1", 1.0, measured=loss)]

    cases = make_cases(tasks_per_category=1, num_worlds=1)
    by_part, by_law = ablations(cases, rows_of)
    assert by_part.keys() == PARTS.keys() and by_law.keys() == {*KINDS}
    assert all(arguments["methods"] == {} for arguments in asked)
    solved = [a["teachers"] for a in asked if "teachers" in a]
    assert len({some[0].minimum for some in solved}) == len(KINDS)
    table = measured_table(_as_methods(by_part), "all")
    assert table["methods"]["losses"]["nats"]["mean"] == pytest.approx(0.4)
    assert table["difference"].keys() == PARTS.keys() - {"all"}
    assert table["difference"]["losses"]["nats"]["mean"] == pytest.approx(-0.3)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(show_measured(table | {"ablation": table}))
    text = console.export_text()
    assert "by parts of the embedding, 1 cases" in text and text.count("losses") == 2
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_to_test_or_to_learn_from():
    with pytest.raises(ValueError, match="no case of such a task"):
        leave_one_category_out(solved_cases(), test_tasks={"chess"})
    one_category = [s for s in solved_cases() if s.case.category == "logic"]
    with pytest.raises(ValueError, match="'logic': no case of another category"):
        leave_one_category_out(one_category)

"""What the mixture ablation says, in three sentences and one table a setting."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.static_grid import BEST
from experiments.statistics import Comparison, compare
from experiments.tables import Row, markdown, paired, score

BASELINE = "uniform"
# Nats per response token, chosen before any method was compared: 3 % in perplexity.
MARGIN = 0.03

Comparisons = dict[str, dict[str, Comparison]]  # setting -> method -> to the baseline
Members = Mapping[str, Sequence[str]]  # setting -> the abilities whose loss counts


def compare_all(
    rows: Sequence[Row], members: Members, metric: str = "test_loss", reduce=np.mean
) -> Comparisons:
    """Every method but the single mixtures of the grid, against the baseline."""
    result: Comparisons = {}
    for setting, abilities in members.items():
        baseline = score(rows, setting, BASELINE, metric, abilities, reduce)
        result[setting] = {}
        for method in shown_methods(rows):
            values = score(rows, setting, method, metric, abilities, reduce)
            value_N, baseline_N = paired(values, baseline)
            if value_N and method != BASELINE:
                result[setting][method] = compare(value_N, baseline_N, MARGIN)
    return result


def shown_methods(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(row.method for row in rows)
    return [name for name in names if not name.startswith("grid_")]


def report(
    rows: Sequence[Row],
    members: Members,
    comparisons: Comparisons,
    ours: str,
    missing: Sequence[str],
) -> str:
    """Markdown: sentences, settings won, a table for each setting, what did not run."""
    parts = [sentences(rows, members, comparisons, ours), settings_won(comparisons)]
    for setting, abilities in members.items():
        table = [
            method_row(rows, setting, method, abilities, comparisons[setting])
            for method in shown_methods(rows)
            if score(rows, setting, method, "test_loss", abilities, np.mean)
        ]
        parts += [f"## {setting}\n", markdown(_HEADER, table)]
    if missing:
        parts += ["Without a result:\n", *(f"- {line}" for line in missing)]
    return "\n".join(parts)


def sentences(
    rows: Sequence[Row], members: Members, comparisons: Comparisons, ours: str
) -> str:
    """Three sentences that follow from the numbers, whatever these are."""
    mine = [found[ours] for found in comparisons.values() if ours in found]
    lower, clearly, safe = _counts(mine)
    num_seeds = len({row.seed for row in rows})
    num = sum(len(found) for found in comparisons.values())
    return (
        f"Against {BASELINE} at equal tokens, {ours} ends with a lower mean test loss "
        f"in {lower} of {len(mine)} settings, clearly so in {clearly} (95 % t interval "
        f"below 0), and is not worse by {MARGIN} nats or more in {safe} (one-sided "
        f"p < 0.05). {_against_grid(rows, members, ours)}"
        f"This is one model size and {num_seeds} seed{'s' * (num_seeds != 1)} on small "
        f"synthetic abilities; {num} comparisons with {BASELINE} are shown and their "
        "intervals are not corrected for that, so one in forty would be clearly lower "
        "by chance.\n"
    )


def _against_grid(rows: Sequence[Row], members: Members, ours: str) -> str:
    costs = [1 + r.extra_tokens / r.tokens for r in rows if r.method == BEST]
    if not costs:
        return ""
    low, high = round(min(costs)), round(max(costs))
    times = f"{low}" if low == high else f"{low} to {high}"
    against = _against(rows, members, ours, BEST)
    lower, clearly, _ = _counts(against)
    return (
        f"Against the best static mixture of a grid, which takes {times} times the "
        f"tokens to find, it is lower in {lower} of {len(against)} settings, clearly "
        f"so in {clearly}. "
    )


def settings_won(comparisons: Comparisons) -> str:
    """In how many settings each method beats the baseline."""
    header = [f"against {BASELINE}", "settings", "lower", "clearly lower"]
    header += ["clearly higher", f"not worse by {MARGIN}", f"within ± {MARGIN}"]
    table = []
    for method in dict.fromkeys(m for found in comparisons.values() for m in found):
        found = [by[method] for by in comparisons.values() if method in by]
        lower, clearly, safe = _counts(found)
        higher = sum(c.t_interval[0] > 0 for c in found)
        same = sum(c.equivalent_p < 0.05 for c in found)
        counts = (len(found), lower, clearly, higher, safe, same)
        table.append([method, *(str(count) for count in counts)])
    return markdown(header, table)


def _counts(found) -> tuple[int, int, int]:
    """How many are lower, clearly lower, and not inferior; nan is none of them."""
    return (
        sum(c.mean < 0 for c in found),
        sum(c.t_interval[1] < 0 for c in found),
        sum(c.non_inferior_p < 0.05 for c in found),
    )


def _against(
    rows: Sequence[Row], members: Members, ours: str, rival: str
) -> list[Comparison]:
    found = []
    for setting, abilities in members.items():
        both = [
            score(rows, setting, method, "test_loss", abilities, np.mean)
            for method in (ours, rival)
        ]
        ours_N, rival_N = paired(*both)
        if ours_N:
            found.append(compare(ours_N, rival_N, MARGIN))
    return found


_HEADER = [
    "method",
    "mean test loss",
    f"minus {BASELINE} [95 % t]",
    "bootstrap",
    "p not inferior",
    "worst ability",
    "mean of all",
    "exact match",
    "tokens",
    "extra tokens",
    "seconds",
    "extra seconds",
]


def method_row(
    rows: Sequence[Row],
    setting: str,
    method: str,
    abilities: Sequence[str],
    found: Mapping[str, Comparison],
) -> list[str]:
    """Means over seeds; losses are of the learnable abilities but in "mean of all"."""
    ours = [row for row in rows if (row.setting, row.method) == (setting, method)]
    everything = list(dict.fromkeys(row.ability for row in ours))

    def mean(metric: str, over: Sequence[str], reduce: Callable) -> str:
        by_seed = score(rows, setting, method, metric, over, reduce)
        return f"{np.mean([*by_seed.values()]):.3f}" if by_seed else "-"

    return [
        method,
        mean("test_loss", abilities, np.mean),
        *_difference_cells(found.get(method)),
        mean("test_loss", abilities, max),
        mean("test_loss", everything, np.mean),
        mean("exact_match", abilities, np.mean),
        *(
            f"{np.mean([getattr(row, field) for row in ours]):,.0f}"
            for field in ("tokens", "extra_tokens", "seconds", "extra_seconds")
        ),
    ]


def _difference_cells(found: Comparison | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    t, bootstrap = (
        "[-, -]" if np.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
        for low, high in (found.t_interval, found.bootstrap_interval)
    )
    p = "-" if np.isnan(found.non_inferior_p) else f"{found.non_inferior_p:.3f}"
    return [f"{found.mean:+.3f} {t}", bootstrap, p]

"""What the network chooses by parts of the embedding, and from other laws."""

from collections.abc import Callable, Sequence

from dcft_jax.meta.case import Case
from dcft_jax.meta.features import PARTS
from dcft_jax.meta.leave_out import Row
from dcft_jax.meta.regret import solve
from dcft_jax.meta.surrogate import KINDS

Rows = dict[str, list[Row]]


def ablations(
    cases: Sequence[Case],
    rows_of: Callable[..., list[Row]],
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Rows, Rows]:
    """Rows of the network alone, by part of the embedding and by the law learnt from.

    `rows_of`: `leave_one_category_out` with all other arguments.
    """
    by_part, by_law = {}, {}
    for part in PARTS:
        progress(f"part {part}")
        by_part[part] = rows_of(part=part, methods={})
    for kind in KINDS:
        progress(f"learnt from {kind}")
        by_law[kind] = rows_of(teachers=solve(cases, kind), methods={})
    return by_part, by_law

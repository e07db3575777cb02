"""Packing: several short examples share one row, and none is split over two.

Best fit over all rows at once, rather than the packers of grain, which keep a window of
rows open and pack while they stream: rows are built only once here, and for 8000
log-normal lengths (median 53, L = 256) this fills 98.4 % in 0.01 s where those of grain
fill 97.2 to 98.3 % in 4 s. Sorting by length first would fill 99.7 %, but gather
examples of one length, hence of one source, in the same row.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from dcft_jax.data.chat import encode_examples
from dcft_jax.data.chat_format import Encoded
from dcft_jax.data.example import Example
from dcft_jax.data.rows import Rows
from dcft_jax.data.tokenizer import Tokenizer


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Items of each bin: in the order given, each into the fullest bin with room.

    Every length must be between 1 and `capacity`. Needs at most 17/10 of the smallest
    possible number of bins, plus 2, and far fewer on random lengths (Johnson et al.,
    1974, doi:10.1137/0203025).
    """
    bins: list[list[int]] = []
    bins_by_room = defaultdict(list)
    rooms: list[int] = []  # sorted keys of bins_by_room that have a bin
    for item, length in enumerate(lengths):
        smallest = bisect_left(rooms, length)
        if smallest < len(rooms):
            room = rooms[smallest]
            chosen = bins_by_room[room].pop()
            if not bins_by_room[room]:
                rooms.pop(smallest)
        else:
            room, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(item)
        left = room - length
        if not bins_by_room[left]:
            insort(rooms, left)
        bins_by_room[left].append(chosen)
    return bins


def pack_examples(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    seq_len: int,
    order_N: Sequence[int] | np.ndarray | None = None,
) -> Rows:
    """Encodes the examples of one ability and split and packs them into rows.

    Examples longer than `seq_len` lose their end: they are counted in
    `Rows.num_truncated`, never scored, and do not end with the end of a turn.

    Args:
        examples: the split; `Rows.example_NM` indexes it.
        tokenizer: of the run.
        seq_len: L.
        order_N: indices of the examples to pack, in the order in which they are offered
            to the packer; None: all, as they come.

    Raises:
        ValueError: there is no example.
    """
    order = range(len(examples)) if order_N is None else [int(i) for i in order_N]
    if not len(order):
        raise ValueError("there is no example to pack")
    in_order = encode_examples([examples[i] for i in order], tokenizer)
    encoded = dict(zip(order, in_order, strict=True))
    lengths = [min(len(tokens), seq_len) for tokens, _ in in_order]
    packed = [[order[j] for j in items] for items in best_fit(lengths, seq_len)]
    single = [example.single_reference for example in examples]
    return _fill(packed, encoded, single, seq_len, tokenizer.pad_id)


def pack_encoded(encoded: Sequence[Encoded], seq_len: int, pad_id: int) -> Rows:
    """As `pack_examples`, of tokens and masks; all of them are scored.

    Raises:
        ValueError: there are none.
    """
    if not encoded:
        raise ValueError("there is nothing to pack")
    lengths = [min(len(tokens), seq_len) for tokens, _ in encoded]
    packed = best_fit(lengths, seq_len)
    whole = [True] * len(encoded)
    return _fill(packed, dict(enumerate(encoded)), whole, seq_len, pad_id)


def _fill(packed, encoded, single, seq_len: int, pad_id: int) -> Rows:
    """Copies the examples of every row into place."""
    shape_NL = (len(packed), seq_len)
    shape_NM = (len(packed), max(map(len, packed)))
    rows = Rows(
        tokens_NL=np.full(shape_NL, pad_id, np.int32),
        loss_mask_NL=np.zeros(shape_NL, bool),
        segments_NL=np.zeros(shape_NL, np.int32),
        positions_NL=np.zeros(shape_NL, np.int32),
        scored_NM=np.zeros(shape_NM, bool),
        example_NM=np.full(shape_NM, -1, np.int32),
        num_truncated=sum(len(tokens) > seq_len for tokens, _ in encoded.values()),
        longest=max(len(tokens) for tokens, _ in encoded.values()),
    )
    for n, items in enumerate(packed):
        start = 0
        for m, i in enumerate(items):
            start = _place(rows, n, m, start, *encoded[i])
            whole = len(encoded[i][0]) <= seq_len
            rows.scored_NM[n, m] = whole and single[i]
            rows.example_NM[n, m] = i
    return rows


def _place(rows: Rows, n: int, m: int, start: int, tokens_L, loss_mask_L) -> int:
    """Writes one example as segment m + 1 of row n; returns where the next starts."""
    end = min(start + len(tokens_L), rows.tokens_NL.shape[1])
    rows.tokens_NL[n, start:end] = tokens_L[: end - start]
    rows.loss_mask_NL[n, start:end] = loss_mask_L[: end - start]
    rows.segments_NL[n, start:end] = m + 1
    rows.positions_NL[n, start:end] = np.arange(end - start)
    return end

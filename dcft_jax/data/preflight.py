"""What is refused before training, because a run would look healthy and learn badly."""

from collections.abc import Mapping

import numpy as np
from rich.text import Text

from dcft_jax.data.rows import Rows
from dcft_jax.data.tokenizer import Tokenizer


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raises ValueError if there is no chat format, or padding looks like the end of
    a turn.
    """
    if tokenizer.pad_id == tokenizer.chat.end_id:
        piece = tokenizer.piece(tokenizer.pad_id)
        raise ValueError(
            f"tokenizer.path: padding and the end of a turn are both token "
            f"{tokenizer.pad_id} ({piece}); "
            "whatever leaves padding out of the loss would leave the end of replies "
            "out too"
        )


def check_ability(
    ability: str,
    rows: Mapping[str, Rows],
    tokenizer: Tokenizer,
    max_truncated_share: float,
) -> None:
    """Refuses rows that cannot teach or measure an ability.

    Args:
        ability: its name, for messages.
        rows: split name to rows.
        tokenizer: that made the rows.
        max_truncated_share: `config.data.max_truncated_share`.

    Raises:
        ValueError: no token is trained, the end of a turn is not, or too much is
            truncated.
    """
    check_tokenizer(tokenizer)
    _check_truncation(ability, rows, max_truncated_share)
    for split, split_rows in rows.items():
        where = f"abilities.{ability} ({split})"
        if not split_rows.num_response_tokens:
            raise ValueError(
                f"{where}: none of {split_rows.num_tokens} tokens is in the loss; see "
                f"that its sources give assistant messages and that data.seq_len="
                f"{split_rows.tokens_NL.shape[1]} leaves room for replies"
            )
        _check_end_is_trained(where, split_rows, tokenizer)


def _check_truncation(ability: str, rows: Mapping[str, Rows], limit: float) -> None:
    truncated = sum(r.num_truncated for r in rows.values())
    examples = sum(r.num_examples for r in rows.values())
    if truncated > limit * examples:
        longest = max(r.longest for r in rows.values())
        seq_len = next(iter(rows.values())).tokens_NL.shape[1]
        raise ValueError(
            f"abilities.{ability}: {truncated} of {examples} examples "
            f"({truncated / examples:.1%}) exceed data.seq_len={seq_len}, more than "
            f"data.max_truncated_share={limit:g}; the longest has {longest} tokens"
        )


def _check_end_is_trained(where: str, rows: Rows, tokenizer: Tokenizer) -> None:
    """The last trained token of every whole example is the end of a turn."""
    end_id = tokenizer.chat.end_id
    n, column = np.nonzero(rows.loss_mask_NL)
    segment = rows.segments_NL[n, column]
    is_last = np.append((np.diff(n) != 0) | (np.diff(segment) != 0), True)
    trained = int((rows.tokens_NL[n, column] == end_id)[is_last].sum())
    whole = rows.num_examples - rows.num_truncated
    if trained < whole:
        raise ValueError(
            f"{where}: the last {tokenizer.piece(end_id)} is in the loss for {trained} "
            f"of {whole} whole examples; a model trained on the others would not stop. "
            "The cached rows do not fit the tokenizer: remove data.cache_dir"
        )


def preview(rows: Mapping[str, Rows], tokenizer: Tokenizer) -> Text:
    """The first example of each ability as the model sees it.

    Trained text is bold green and stands between ⟦ and ⟧, so that it can be told apart
    without colour too; the rest is dim.

    Args:
        rows: ability name to its train rows.
        tokenizer: that made the rows.
    """
    text = Text()
    for ability, ability_rows in rows.items():
        text.append(f"{ability}\n", style="bold underline")
        text.append_text(_preview_segment(ability_rows[0], tokenizer))
        text.append("\n")
    return text


def _preview_segment(row: Mapping[str, np.ndarray], tokenizer: Tokenizer) -> Text:
    length = int((row["segments"] == 1).sum())
    tokens, mask = row["tokens"][:length], row["loss_mask"][:length]
    cuts = np.flatnonzero(np.diff(mask)) + 1
    text = Text()
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        shown = _show(tokens[start:end], tokenizer)
        if mask[start]:
            text.append(f"⟦{shown}⟧", style="bold green")
        else:
            text.append(shown, style="dim")
    return text.append("\n")


def _show(tokens: np.ndarray, tokenizer: Tokenizer) -> str:
    """Text of the tokens, with control symbols by their names."""
    control = [i for i, token in enumerate(tokens) if tokenizer.is_control(token)]
    shown, start = "", 0
    for i in control:
        shown += tokenizer.decode(tokens[start:i]) + tokenizer.piece(tokens[i])
        start = i + 1
    return shown + tokenizer.decode(tokens[start:])

"""What a verifier says about one reply."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Judgement of one reply.

    Attributes:
      correct: whether the reply is right.
      extracted: the part of the reply that was judged; None: none was found.
      reason: why, in a few words that can be counted over many replies.
    """

    correct: bool
    extracted: str | None
    reason: str

"""How far two judges agree on the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opengrit.core.types import Unjudged, Verdict


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges compared on the answers that both judged, right against wrong.

    `share` is the share they agree on; `kappa` is Cohen's: 1 for the same opinions, 0 for what two judges with these
    shares of right answers agree on by chance. Both are None where no answer was judged by both; kappa also where
    both judges gave one and the same opinion to all, which leaves chance no room.
    """

    n: int
    both_right: int
    both_wrong: int
    only_first: int  # right for the first judge alone
    only_second: int
    unjudged_first: int
    unjudged_second: int
    share: float | None
    kappa: float | None
    disagreeing: tuple[int, ...]  # the places in the sequence, from 0


def agreement(first: Sequence[Verdict | Unjudged], second: Sequence[Verdict | Unjudged]) -> Agreement:
    """The agreement of two judges' opinions on the same answers in the same order.

    Raises ValueError where there are not as many of one as of the other. Kappa: J. Cohen, Educational and
    Psychological Measurement 20 (1960), (observed - expected) / (1 - expected).
    """
    pairs = list(zip(first, second, strict=True))
    judged = [
        (place, (a.correct, b.correct))
        for place, (a, b) in enumerate(pairs)
        if isinstance(a, Verdict) and isinstance(b, Verdict)
    ]
    opinions = [opinion for _, opinion in judged]
    n = len(opinions)
    both_right, both_wrong = opinions.count((True, True)), opinions.count((False, False))
    only_first, only_second = opinions.count((True, False)), opinions.count((False, True))
    share = (both_right + both_wrong) / n if n else None
    # By whole numbers, so that "no room for chance" is exact: n^2 times the agreement expected by chance.
    right_first, right_second = both_right + only_first, both_right + only_second
    chance = right_first * right_second + (n - right_first) * (n - right_second)
    room = n * n - chance
    return Agreement(
        n=n,
        both_right=both_right,
        both_wrong=both_wrong,
        only_first=only_first,
        only_second=only_second,
        unjudged_first=sum(isinstance(a, Unjudged) for a, _ in pairs),
        unjudged_second=sum(isinstance(b, Unjudged) for _, b in pairs),
        share=share,
        kappa=(n * (both_right + both_wrong) - chance) / room if room else None,
        disagreeing=tuple(place for place, (a, b) in judged if a is not b),
    )

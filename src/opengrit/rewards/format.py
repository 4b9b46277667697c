"""Rewards of the format: tags as the paper and as the released code count them, and text that repeats itself.

A new reward is a function here and its entry in `FORMAT_REWARDS`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from opengrit.core.types import Example, FoundTag, Tag, Transcript, Unjudged, is_counting
from opengrit.rewards.protocol import Attempt, Requirement, Reward, RewardSpec


def tag_pairs(attempt: Attempt) -> float:
    """Half for a correct think pair and half for a correct rethink pair after it: 0, 0.5 or 1 (s_st in the paper).

    A pair is correct when both of its tags occur once and in order. Alone, a rethink pair earns its half.
    """
    tags = attempt.transcript.tags
    think = _pair(tags, Tag.THINK_OPEN, Tag.THINK_CLOSE)
    rethink = _pair(tags, Tag.RETHINK_OPEN, Tag.RETHINK_CLOSE)
    if think and rethink and rethink[0].start < think[1].end:
        return 0.5
    return 0.5 * (think is not None) + 0.5 * (rethink is not None)


def _pair(tags: tuple[FoundTag, ...], opening: Tag, closing: Tag) -> tuple[FoundTag, FoundTag] | None:
    found = [tag for tag in tags if tag.tag in (opening, closing)]
    return (found[0], found[1]) if [tag.tag for tag in found] == [opening, closing] else None


def answer_tag(attempt: Attempt) -> float:
    """Half if there is an opening answer tag, and half more if there is just one: 0, 0.5 or 1 (released: times 0.5)."""
    occurrences = sum(found.tag is Tag.ANSWER_OPEN for found in attempt.transcript.tags)
    return 0.5 * (occurrences >= 1) + 0.5 * (occurrences == 1)


def tag_walk(attempt: Attempt) -> float:
    """A fifth for each of the four thinking tags met in order, and the last for a thought of two words; 0 to 1.

    The released code weighs it 0.5. There, a missing tag does not stop later tags from earning and each search
    starts after the last occurrence of the tag before; here the walk stops at the first tag it misses and continues
    after the first occurrence. A repeated tag is not punished in either.
    """
    transcript = attempt.transcript
    position, met = 0, 0
    for tag in (Tag.THINK_OPEN, Tag.THINK_CLOSE, Tag.RETHINK_OPEN, Tag.RETHINK_CLOSE):
        found = next((f for f in transcript.tags if f.tag is tag and f.start >= position), None)
        if found is None:
            return met / 5
        position, met = found.end, met + 1
    return (met + (len((transcript.thought or "").split()) >= 2)) / 5


REPETITION_LENGTH = 8  # tokens or words, from the released code


def repetition(attempt: Attempt) -> float | Unjudged:
    """S_tokens - (1 - S_words), -1 to 1: 1 when no 8-gram is followed by itself (released: times 0.5).

    S is the share of places where 8 tokens (or white-space separated words) are *not* followed by the same 8. A text
    too short to hold 8 twice, an empty one included, earns 0, where the released code gives it full marks; only
    whole 8-grams are compared, and no token id is taken for padding. Unjudged without token ids.
    """
    words = attempt.transcript.text.split()
    token_ids = attempt.completion.token_ids
    if words and not token_ids:
        return Unjudged("the reward 'repetition' needs token ids, and this completion has none")
    if min(len(words), len(token_ids)) < 2 * REPETITION_LENGTH:
        return 0.0
    return _share_unrepeated(token_ids) - (1.0 - _share_unrepeated(words))


def _share_unrepeated(items: Sequence[Hashable], n: int = REPETITION_LENGTH) -> float:
    places = range(len(items) - 2 * n + 1)
    repeats = sum(items[i : i + n] == items[i + n : i + 2 * n] for i in places)
    return 1.0 - repeats / len(places)


_FULL_FORMAT = (Tag.THINK_OPEN, Tag.THINK_CLOSE, Tag.RETHINK_OPEN, Tag.RETHINK_CLOSE, Tag.ANSWER_OPEN)


def full_format(transcript: Transcript, *, min_boxes: int = 1) -> bool:
    """Whether the five tags occur once each and in order, the thought names a box and there is an answer.

    A closing answer tag may follow; no prompt asks for it. `min_boxes` is the number of boxes wanted in the thought.
    """
    tags = tuple(found.tag for found in transcript.tags)
    in_order = tags in (_FULL_FORMAT, (*_FULL_FORMAT, Tag.ANSWER_CLOSE))
    answered = bool((transcript.answer or "").strip())
    return in_order and answered and len(transcript.thought_pointings) >= min_boxes


def keeps_format(example: Example, transcript: Transcript) -> bool:
    """Whether a transcript has the full format that its row asks for.

    A box is asked for where the row has boxes and does not count to 0; elsewhere the tags and an answer are enough,
    because there may be nothing to point at.
    """
    nothing_to_point_at = not example.boxes or (is_counting(example) and 0 in example.counts)
    return full_format(transcript, min_boxes=0 if nothing_to_point_at else 1)


FORMAT_REWARDS: dict[Reward, RewardSpec] = {
    tag_pairs: RewardSpec(0.0, 1.0),
    answer_tag: RewardSpec(0.0, 1.0),
    tag_walk: RewardSpec(0.0, 1.0),
    repetition: RewardSpec(-1.0, 1.0, frozenset({Requirement.TOKEN_IDS})),
}

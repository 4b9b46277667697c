"""A training run that goes wrong says so: rows of metrics -> alarms, each with its likely cause and what to change."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Row = Mapping[str, Any]

# Rows over which a quantity is averaged before it is judged, and for which an alarm must be away before it can be
# raised again: one odd batch is no trend, and a step of a large model is too dear to wait for many.
WINDOW = 5

_NOTHING = 1e-6  # rewards are sums of a few numbers between -1 and 1; less than this is rounding
_FLAT = 0.9  # of groups without variance; a healthy demo ends near 0.6, because it is right nearly always
_MOSTLY = 0.5  # of completions cut off
_IOU_OF_CHANCE = 0.05  # one box over the whole picture scores more on most data
_POINTS = 0.5  # boxes a completion from which boxes are written at all
_FELL_TO = 0.5  # of its best: so far falls what has collapsed
_SHRANK_TO, _GREW_TO = 1 / 4, 4.0  # of its length, while the reward did not rise
_ENTROPY_LEFT, _ENTROPY_SMALL, _ENTROPY_NONE = (
    0.1,
    0.05,
    0.005,
)  # of what it was; nats a token; nats at any time
_KL_LARGE, _KL_HUGE = 1.0, 10.0  # nats a token: of a window, of one row
_CLIPPED = 0.3  # of tokens
_HUGE_GRADIENT = 100.0  # times the median so far
_UNJUDGED, _SKIPPED, _FAILED = 0.2, 0.4, 0.05
_KEPT = 1000  # rows looked back at
_TYPICAL_ERRORS = 4.0  # standard errors by which a fall must exceed what steps vary by


class Kind(Enum):
    """What has gone wrong, as it stands in alarms.jsonl."""

    REWARD_IS_ZERO = "reward always 0"
    FLAT_GROUPS = "groups without variance"
    REWARD_FELL = "reward fell"
    FORMAT_FELL = "format fell"
    SHORTER = "length collapsed"
    LONGER = "length exploded"
    TRUNCATED = "truncated"
    FRAME = "boxes in another frame"
    NO_BOXES = "no boxes"
    ENTROPY = "entropy collapsed"
    KL = "KL exploded"
    CLIPPED = "updates clipped"
    GRADIENT = "gradient"
    LOSS = "loss"
    UNJUDGED = "unjudged"
    SKIPPED = "steps skipped"
    FAILED = "rollouts failed"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that went wrong at a step: what was seen, the likely cause and the remedy, on one line."""

    step: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """What the alarms need to know of a run to name a cause. `asks_for_boxes`: the prompt does."""

    max_completion_length: int
    frame: str
    asks_for_boxes: bool = True
    num_iterations: int = 1
    beta: float = 0.0
    other_frames: str = "pixels, thousand or unit"


@dataclass(slots=True)
class _Course:
    """The rows so far, and those of them that were learned from."""

    setting: Setting
    rows: list[Row] = field(default_factory=list)

    def take(self, row: Row) -> None:
        self.rows = [*self.rows[-_KEPT:], row]

    @property
    def learned(self) -> list[Row]:
        return [row for row in self.rows if not (_number(row, "judge/skipped_step") or 0.0) >= 1.0]


class Watchman:
    """Takes a run's rows of metrics one by one and gives the alarms that each of them raises.

    An alarm is raised once. It is raised again only when its cause had gone for `WINDOW` rows and came back.
    """

    def __init__(self, setting: Setting) -> None:
        self._course = _Course(setting)
        self._quiet_for: dict[Kind, int] = {}  # rows since an alarm that was raised had its cause

    def take(self, row: Row) -> list[Alarm]:
        """The alarms that this row raises. Rows without a loss (evaluations while training) say nothing."""
        if "loss" not in row:
            return []
        self._course.take(row)
        found = {kind: text for kind, check in _CHECKS.items() if (text := check(self._course)) is not None}
        if Kind.REWARD_IS_ZERO in found:
            found.pop(Kind.FLAT_GROUPS, None)  # one cause, one alarm
        for kind in list(self._quiet_for):
            self._quiet_for[kind] = 0 if kind in found else self._quiet_for[kind] + 1
            if self._quiet_for[kind] >= WINDOW:
                del self._quiet_for[kind]
        new = [kind for kind in found if kind not in self._quiet_for]
        self._quiet_for |= dict.fromkeys(new, 0)
        return [Alarm(int(row["step"]), kind, found[kind]) for kind in new]


def alarms(rows: Iterable[Row], setting: Setting) -> list[Alarm]:
    """Every alarm that a run's rows raise, in order. Rows as they are in memory or read from metrics.jsonl."""
    watchman = Watchman(setting)
    return [alarm for row in rows for alarm in watchman.take(row)]


def zero_loss_is_normal(row: Row, setting: Setting) -> str | None:
    """Why a loss of nothing is no fault, where it is none; None where the loss is something or would be a fault."""
    loss, flat = _number(row, "loss"), _number(row, "frac_reward_zero_std")
    if loss is None or abs(loss) > 1e-3 or setting.beta or setting.num_iterations > 1 or flat == 1.0:
        return None
    return (
        "a loss near 0 is normal here: with beta 0 and one iteration the advantages of a group add up to 0, so the loss "
        "does too, and its gradient does not; watch the reward"
    )


def alarm_row(alarm: Alarm) -> dict[str, Any]:
    """An alarm as a line of alarms.jsonl."""
    return {"step": alarm.step, "alarm": alarm.kind.value, "text": alarm.text}


def alarms_of(rows: Iterable[Mapping[str, Any]]) -> list[Alarm]:
    """The alarms in the lines of alarms.jsonl, each once: a resumed run repeats steps. Unknown kinds are left out."""
    kinds = {kind.value: kind for kind in Kind}
    found = {
        (row["step"], row["alarm"]): Alarm(int(row["step"]), kinds[row["alarm"]], str(row["text"]))
        for row in rows
        if row.get("alarm") in kinds
    }
    return list(found.values())


# -- what each kind looks at ------------------------------------------------------------------------------------------


def _reward_is_zero(course: _Course) -> str | None:
    rewards = _window(course.learned, "reward")
    if rewards is None or max(map(abs, rewards)) > _NOTHING:
        return None
    spread = _window(course.learned, "reward_std")
    if spread is not None and max(spread) > _NOTHING:
        return None
    return (
        f"every completion of the last {WINDOW} rows earned 0, so nothing is learned; the answers or the format are never "
        "right as they are read: look at records.jsonl, then at strategy, rewards and model.frame"
    )


def _flat_groups(course: _Course) -> str | None:
    share = _mean(course.learned, "frac_reward_zero_std")
    if share is None or share < _FLAT:
        return None
    right, formed = _mean(course.learned, "accuracy"), _mean(course.learned, "format")
    if min(right or 0.0, formed or 0.0) >= 0.9:
        return (
            f"in {share:.0%} of the groups all completions earn the same, because nearly all are right: there is nothing left "
            "to learn from these rows; stop here, or train on harder ones"
        )
    return (
        f"in {share:.0%} of the groups all completions earn the same, so there is no gradient; raise train.temperature or "
        "num_generations, or add a reward that comes in steps (bleu1, tag_walk)"
    )


def _reward_fell(course: _Course) -> str | None:
    fall = _fall(course.learned, "reward")
    if fall is None:
        return None
    return (
        f"the reward fell from {fall.best:.2f} (step {fall.step}) to {fall.now:.2f}: the policy collapsed; go back to a "
        "checkpoint before that and lower train.learning_rate, or raise train.beta"
    )


def _format_fell(course: _Course) -> str | None:
    fall = _fall(course.learned, "format")
    if fall is None or fall.best < 0.2:
        return None
    cut = _mean(course.rows, "truncated") or 0.0
    cause = (
        f"and {cut:.0%} are cut off: raise train.max_completion_length"
        if cut >= 0.2
        else "with the reward no longer asking for it: weigh the format higher under rewards, or lower train.learning_rate"
    )
    return f"the share in full format fell from {fall.best:.0%} (step {fall.step}) to {fall.now:.0%}, {cause}"


def _shorter(course: _Course) -> str | None:
    change = _length_change(course, grew=False)
    if change is None:
        return None
    return (
        f"completions shrank from {change.best:.0f} to {change.now:.0f} tokens and earn no more: the model gave up "
        "reasoning; give the format or the boxes more weight under rewards, or lower train.learning_rate"
    )


def _longer(course: _Course) -> str | None:
    change = _length_change(course, grew=True)
    if change is None:
        return None
    return (
        f"completions grew from {change.best:.0f} to {change.now:.0f} tokens and earn no more: the model rambles or repeats "
        "itself; lower train.learning_rate, or add the reward repetition"
    )


def _truncated(course: _Course) -> str | None:
    share = _mean(course.rows, "truncated")
    if share is None or share < _MOSTLY:
        return None
    limit = course.setting.max_completion_length
    return (
        f"{share:.0%} of the completions are cut off at {limit} tokens and teach nothing; raise train.max_completion_length, "
        "or, where the texts go on after their answer, find out why the stop string </answer> is not reached"
    )


def _frame(course: _Course) -> str | None:
    iou, boxes = _mean(course.rows, "grounding_iou"), _mean(course.rows, "boxes")
    rejected = _mean(course.rows, "rejected_boxes") or 0.0
    if iou is None or boxes is None or iou > _IOU_OF_CHANCE or boxes + rejected < _POINTS:
        return None
    setting = course.setting
    return (
        f"{boxes + rejected:.1f} boxes are written in a completion and their IoU is {iou:.2f}, so they are probably read in "
        f"the wrong frame ({setting.frame}); set model.frame to what the model writes ({setting.other_frames}), and check "
        "with opengrit doctor"
    )


def _no_boxes(course: _Course) -> str | None:
    seen = [n for row in course.rows if (n := _number(row, "boxes")) is not None]
    rejected = _mean(course.rows, "rejected_boxes") or 0.0
    if not course.setting.asks_for_boxes or len(seen) < WINDOW or max(seen) > 0.01 or rejected >= _POINTS:
        return None
    return (
        "no completion has named a box since the run began, and what never happens is never rewarded; ask with strategy "
        "grounded-icl, fine-tune a little first (opengrit sft), or take a base that can detect"
    )


def _entropy(course: _Course) -> str | None:
    values = _values(course.learned, "entropy")
    if len(values) < WINDOW:
        return None
    first, now = statistics.fmean(values[:WINDOW]), statistics.fmean(values[-WINDOW:])
    if now > _ENTROPY_NONE and not (now < _ENTROPY_SMALL and now <= _ENTROPY_LEFT * first):
        return None
    return (
        f"the entropy of a token is {now:.3f} nats (at first {first:.3f}): completions hardly differ any more; lower "
        "train.learning_rate, raise train.beta or train.temperature, or stop where the reward has reached its height"
    )


def _kl(course: _Course) -> str | None:
    values = _values(course.learned, "kl")
    if not values:
        return None
    window = statistics.fmean(values[-WINDOW:]) if len(values) >= WINDOW else 0.0
    if values[-1] < _KL_HUGE and window < _KL_LARGE:
        return None
    return (
        f"the policy is {max(values[-1], window):.1f} nats a token away from the model it began as: it is leaving language; "
        "lower train.learning_rate or raise train.beta, from a checkpoint before this step"
    )


def _clipped(course: _Course) -> str | None:
    share = _mean(course.learned, "clip_ratio/region_mean")
    if share is None or share < _CLIPPED:
        return None
    return (
        f"{share:.0%} of the tokens have left the clip range, so their gradient is cut off: each update goes too far; lower "
        "train.learning_rate or train.num_iterations"
    )


def _gradient(course: _Course) -> str | None:
    row = course.rows[-1]
    if "grad_norm" not in row:
        return None
    norm = _number(row, "grad_norm")
    if norm is None:
        return (
            "the gradient is not finite, and the weights are lost with the step that takes it; go back to the last "
            "checkpoint and lower train.learning_rate (with bf16: false if it comes again)"
        )
    before = [n for n in _values(course.learned[:-1], "grad_norm") if n > 0]
    if len(before) < WINDOW or norm < _HUGE_GRADIENT * statistics.median(before):
        return None
    return (
        f"the gradient's norm is {norm:.3g}, {_HUGE_GRADIENT:.0f} times what is usual in this run "
        f"({statistics.median(before):.3g}) or more; keep train.max_grad_norm at 1, and lower train.learning_rate if "
        "the reward falls"
    )


def _loss(course: _Course) -> str | None:
    if _number(course.rows[-1], "loss") is not None:
        return None
    return (
        "the loss is not finite, and so the weights are not to be trusted; go back to the last checkpoint, lower "
        "train.learning_rate, and set bf16: false if it comes again"
    )


def _unjudged(course: _Course) -> str | None:
    share = _mean(course.rows, "judge/unjudged")
    if share is None or share < _UNJUDGED:
        return None
    return (
        f"the judge gives no opinion on {share:.0%} of the answers, which are left out; see why in records.jsonl, then raise "
        "judge.timeout_seconds or deadline_seconds, lower judge.concurrency, or set judge.fallback: rule"
    )


def _skipped(course: _Course) -> str | None:
    share = _mean(course.rows, "judge/skipped_step")
    if share is None or share < _SKIPPED:
        return None
    return (
        f"{share:.0%} of the last {WINDOW} rows' steps were skipped because too few answers were judged; the run goes "
        "through its steps without learning: stop it, mend the judge, and resume"
    )


def _failed(course: _Course) -> str | None:
    share = _mean(course.rows, "failed")
    if share is None or share < _FAILED:
        return None
    return (
        f"{share:.0%} of the rollouts failed and teach nothing; records.jsonl says why under failure (a picture that "
        "went missing or does not open, most often): opengrit data check lists them"
    )


_CHECKS: dict[Kind, Callable[[_Course], str | None]] = {
    Kind.LOSS: _loss,
    Kind.GRADIENT: _gradient,
    Kind.TRUNCATED: _truncated,
    Kind.REWARD_IS_ZERO: _reward_is_zero,
    Kind.FLAT_GROUPS: _flat_groups,
    Kind.REWARD_FELL: _reward_fell,
    Kind.FORMAT_FELL: _format_fell,
    Kind.SHORTER: _shorter,
    Kind.LONGER: _longer,
    Kind.FRAME: _frame,
    Kind.NO_BOXES: _no_boxes,
    Kind.ENTROPY: _entropy,
    Kind.KL: _kl,
    Kind.CLIPPED: _clipped,
    Kind.UNJUDGED: _unjudged,
    Kind.SKIPPED: _skipped,
    Kind.FAILED: _failed,
}


# -- quantities over rows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Change:
    """How far a quantity has come from another window, which ends at `step`."""

    best: float
    now: float
    step: int


def _number(row: Row, key: str) -> float | None:
    """A metric that was measured; None where it was not, or is not finite (null in the file, NaN in memory)."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _values(rows: Sequence[Row], key: str) -> list[float]:
    return [n for row in rows if (n := _number(row, key)) is not None]


def _window(rows: Sequence[Row], key: str) -> list[float] | None:
    """The last `WINDOW` values of a metric; None where there are not as many."""
    values = _values(rows[-2 * WINDOW :], key)[-WINDOW:]
    return values if len(values) == WINDOW else None


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = _window(rows, key)
    return None if values is None else statistics.fmean(values)


def _windows(rows: Sequence[Row], key: str) -> list[tuple[int, list[float]]]:
    """Every window of a metric with the step it ends at, in order."""
    found = [(int(row["step"]), n) for row in rows if (n := _number(row, key)) is not None]
    return [
        (found[end - 1][0], [n for _, n in found[end - WINDOW : end]])
        for end in range(WINDOW, len(found) + 1)
    ]


def _fall(rows: Sequence[Row], key: str) -> _Change | None:
    """A quantity's fall to half of its best window or less, and by clearly more than its steps vary."""
    windows = _windows(rows, key)
    if len(windows) <= WINDOW:
        return None
    now = windows[-1][1]
    step, best = max(windows[:-WINDOW], key=lambda window: statistics.fmean(window[1]))
    high, low = statistics.fmean(best), statistics.fmean(now)
    error = math.sqrt((statistics.variance(best) + statistics.variance(now)) / WINDOW)
    if high <= 0 or low > _FELL_TO * high or high - low < _TYPICAL_ERRORS * error:
        return None
    return _Change(high, low, step)


def _length_change(course: _Course, *, grew: bool) -> _Change | None:
    """A change of length by the factor of an alarm, since a window whose reward was no lower than it is now."""
    rows = [row for row in course.learned if _number(row, "reward") is not None]
    lengths, rewards = _windows(rows, "completions/mean_length"), _windows(rows, "reward")
    if len(lengths) <= WINDOW or len(lengths) != len(rewards):
        return None
    now, reward_now = statistics.fmean(lengths[-1][1]), statistics.fmean(rewards[-1][1])
    pick = min if grew else max
    place = pick(range(len(lengths) - WINDOW), key=lambda i: statistics.fmean(lengths[i][1]))
    then, reward_then = statistics.fmean(lengths[place][1]), statistics.fmean(rewards[place][1])
    far = now >= _GREW_TO * then if grew else now <= _SHRANK_TO * then
    if not far or reward_now > reward_then:
        return None
    return _Change(then, now, lengths[place][0])

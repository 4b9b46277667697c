"""What each kind of alarm looks at: a run's history in, the cause and the remedy out, or None."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from opengrit.runs.alarms.drift import Evaluation, answers_of, drift
from opengrit.runs.alarms.kinds import Kind, Setting
from opengrit.runs.alarms.windows import (
    WINDOW,
    Change,
    Row,
    every_window,
    fall_of,
    last_window,
    mean_of,
    number_of,
    values_of,
)

_NOTHING = 1e-6  # rewards are sums of a few numbers between -1 and 1; less than this is rounding
_FLAT = 0.9  # of groups without variance; a healthy demo ends near 0.6, because it is right nearly always
_MOSTLY = 0.5  # of completions cut off
_IOU_OF_CHANCE = 0.05  # one box over the whole picture scores more on most data
_MOSTLY_ANOTHER_UNIT = 0.5  # of the boxes that are written
_POINTS = 0.5  # boxes a completion from which boxes are written at all
_SHRANK_TO, _GREW_TO = 1 / 4, 4.0  # of its length, while the reward did not rise
_ENTROPY_LEFT, _ENTROPY_SMALL = 0.1, 0.05  # of what it was, where that is below so many nats a token
_ENTROPY_NONE = 0.005  # nats a token, whatever it was
_KL_LARGE, _KL_HUGE = 1.0, 10.0  # nats a token: of a window, of one row
_CLIPPED = 0.3  # of tokens
_HUGE_GRADIENT = 100.0  # times the median so far
_UNJUDGED, _SKIPPED, _FAILED = 0.2, 0.4, 0.05
_SAMPLER_APART = 0.1  # nats a token; engines differ by 0.01 to 0.05 in bfloat16
_KEPT = 1000  # rows looked back at


@dataclass(slots=True)
class History:
    """The rows so far, and those of them that were learned from."""

    setting: Setting
    rows: list[Row] = field(default_factory=list)
    evaluations: dict[int, Evaluation] = field(default_factory=dict)  # by step, its data sets together

    def take_evaluation(self, row: Row) -> None:
        step = int(row["step"])
        self.evaluations[step] = {**self.evaluations.get(step, {}), **answers_of(row)}

    def take(self, row: Row) -> None:
        self.rows = [*self.rows[-_KEPT:], row]

    @property
    def learned(self) -> list[Row]:
        return [row for row in self.rows if not (number_of(row, "judge/skipped_step") or 0.0) >= 1.0]

    def mean(self, key: str) -> float | None:
        """The mean of the last window of a metric."""
        return mean_of(self.rows, key, iterations=self.setting.num_iterations)

    def learned_window(self, key: str) -> list[float] | None:
        """The last window of a metric in the rows that were learned from."""
        return last_window(self.learned, key, iterations=self.setting.num_iterations)

    def learned_mean(self, key: str) -> float | None:
        """The mean of that window."""
        return mean_of(self.learned, key, iterations=self.setting.num_iterations)


def _reward_is_zero(history: History) -> str | None:
    rewards = history.learned_window("reward")
    if rewards is None or max(map(abs, rewards)) > _NOTHING:
        return None
    spread = history.learned_window("reward_std")
    if spread is not None and max(spread) > _NOTHING:
        return None
    return (
        f"every completion of the last {WINDOW} rows with rewards earned 0, so nothing is learned; no answer or format "
        "is parsed as right: look at records.jsonl, then at strategy, rewards and model.frame"
    )


def _flat_groups(history: History) -> str | None:
    share = history.learned_mean("frac_reward_zero_std")
    if share is None or share < _FLAT:
        return None
    right, formed = history.learned_mean("accuracy"), history.learned_mean("format")
    if min(right or 0.0, formed or 0.0) >= 0.9:
        return (
            f"in {share:.0%} of the groups all completions earn the same, because nearly all are right: there is nothing left "
            "to learn from these rows; stop here, or train on harder ones"
        )
    return (
        f"in {share:.0%} of the groups all completions earn the same, so there is no gradient; raise train.temperature or "
        "num_generations, or add a reward that comes in steps (bleu1, tag_walk)"
    )


def _reward_fell(history: History) -> str | None:
    fall = fall_of(history.learned, "reward")
    if fall is None:
        return None
    return (
        f"the reward fell from {fall.best:.2f} (step {fall.step}) to {fall.now:.2f}: the policy collapsed; go back to a "
        "checkpoint before that and lower train.learning_rate, or raise train.beta"
    )


def _format_fell(history: History) -> str | None:
    fall = fall_of(history.learned, "format")
    if fall is None or fall.best < 0.2:
        return None
    cut = history.mean("truncated") or 0.0
    cause = (
        f"and {cut:.0%} are cut off: raise train.max_completion_length"
        if cut >= 0.2
        else (
            "and the reward does not oppose it: raise the weight of the format under rewards, or lower "
            "train.learning_rate"
        )
    )
    return f"the share in full format fell from {fall.best:.0%} (step {fall.step}) to {fall.now:.0%}, {cause}"


def _shorter(history: History) -> str | None:
    change = _length_change(history, grew=False)
    if change is None:
        return None
    return (
        f"completions shrank from {change.best:.0f} to {change.now:.0f} tokens and earn no more: the model gave up "
        "reasoning; give the format or the boxes more weight under rewards, or lower train.learning_rate"
    )


def _longer(history: History) -> str | None:
    change = _length_change(history, grew=True)
    if change is None:
        return None
    return (
        f"completions grew from {change.best:.0f} to {change.now:.0f} tokens and earn no more: the model rambles or repeats "
        "itself; lower train.learning_rate, or add the reward repetition"
    )


def _truncated(history: History) -> str | None:
    share = history.mean("truncated")
    if share is None or share < _MOSTLY:
        return None
    limit = history.setting.max_completion_length
    return (
        f"{share:.0%} of the completions are cut off at {limit} tokens and teach nothing; raise "
        "train.max_completion_length, or, if the texts continue after their answer, find out why they never write the "
        "stop string </answer>"
    )


def _unit(history: History) -> str | None:
    boxes, rejected = history.mean("boxes") or 0.0, history.mean("rejected_boxes") or 0.0
    another = history.mean("boxes_in_another_unit") or 0.0
    if another < max(_POINTS, _MOSTLY_ANOTHER_UNIT * (boxes + rejected)):
        return None
    return (
        f"{another:.1f} of the {boxes + rejected:.1f} boxes in a completion are not in the unit of the frame "
        f"{history.setting.frame} (fractions of the picture, per cent, or pixels) and are rejected; set model.frame to "
        "what the model writes (unit for fractions), or teach it the frame first (opengrit sft)"
    )


def _frame(history: History) -> str | None:
    if _unit(history) is not None:  # the same boxes, with the cause known
        return None
    iou, boxes = history.mean("grounding_iou"), history.mean("boxes")
    rejected = history.mean("rejected_boxes") or 0.0
    if iou is None or boxes is None or iou > _IOU_OF_CHANCE or boxes + rejected < _POINTS:
        return None
    return (
        f"{boxes + rejected:.1f} boxes are written per completion and their IoU is {iou:.2f}, so they are probably read "
        f"in the wrong frame ({history.setting.frame}); set model.frame to what the model writes (pixels, thousand or "
        "unit): opengrit doctor compares them"
    )


def _no_boxes(history: History) -> str | None:
    seen = [n for row in history.rows if (n := number_of(row, "boxes")) is not None]
    rejected = history.mean("rejected_boxes") or 0.0
    if not history.setting.asks_for_boxes or len(seen) < WINDOW or max(seen) > 0.01 or rejected >= _POINTS:
        return None
    return (
        "no completion has named a box since the run began, so none can be rewarded; ask with strategy grounded-icl, "
        "fine-tune first (opengrit sft), or choose a base model that can detect objects"
    )


def _entropy(history: History) -> str | None:
    values = values_of(history.learned, "entropy")
    if len(values) < WINDOW:
        return None
    first, now = statistics.fmean(values[:WINDOW]), statistics.fmean(values[-WINDOW:])
    if now > _ENTROPY_NONE and not (now < _ENTROPY_SMALL and now <= _ENTROPY_LEFT * first):
        return None
    return (
        f"the entropy per token is {now:.3f} nats (at first {first:.3f}): completions hardly differ; lower "
        "train.learning_rate, raise train.beta or train.temperature, or stop if the reward has stopped rising"
    )


def _kl(history: History) -> str | None:
    values = values_of(history.learned, "kl")
    if not values:
        return None
    window = statistics.fmean(values[-WINDOW:]) if len(values) >= WINDOW else 0.0
    if values[-1] < _KL_HUGE and window < _KL_LARGE:
        return None
    return (
        f"the policy is {max(values[-1], window):.1f} nats a token away from the initial model: its language degrades; "
        "lower train.learning_rate or raise train.beta, from a checkpoint before this step"
    )


def _clipped(history: History) -> str | None:
    share = history.learned_mean("clip_ratio/region_mean")
    if share is None or share < _CLIPPED:
        return None
    return (
        f"{share:.0%} of the tokens are outside the clip range, so they have no gradient: updates are too large; lower "
        "train.learning_rate or train.num_iterations"
    )


def _gradient(history: History) -> str | None:
    row = history.rows[-1]
    left_out = _left_out(row)
    if left_out:
        return (
            f"{100 * left_out:.3g}% of the row's steps had no finite loss or gradient and were skipped without changing "
            "a weight; if it continues, lower train.learning_rate, or look at their records in records.jsonl"
        )
    if "grad_norm" not in row:
        return None
    norm = number_of(row, "grad_norm")
    if norm is None:
        return (
            "the gradient is not finite, and this step may destroy the weights; go back to the last checkpoint and "
            "lower train.learning_rate (with bf16: false if it recurs)"
        )
    before = [n for n in values_of(history.learned[:-1], "grad_norm") if n > 0]
    if len(before) < WINDOW or norm < _HUGE_GRADIENT * statistics.median(before):
        return None
    return (
        f"the gradient's norm is {norm:.3g}, at least {_HUGE_GRADIENT:.0f} times this run's median "
        f"({statistics.median(before):.3g}); keep train.max_grad_norm at 1, and lower train.learning_rate if the reward "
        "falls"
    )


def _left_out(row: Row) -> float:
    """The share of a row's steps that changed no weight because their loss or gradient was not finite."""
    return number_of(row, "nonfinite/skipped_step") or 0.0


def _loss(history: History) -> str | None:
    row = history.rows[-1]
    if number_of(row, "loss") is not None or _left_out(row):
        return None
    return (
        "the loss is not finite, so the weights may be damaged; go back to the last checkpoint, lower "
        "train.learning_rate, and set bf16: false if it recurs"
    )


def _unjudged(history: History) -> str | None:
    share = history.mean("judge/unjudged")
    if share is None or share < _UNJUDGED:
        return None
    return (
        f"the judge gives no opinion on {share:.0%} of the answers, which are left out; look for the reasons in "
        "records.jsonl, then raise judge.timeout_seconds or deadline_seconds, lower judge.concurrency, or set "
        "judge.fallback: rule"
    )


def _skipped(history: History) -> str | None:
    size = WINDOW * history.setting.num_iterations  # a generation that is skipped is as many skipped steps
    values = values_of(history.rows, "judge/skipped_step")[-size:]
    share = statistics.fmean(values) if len(values) == size else 0.0
    if share < _SKIPPED:
        return None
    return (
        f"{share:.0%} of the last {size} rows' steps were skipped because too few answers were judged; the run counts "
        "steps without learning: stop it, fix the judge, and resume"
    )


def _failed(history: History) -> str | None:
    share = history.mean("failed")
    if share is None or share < _FAILED:
        return None
    return (
        f"{share:.0%} of the rollouts failed and teach nothing; records.jsonl says why under failure (most often a "
        "picture is missing or does not open): opengrit data check lists them"
    )


def _sampler(history: History) -> str | None:
    apart = history.mean("sampling/logp_difference")
    if apart is None or apart < _SAMPLER_APART:
        return None
    return (
        f"vLLM and the model score the same tokens {apart:.2g} nats apart, so the importance correction drops most of "
        "the samples; check that vLLM gets the new weights and has the model's precision and sampling options, or "
        "start again with train.vllm_mode: null and compare the rewards"
    )


CHECKS: dict[Kind, Callable[[History], str | None]] = {
    Kind.LOSS: _loss,
    Kind.GRADIENT: _gradient,
    Kind.TRUNCATED: _truncated,
    Kind.REWARD_IS_ZERO: _reward_is_zero,
    Kind.FLAT_GROUPS: _flat_groups,
    Kind.REWARD_FELL: _reward_fell,
    Kind.FORMAT_FELL: _format_fell,
    Kind.SHORTER: _shorter,
    Kind.LONGER: _longer,
    Kind.UNIT: _unit,
    Kind.FRAME: _frame,
    Kind.NO_BOXES: _no_boxes,
    Kind.ENTROPY: _entropy,
    Kind.KL: _kl,
    Kind.CLIPPED: _clipped,
    Kind.UNJUDGED: _unjudged,
    Kind.SKIPPED: _skipped,
    Kind.FAILED: _failed,
    Kind.SAMPLER: _sampler,
    Kind.DRIFT: lambda history: drift(history.learned, history.evaluations),
}


def _length_change(history: History, *, grew: bool) -> Change | None:
    """A change of length by the factor of an alarm, since a window whose reward was no lower than it is now."""
    rows = [row for row in history.learned if number_of(row, "reward") is not None]
    lengths, rewards = every_window(rows, "completions/mean_length"), every_window(rows, "reward")
    if len(lengths) <= WINDOW or len(lengths) != len(rewards):
        return None
    now, reward_now = statistics.fmean(lengths[-1][1]), statistics.fmean(rewards[-1][1])
    pick = min if grew else max
    place = pick(range(len(lengths) - WINDOW), key=lambda i: statistics.fmean(lengths[i][1]))
    then, reward_then = statistics.fmean(lengths[place][1]), statistics.fmean(rewards[place][1])
    far = now >= _GREW_TO * then if grew else now <= _SHRANK_TO * then
    if not far or reward_now > reward_then:
        return None
    return Change(then, now, lengths[place][0])

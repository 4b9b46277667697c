"""A training run that goes wrong says so: rows of metrics -> alarms, each with its likely cause and what to change."""

from __future__ import annotations

from collections.abc import Iterable

from opengrit.runs.alarms.checks import CHECKS, Course
from opengrit.runs.alarms.kinds import Alarm, Kind, Setting, alarm_row, alarms_of, resumed_row
from opengrit.runs.alarms.windows import WINDOW, Row, number_of

__all__ = [
    "WINDOW",
    "Alarm",
    "Kind",
    "Setting",
    "Watchman",
    "alarm_row",
    "alarms",
    "alarms_of",
    "resumed_row",
    "zero_loss_is_normal",
]


# One cause, one alarm: what follows from another thing is left unsaid beside it.
_FOLLOWS = {
    Kind.TRUNCATED: (Kind.REWARD_IS_ZERO, Kind.FLAT_GROUPS, Kind.NO_BOXES, Kind.SHORTER),
    Kind.REWARD_IS_ZERO: (Kind.FLAT_GROUPS,),
}


class Watchman:
    """Takes a run's rows of metrics one by one and gives the alarms that each of them raises.

    An alarm is raised once. It is raised again only when its cause had gone for `WINDOW` rows and came back.
    """

    def __init__(self, setting: Setting) -> None:
        self._course = Course(setting)
        self._quiet_for: dict[Kind, int] = {}  # rows since an alarm that was raised had its cause

    def recall(self, rows: Iterable[Row]) -> None:
        """Takes the rows of a run so far in, whose alarms were raised at their time.

        Only the last ones are looked at: an alarm whose cause is in none of them would be raised again anyway.
        """
        logged = [row for row in rows if "loss" in row]
        for row in logged[:-WINDOW]:
            self._course.take(row)
        for row in logged[-WINDOW:]:
            self.take(row)

    def take(self, row: Row) -> list[Alarm]:
        """The alarms that this row raises. Rows without a loss (evaluations while training) say nothing."""
        if "loss" not in row:
            return []
        self._course.take(row)
        found = {kind: text for kind, check in CHECKS.items() if (text := check(self._course)) is not None}
        for cause, effects in _FOLLOWS.items():
            if cause in found:
                found = {kind: text for kind, text in found.items() if kind not in effects}
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
    loss, flat = number_of(row, "loss"), number_of(row, "frac_reward_zero_std")
    if loss is None or abs(loss) > 1e-3 or setting.beta or setting.num_iterations > 1:
        return None
    if flat is None or flat == 1.0:  # nothing is measured, or nothing differs: the gradient is nothing too
        return None
    return (
        "a loss near 0 is normal here: with beta 0 and one iteration the advantages of a group add up to 0, so the loss "
        "does too, and its gradient does not; watch the reward"
    )

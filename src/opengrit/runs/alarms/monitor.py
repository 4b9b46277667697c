"""Rows of metrics in, alarms out: each names what went wrong, its likely cause and what to change."""

from __future__ import annotations

from collections.abc import Iterable

from opengrit.runs.alarms.checks import CHECKS, History
from opengrit.runs.alarms.kinds import Alarm, Kind, Setting
from opengrit.runs.alarms.windows import WINDOW, Row, number_of

# One cause, one alarm: the effects of a cause raise none of their own.
_FOLLOWS = {
    Kind.TRUNCATED: (Kind.REWARD_IS_ZERO, Kind.FLAT_GROUPS, Kind.NO_BOXES, Kind.SHORTER, Kind.DRIFT),
    Kind.FORMAT_FELL: (Kind.DRIFT,),
    Kind.UNIT: (Kind.DRIFT,),
    Kind.FRAME: (Kind.DRIFT,),
    Kind.REWARD_IS_ZERO: (Kind.FLAT_GROUPS,),
}


class AlarmMonitor:
    """Takes a run's rows of metrics one by one and gives the alarms that each of them raises.

    An alarm is raised once, and again only when its cause was gone for `WINDOW` rows and came back.
    """

    def __init__(self, setting: Setting) -> None:
        self._history = History(setting)
        self._quiet_for: dict[Kind, int] = {}  # rows since an alarm that was raised had its cause

    def recall(self, rows: Iterable[Row]) -> None:
        """Takes in the earlier rows of a resumed run, whose alarms were raised at their time; those of evaluations first.

        Only the last ones are looked at: an alarm whose cause is in none of them would be raised again anyway.
        """
        logged = []
        for row in rows:
            if "loss" in row:
                logged.append(row)
            elif "data" in row:
                self._history.take_evaluation(row)
        for row in logged[:-WINDOW]:
            self._history.take(row)
        for row in logged[-WINDOW:]:
            self.take(row)

    def take(self, row: Row) -> list[Alarm]:
        """The alarms that this row raises, of metrics.jsonl or evaluations.jsonl.

        An evaluation raises its alarms with the next step's row; its means in metrics.jsonl, in a row without a loss, say
        nothing that its line in evaluations.jsonl does not.
        """
        if "loss" not in row:
            if "data" in row:
                self._history.take_evaluation(row)
            return []
        self._history.take(row)
        found = {kind: text for kind, check in CHECKS.items() if (text := check(self._history)) is not None}
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


def rows_of(metrics: Iterable[Row], evaluations: Iterable[Row]) -> list[Row]:
    """The lines of a run's metrics.jsonl and evaluations.jsonl in the order of steps, evaluations first.

    Of steps that a resumed run took anew the newest rows count.
    """
    found: dict[tuple[int, bool, str], Row] = {}
    for row in (*evaluations, *metrics):
        if "loss" in row or "data" in row:
            found[int(row["step"]), "loss" in row, str(row.get("data", ""))] = row
    return [found[key] for key in sorted(found)]


def alarms(rows: Iterable[Row], setting: Setting) -> list[Alarm]:
    """Every alarm that a run's rows raise, in order: as they are in memory, or as `rows_of` puts those of its files."""
    monitor = AlarmMonitor(setting)
    return [alarm for row in rows for alarm in monitor.take(row)]


def zero_loss_is_normal(row: Row, setting: Setting) -> str | None:
    """Why a loss near 0 is normal, where it is; None where the loss is larger or would be a fault."""
    loss, flat = number_of(row, "loss"), number_of(row, "frac_reward_zero_std")
    if loss is None or abs(loss) > 1e-3 or setting.beta or setting.num_iterations > 1:
        return None
    if flat is None or flat == 1.0:  # nothing is measured, or nothing differs: the gradient is 0 too
        return None
    return (
        "a loss near 0 is normal here: with beta 0 and one iteration the advantages of a group, and so the loss, add "
        "up to 0, but the gradient does not; watch the reward"
    )

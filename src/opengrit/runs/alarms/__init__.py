"""A training that goes wrong says so: rows of metrics -> alarms, each with its likely cause and what to change.

Begin with `monitor.py`; each check is a function in `checks.py`.
"""

from opengrit.runs.alarms.kinds import Alarm, Kind, Setting, alarm_row, alarms_of, resumed_row
from opengrit.runs.alarms.monitor import Watchman, alarms, zero_loss_is_normal
from opengrit.runs.alarms.windows import WINDOW

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

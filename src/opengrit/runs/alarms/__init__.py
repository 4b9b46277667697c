"""Alarms of a training that goes wrong: rows of metrics in, likely causes and what to change out.

Begin with `monitor.py`; each check is a function in `checks.py`.
"""

from opengrit.runs.alarms.kinds import Alarm, Kind, Setting, alarm_row, alarms_of, resumed_row
from opengrit.runs.alarms.monitor import AlarmMonitor, alarms, rows_of, zero_loss_is_normal
from opengrit.runs.alarms.windows import WINDOW

__all__ = [
    "WINDOW",
    "Alarm",
    "AlarmMonitor",
    "Kind",
    "Setting",
    "alarm_row",
    "alarms",
    "alarms_of",
    "resumed_row",
    "rows_of",
    "zero_loss_is_normal",
]

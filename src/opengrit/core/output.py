"""What a command prints besides its results: our log, without the libraries' messages that help nobody."""

from __future__ import annotations

import logging
import warnings

from opengrit.core.escaping import harmless

_LIBRARIES = r"(transformers|trl|peft|accelerate|datasets|huggingface_hub|torch)\."


class _Escaped(logging.Formatter):
    """Messages as lines that steer no terminal: a server may have worded a reason."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


def settle_log() -> None:
    """Our log goes to standard error; for commands that load no model's libraries."""
    log = logging.getLogger("opengrit")
    log.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_Escaped("%(message)s"))
    handler.set_name("opengrit's commands")
    log.handlers = [h for h in log.handlers if h.get_name() != handler.get_name()] + [handler]


def settle_output() -> None:
    """As `settle_log`, and `quieten_libraries`."""
    settle_log()
    quieten_libraries()


def quieten_libraries() -> None:
    """The libraries' messages that are meant for us rather than for a person are off.

    Their warnings stay, but for three: what will change in a later version of theirs, progress bars of reading and
    writing files, and TRL's page about each truncated completion (counted in our metrics as such).
    """
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(_says_something)
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    silenced = are_progress_bars_disabled()
    disable_progress_bar()
    if not silenced:
        enable_progress_bars()  # the hub's own: a download takes minutes


def _says_something(line: logging.LogRecord) -> bool:
    """False for TRL's warning that a completion has no reward."""
    return "All reward functions returned None" not in line.getMessage()

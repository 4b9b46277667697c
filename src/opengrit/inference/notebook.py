"""An answer as a notebook shows it: the viewer of the report and the page, complete in one cell's output."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from opengrit.core.errors import ImageError
from opengrit.core.images import open_any

if TYPE_CHECKING:
    from opengrit.inference.answer import Answer

_CLASS = "opengrit-answer"


def answer_in_notebook(answer: Answer) -> str | None:
    """The answer as HTML with style, script and picture in it; None where its picture is not known or gone.

    The style holds for this output alone; without the script, as on GitHub, everything is shown too.
    """
    from opengrit.reports.live import LiveReply, Progress, answer_html
    from opengrit.reports.pictures import embed
    from opengrit.reports.viewer import asset

    if answer.picture is None:
        return None
    try:
        picture = open_any(answer.picture)
    except ImageError:
        return None  # the short text is shown
    reply = LiveReply(
        answer.model,
        Progress.DONE,
        answer.transcript,
        seconds=answer.seconds,
        completion_tokens=answer.completion_tokens,
    )
    name = f"og-{uuid.uuid4().hex[:12]}"
    fragment = answer_html(
        answer.question, [reply], src=embed(picture).data_uri, size=answer.picture_size, id=name
    )
    return (
        f'<div class="{_CLASS}"><style>.{_CLASS} {{ {asset("viewer.css")} }}</style>'
        f'<div class="og-viewer og-live">{fragment}</div>'
        f"<script>{asset('viewer.js')}</script></div>"  # starts each viewer that has not been started
    )

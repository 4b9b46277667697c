"""An answer as a notebook shows it: the viewer of the report and the page, complete in one cell's output."""

from __future__ import annotations

import uuid

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import ImageError
from opengrit.core.images import open_any
from opengrit.core.types import Transcript

_CLASS = "opengrit-answer"


def answer_in_notebook(
    question: str,
    transcript: Transcript,
    picture: str | Image.Image,
    *,
    picture_size: Size,
    model: str,
    seconds: float,
    completion_tokens: int | None,
) -> str | None:
    """The answer as HTML with style, script and picture in it; None where the picture is gone.

    The style holds for this output alone; without the script, as on GitHub, everything is shown too.
    """
    from opengrit.reports.live import LiveReply, Progress, answer_html
    from opengrit.reports.pictures import embed
    from opengrit.reports.viewer import asset

    try:
        shown = embed(open_any(picture))
    except ImageError:
        return None  # a notebook shows the short text then
    reply = LiveReply(model, Progress.DONE, transcript, seconds=seconds, completion_tokens=completion_tokens)
    name = f"og-{uuid.uuid4().hex[:12]}"
    fragment = answer_html(question, [reply], src=shown.data_uri, size=picture_size, id=name)
    return (
        f'<div class="{_CLASS}"><style>.{_CLASS} {{ {asset("viewer.css")} }}</style>'
        f'<div class="og-viewer og-live">{fragment}</div>'
        f"<script>{asset('viewer.js')}</script></div>"  # starts each viewer that has not been started
    )

"""The application of `opengrit annotate`: the page, the pictures of one folder, and the rows of one file."""

from __future__ import annotations

import asyncio
import shlex
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from opengrit.annotation.balance import ENOUGH, Balance, balance
from opengrit.annotation.draft import Draft, require_usable, row_of
from opengrit.annotation.pictures import content_of
from opengrit.annotation.row_file import FileChanged, RowFile, StoredRow
from opengrit.core.errors import DataError, ImageError, RunError
from opengrit.core.images import Limits
from opengrit.core.palette import COLOURS
from opengrit.reports.viewer import asset
from opengrit.serving.bodies import BodyReader
from opengrit.serving.connections import ConnectionLimits
from opengrit.serving.decoders import OPEN_FORMATS, DecoderPool, Preview
from opengrit.serving.metrics import Metrics, MetricsMiddleware
from opengrit.serving.security import (
    MAX_ASPECT,
    STRICT_POLICY,
    Access,
    Refused,
    SecurityMiddleware,
    UploadLimits,
    error_response,
)

_T = TypeVar("_T")
_LIMITS = UploadLimits(picture_bytes=64 * 2**10)  # of what comes in: a row's text and numbers
_PICTURES = Limits(max_aspect=MAX_ASPECT, formats=OPEN_FORMATS)
_SHOWN_AT_ONCE = 8  # previews kept
_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "boxes.js": "text/javascript",
    "viewer.css": "text/css",
}


@dataclass(frozen=True, slots=True)
class Session:
    """What is worked on: a folder, its pictures by number, the file of rows, and the data set that new rows name."""

    folder: Path
    pictures: tuple[str, ...]
    rows: RowFile
    dataset: str

    @property
    def next_commands(self) -> list[str]:
        """What to run when the rows are there: look at them once more, and make what trains from them."""
        rows, pictures = str(self.rows.path), ["--images", str(self.folder)]
        base = self.rows.path.with_suffix("")  # often the pictures' own folder
        names = chain([base], (base.with_name(f"{base.name}-{number}") for number in count(2)))
        made = str(next(name for name in names if not name.exists()))
        return [
            shlex.join(["opengrit", "data", "check", rows, *pictures]),
            shlex.join(["opengrit", "new", rows, *pictures, "--out", made]),
        ]

    @property
    def balance(self) -> Balance:
        """What the rows come to so far."""
        return balance(
            self.rows.rows, file=self.rows.path, folder=self.folder, pictures=frozenset(self.pictures)
        )


def build_app(session: Session, access: Access) -> FastAPI:
    """The application over one session, which it closes when it ends."""
    decoders = DecoderPool(_PICTURES)
    service = AnnotationService(session, decoders)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()
        await asyncio.to_thread(decoders.close)

    app = FastAPI(
        title="OpenGRIT annotate", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.metrics = metrics = Metrics()
    app.state.decoders = decoders
    app.state.connection_limits = ConnectionLimits(
        body_seconds=_LIMITS.body_seconds, write_seconds=_LIMITS.write_seconds
    )
    for method, path, endpoint in service.routes():
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(SecurityMiddleware, access=access, limits=_LIMITS, page_policy=STRICT_POLICY)
    app.add_middleware(MetricsMiddleware, metrics=metrics, routes=("/api/rows",))
    return app


class AnnotationService:
    """Answers the page: what there is, one picture at a time, and rows that are saved, corrected and removed."""

    def __init__(self, session: Session, decoders: DecoderPool) -> None:
        self._session = session
        self._decoders = decoders
        self._bodies = BodyReader(_LIMITS)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rows")  # one change of the file at a time
        self._previews: OrderedDict[int, Preview] = OrderedDict()

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """Methods, paths and what answers them."""
        return [
            ("GET", "/", self.page),
            ("GET", "/static/{name}", self.static),
            ("GET", "/favicon.ico", self.no_icon),
            ("GET", "/api/session", self.session),
            ("GET", "/api/pictures/{number}", self.picture),
            ("GET", "/pictures/{number}", self.shown),
            ("POST", "/api/rows", self.add),
            ("PUT", "/api/rows/{row}", self.correct),
            ("DELETE", "/api/rows/{row}", self.remove),
        ]

    def close(self) -> None:
        """Let go of the file and the threads."""
        self._writer.shutdown(wait=True)
        self._bodies.close()
        self._session.rows.close()

    # -- the page and the pictures ---------------------------------------------------------------------------------

    async def page(self) -> Response:
        """The page itself."""
        return Response(_static("page.html"), media_type="text/html", headers=_FRESH)

    async def static(self, name: str) -> Response:
        """The page's style and script."""
        if name not in _FILES:
            raise HTTPException(404)
        content = asset(name) if name == "viewer.css" else _static(name)
        return Response(content, media_type=_FILES[name], headers=_FRESH)

    async def no_icon(self) -> Response:
        """Nothing: a browser asks for an icon by itself."""
        return Response(status_code=204)

    async def session(self) -> Response:
        """Everything but the pictures' content."""
        return await self._changed(self._reload_if_changed)

    async def picture(self, number: int) -> Response:
        """A picture's name and upright size in pixels, or what is wrong with it."""
        name = self._name(number)
        try:
            size = (await self._preview(number)).size
        except ImageError as error:
            return JSONResponse({"number": number, "name": name, "problem": str(error)})
        return JSONResponse({"number": number, "name": name, "width": size.width, "height": size.height})

    async def shown(self, number: int) -> Response:
        """A smaller copy of a picture, upright."""
        try:
            preview = await self._preview(number)
        except ImageError as error:
            raise Refused(404, str(error)) from None
        return Response(preview.content, media_type=preview.media_type, headers=_FRESH)

    async def _preview(self, number: int) -> Preview:
        if number not in self._previews:
            name, folder = self._name(number), self._session.folder
            content = await asyncio.to_thread(content_of, name, folder, max_bytes=_PICTURES.max_bytes)
            self._previews[number] = await self._decoders.preview(content)
        self._previews.move_to_end(number)
        while len(self._previews) > _SHOWN_AT_ONCE:
            self._previews.popitem(last=False)
        return self._previews[number]

    def _name(self, number: int) -> str:
        pictures = self._session.pictures
        if not 0 <= number < len(pictures):
            raise Refused(
                404, f"pictures have numbers from 0 to {len(pictures) - 1}, got {number}; reload the page"
            )
        return pictures[number]

    # -- the rows ---------------------------------------------------------------------------------------------------

    async def add(self, request: Request) -> Response:
        """Save a new row. One that is there already, word for word, is not written again: its answer got lost."""
        row = await self._read(request)
        return await self._changed(lambda: self._find(row) or self._session.rows.append(row))

    async def correct(self, row: int, request: Request) -> Response:
        """Save a row's new content in its place."""
        before = self._stored(row)
        values = await self._read(request, before)
        return await self._changed(lambda: self._session.rows.replace(self._stored(row), values))

    async def remove(self, row: int) -> Response:
        """Take a row out of the file."""
        return await self._changed(lambda: self._session.rows.remove(self._stored(row)))

    async def _read(self, request: Request, before: StoredRow | None = None) -> dict[str, Any]:
        """The row that the draft in a request's body makes. Raises Refused."""
        draft = await self._bodies.json(request, Draft.read)
        session, name = self._session, self._name(draft.picture)
        try:
            size = (await self._preview(draft.picture)).size
        except ImageError as error:
            raise Refused(400, str(error), param="picture") from None
        values = row_of(
            draft,
            image=name,
            size=size,
            dataset=session.dataset,
            before=None if before is None else before.values,
        )
        require_usable(values, file=session.rows.path, folder=session.folder)
        return values

    def _find(self, values: Mapping[str, Any]) -> StoredRow | None:
        if self._session.rows.is_changed:
            return None
        return next((row for row in self._session.rows.rows if row.values == values), None)

    def _stored(self, id: int) -> StoredRow:
        for row in self._session.rows.rows:
            if row.id == id:
                return row
        raise Refused(404, f"there is no row {id} any more; reload the page")

    def _reload_if_changed(self) -> None:
        if self._session.rows.is_changed:
            self._session.rows.reload()

    async def _changed(self, change: Callable[[], StoredRow | None]) -> Response:
        """The session after a change of the file, which is made in the writer's thread."""
        try:
            found, state = await self._in_writer(lambda: (change(), self._state()))
        except FileChanged as error:
            raise Refused(409, str(error)) from None
        except (RunError, DataError) as error:
            raise Refused(507 if isinstance(error, RunError) else 409, str(error)) from None
        return JSONResponse(state | ({} if found is None else {"saved": found.id}))

    async def _in_writer(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    def _state(self) -> dict[str, Any]:
        session, now = self._session, self._session.balance
        numbers = {name: number for number, name in enumerate(session.pictures)}
        judged = {one.id: one for one in now.rows}
        return {
            "folder": session.folder.resolve().name,
            "file": session.rows.path.name,
            "next": session.next_commands,
            "pictures": list(session.pictures),
            "colours": COLOURS,
            "rows": [
                {
                    "id": row.id,
                    "picture": numbers.get(str(row.values.get("image"))),
                    "image": str(row.values.get("image", "")),
                    "question": str(row.values.get("question", "")),
                    "answer": str(row.values.get("answer", "")),
                    "boxes": row.values.get("bboxs", []),
                    "kind": judged[row.id].kind.value,
                    "problem": judged[row.id].problem,
                }
                for row in session.rows.rows
            ],
            "good": now.num_good,
            "enough": ENOUGH,
            "kinds": now.kinds,
            "answers": now.answers,
            "advice": now.advice,
        }


_FRESH = {"Cache-Control": "no-cache"}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = (
        "there is nothing at this path; open the page at /" if error.status_code == 404 else str(error.detail)
    )
    return error_response(Refused(error.status_code, said), dict(error.headers or {}))


@cache
def _static(name: str) -> str:
    return files("opengrit.annotation").joinpath("static", name).read_text(encoding="utf-8")

"""The endpoint sampler: completions from any server with OpenAI's chat completions API."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from opengrit.clients import Endpoint, EndpointSettings, LoopThread, NoReply, Reply
from opengrit.core.boxes import Size
from opengrit.core.errors import ImageError, ModelError
from opengrit.core.images import open_picture
from opengrit.core.types import Completion, Finish
from opengrit.grounding.frames import Unit, frame_for
from opengrit.sampling.detokenizing import cut_at_stop
from opengrit.sampling.protocol import Asked, Listener, Sampled, SamplingSettings, Unsampled, settings_of_each

_REFUSED = frozenset({400, 404, 413, 422})  # the request itself, whoever asks
_POLL_SECONDS = 0.1  # between two checks whether a listener still wants the text of a slow server
_UNWANTED = Unsampled.unwanted()
_UNNAMED = "(not yet known)"  # while the endpoint is asked which model it serves
_SEED_BITS = 31  # servers take a signed 32-bit seed


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """How a picture is resized before it is sent, so that the size the served model sees is known.

    A family that writes pixels (Qwen2.5-VL) resizes a picture to whole tiles of `tile` pixels (14-pixel patches, merged
    two by two) with at least `min_pixels` and at most `max_pixels`, and leaves one that fits already. The bounds are
    those of the served processor, by default Qwen2.5-VL's own. The other families write shares of the picture,
    whatever its size; theirs are sent as they are, or scaled down to `max_pixels`.
    """

    unit: Unit
    tile: int = 28
    min_pixels: int | None = None
    max_pixels: int | None = None

    QWEN_MIN_PIXELS = 56 * 56
    QWEN_MAX_PIXELS = 12_845_056  # preprocessor_config.json of Qwen2.5-VL

    def __post_init__(self) -> None:
        low, high = self._bounds
        if low > high or (self.unit is Unit.PIXELS and high < self.tile**2):
            raise ModelError(
                f"min_pixels must be at most max_pixels, and max_pixels at least one tile of {self.tile} x {self.tile}, "
                f"got {low} and {high}; change them"
            )

    @property
    def _bounds(self) -> tuple[int, float]:
        if self.unit is Unit.PIXELS:
            return self.min_pixels or self.QWEN_MIN_PIXELS, self.max_pixels or self.QWEN_MAX_PIXELS
        return self.min_pixels or 1, self.max_pixels or math.inf

    def seen_size(self, picture_size: Size) -> Size:
        """The size in pixels that the picture is sent in, and that a model that writes pixels sees.

        Raises ImageError for a picture more than 200 times as long as wide, which Qwen's processor refuses.
        """
        low, high = self._bounds
        width, height = picture_size.width, picture_size.height
        if self.unit is not Unit.PIXELS:
            shrink = min(1.0, math.sqrt(high / (width * height)))
            return Size(max(1, int(width * shrink)), max(1, int(height * shrink)))
        if max(width, height) > 200 * min(width, height):
            raise ImageError(
                f"a picture is at most 200 times as long as wide for this model, got {width} x {height}; crop it"
            )
        wide, tall = (round(side / self.tile) * self.tile for side in (width, height))
        if wide * tall > high:
            shrink = math.sqrt(width * height / high)
            wide, tall = (
                max(1, math.floor(side / shrink / self.tile)) * self.tile for side in (width, height)
            )
        elif wide * tall < low:
            grow = math.sqrt(low / (width * height))
            wide, tall = (math.ceil(side * grow / self.tile) * self.tile for side in (width, height))
        return Size(wide, tall)

    def resized(self, picture: Image.Image) -> Image.Image:
        """The picture in its seen size (bicubic, as the processors resize)."""
        seen = self.seen_size(Size(*picture.size))
        wanted = (seen.width, seen.height)
        return picture if picture.size == wanted else picture.resize(wanted, Image.Resampling.BICUBIC)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request: its messages, and the size of the picture in them."""

    messages: list[dict[str, Any]]
    seen_size: Size


class EndpointSampler:
    """Samples completions from an OpenAI-compatible endpoint (vLLM, `opengrit serve`, a hosted model).

    Pictures travel as PNG data URIs, without loss. Each sample is a request of its own, with its own seed, made from
    the settings' seed, the question's id and the sample's number; endpoints differ in what `n` may be. Token ids
    are not known and stay empty. Whatever fails, after the endpoint's retries, is `Unsampled` with the reason.

    Servers leave the stop string out of the text (vLLM keeps it on `include_stop_str_in_output`, which others refuse).
    Where the server says which one ended the text (vLLM's `stop_reason`), it is put back. Where the server does not say,
    "</answer>" is put back if it is a stop string and a text ends within an open <answer> for the reason "stop"; a model
    that ended there by itself looks like one that wrote the tag. A text is cut behind its first stop string, as the
    other samplers do.

    `sample` may be called from several threads; the requests run on an event loop in a thread of the sampler's own.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        model: str,
        frame: str,
        resize: ResizeRule,
        concurrency: int = 8,
        loop: LoopThread | None = None,
    ) -> None:
        """`concurrency` questions are prepared and sent at a time. Boxes are read in `frame`."""
        self.endpoint = endpoint
        self.model = model
        self.frame = frame
        self._resize = resize
        self._loop = LoopThread() if loop is None else loop
        self._slots = asyncio.Semaphore(concurrency)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        model: str | None = None,
        frame: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout_seconds: float = 300.0,
        max_tries: int = 6,
    ) -> EndpointSampler:
        """The sampler of a model behind a URL (its path may be left out where it is /v1).

        `model` None is the only one served there. Raises ModelError where no frame is given, or `model` is None
        and the endpoint cannot say which; RecipeError for an impossible frame or address.
        """
        if frame is None:
            raise ModelError(
                f"an endpoint does not say which coordinates its model writes, and none are given for {url}; name its "
                "model type (qwen2_5_vl, qwen3_vl, internvl) or the unit (pixels, thousand, unit) as the frame"
            )
        resize = ResizeRule(frame_for(frame, Size(1, 1)).unit, min_pixels=min_pixels, max_pixels=max_pixels)
        settings = EndpointSettings(
            url=url.rstrip("/") + ("" if urlsplit(url).path.strip("/") else "/v1"),
            model=model or _UNNAMED,
            api_key_env=api_key_env,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            max_tries=max_tries,
        )
        loop = LoopThread()
        if model is None:
            settings = replace(settings, model=loop.run(_only_model(settings, url)))
        return cls(
            Endpoint(settings),
            model=settings.model,
            frame=frame,
            resize=resize,
            concurrency=concurrency,
            loop=loop,
        )

    def sees(self, picture: Image.Image) -> Size:
        """The size in which a picture is sent. Raises ImageError."""
        return self._resize.seen_size(Size(*picture.size))

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """As the protocol says. With a listener the text is streamed, from another thread."""
        each = settings_of_each(settings, count=len(questions))
        asking = self._loop.start(self._sample_all(questions, each, samples_per_question, listener))
        try:
            return asking.result()
        finally:
            asking.cancel()  # the wait was interrupted, or there is nothing left to cancel

    def close(self) -> None:
        """Cancel running requests and close the connections."""
        self._loop.run(self.endpoint.close())
        self._loop.close()

    async def _sample_all(
        self,
        questions: Sequence[Asked],
        settings: Sequence[SamplingSettings],
        samples: int,
        listener: Listener | None,
    ) -> list[list[Sampled | Unsampled]]:
        return await asyncio.gather(
            *(
                self._sample_question(place, question, own, samples, listener)
                for place, (question, own) in enumerate(zip(questions, settings, strict=True))
            )
        )

    async def _sample_question(
        self, place: int, question: Asked, settings: SamplingSettings, samples: int, listener: Listener | None
    ) -> list[Sampled | Unsampled]:
        async with self._slots:
            if listener is not None and not listener.wants(place):
                return [_UNWANTED] * samples
            try:
                sent = await asyncio.to_thread(self._prepare, question)
            except ImageError as error:
                return [Unsampled(str(error))] * samples
            return await asyncio.gather(
                *(
                    self._sample_once(sent, question, settings, place=place, sample=i, listener=listener)
                    for i in range(samples)
                )
            )

    def _prepare(self, question: Asked) -> _Sent:
        picture = open_picture(question.image) if isinstance(question.image, str) else question.image
        shown = self._resize.resized(picture)
        content = [
            {"type": "image_url", "image_url": {"url": png_uri(shown)}},
            {"type": "text", "text": question.text},
        ]
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if question.system is not None:
            turns = [{"role": "system", "content": question.system}, *turns]
        return _Sent(turns, Size(*shown.size))

    async def _sample_once(
        self,
        sent: _Sent,
        question: Asked,
        settings: SamplingSettings,
        *,
        place: int,
        sample: int,
        listener: Listener | None,
    ) -> Sampled | Unsampled:
        params = _params(
            settings, seed=sample_seed(settings.seed, question.id, settings.first_sample + sample)
        )
        if listener is None:
            reply = await self.endpoint.chat(sent.messages, **params)
        else:
            forwarder = _Forwarder(listener, settings, place=place, sample=sample)
            reply = await self._stream(sent, params, forwarder)
        match reply:
            case NoReply(reason=_UNWANTED.reason):
                return _UNWANTED
            case NoReply() as failure:
                refused = failure.status if failure.status in _REFUSED else None
                return Unsampled(_problem(failure, self.endpoint.settings), refused)
            case Reply(finish_reason="content_filter"):
                return Unsampled("the endpoint withheld the answer (content_filter)")
            case Reply():
                completion = _completion(reply, settings)
                if listener is not None:
                    forwarder.forward_rest(completion.text)
                prompt, written = (
                    (reply.prompt_tokens, reply.completion_tokens) if reply.counted else (None, None)
                )
                return Sampled(completion, (), sent.seen_size, prompt, written)

    async def _stream(self, sent: _Sent, params: dict[str, Any], forwarder: _Forwarder) -> Reply | NoReply:
        """The reply, forwarded while it streams; the stream is closed as soon as the listener wants no more of it."""
        pieces = self.endpoint.stream(sent.messages, **params).__aiter__()
        try:
            while True:
                coming = asyncio.ensure_future(anext(pieces))
                try:
                    while not coming.done():
                        await asyncio.wait({coming}, timeout=_POLL_SECONDS)
                        if not forwarder.wants_more():
                            return NoReply(_UNWANTED.reason)
                    piece = coming.result()
                finally:
                    if not coming.done():
                        coming.cancel()
                        await asyncio.wait({coming})
                if not isinstance(piece, str):
                    return piece
                if forwarder.complete:  # a server that ignores stop strings sends more
                    return Reply(forwarder.text, "stop", 0, 0, counted=False)
                forwarder.forward(piece)
        except StopAsyncIteration:
            return NoReply("the endpoint's stream ended without a finish reason")
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator's


class _Forwarder:
    """Forwards the text of one sample to a listener, up to the end of its first stop string."""

    def __init__(self, listener: Listener, settings: SamplingSettings, *, place: int, sample: int) -> None:
        self._listener = listener
        self._settings = settings
        self._place, self._sample = place, sample
        self._forwarded = 0
        self.text = ""
        self.complete = False

    def wants_more(self) -> bool:
        return self._listener.wants(self._place)

    def forward(self, piece: str) -> None:
        self.text += piece
        cut = cut_at_stop(self.text, self._settings.stop)
        self.complete = cut is not None
        self.forward_rest(self.text if cut is None else cut)

    def forward_rest(self, text: str) -> None:
        """Forward what of the text is not forwarded yet."""
        new = text[self._forwarded :]
        self._forwarded = max(self._forwarded, len(text))
        if new:
            self._listener.wrote(self._place, self._sample, new)


def png_uri(picture: Image.Image) -> str:
    """The picture as a PNG data URI, as OpenAI's `image_url` takes it."""
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)  # a photo hardly shrinks further, and level 1 is fast
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def sample_seed(seed: int, question_id: str, sample: int) -> int:
    """The seed of one sample, 0 to 2**31 - 1: questions and samples of one `seed` have seeds of their own."""
    digest = hashlib.sha256(f"{seed}\n{sample}\n{question_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 2**_SEED_BITS


def _params(settings: SamplingSettings, *, seed: int) -> dict[str, Any]:
    params: dict[str, Any] = {
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": seed,
    }
    if settings.stop:
        params["stop"] = list(settings.stop)
    if settings.top_k:
        params["extra_body"] = {"top_k": settings.top_k}  # vLLM's; OpenAI itself has none
    return params


def _problem(failure: NoReply, settings: EndpointSettings) -> str:
    """Why an endpoint gave no answer, and what to do."""
    match failure.status:
        case 401 | 403:
            remedy = f"put its key into the variable {settings.api_key_env}"
        case 404:
            remedy = (
                f"name a model that it serves ({settings.url}/models lists them) and the address up to /v1"
            )
        case status if status not in _REFUSED:
            remedy = "check that it runs"
        case _:
            return (
                f"an endpoint must take the question, {settings.url} refuses it ({failure.reason}); change what the "
                "reason names"
            )
    return f"an endpoint must answer, {settings.url} does not ({failure.reason}); {remedy}"


def _completion(reply: Reply, settings: SamplingSettings) -> Completion:
    text, said = reply.text, reply.stop_reason
    if said in settings.stop and reply.finish_reason == "stop" and not text.endswith(said or ""):
        text += said or ""
    cut = cut_at_stop(text, settings.stop)
    if cut is not None:
        return Completion(cut, finish=Finish.STOP)
    match reply.finish_reason:
        case "stop" if said is not None:
            return Completion(text, finish=Finish.EOS)
        case "stop" if "</answer>" in settings.stop and text.rfind("<answer>") > text.rfind("</answer>"):
            return Completion(text + "</answer>", finish=Finish.STOP)
        case "stop":
            return Completion(text, finish=Finish.EOS)
        case "length":
            return Completion(text, finish=Finish.LENGTH)
        case _:
            return Completion(text, finish=Finish.UNKNOWN)


async def _only_model(settings: EndpointSettings, url: str) -> str:
    """The name of the one model that the endpoint serves. Raises ModelError where there is another number of them."""
    endpoint = Endpoint(settings)
    try:
        served = await endpoint.models()
    finally:
        await endpoint.close()
    match served:
        case NoReply(reason=reason):
            raise ModelError(
                f"an endpoint must say which models it serves, {url} does not ({reason}); check the URL, or name the model"
            )
        case (name,):
            return name
        case names:
            raise ModelError(
                f"with several models one must be named, {url} serves {', '.join(names) or 'none'}; name the model"
            )

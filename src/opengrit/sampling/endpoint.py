"""The endpoint sampler: any server that speaks OpenAI's chat completions writes the completions."""

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
from opengrit.sampling.protocol import Asked, Listener, Sampled, SamplingSettings, Unsampled, settings_of_each

NO_LONGER_WANTED = "no longer wanted"
_LOOKED_UP_EVERY = (
    0.1  # seconds between two looks at whether a listener still wants what a slow server writes
)
_UNNAMED = "(not yet known)"  # while the endpoint is asked which model it serves
_SEED_BITS = 31  # servers take a signed 32-bit seed


@dataclass(frozen=True, slots=True)
class Sight:
    """How a picture is made ready, so that the size the served model sees of it is known.

    A family that counts in pixels (Qwen2.5-VL) resizes a picture to whole tiles of `tile` pixels (14-pixel patches, merged
    two by two) with at least `min_pixels` and at most `max_pixels`; a picture that is so already stays as it is. The
    bounds are those of the served processor, by default Qwen2.5-VL's own. The other families count in shares of
    the picture, whatever its size; theirs are sent as they are, or scaled down to `max_pixels`.
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
                f"min_pixels is at most max_pixels, and max_pixels at least one tile of {self.tile} x {self.tile}, "
                f"got {low} and {high}; change them"
            )

    @property
    def _bounds(self) -> tuple[int, float]:
        if self.unit is Unit.PIXELS:
            return self.min_pixels or self.QWEN_MIN_PIXELS, self.max_pixels or self.QWEN_MAX_PIXELS
        return self.min_pixels or 1, self.max_pixels or math.inf

    def seen_size(self, picture_size: Size) -> Size:
        """The size in pixels that the picture is sent in, and that the model sees where it counts in pixels.

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
    """A question on its way: the messages of the request, and the size of the picture in them."""

    messages: list[dict[str, Any]]
    seen_size: Size


class EndpointSampler:
    """Has completions written by an OpenAI-compatible endpoint (vLLM, `opengrit serve`, a hosted model).

    Pictures travel as PNG data URIs, without loss. Each sample is a request of its own, with its own seed, made from
    the settings' seed, the question's id and the sample's number; endpoints differ in what `n` may be. Token ids
    are not known and stay empty. Whatever fails, after the endpoint's retries, is `Unsampled` with the reason.

    Servers leave the stop string out of the text (vLLM keeps it on `include_stop_str_in_output`, which others refuse).
    Where "</answer>" is a stop string and a text ends within an open <answer> for the reason "stop", it is put back;
    a model that ended there by itself cannot be told from one that wrote the tag. A text is cut behind its first stop
    string, as the other samplers do.

    `sample` may be called from several threads; the requests run on an event loop in a thread of the sampler's own.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        model: str,
        frame: str,
        sight: Sight,
        at_once: int = 8,
        loop: LoopThread | None = None,
    ) -> None:
        """`at_once` questions have their pictures made ready and are under way together."""
        self._endpoint = endpoint
        self._model = model
        self._frame = frame
        self._sight = sight
        self._loop = LoopThread() if loop is None else loop
        self._slots = asyncio.Semaphore(at_once)

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

        `model` None is the only one that is served there. Raises ModelError where no frame is given, or `model` is None
        and the endpoint cannot say which; RecipeError for a frame or an address that cannot be.
        """
        if frame is None:
            raise ModelError(
                f"an endpoint does not tell in which coordinates its model writes, none are given for {url}; name its "
                "model type (qwen2_5_vl, qwen3_vl, internvl) or the unit (pixels, thousand, unit) as the frame"
            )
        sight = Sight(frame_for(frame, Size(1, 1)).unit, min_pixels=min_pixels, max_pixels=max_pixels)
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
            settings = replace(settings, model=_only(loop.run(_served(settings)), url))
        return cls(
            Endpoint(settings),
            model=settings.model,
            frame=frame,
            sight=sight,
            at_once=concurrency,
            loop=loop,
        )

    @property
    def model(self) -> str:
        """The served model's name."""
        return self._model

    @property
    def frame(self) -> str:
        """The frame its boxes are read in."""
        return self._frame

    def sees(self, picture: Image.Image) -> Size:
        """The size in which a picture is sent. Raises ImageError."""
        return self._sight.seen_size(Size(*picture.size))

    @property
    def endpoint(self) -> Endpoint:
        """What the requests go through; it knows what was spent."""
        return self._endpoint

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """As the protocol says. With a listener the text is streamed; it hears from another thread."""
        each = settings_of_each(settings, count=len(questions))
        asking = self._loop.start(self._sample_all(questions, each, samples_per_question, listener))
        try:
            return asking.result()
        finally:
            asking.cancel()  # the wait was interrupted, or there is nothing left to cancel

    def close(self) -> None:
        """Ends what is under way and closes the connections."""
        self._loop.run(self._endpoint.close())
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
                return [Unsampled(NO_LONGER_WANTED)] * samples
            try:
                sent = await asyncio.to_thread(self._ready, question)
            except ImageError as error:
                return [Unsampled(str(error))] * samples
            return await asyncio.gather(
                *(
                    self._sample_once(sent, question, settings, place=place, sample=i, listener=listener)
                    for i in range(samples)
                )
            )

    def _ready(self, question: Asked) -> _Sent:
        picture = open_picture(question.image) if isinstance(question.image, str) else question.image
        shown = self._sight.resized(picture)
        content = [
            {"type": "image_url", "image_url": {"url": png_uri(shown)}},
            {"type": "text", "text": question.text},
        ]
        return _Sent([{"role": "user", "content": content}], Size(*shown.size))

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
        params = _params(settings, seed=own_seed(settings.seed, question.id, settings.first_sample + sample))
        if listener is None:
            said = await self._endpoint.chat(sent.messages, **params)
        else:
            ear = _Ear(listener, settings, place=place, sample=sample)
            said = await self._listen(sent, params, ear)
        match said:
            case NoReply(reason=reason) if reason == NO_LONGER_WANTED:
                return Unsampled(reason)
            case NoReply(reason=reason):
                return Unsampled(
                    f"an endpoint must answer, {self._endpoint.settings.url} does not ({reason}); check that it runs"
                )
            case Reply(finish_reason="content_filter"):
                return Unsampled("the endpoint withheld the answer (content_filter)")
            case Reply(text=text, finish_reason=reason):
                completion = _completion(text, reason, settings)
                if listener is not None:
                    ear.hear_rest(completion.text)
                return Sampled(completion, prompt_ids=(), seen_size=sent.seen_size)

    async def _listen(self, sent: _Sent, params: dict[str, Any], ear: _Ear) -> Reply | NoReply:
        """The reply, its text heard while it comes; the stream is closed as soon as nobody wants more of it."""
        pieces = self._endpoint.stream(sent.messages, **params).__aiter__()
        try:
            while True:
                coming = asyncio.ensure_future(anext(pieces))
                try:
                    while not coming.done():
                        await asyncio.wait({coming}, timeout=_LOOKED_UP_EVERY)
                        if not ear.wants_more():
                            return NoReply(NO_LONGER_WANTED)
                    piece = coming.result()
                finally:
                    if not coming.done():
                        coming.cancel()
                        await asyncio.wait({coming})
                if not isinstance(piece, str):
                    return piece
                if ear.complete:  # a server that does not heed stop strings writes on
                    return Reply(ear.text, "stop", 0, 0)
                ear.hear(piece)
        except StopAsyncIteration:
            return NoReply("the endpoint's stream ended without an end")
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # an async generator's


class _Ear:
    """Passes the text of one sample on to a listener, up to the end of its first stop string."""

    def __init__(self, listener: Listener, settings: SamplingSettings, *, place: int, sample: int) -> None:
        self._listener = listener
        self._settings = settings
        self._place, self._sample = place, sample
        self._passed = 0
        self.text = ""
        self.complete = False

    def wants_more(self) -> bool:
        return self._listener.wants(self._place)

    def hear(self, piece: str) -> None:
        self.text += piece
        cut = cut_at_stop(self.text, self._settings.stop)
        self.complete = cut is not None
        self.hear_rest(self.text if cut is None else cut)

    def hear_rest(self, text: str) -> None:
        """Pass on what of the text was not passed on yet."""
        new = text[self._passed :]
        self._passed = max(self._passed, len(text))
        if new:
            self._listener.wrote(self._place, self._sample, new)


def png_uri(picture: Image.Image) -> str:
    """The picture as a PNG data URI, as OpenAI's `image_url` takes it."""
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)  # a photo hardly shrinks further, and level 1 is fast
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def own_seed(seed: int, question_id: str, sample: int) -> int:
    """The seed of one sample, 0 to 2**31 - 1: other questions and samples draw other numbers from the same `seed`."""
    digest = hashlib.sha256(f"{seed}\n{sample}\n{question_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 2**_SEED_BITS


def cut_at_stop(text: str, stops: Sequence[str]) -> str | None:
    """The text up to the end of its first stop string; None where it holds none."""
    ends = [text.index(s) + len(s) for s in stops if s in text]
    return text[: min(ends)] if ends else None


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


def _completion(text: str, finish_reason: str | None, settings: SamplingSettings) -> Completion:
    cut = cut_at_stop(text, settings.stop)
    if cut is not None:
        return Completion(cut, finish=Finish.STOP)
    match finish_reason:
        case "stop" if "</answer>" in settings.stop and text.rfind("<answer>") > text.rfind("</answer>"):
            return Completion(text + "</answer>", finish=Finish.STOP)
        case "stop":
            return Completion(text, finish=Finish.EOS)
        case "length":
            return Completion(text, finish=Finish.LENGTH)
        case _:
            return Completion(text, finish=Finish.UNKNOWN)


async def _served(settings: EndpointSettings) -> tuple[str, ...] | NoReply:
    endpoint = Endpoint(settings)
    try:
        return await endpoint.models()
    finally:
        await endpoint.close()


def _only(served: tuple[str, ...] | NoReply, url: str) -> str:
    match served:
        case NoReply(reason=reason):
            raise ModelError(
                f"an endpoint must say which models it serves, {url} does not ({reason}); check the URL, or name the model"
            )
        case (name,):
            return name
        case names:
            raise ModelError(
                f"an endpoint with several models is asked for one of them, {url} serves {', '.join(names) or 'none'}; "
                "name the model"
            )

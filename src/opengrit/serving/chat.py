"""OpenAI's chat completions: messages in, one question about one picture out, and the answer in OpenAI's shape."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from opengrit.core.types import Finish
from opengrit.grounding.prompts import Strategy, user_text
from opengrit.inference.answer import Answer
from opengrit.sampling import SamplingSettings
from opengrit.serving.engine import NoAnswer
from opengrit.serving.schemas import ChatRequest, ImagePart, ImageUrl, Message
from opengrit.serving.security import Refused, bad_parameter

# Those of Grounder.ask.
DEFAULTS = SamplingSettings(temperature=0.0, max_new_tokens=1000)


@dataclass(frozen=True, slots=True)
class Turn:
    """A conversation's only turn: one question, its strategy (None: the server's), and one picture's address."""

    question: str
    strategy: str | None
    picture: str


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """How an answer is given: streamed or whole, with token counts at a stream's end, in how many choices."""

    stream: bool
    with_usage: bool
    count: int


def read_reply_form(request: ChatRequest) -> ReplyForm:
    """How the answer is to be given. Raises Refused for several choices in a stream."""
    count, options = request.n or 1, request.stream_options
    if count > 1 and request.stream:
        raise bad_parameter("n", f"must be 1 for a stream, got {count}; send {count} requests")
    return ReplyForm(bool(request.stream), bool(options and options.include_usage), count)


def read_turn(request: ChatRequest, *, frame: str) -> Turn:
    """The question and the picture of a conversation's only turn.

    A system message is put in front of the question. Raises Refused for an earlier turn, and unless there is exactly
    one picture.
    """
    texts: list[str] = []
    pictures: list[str] = []
    for place, message in enumerate(request.messages):
        if message.role not in ("system", "developer", "user"):
            raise bad_parameter(
                f"messages.{place}",
                f"the model answers one question without earlier turns, got the role {message.role!r}; send only the "
                "last question",
            )
        found_texts, found_pictures = _contents(message)
        if found_pictures and message.role != "user":
            raise Refused(
                400,
                f"messages.{place}: a picture belongs in a user message; move it there",
                param="messages",
            )
        texts += found_texts
        pictures += found_pictures
    if len(pictures) != 1:
        raise bad_parameter(
            "messages",
            f"a question is about one picture, got {len(pictures)}; send one content part "
            '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}',
        )
    question, strategy = _unwrapped("\n".join(texts), frame)
    return Turn(question, request.strategy or strategy, pictures[0])


def _contents(message: Message) -> tuple[list[str], list[str]]:
    if message.content is None or isinstance(message.content, str):
        return ([message.content] if message.content else []), []
    texts, pictures = [], []
    for part in message.content:
        if not isinstance(part, ImagePart):
            texts.append(part.text)
        elif isinstance(part.image_url, ImageUrl):
            pictures.append(part.image_url.url)
        else:
            pictures.append(part.image_url)
    return [text for text in texts if text], pictures


def _unwrapped(text: str, frame: str) -> tuple[str, str | None]:
    """The question and the strategy in a text, None where it has none; a question inside GRIT's prompt is taken out of it.

    The endpoint sampler of this package sends such prompts to any server.
    """
    for strategy in (Strategy.GROUNDED_ICL, Strategy.SFT, Strategy.GROUNDED):
        head, _, tail = user_text(strategy, "\0", family=frame).partition("\0")
        if text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail):
            return text[len(head) : len(text) - len(tail)], strategy.value
    return text, None


def read_settings(request: ChatRequest, *, max_new_tokens: int) -> SamplingSettings:
    """The request's settings over the defaults. Raises Refused for a text longer than the server allows."""
    asked = request.max_completion_tokens or request.max_tokens
    return SamplingSettings(
        temperature=DEFAULTS.temperature if request.temperature is None else request.temperature,
        top_p=DEFAULTS.top_p if request.top_p is None else request.top_p,
        top_k=max(0, DEFAULTS.top_k if request.top_k is None else request.top_k),
        max_new_tokens=allowed_tokens(asked, limit=max_new_tokens, param="max_tokens"),
        seed=asked_seed(request.seed),
    )


def asked_seed(asked: int | None) -> int:
    """The seed asked for, or the default; -1 draws one at random, as in other servers."""
    return random.getrandbits(31) if asked == -1 else asked or DEFAULTS.seed


def allowed_tokens(asked: int | None, *, limit: int, param: str) -> int:
    """The number asked for, or the default, both within the limit. Raises Refused."""
    if asked is not None and asked > limit:
        raise bad_parameter(param, f"is at most {limit} here, got {asked}; request fewer")
    return min(DEFAULTS.max_new_tokens, limit) if asked is None else asked


def read_stops(request: ChatRequest) -> tuple[str, ...]:
    """The request's stop strings, which end the text and are left out of it."""
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)


# -- answers ------------------------------------------------------------------------------------------------------------


def completion(answers: Sequence[Answer], *, model: str) -> dict[str, Any]:
    """A chat completion with one choice for each answer; `grounding` on a message holds what `/v1/ground` gives."""
    return _head("chat.completion", model) | {
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": answer.text,
                    "refusal": None,
                    "grounding": answer.as_json(),
                },
                "logprobs": None,
                "finish_reason": _finish_reason(answer.finish),
            }
            for index, answer in enumerate(answers)
        ],
        "usage": _usage(answers),
    }


def _head(kind: str, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _finish_reason(finish: Finish) -> str:
    return "length" if finish is Finish.LENGTH else "stop"


def _usage(answers: Sequence[Answer]) -> dict[str, int] | None:
    """Token counts in OpenAI's shape; the prompt, read once, is counted once. None where a count is unknown."""
    prompt = answers[0].prompt_tokens
    written = [answer.completion_tokens for answer in answers]
    if prompt is None or None in written:
        return None
    total = sum(count or 0 for count in written)
    return {"prompt_tokens": prompt, "completion_tokens": total, "total_tokens": prompt + total}


async def events(
    first: str | Answer,
    rest: AsyncGenerator[str | Answer, None],
    *,
    model: str,
    with_usage: bool,
) -> AsyncGenerator[str, None]:
    """The server-sent events of a streamed completion; the last choice carries `grounding` in its delta.

    A failure midway is an event with `error`, which OpenAI's client raises.
    """
    head = _head("chat.completion.chunk", model) | ({"usage": None} if with_usage else {})

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(head | {"choices": [choice]})

    async with aclosing(rest):
        yield event({"role": "assistant", "content": ""})
        piece: str | Answer = first
        try:
            while isinstance(piece, str):
                yield event({"content": piece})
                piece = await anext(rest)
        except NoAnswer as failure:
            error = {"message": str(failure), "type": "server_error", "param": None, "code": None}
            yield _event({"error": error})
            return
        yield event({"grounding": piece.as_json()}, _finish_reason(piece.finish))
        if with_usage:
            yield _event(head | {"choices": [], "usage": _usage([piece])})
        yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

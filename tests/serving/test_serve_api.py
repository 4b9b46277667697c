"""The server's API: every client gets the answer that `Grounder.ask` gives, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, nullcontext
from pathlib import Path

import httpx
import openai
import pytest
from endpoint_stub import Said, endpoint_stub
from fresh import Printed, printed_by

from opengrit.core.boxes import Size
from opengrit.core.errors import ModelError
from opengrit.inference.answer import Answer
from opengrit.inference.grounder import Grounder
from opengrit.sampling import SamplingSettings, Unsampled
from opengrit.sampling.endpoint import EndpointSampler
from opengrit.serving.app import ServeSettings, build_app
from opengrit.serving.engine import Ask, Busy, EngineFailed, Load, StopFilter, TooLate, Unanswerable
from opengrit.serving.local import LocalEngine
from opengrit.serving.remote import RemoteEngine
from opengrit.serving.security import Access
from serving import MODEL, PATIENCE, Scene, Served, Speaking, grounder, running, scenes, served, until

ROOT = Path(__file__).parents[2]
TIMING = {"seconds"}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture(scope="module")
def openai_client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def scene() -> Scene:
    return scenes()[0]


def messages(scene: Scene) -> list[dict[str, object]]:
    parts = [
        {"type": "text", "text": scene.question},
        {"type": "image_url", "image_url": {"url": scene.uri}},
    ]
    return [{"role": "user", "content": parts}]


def said(answer: dict[str, object] | Answer) -> dict[str, object]:
    """An answer's JSON without what the clock decides."""
    content = answer.as_json() if isinstance(answer, Answer) else answer
    return {key: value for key, value in content.items() if key not in TIMING}


SETTINGS = [{"temperature": 0.0, "seed": 0}, {"temperature": 1.0, "seed": 7}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_form_as_curl_sends_it_gets_what_the_grounder_says(server, scene, settings):
    expected = grounder().ask(scene.png, scene.question, **settings)
    with server.client() as client:
        response = client.post(
            "/v1/ground",
            files={"image": ("photo.png", scene.png)},
            data={"question": scene.question} | {key: str(value) for key, value in settings.items()},
        )
    assert response.status_code == 200
    assert said(response.json()) == said(expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_json_with_base64_or_a_data_uri_gets_what_the_grounder_says(server, scene, settings):
    expected = said(grounder().ask(scene.png, scene.question, **settings))
    with server.client() as client:
        for image in (scene.uri, scene.uri.partition(",")[2]):
            body = {"image": image, "question": scene.question, **settings}
            assert said(client.post("/v1/ground", json=body).json()) == expected


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_openai_client_gets_what_the_grounder_says_and_its_boxes(openai_client, scene, settings):
    expected = grounder().ask(scene.png, scene.question, **settings)
    given = openai_client.chat.completions.create(model=MODEL, messages=messages(scene), **settings)
    assert given.choices[0].message.content == expected.text
    assert given.choices[0].finish_reason == "stop"
    assert said(given.choices[0].message.grounding) == said(expected)
    assert given.usage.prompt_tokens == expected.prompt_tokens
    assert given.usage.completion_tokens == expected.completion_tokens
    assert given.usage.total_tokens == expected.prompt_tokens + expected.completion_tokens


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_stream_put_together_is_the_whole_text(openai_client, scene, settings):
    expected = grounder().ask(scene.png, scene.question, **settings)
    pieces, grounding, finish, usage = [], None, None, None
    with openai_client.chat.completions.create(
        model=MODEL, messages=messages(scene), stream=True, stream_options={"include_usage": True}, **settings
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                grounding = getattr(choice.delta, "grounding", grounding)
                finish = choice.finish_reason or finish
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == expected.text
    assert said(grounding) == said(expected)
    assert finish == "stop"
    assert usage.completion_tokens == expected.completion_tokens


def test_the_openai_clients_own_stream_reader_puts_the_message_together(openai_client, scene):
    expected = grounder().ask(scene.png, scene.question)
    with openai_client.chat.completions.stream(model=MODEL, messages=messages(scene)) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content == expected.text
    assert message.grounding["boxes"] == expected.as_json()["boxes"]


def test_langchains_messages_get_what_the_grounder_says(server, scene):
    # What langchain_openai sends: the picture before or after the text, a system message, fields that are null.
    text = {"type": "text", "text": scene.question}
    picture = {"type": "image_url", "image_url": {"url": scene.uri, "detail": "auto"}}
    plain = {"type": "image_url", "image_url": scene.uri}
    with server.client() as client:
        for parts in ([text, picture], [picture, text], [plain, text]):
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": parts, "name": None}],
                "temperature": None,
                "max_tokens": None,
                "stop": None,
                "stream": False,
                "n": 1,
                "user": "somebody",
            }
            given = client.post("/v1/chat/completions", json=body).json()
            expected = grounder().ask(scene.png, scene.question)
            assert given["choices"][0]["message"]["content"] == expected.text
            system = {"role": "system", "content": "Look closely."}
            given = client.post(
                "/v1/chat/completions", json=body | {"messages": [system, *body["messages"]]}
            ).json()
            expected = grounder().ask(scene.png, f"Look closely.\n{scene.question}")
            assert given["choices"][0]["message"]["content"] == expected.text


def test_stop_strings_end_the_text_and_are_left_out_of_it(openai_client, scene):
    whole = grounder().ask(scene.png, scene.question).text
    stop = whole[12:20]
    cut = whole[: whole.index(stop)]
    assert 0 < len(cut) < len(whole)
    asked = {"model": MODEL, "messages": messages(scene), "stop": [stop, "never written"]}
    given = openai_client.chat.completions.create(**asked)
    assert given.choices[0].message.content == cut
    assert given.choices[0].message.grounding["transcript"] == cut
    assert given.choices[0].finish_reason == "stop"
    streamed = openai_client.chat.completions.create(stream=True, **asked)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == cut


def test_a_text_at_its_token_limit_says_so(openai_client, scene):
    for limit in ({"max_tokens": 3}, {"max_completion_tokens": 3}):
        given = openai_client.chat.completions.create(model=MODEL, messages=messages(scene), **limit)
        assert given.choices[0].finish_reason == "length"
        assert given.usage.completion_tokens == 3


def test_several_choices_draw_from_seeds_that_follow_each_other(openai_client, scene):
    given = openai_client.chat.completions.create(
        model=MODEL, messages=messages(scene), n=3, temperature=1.0, seed=11
    )
    expected = [
        grounder().ask(scene.png, scene.question, temperature=1.0, seed=seed).text for seed in (11, 12, 13)
    ]
    assert [choice.message.content for choice in given.choices] == expected


def test_models_are_listed_and_another_name_is_not_found(openai_client, scene):
    assert [model.id for model in openai_client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError) as error:
        openai_client.chat.completions.create(model="gpt-9", messages=messages(scene))
    assert error.value.code == "model_not_found"
    assert MODEL in str(error.value)


def test_a_model_is_retrieved_by_its_name_as_listed(openai_client):
    [listed] = openai_client.models.list()
    assert openai_client.models.retrieve(MODEL) == listed
    for name in ("gpt-9", "a/b", "final"):
        with pytest.raises(openai.NotFoundError) as error:
            openai_client.models.retrieve(name)
        assert error.value.code == "model_not_found"


IGNORED = {
    "repetition_penalty": 1.0,
    "min_p": 0.0,
    "stop_token_ids": [],
    "ignore_eos": False,
    "guided_choice": None,
    "skip_special_tokens": True,
    "tool_choice": "none",
    "user": "somebody",
    "top_k": -1,
}
REFUSED = {
    "repetition_penalty": 1.1,
    "min_p": 0.05,
    "stop_token_ids": [1],
    "ignore_eos": True,
    "guided_choice": ["yes", "no"],
    "guided_json": {"type": "object"},
    "structured_outputs": {"choice": ["yes"]},
    "min_tokens": 3,
    "bad_words": ["dog"],
    "allowed_token_ids": [1, 2],
    "logits_processors": ["x"],
    "chat_template": "{{ messages }}",
    "prompt_logprobs": 1,
    "length_penalty": 0.8,
    "reasoning_effort": "high",
    "frequency_penalty": 0.5,
    "top_k": -2,
    "strategy": "sudo",
}


def test_what_changes_nothing_is_taken(openai_client, scene):
    asked = {"model": MODEL, "messages": messages(scene), "max_tokens": 8}
    plain = openai_client.chat.completions.create(**asked)
    given = openai_client.chat.completions.create(extra_body=IGNORED, **asked)
    assert given.choices[0].message.content == plain.choices[0].message.content


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_answer_is_refused_by_name(openai_client, scene, name):
    with pytest.raises(openai.BadRequestError) as error:
        openai_client.chat.completions.create(
            model=MODEL, messages=messages(scene), extra_body={name: REFUSED[name]}
        )
    assert error.value.param == name
    assert name in error.value.message


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop.1"),
        ({"stop": 5}, "stop"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]}]},
            "messages.0.content.0.image_url.url",
        ),
        ({"messages": [{"role": "pirate", "content": "x"}]}, "messages.0.role"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(server, scene, wrong, param):
    with server.client() as client:
        body = {"model": MODEL, "messages": messages(scene)} | wrong
        refused = client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


def test_a_seed_of_minus_one_is_drawn_at_random(server, scene):
    body = {"image": scene.uri, "question": scene.question, "temperature": 2.0, "max_new_tokens": 30}
    with server.client() as client:
        texts = {client.post("/v1/ground", json=body | {"seed": -1}).json()["transcript"] for _ in range(4)}
        same = {client.post("/v1/ground", json=body | {"seed": 5}).json()["transcript"] for _ in range(2)}
    assert (len(texts) > 1, len(same)) == (True, 1)


@pytest.mark.parametrize("page", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/completions", 404),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/x", 405),
        ("PURGE", "/v1/ground", 405),
        ("POST", "/healthz", 405),
        ("OPTIONS", "/v1/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_in_openais_shape(nobody, page, method, path, status):
    with nobody[page].client() as client:
        response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert (status == 405) == ("allow" in response.headers)


@pytest.fixture(scope="module")
def nobody() -> Iterator[dict[bool, Served]]:
    """Servers with and without a page, which nobody asks anything."""
    engine = Speaking("")
    with (
        running(build_app({"speaking": engine}, ServeSettings()), {}) as with_page,
        running(build_app({"speaking": engine}, ServeSettings(), page=False), {}) as alone,
    ):
        yield {True: with_page, False: alone}


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/metrics"])
def test_what_can_be_read_has_a_head(nobody, path):
    with nobody[False].client() as client:
        head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_a_models_public_name_is_no_path(tmp_path):
    from opengrit.cli.serve import _public_name

    for folder in ("demo/final", "demo/checkpoints/step-000030", "plain"):
        (tmp_path / folder).mkdir(parents=True)
    assert _public_name("tiny-qwen2.5-vl") == "tiny-qwen2.5-vl"
    assert _public_name("Qwen/Qwen2.5-VL-3B-Instruct") == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert _public_name(str(tmp_path / "demo")) == _public_name(str(tmp_path / "demo/final")) == "demo"
    assert _public_name(f"{tmp_path}/demo/checkpoints/step-000030/") == "demo-step-000030"
    assert _public_name(str(tmp_path / "plain")) == "plain"
    assert _public_name("/gone/models/my-3b") == "my-3b"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Said("max_tokens is too large: 9999", status=400), openai.BadRequestError),
        (Said("The model `toy` does not exist", status=404), openai.NotFoundError),
        (Said("too long", status=422), openai.BadRequestError),
        (Said("boom", status=500), openai.InternalServerError),
    ],
)
def test_what_a_server_behind_refuses_is_refused_with_its_reason(scene, answer, error, stream):
    with endpoint_stub(lambda _: answer) as stub, in_front_of(stub.url) as chat:
        with pytest.raises(error) as refused:
            chat.chat.completions.create(model="front", messages=messages(scene), stream=stream)
        assert answer.text in refused.value.message
        assert "check that it runs" not in refused.value.message or answer.status == 500


def test_the_tokens_that_a_server_behind_counts_are_passed_on(scene):
    said = Said("<think>x</think><answer>1", usage=(1234, 56), stop_reason="</answer>")
    with endpoint_stub(lambda _: said) as stub, in_front_of(stub.url) as chat:
        asked = {"model": "front", "messages": messages(scene)}
        whole = chat.chat.completions.create(**asked)
        assert whole.choices[0].message.content == "<think>x</think><answer>1</answer>"
        *_, last = chat.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked)
        assert last.usage == whole.usage
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (1234, 56)
        ground = httpx.post(
            f"{chat.base_url}ground", json={"image": scene.uri, "question": "What?"}, timeout=PATIENCE
        ).json()
        assert (ground["prompt_tokens"], ground["completion_tokens"]) == (1234, 56)


@contextmanager
def in_front_of(url: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a server in front of another."""
    sampler = EndpointSampler.connect(url, model="toy", frame="unit", max_tries=1)
    remote = Grounder(sampler, frame="unit", model="toy", lock=nullcontext())
    engines = {"front": RemoteEngine(remote, name="front")}
    try:
        with (
            running(build_app(engines, ServeSettings(), page=False), engines) as front,
            openai.OpenAI(
                base_url=f"{front.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0
            ) as chat,
        ):
            yield chat
    finally:
        sampler.close()


def test_two_engines_are_told_apart_by_their_names(scene):
    engines = {name: LocalEngine(grounder(), name=name) for name in ("one", "two")}
    with (
        running(build_app(engines, ServeSettings(), page=False), engines) as server,
        server.client() as client,
    ):
        body = {"image": scene.uri, "question": scene.question}
        assert client.post("/v1/ground", json=body).json()["model"] == "one"
        assert client.post("/v1/ground", json=body | {"model": "two"}).json()["model"] == "two"


def test_health_and_counts_are_there(server, scene):
    with server.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        before = counts(client)
        client.post("/v1/ground", json={"image": scene.uri, "question": scene.question})
        client.post("/v1/ground", json={})
        until(lambda: server.idle)
        after = counts(client)

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert grown('opengrit_requests_total{route="/v1/ground",status="200"}') == 1
    assert grown('opengrit_requests_total{route="/v1/ground",status="400"}') == 1
    assert grown('opengrit_answers_total{end="answered",model="tiny-qwen2.5-vl"}') == 1
    assert grown('opengrit_request_seconds_count{route="/v1/ground"}') == 2
    written = grounder().ask(scene.png, scene.question).completion_tokens
    assert grown('opengrit_tokens_total{kind="completion",model="tiny-qwen2.5-vl"}') == written
    assert after['opengrit_queued{model="tiny-qwen2.5-vl"}'] == 0
    assert after['opengrit_live{model="tiny-qwen2.5-vl"}'] == 0


def counts(client: httpx.Client) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


# -- keys -------------------------------------------------------------------------------------------------------------


def test_with_a_key_everything_but_health_asks_for_it(scene):
    settings = ServeSettings(access=Access(api_key="open sesame"))
    with served(settings) as server, server.client() as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
        for wrong in ("Bearer open", "Bearer", "open sesame", "Basic !!!", "Bearer " + "x" * 5000):
            assert client.get("/v1/models", headers={"Authorization": wrong}).status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer open sesame"}).status_code == 200
        assert client.get("/v1/models", auth=("anybody", "open sesame")).status_code == 200
        stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="no", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        assert client.post("/v1/ground", json={}).status_code == 401


# -- engines ----------------------------------------------------------------------------------------------------------


def ask_of(scene: Scene, **kwargs: object) -> Ask:
    settings = SamplingSettings(temperature=0.0, max_new_tokens=200)
    return Ask(scene.picture.convert("RGB"), scene.question, **({"settings": settings} | kwargs))  # type: ignore[arg-type]


async def collected(engine: LocalEngine | RemoteEngine, ask: Ask) -> tuple[str, Answer]:
    pieces: list[str] = []
    async with aclosing(engine.stream(ask)) as stream:
        async for piece in stream:
            if isinstance(piece, Answer):
                return "".join(pieces), piece
            pieces.append(piece)
    raise AssertionError("no answer")


def test_a_full_queue_refuses_with_a_time_to_wait(scene):
    async def scenario() -> None:
        engine = LocalEngine(grounder(), max_queue=2, max_batch=1)
        await engine.start()
        # Four at once, entered before the worker can take any: one for the batch, two may wait, one is refused.
        outcomes = await asyncio.gather(
            *(collected(engine, ask_of(scene)) for _ in range(4)), return_exceptions=True
        )
        await engine.close()
        refused = [outcome for outcome in outcomes if isinstance(outcome, Busy)]
        assert len(refused) == 1
        assert refused[0].retry_after_seconds >= 1
        assert {outcome[1].text for outcome in outcomes if isinstance(outcome, tuple)} == {
            grounder().ask(scene.png, scene.question).text
        }

    asyncio.run(scenario())


class Pausing:
    """A batch that reads no prompt until it is let, and then takes none."""

    live = 0

    def __init__(self):
        self.reading, self.let = threading.Event(), threading.Event()

    def admit(self, questions, settings, *, samples_per_question=1):
        self.reading.set()
        assert self.let.wait(PATIENCE)
        return [Unsampled("no place")] * len(questions)

    def step(self):
        return []

    def drop(self, handle):
        pass


def test_a_question_whose_prompt_is_being_read_has_its_place_in_the_batch(scene):
    async def scenario() -> None:
        batch = Pausing()
        engine = LocalEngine(grounder(), max_queue=1, max_batch=1, make_batch=lambda: batch)
        await engine.start()
        first = asyncio.create_task(collected(engine, ask_of(scene)))
        assert await asyncio.to_thread(batch.reading.wait, PATIENCE)
        assert engine.load() == Load(queued=0, live=1)
        second = asyncio.create_task(collected(engine, ask_of(scene)))
        while not engine.load().queued:
            await asyncio.sleep(0)
        third = asyncio.create_task(collected(engine, ask_of(scene)))
        await asyncio.sleep(0)  # the third is put to the engine, which refuses it at once or lets it wait
        batch.let.set()
        outcomes = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unanswerable, Unanswerable, Busy]
        assert engine.load() == Load(queued=0, live=0)
        await engine.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_pictures_beyond_what_the_engine_holds_are_refused(scene):
    async def scenario() -> None:
        width, height = scene.picture.size
        engine = LocalEngine(grounder(), max_pixels_held=2 * width * height)
        await engine.start()
        outcomes = await asyncio.gather(
            *(collected(engine, ask_of(scene)) for _ in range(3)), return_exceptions=True
        )
        again = await collected(engine, ask_of(scene))
        await engine.close()
        assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 1
        assert again[0] == again[1].text

    asyncio.run(scenario())


class Held:
    """A sampler that says nothing until it is let, and then gives no answer."""

    def __init__(self):
        self.let = threading.Event()

    def sample(self, questions, *, samples_per_question, settings, listener=None):
        assert self.let.wait(PATIENCE)
        return [[Unsampled("no answer")] for _ in questions]


def test_pictures_beyond_what_is_held_for_another_server_are_refused(scene):
    async def scenario() -> None:
        sampler = Held()
        remote = Grounder(sampler, frame="qwen2_5_vl", model="held", lock=nullcontext())
        ask = ask_of(scene)
        engine = RemoteEngine(remote, max_pixels_held=2 * ask.pixels)

        async def outcomes(asks: list[Ask]) -> list[type]:
            work = [asyncio.create_task(collected(engine, one)) for one in asks]
            await asyncio.sleep(
                0
            )  # every question is put to the engine, which refuses it at once or takes it
            sampler.let.set()
            return [type(outcome) for outcome in await asyncio.gather(*work, return_exceptions=True)]

        assert await outcomes([ask] * 3) == [EngineFailed, EngineFailed, Busy]
        assert await outcomes([ask] * 2) == [EngineFailed, EngineFailed]
        large = Ask(ask.image.resize((2 * ask.image.width, 2 * ask.image.height)), ask.question, ask.settings)
        assert await outcomes([large]) == [EngineFailed]
        await engine.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_deadline_is_an_error_and_leaves_no_work(scene):
    async def scenario() -> None:
        engine = LocalEngine(grounder())
        await engine.start()
        with pytest.raises(TooLate, match="within 0 s"):
            await collected(engine, ask_of(scene, deadline_seconds=0.0))
        while engine.load() != (quiet := type(engine.load())(queued=0, live=0)):
            await asyncio.sleep(0)
        assert engine.load() == quiet
        await engine.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_deadline_reaches_the_client_as_504(scene):
    with served(ServeSettings(deadline_seconds=0.0001)) as server, server.client() as client:
        response = client.post("/v1/ground", json={"image": scene.uri, "question": scene.question})
        assert response.status_code == 504
        assert "must finish within" in response.json()["error"]["message"]
        until(lambda: server.idle)


def test_closing_waits_for_answers_under_way_and_takes_no_more(scene):
    async def scenario() -> None:
        engine = LocalEngine(grounder())
        await engine.start()
        stream = engine.stream(ask_of(scene))
        first = await anext(stream)
        closing = asyncio.create_task(engine.close(grace_seconds=PATIENCE))
        rest = [piece async for piece in stream]
        await closing
        assert first + "".join(rest[:-1]) == rest[-1].text
        with pytest.raises(Exception, match="shutting down"):
            await collected(engine, ask_of(scene))

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_what_the_model_cannot_take_is_refused_and_holds_up_nobody(scene):
    async def scenario() -> None:
        engine = LocalEngine(grounder())
        await engine.start()
        token = grounder().sampler.vlm.processor.image_token
        bad, good = await asyncio.gather(
            collected(engine, Ask(scene.picture, f"What is {token}?", SamplingSettings(temperature=0))),
            collected(engine, ask_of(scene)),
            return_exceptions=True,
        )
        await engine.close()
        assert isinstance(bad, Unanswerable)
        assert good[1].text == grounder().ask(scene.png, scene.question).text

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


TEMPLATES = [
    "{{ raise_exception('roles alternate') }}",
    "{{ messages[9].content }}",
    "{{ 1 / 0 }}",
    "{{ messages + 1 }}",
    "{{ ''.__class__.__mro__ }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_template_that_raises_costs_its_question_and_no_traceback(scene, template, monkeypatch):
    processor = grounder().sampler.vlm.processor
    good = processor.chat_template
    expected = grounder().ask(scene.png, scene.question)
    asked = f"{{% if 'awkward' in messages|string %}}{template}{{% endif %}}{good}"

    async def scenario() -> None:
        engine = LocalEngine(grounder())
        await engine.start()
        bad, fine = await asyncio.gather(
            collected(engine, Ask(scene.picture, "awkward", SamplingSettings(temperature=0))),
            collected(engine, ask_of(scene)),
            return_exceptions=True,
        )
        await engine.close()
        assert isinstance(bad, Unanswerable)
        assert "chat template" in str(bad)
        assert fine[1].text == expected.text

    monkeypatch.setattr(processor, "chat_template", asked)
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    with pytest.raises(ModelError, match="chat template"):
        grounder().ask(scene.png, "awkward")


class Breaking:
    """A batch whose every step fails."""

    live = 1

    def admit(self, questions, settings, *, samples_per_question=1):
        return list(range(len(questions)))

    def step(self):
        raise MemoryError("no room")

    def drop(self, handle):
        pass


class BreakingAtOnce(Breaking):
    """A batch that fails while it reads a prompt."""

    def admit(self, questions, settings, *, samples_per_question=1):
        raise MemoryError("no room")


@pytest.mark.parametrize("broken", [Breaking, BreakingAtOnce])
def test_a_model_that_fails_is_an_error_for_those_who_wait_and_for_nobody_after(broken, scene):
    async def scenario() -> None:
        made: list[object] = []

        def next_batch():
            from opengrit.sampling.continuous_batch import ContinuousBatch

            made.append(broken() if not made else ContinuousBatch(grounder().sampler))
            return made[-1]

        engine = LocalEngine(grounder(), make_batch=next_batch)
        await engine.start()
        with pytest.raises(EngineFailed, match="MemoryError"):
            await collected(engine, ask_of(scene))
        assert engine.load() == Load(queued=0, live=0)
        text, answer = await collected(engine, ask_of(scene))
        await engine.close()
        assert text == answer.text
        assert len(made) == 2

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_the_size_the_model_will_see_is_predicted():
    engine = LocalEngine(grounder())
    picture = scenes()[0].picture
    for size in [(112, 112), (500, 300), (61, 200), (28, 28), (1400, 30)]:
        seen = grounder().ask(picture.resize(size), "What is it?", max_new_tokens=1).seen_size
        assert engine.seen_size(Size(*size)) == seen


def test_a_server_in_front_of_another_gives_the_same_answers(server, scene):
    sampler = EndpointSampler.connect(f"{server.url}/v1", model=MODEL, frame="qwen2_5_vl")
    remote = Grounder(sampler, frame="qwen2_5_vl", model=MODEL, lock=nullcontext())
    engines = {"front": RemoteEngine(remote, name="front")}
    expected = grounder().ask(scene.png, scene.question)
    with running(build_app(engines, ServeSettings(), page=False), engines) as front, front.client() as client:
        given = client.post("/v1/ground", json={"image": scene.uri, "question": scene.question}).json()
        assert given["transcript"] == expected.text
        assert given["boxes"] == expected.as_json()["boxes"]
        with openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", timeout=PATIENCE) as chat:
            asked = {"model": "front", "messages": messages(scene)}
            assert chat.chat.completions.create(**asked).choices[0].message.content == expected.text
            streamed = chat.chat.completions.create(stream=True, **asked)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == expected.text
        until(lambda: front.idle)
    sampler.close()


def test_a_server_behind_that_is_down_is_502_and_says_so(scene):
    sampler = EndpointSampler.connect(
        "http://127.0.0.1:9/v1", model="gone", frame="qwen2_5_vl", max_tries=1, timeout_seconds=30
    )
    remote = Grounder(sampler, frame="qwen2_5_vl", model="gone", lock=nullcontext())
    engines = {"gone": RemoteEngine(remote)}
    with running(build_app(engines, ServeSettings(), page=False), engines) as front, front.client() as client:
        response = client.post("/v1/ground", json={"image": scene.uri, "question": scene.question})
        assert response.status_code == 502
        assert "the model's server gave no answer" in response.json()["error"]["message"]
        until(lambda: front.idle)
    sampler.close()


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "ended"),
    [
        (["ab", "c"], [], ["ab", "c"], False),
        (["one st", "op two"], ["stop"], ["one ", ""], True),
        (["one st", "ill"], ["stop"], ["one ", "still"], False),
        (["aab", "aac"], ["aabaac"], ["", ""], True),
        (["xaab", "aaq"], ["aabaac"], ["x", "aabaaq"], False),
        (["a", "b", "c"], ["zz", "bc"], ["a", "", ""], True),
    ],
)
def test_text_that_may_begin_a_stop_string_is_held_back(pieces, stops, shown, ended):
    stop_filter = StopFilter(stops)
    assert [stop_filter.push(piece) for piece in pieces] == shown
    assert stop_filter.ended is ended
    assert stop_filter.flush() == ""


def test_what_was_held_back_comes_at_the_end():
    stop_filter = StopFilter(["stop"])
    assert stop_filter.push("full st") == "full "
    assert stop_filter.flush() == "st"


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command() -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "opengrit", "serve", "--port", "0", "--no-page", "--grace", str(PATIENCE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()))  # type: ignore[union-attr]
    reader.start()
    reader.join(PATIENCE)
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", lines[0] if lines else "")
        assert found, process.stderr.read() if process.poll() is not None else "no address in time"  # type: ignore[union-attr]
        yield process, found[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_the_documented_curl_command_gets_what_the_grounder_says(page, command, scene, tmp_path):
    (tmp_path / "dogs.png").write_bytes(scene.png)
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^ {4}(curl .*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        words = shlex.split(line.replace("http://127.0.0.1:7860", command[1]))
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        expected = grounder().ask(scene.png, "How many dogs are there?")
        assert said(json.loads(done.stdout)) == said(expected)


@pytest.mark.slow
def test_the_documented_python_works(command, scene, tmp_path):
    (tmp_path / "dogs.png").write_bytes(scene.png)
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = code.replace("http://127.0.0.1:7860", command[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "<think>" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is POSIX's")
def test_sigterm_lets_the_answer_under_way_finish_and_ends_with_0(command, scene):
    process, url = command
    body = {"model": MODEL, "messages": messages(scene), "stream": True, "temperature": 1.0, "seed": 3}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=PATIENCE) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert process.wait(PATIENCE) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", timeout=PATIENCE)


WRONG_OPTIONS = {
    ("--api-key-env", "NO_SUCH_KEY"): "a key has at least one character",
    ("--api-key-file", "/nowhere/key"): "--api-key-file names a text file",
    ("--host", "203.0.113.7", "--port", "0"): "--host and --port must name a free address",
    ("http://127.0.0.1:9/v1", "--port", "0"): "an address is named with --endpoint",
    ("one", "--model", "two"): "the model is named once",
    ("--name", "a", "--name", "b"): "--name is given once for each model",
    ("--name", " a"): "--name is 1 to 200 characters",
    ("no-such-model", "--port", "0"): "no-such-model",
    ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--port", "0"): "coordinates",
}


@pytest.fixture(scope="module")
def refused() -> dict[tuple[str, ...], Printed]:
    return dict(zip(WRONG_OPTIONS, printed_by(*(("serve", *words) for words in WRONG_OPTIONS)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), WRONG_OPTIONS.items())
def test_a_wrong_option_is_one_line_and_no_server(arguments, message, refused):
    done = refused[arguments]
    assert done.code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_without_the_extra_the_message_names_it(tmp_path):
    # An interpreter that finds nothing of FastAPI: what a plain installation of this package looks like to the command.
    code = (
        "import sys, importlib.abc\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('fastapi', 'uvicorn', 'gradio'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "sys.argv = ['opengrit', 'serve', '--port', '0']\n"
        "from opengrit.cli.app import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert "pip install 'opengrit[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_key_is_never_shown():
    assert "sesame" not in repr(ServeSettings(access=Access(api_key="sesame")))

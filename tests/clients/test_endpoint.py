from __future__ import annotations

import asyncio
import datetime
import json
import logging
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from fault_server import Fault, FaultServer, Request, fault_server

from opengrit.clients import Endpoint, EndpointSettings, LoopThread, NoReply, Reply, Spend, TokenBucket
from opengrit.core.errors import RecipeError

HELLO = [{"role": "user", "content": "hello"}]
KEY = "sk-very-secret-0123456789"
NO_KEY: dict[str, str] = {}


class Time:
    """A clock that moves when somebody sleeps, and by nothing else."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def ask(
    url: str,
    work: Callable[[Endpoint], Coroutine[Any, Any, Any]],
    *,
    time: Time | None = None,
    environ: dict[str, str] = NO_KEY,
    **settings: Any,
) -> tuple[Any, Spend]:
    """What some work with an endpoint gives, and what it cost."""
    time = time or Time()

    async def run() -> tuple[Any, Spend]:
        made = EndpointSettings(url, "stub", **{"timeout_seconds": 60.0, **settings})
        endpoint = Endpoint(made, clock=time.clock, sleep=time.sleep, environ=environ)
        try:
            return await work(endpoint), endpoint.spend
        finally:
            await endpoint.close()

    return asyncio.run(run())


def say(text: str) -> Callable[[Request], str]:
    return lambda request: text


async def hello(endpoint: Endpoint) -> Reply | NoReply:
    return await endpoint.chat(HELLO, temperature=0.5, max_tokens=7)


async def hello_streamed(endpoint: Endpoint) -> list[str | Reply | NoReply]:
    return [item async for item in endpoint.stream(HELLO)]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_reply_has_its_text_its_end_and_its_tokens() -> None:
    with fault_server(answer=say("Hi.")) as server:
        reply, spend = ask(server.url, hello)
    assert reply == Reply("Hi.", "stop", 90, 10)
    assert spend == Spend(requests=1, prompt_tokens=90, completion_tokens=10)
    body = server.requests[0].body
    assert body == {"model": "stub", "messages": HELLO, "temperature": 0.5, "max_tokens": 7}


def test_tokens_that_the_server_does_not_count_are_estimated_and_said_to_be() -> None:
    with fault_server(answer=say("12345678"), usage=False) as server:
        reply, spend = ask(server.url, hello)
    # "hello" is 5 characters, 2 tokens, and 4 for the message's frame; 8 characters are 2 tokens
    assert reply == Reply("12345678", "stop", 6, 2, counted=False)
    assert spend.estimated == 1


TRIED_AGAIN = {
    Fault.STATUS_500: "HTTP 500: overloaded",
    Fault.STATUS_503_HTML: "HTTP 503",
    Fault.BUSY: "HTTP 429: overloaded",
    Fault.BUSY_RETRY_AFTER: "HTTP 429: overloaded",
    Fault.HALF_JSON: "the reply is not JSON",
    Fault.EMPTY_CHOICES: "the reply has no choices",
    Fault.HTML: "the reply is not JSON",
    Fault.WRONG_ENCODING: "the reply is not UTF-8",
    Fault.ERROR_BODY: "the server says: overloaded",
    Fault.RESET: "connection: ",
    Fault.CUT_SHORT: "connection: ",
    Fault.LIST: "the reply is not a JSON object",
}
NO_USE = {
    Fault.OUT_OF_QUOTA: "HTTP 429: pay first",
    Fault.BAD_REQUEST: "HTTP 400: too long",
    Fault.WRONG_KEY: "HTTP 401: the server refuses the key",
    Fault.REFUSAL: "refused: I cannot help with that.",
    Fault.NULL_TEXT: "the reply has no text",
}


@pytest.mark.parametrize("fault", TRIED_AGAIN)
def test_what_may_pass_is_tried_again_and_then_is_no_reply(fault: Fault) -> None:
    with fault_server(fault) as server:
        reply, spend = ask(server.url, hello, max_tries=3)
    assert isinstance(reply, NoReply)
    assert reply.reason.startswith(TRIED_AGAIN[fault])
    assert not reply.declined
    assert len(server.requests) == 3
    assert spend == Spend(requests=3, failed=3)


@pytest.mark.parametrize("fault", NO_USE)
def test_what_will_not_pass_is_not_tried_again(fault: Fault) -> None:
    with fault_server(fault) as server:
        reply, _ = ask(server.url, hello)
    assert isinstance(reply, NoReply)
    assert reply.reason.startswith(NO_USE[fault])
    # No money and a wrong key hold for every question; the others are about this one.
    assert reply.declined == (fault not in (Fault.OUT_OF_QUOTA, Fault.WRONG_KEY))
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.DRIP])
def test_a_reply_that_does_not_end_is_given_up_after_the_time_out(fault: Fault) -> None:
    with fault_server(fault) as server:
        reply, spend = ask(server.url, hello, timeout_seconds=0.2, max_tries=2, deadline_seconds=30.0)
    assert reply == NoReply("no complete reply in 0.2 s")
    assert spend == Spend(requests=2, failed=2)


@pytest.mark.parametrize("fault", TRIED_AGAIN)
def test_a_server_that_recovers_is_heard(fault: Fault) -> None:
    with fault_server(
        lambda request: fault if request.number == 0 else Fault.NONE, answer=say("Hi.")
    ) as server:
        reply, spend = ask(server.url, hello)
    assert reply == Reply("Hi.", "stop", 90, 10)
    assert (spend.requests, spend.failed) == (2, 1)


def test_nobody_listening_an_unknown_name_and_a_server_without_tls_are_no_reply() -> None:
    refused, _ = ask(f"http://127.0.0.1:{closed_port()}/v1", hello, max_tries=2)
    assert isinstance(refused, NoReply)
    assert refused.reason.startswith("connection: ")
    unknown, spend = ask("http://judge.invalid/v1", hello, max_tries=2)
    assert isinstance(unknown, NoReply)
    assert spend.failed == 2
    with fault_server() as server:
        plain, _ = ask(server.url.replace("http", "https"), hello, max_tries=1)
    assert isinstance(plain, NoReply)
    assert plain.reason.startswith("TLS: ")


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="a certificate is made with openssl, which is absent"
)
def test_a_certificate_that_nobody_vouches_for_is_refused_and_not_tried_again(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with fault_server(tls=tls) as server:
        reply, spend = ask(server.url, hello, environ={"OPENAI_API_KEY": KEY})
    assert isinstance(reply, NoReply)
    assert reply.reason.startswith("TLS: self")
    assert spend == Spend(requests=1, failed=1)
    assert server.requests == []


def test_text_that_cannot_be_sent_is_no_reply_and_is_not_tried_again() -> None:
    async def broken(endpoint: Endpoint) -> Reply | NoReply:
        return await endpoint.chat([{"role": "user", "content": "half a pair: \ud83d"}])

    with fault_server() as server:
        reply, _ = ask(server.url, broken)
    assert reply == NoReply("the question is not valid text and cannot be sent", declined=True)
    assert server.requests == []


def test_waits_double_with_jitter_up_to_a_minute() -> None:
    time = Time()
    with fault_server(Fault.STATUS_500) as server:
        ask(server.url, hello, time=time, max_tries=10)
    longest = [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert len(time.slept) == 9
    assert all(most / 2 <= slept <= most for slept, most in zip(time.slept, longest, strict=True))


@pytest.mark.parametrize(
    ("header", "wait"),
    [("7", 7.0), ("0.9", 0.9), ("86400", 60.0), ("-3", None), ("soon", None), ("nan", None), ("inf", None)],
)
def test_retry_after_is_honoured_up_to_a_minute_and_nonsense_is_not(header: str, wait: float | None) -> None:
    time = Time()
    with fault_server(Fault.BUSY_RETRY_AFTER, retry_after=header) as server:
        ask(server.url, hello, time=time, max_tries=2)
    if wait is None:
        assert len(time.slept) == 1
        assert 0.25 <= time.slept[0] <= 0.5
    else:
        assert sum(time.slept) == pytest.approx(wait)


def test_retry_after_may_be_a_date() -> None:
    time = Time()
    date = format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=40), usegmt=True)
    with fault_server(Fault.BUSY_RETRY_AFTER, retry_after=date) as server:
        ask(server.url, hello, time=time, max_tries=2)
    assert 1 < sum(time.slept) <= 40  # generous: the date counts from the real clock


def test_a_busy_server_holds_back_the_other_requests_too() -> None:
    time = Time()

    async def two(endpoint: Endpoint) -> list[Reply | NoReply]:
        first = await endpoint.chat(HELLO)
        assert isinstance(first, NoReply)
        return [first, await endpoint.chat(HELLO)]

    plan = lambda request: Fault.BUSY_RETRY_AFTER if request.number == 0 else Fault.NONE  # noqa: E731
    with fault_server(plan, answer=say("Hi.")) as server:
        (_, second), _ = ask(server.url, two, time=time, max_tries=1)
    assert isinstance(second, Reply)
    assert time.slept == [7.0]


def test_a_question_whose_next_try_lies_after_its_deadline_is_given_up_at_once() -> None:
    time = Time()
    with fault_server(Fault.BUSY_RETRY_AFTER, retry_after="50") as server:
        reply, _ = ask(server.url, hello, time=time, deadline_seconds=40.0)
    assert reply == NoReply("HTTP 429: overloaded")
    assert time.slept == []
    assert len(server.requests) == 1


def test_the_deadline_ends_a_try_that_is_under_way() -> None:
    with fault_server(Fault.DRIP) as server:
        reply, _ = ask(server.url, hello, deadline_seconds=0.2)
    assert reply == NoReply("no reply within the deadline of 0.2 s")


def test_no_more_requests_are_under_way_than_allowed() -> None:
    def held() -> int:
        return sum(request.text == "hello" for request in server.requests)

    async def watched(endpoint: Endpoint) -> int:
        other = Endpoint(endpoint.settings, environ={})
        tasks = [asyncio.create_task(endpoint.chat(HELLO)) for _ in range(12)]
        while held() < 3:
            await other.chat([{"role": "user", "content": "are they there?"}])
        for _ in range(10):  # time enough for more to arrive, if more were let through
            await other.chat([{"role": "user", "content": "and more?"}])
        most = held()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await other.close()
        return most

    plan = lambda request: Fault.SILENT if request.text == "hello" else Fault.NONE  # noqa: E731
    with fault_server(plan, answer=say("Hi.")) as server:
        most, _ = ask(server.url, watched, concurrency=3)
    assert most == 3


def test_requests_keep_to_their_rate() -> None:
    time = Time()

    async def ten(endpoint: Endpoint) -> None:
        await asyncio.gather(*(endpoint.chat(HELLO) for _ in range(10)))

    with fault_server(answer=say("Hi.")) as server:
        ask(server.url, ten, time=time, requests_per_minute=30)
    # one at once, then one each two seconds
    assert time.now - 1000 == pytest.approx(18)


def test_tokens_keep_to_their_rate_and_what_was_not_used_is_given_back() -> None:
    time = Time()

    async def five(endpoint: Endpoint) -> None:
        for _ in range(5):
            await endpoint.chat(HELLO, max_tokens=994)

    with fault_server(answer=say("Hi.")) as server:
        ask(server.url, five, time=time, tokens_per_minute=600)
    # 1000 tokens are reserved and 100 used: ten seconds each at ten tokens a second, the first one free
    assert time.now - 1000 == pytest.approx(40)


def test_a_bucket_lets_through_what_is_larger_than_itself_and_is_paid_back() -> None:
    time = Time()

    async def run() -> list[float]:
        bucket = TokenBucket(60, clock=time.clock, sleep=time.sleep)
        passed = []
        for amount in (1, 5, 1, 1):
            await bucket.take(amount)
            passed.append(time.now - 1000)
        return passed

    assert asyncio.run(run()) == pytest.approx([0, 1, 6 + 0, 7])


def test_spend_has_a_cost_where_prices_are_known() -> None:
    priced = EndpointSettings(
        "http://h/v1", "m", price_per_million_prompt_tokens=2.0, price_per_million_completion_tokens=8.0
    )
    # 500,000 x 2 / million + 250,000 x 8 / million
    assert priced.cost(prompt_tokens=500_000, completion_tokens=250_000) == 3.0
    assert EndpointSettings("http://h/v1", "m").cost(prompt_tokens=1, completion_tokens=1) is None


def test_the_models_of_a_server_are_listed() -> None:
    with fault_server(models=("a", "b")) as server:
        names, _ = ask(server.url, lambda endpoint: endpoint.models())
    assert names == ("a", "b")
    with fault_server(Fault.HTML) as server:
        names, _ = ask(server.url, lambda endpoint: endpoint.models(), max_tries=1)
    assert isinstance(names, NoReply)


def test_a_stream_gives_pieces_and_then_the_whole() -> None:
    with fault_server(answer=say("two red dogs")) as server:
        items, spend = ask(server.url, hello_streamed)
    assert items == ["two ", "red ", "dogs ", Reply("two red dogs ", "stop", 90, 10)]
    assert spend == Spend(requests=1, prompt_tokens=90, completion_tokens=10)
    assert server.requests[0].body["stream"] is True


@pytest.mark.parametrize("fault", [*TRIED_AGAIN, *NO_USE])
def test_a_stream_that_does_not_begin_is_one_no_reply(fault: Fault) -> None:
    with fault_server(fault) as server:
        items, spend = ask(server.url, hello_streamed, max_tries=2)
    assert [type(item) for item in items] == [NoReply]
    assert spend.failed == spend.requests == len(server.requests)


def test_a_stream_that_begins_at_the_second_try_is_heard() -> None:
    plan = lambda request: Fault.STATUS_500 if request.number == 0 else Fault.NONE  # noqa: E731
    with fault_server(plan, answer=say("yes")) as server:
        items, _ = ask(server.url, hello_streamed)
    assert items[-1] == Reply("yes ", "stop", 90, 10)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("two <break>", "the stream ended early"),
        ("two <error>", "the server says: out of memory"),
    ],
)
def test_a_stream_that_fails_half_way_ends_in_no_reply_and_is_not_repeated(text: str, reason: str) -> None:
    with fault_server(answer=say(text)) as server:
        items, spend = ask(server.url, hello_streamed)
    assert items == ["two ", NoReply(reason)]
    assert len(server.requests) == 1
    assert spend == Spend(requests=1, failed=1)


def test_a_stream_that_stalls_is_given_up_after_the_time_out() -> None:
    with fault_server(answer=say("two <stall>")) as server:
        items, _ = ask(server.url, hello_streamed, timeout_seconds=1.0)
    assert items == ["two ", NoReply("the stream stalled")]


def test_a_stream_ends_at_its_deadline() -> None:
    with fault_server(answer=say("two <stall>")) as server:
        items, _ = ask(server.url, hello_streamed, deadline_seconds=0.5)
    assert isinstance(items[-1], NoReply)
    assert "deadline" in items[-1].reason


def test_leaving_a_stream_ends_the_request_and_frees_its_place() -> None:
    async def leave(endpoint: Endpoint) -> Reply | NoReply:
        stream = endpoint.stream(HELLO)
        assert await anext(stream) == "two "
        await stream.aclose()
        answers["text"] = "Hi."
        return await endpoint.chat(HELLO)

    answers = {"text": "two <stall>"}
    with fault_server(answer=lambda request: answers["text"]) as server:
        reply, _ = ask(server.url, leave, concurrency=1)
        assert server.left.wait(60)
    assert reply == Reply("Hi.", "stop", 90, 10)


def test_the_key_goes_to_the_server_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    faults = [Fault.WRONG_KEY, Fault.NONE, Fault.STATUS_500, Fault.RESET]

    async def all_of_them(endpoint: Endpoint) -> None:
        seen.extend([repr(endpoint), repr(endpoint.settings)])
        for _ in faults:
            seen.append(repr(await endpoint.chat(HELLO)))
        seen.append(repr([item async for item in endpoint.stream(HELLO)]))

    plan = lambda request: faults[request.number % len(faults)]  # noqa: E731
    with fault_server(plan, answer=lambda request: "fine") as server:
        ask(server.url, all_of_them, environ={"OPENAI_API_KEY": f" {KEY}\n"}, max_tries=1)
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in "\n".join(seen)
    assert KEY not in caplog.text


def test_a_server_that_repeats_the_key_is_not_quoted() -> None:
    class Echo(FaultServer):
        def _whole(self, fault: Fault, request: Request) -> tuple[int, str, bytes, str]:
            said = json.dumps({"error": {"message": f"bad header {request.headers['authorization']}"}})
            return 400, "application/json", said.encode(), ""

    with fault_server(server_class=Echo) as server:
        reply, _ = ask(server.url, hello, environ={"OPENAI_API_KEY": KEY})
    assert reply == NoReply("HTTP 400: bad header Bearer [key]", declined=True, status=400)


def test_no_key_is_sent_where_none_is_set_whatever_else_the_environment_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    with fault_server(answer=say("Hi.")) as server:
        reply, _ = ask(server.url, hello, api_key_env="ANOTHER_KEY")
    assert isinstance(reply, Reply)
    headers = server.requests[0].headers
    assert "authorization" not in headers
    assert KEY not in repr(headers)
    assert "org-mine" not in repr(headers)


def test_a_key_that_cannot_be_one_is_refused_without_being_shown() -> None:
    with pytest.raises(RecipeError, match="printable ASCII") as caught:
        Endpoint(EndpointSettings("http://h/v1", "m"), environ={"OPENAI_API_KEY": "schl\u00fcssel\nsecret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "localhost:8000"}, "http or https"),
        ({"url": "ftp://host/v1"}, "http or https"),
        ({"url": "http://host:port/v1"}, "http or https"),
        ({"model": ""}, "model"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_tries": 0}, "max_tries"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"requests_per_minute": float("nan")}, "requests_per_minute"),
        ({"deadline_seconds": float("inf")}, "deadline_seconds"),
        ({"price_per_million_prompt_tokens": -1.0}, "price_per_million_prompt_tokens"),
    ],
)
def test_impossible_settings_are_refused_when_they_are_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        EndpointSettings(**{"url": "http://host/v1", "model": "m", **change})


def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated() -> None:
    for url in ("http://me:hush@host/v1", "https://host/v1?api-key=hush"):
        with pytest.raises(RecipeError, match="without user") as caught:
            EndpointSettings(url, "m")
        assert "hush" not in str(caught.value)


def test_a_loop_in_a_thread_runs_work_and_cancels_what_is_left() -> None:
    loop = LoopThread()
    cancelled: list[str] = []

    async def forever(began: asyncio.Event) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("yes")
            raise

    async def begin() -> None:
        began = asyncio.Event()
        running.append(asyncio.create_task(forever(began)))
        await began.wait()

    running: list[asyncio.Task[None]] = []
    loop.run(begin())
    loop.close()
    loop.close()
    assert cancelled == ["yes"]

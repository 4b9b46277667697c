"""Small inputs that would stop a server: half requests, slow pictures, JSON that grows, and stops in the middle of them."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile_pictures import FORMATS, commented_ppm, hostile_pictures, repeated_scans, saved
from PIL import Image

from opengrit.core.errors import ImageError
from opengrit.core.images import Limits, open_any
from opengrit.serving.app import ServeSettings, build_app
from opengrit.serving.bodies import decode_base64, decode_data_uri, read_json
from opengrit.serving.connections import ConnectionLimits, connection_limit
from opengrit.serving.decoder_process import num_scans
from opengrit.serving.decoders import OPEN_FORMATS, DecoderPool
from opengrit.serving.log_limit import OncePerMinute
from opengrit.serving.security import Access, Refused, UploadLimits
from serving import PATIENCE, Served, Speaking, running, until

HEALTH_SECONDS = 1.0  # the bar: what a health check may take while something hostile is going on
SMALL = saved(Image.new("RGB", (32, 24), "red"), "PNG")
LIMITS = UploadLimits(picture_bytes=2 * 2**20, pixels=4_000_000, decode_seconds=1.0, body_seconds=1.0)
CONNECTIONS = ConnectionLimits(connections=20, head_seconds=1.0, body_seconds=1.0, write_seconds=1.0)
linux = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="processes are counted in /proc, which Linux has"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    engine = Speaking("<answer>1</answer>")
    settings = ServeSettings(limits=LIMITS, deadline_seconds=60)
    with running(build_app({"speaking": engine}, settings), {"speaking": engine}, CONNECTIONS) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[httpx.Client]:
    with server.client() as one:
        assert asks(one, SMALL).status_code == 200  # the first picture starts the decoder
        yield one


def uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def asks(client: httpx.Client, picture: bytes) -> httpx.Response:
    return client.post("/v1/ground", files={"image": ("a", picture)}, data={"question": "What is it?"})


def chats(client: httpx.Client, picture: bytes) -> httpx.Response:
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": uri(picture)}}]
    content = {"model": "speaking", "messages": [{"role": "user", "content": parts}]}
    return client.post("/v1/chat/completions", json=content)


def uploads(client: httpx.Client, picture: bytes) -> httpx.Response:
    return client.post("/page/pictures", content=picture)


def connected(server: Served, sent: bytes = b"") -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall(sent.replace(b"HOST", f"{host}:{port}".encode()))
    return connection


def health_seconds(url: str) -> float:
    """How long a health check took, on a new connection; the best of three, for machines with other work."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        assert httpx.get(f"{url}/healthz", timeout=PATIENCE).json() == {"status": "ok"}
        taken.append(time.perf_counter() - began)
    return min(taken)


@contextmanager
def meanwhile(server: Served, hostile: Callable[[], Any]) -> Iterator[None]:
    """While something hostile is under way, the health check and an honest question are answered."""
    with ThreadPoolExecutor(2) as threads, server.client() as honest:
        under_way = threads.submit(hostile)
        assert health_seconds(server.url) < HEALTH_SECONDS
        until(lambda: asks(honest, SMALL).status_code == 200)  # a 503 says when to try again
        yield
        under_way.result(PATIENCE)


# -- half requests ----------------------------------------------------------------------------------------------------

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: HOST\r\n"
HALF_BODY = b"POST /v1/ground HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


@pytest.mark.parametrize("sent", [HALF_HEAD, HALF_BODY, b""], ids=["heads", "bodies", "nothing"])
def test_half_requests_in_crowds_keep_nobody_out_and_are_ended(server, client, sent):
    crowd = [connected(server, sent) for _ in range(60)]
    try:
        with meanwhile(server, lambda: None):
            pass
        for connection in crowd:
            connection.settimeout(PATIENCE)
            said = b""
            try:
                while part := connection.recv(4096):
                    said += part
            except ConnectionResetError:
                pass
            assert not said or said.split()[1] in (b"408", b"503"), said
    finally:
        for connection in crowd:
            connection.close()
    until(lambda: server.idle)


def test_a_head_that_trickles_in_is_given_up_however_often_a_byte_comes(server):
    with connected(server, b"GET / HTTP/1.1\r\n") as connection:
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(0.05):
                try:
                    connection.sendall(b"A: b\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            said = connection.recv(4096)
        finally:
            ended.set()
            thread.join()
    assert said.startswith(b"HTTP/1.1 408")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_body_that_trickles_in_behind_its_refusal_holds_its_connection_for_its_time_only(server):
    sent = b"POST /v1/nothing HTTP/1.1\r\nHost: HOST\r\nContent-Length: 100000\r\n\r\n"
    with connected(server, sent) as connection:
        assert b" 404 " in connection.recv(4096)
        with suppress(OSError):
            for _ in range(10_000):
                connection.sendall(b"x")
                threading.Event().wait(0.02)
            pytest.fail("the connection is still open")


def test_a_body_in_a_million_chunks_silences_nobody_and_is_cut_off(server, client):
    head = (
        b"POST /v1/ground HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )

    def hostile() -> None:
        with connected(server, head) as connection:
            with suppress(ConnectionError):
                connection.sendall(b"1\r\n \r\n" * 10**6)
                pytest.fail("the whole body was taken")
            with suppress(ConnectionError):
                assert connection.recv(4096) == b""

    with meanwhile(server, hostile):
        pass


def test_a_body_in_honest_chunks_is_read(client):
    content = json.dumps({"image": uri(SMALL), "question": "What is it?"}).encode()
    for size in (100, 1000):
        pieces = [content[i : i + size] for i in range(0, len(content), size)]
        given = client.post("/v1/ground", content=iter(pieces), headers={"Content-Type": "application/json"})
        assert given.status_code == 200


def test_where_every_connection_is_being_answered_a_new_one_gets_a_503_and_the_health_check(server):
    engine = Waiting("<answer>1</answer>")
    app = build_app({"speaking": engine}, ServeSettings(deadline_seconds=600), page=False)
    content = json.dumps({"image": uri(SMALL), "question": "What?"}).encode()
    head = f"POST /v1/ground HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    with running(app, {"speaking": engine}, ConnectionLimits(connections=4)) as busy:
        waiting = [connected(busy, head.encode() + content) for _ in range(4)]
        until(lambda: engine.asked == 4)
        # One that only holds its line makes room for itself, not for the next one: four are being answered anyway.
        with connected(busy), busy.client() as client:
            refused = client.get("/v1/models")
            assert (refused.status_code, refused.headers.get("retry-after")) == (503, "1"), refused.text
            assert "connections" in refused.json()["error"]["message"]
        assert health_seconds(busy.url) < HEALTH_SECONDS
        engine.go.set()
        for connection in waiting:
            assert b" 200 " in connection.recv(4096)
            connection.close()


class Waiting(Speaking):
    """An engine that answers when it is told to."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.go, self.asked = threading.Event(), 0

    async def stream(self, ask):
        self.asked += 1
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        async for piece in super().stream(ask):
            yield piece


def test_some_descriptors_stay_free_whatever_the_system_allows():
    assert connection_limit(None) == connection_limit(100_000) == 512
    assert 0 < connection_limit(216) < 216 - 96
    assert connection_limit(10) == 8


def test_a_log_repeats_itself_once_a_minute_with_a_count():
    now = [0.0]
    repeated = OncePerMinute(clock=lambda: now[0])
    logger = logging.Logger("test")
    logger.addFilter(repeated)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    for number in range(1000):
        logger.error("connection %d at %s failed", number, hex(number))
    logger.error("something else")
    now[0] = 61.0
    logger.error("connection %d at %s failed", 7, "0x1f")
    assert said == [
        "connection 0 at 0x0 failed",
        "something else",
        "connection 7 at 0x1f failed (999 similar messages omitted)",
    ]


# -- pictures ---------------------------------------------------------------------------------------------------------

SLOW = {
    "a progressive JPEG": repeated_scans(1900, 3000),
    "a plain PPM of comments": commented_ppm(70_000),
    "a progressive JPEG of few scans": repeated_scans(1900, 5),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_picture_that_takes_forever_keeps_nobody_waiting(server, client, name):
    def hostile() -> None:
        with server.client() as attacker:
            for door in (asks, chats, uploads):
                assert door(attacker, SLOW[name]).status_code in (200, 400)

    with meanwhile(server, hostile):
        pass


@pytest.mark.slow
def test_two_hundred_hostile_pictures_are_answered_and_leave_no_process_behind():
    engine = Speaking("<answer>1</answer>")
    app = build_app({"speaking": engine}, ServeSettings(limits=LIMITS, deadline_seconds=PATIENCE))
    pictures = hostile_pictures(200)
    doors = (asks, asks, chats, uploads)
    with (
        running(app, {"speaking": engine}) as server,
        server.client() as client,
        ThreadPoolExecutor(4) as threads,
    ):
        answers = threads.map(
            lambda place: doors[place % 4](client, pictures[place][1]).status_code, range(len(pictures))
        )
        told = [(name, status) for (name, _), status in zip(pictures, answers, strict=True)]
        pids = app.state.decoders.pids
        assert pids
    assert [t for t in told if t[1] not in (200, 400)] == []
    statuses = [status for _, status in told]
    assert statuses.count(200) > 20
    assert statuses.count(400) > 60
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert app.state.decoders.pids == []


def opened(pool: DecoderPool, content: bytes) -> Image.Image:
    return asyncio.run(pool.open(content))


@contextmanager
def pool(**options: Any) -> Iterator[DecoderPool]:
    limits = options.pop("limits", Limits(2**21, 4_000_000, 200, OPEN_FORMATS))
    decoders = DecoderPool(limits, **options)
    try:
        yield decoders
    finally:
        decoders.close()


def test_a_decoder_gives_the_picture_that_opening_it_here_gives():
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.effect_noise((97, 61), 50).convert("RGB")
    with pool() as decoders:
        for kind in FORMATS:
            content = saved(noise, kind, **({"exif": exif} if kind == "JPEG" else {}))
            here, there = open_any(content), opened(decoders, content)
            assert (here.size, here.tobytes()) == (there.size, there.tobytes())
        assert len(decoders.pids) == 1


def test_a_picture_over_its_cpu_time_ends_its_decoder_and_the_next_one_gets_another():
    with pool(
        cpu_seconds=0.15, scans=10**9, limits=Limits(2**24, 400_000_000, 200, OPEN_FORMATS)
    ) as decoders:
        opened(decoders, SMALL)
        [before] = decoders.pids
        with pytest.raises(ImageError, match=r"must decode within 0\.15 s"):
            opened(decoders, repeated_scans(1000, 3000))
        assert opened(decoders, SMALL).size == (32, 24)
        assert before not in decoders.pids


def test_a_deadline_ends_the_decoder():
    async def impatient(decoders: DecoderPool) -> None:
        await decoders.open(SMALL)
        [before] = decoders.pids
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await decoders.open(repeated_scans(1000, 6000))
        assert before not in decoders.pids
        assert (await decoders.open(SMALL)).size == (32, 24)

    with pool(cpu_seconds=600, scans=10**9, limits=Limits(2**25, 400_000_000, 200, OPEN_FORMATS)) as decoders:
        asyncio.run(impatient(decoders))


def test_scans_are_counted_where_a_decoder_would_see_them():
    assert num_scans(SMALL, most=9) == 0
    assert num_scans(saved(Image.new("RGB", (64, 64)), "JPEG"), most=9) == 1
    progressive = repeated_scans(64, 0)
    base = num_scans(progressive, most=99)
    assert base > 3
    assert num_scans(repeated_scans(64, 7), most=99) == base + 7
    assert num_scans(repeated_scans(64, 7000), most=99) == 100
    preview = b"\xff\xe1\x00\x10" + b"\xff\xda" * 7  # inside a segment they are no scans
    assert num_scans(progressive[:2] + preview + progressive[2:], most=99) == base


# -- JSON and forms ---------------------------------------------------------------------------------------------------

BOMBS = {
    "nested lists": b"[" * 2**21,
    "a list of lists": b"[" + b"[]," * 700_000 + b"1]",
    "unknown keys": b"{" + b",".join(b'"k%d":1' % n for n in range(150_000)) + b"}",
    "numbers": b"[" + b"1," * 10**6 + b"1]",
    "escapes": b'{"image": "' + b"\\n" * 1_200_000 + b'"}',
    "one long number": b'{"image": ' + b"9" * 2**21 + b"}",
    "a key of a megabyte": b'{"' + b"k" * 2**20 + b'": 1}',
    "a model's name of a megabyte": b'{"model": "' + "\u732b".encode() * 400_000 + b'"}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_json_that_grows_is_refused_and_silences_nobody(server, client, name):
    def hostile() -> None:
        with server.client() as attacker:
            for path in ("/v1/ground", "/v1/chat/completions", "/page/questions"):
                headers = {"Content-Type": "application/json"}
                refused = attacker.post(path, content=BOMBS[name], headers=headers)
                assert refused.status_code in (400, 413)
                assert len(refused.content) < 2000

    with meanwhile(server, hostile):
        pass


def test_what_a_value_costs_is_bounded_before_it_is_built():
    limits = UploadLimits(json_values=10, json_escapes=5, json_depth=3)
    assert read_json(b'{"a": [1, 2, {"b": "\\n"}]}', limits) == {"a": [1, 2, {"b": "\n"}]}
    for content, problem in (
        (b"[" + b"1," * 10 + b"1]", "commas"),
        (b'"' + b"\\n" * 6 + b'"', "backslashes"),
        (b"[[[[1]]]]", "nested at most 3"),
        (b'{"a": {"a": {"a": {"a": 1}}}}', "nested at most 3"),
        (b'{"a": NaN}', "is not"),
        (b'"\xff"', "UTF-8"),
    ):
        with pytest.raises(Refused, match=problem):
            read_json(content, limits)


@pytest.mark.parametrize("charset", ["punycode", "zip", "rot13", "utf-16", "\u00e9"])
def test_a_forms_texts_are_utf8_whatever_it_says(client, charset):
    content = (
        b'--b\r\nContent-Disposition: form-data; name="question"\r\n\r\n' + b"a-" * 30_000 + b"\r\n"
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + SMALL
        + b"\r\n--b--\r\n"
    )
    kind = f"multipart/form-data; boundary=b; charset={charset}".encode()
    response = client.post("/v1/ground", content=content, headers={"Content-Type": kind})  # type: ignore[dict-item]
    assert response.status_code == 400
    assert "question" in response.json()["error"]["message"]


def test_base64_is_taken_as_people_write_it():
    content = bytes(range(256)) + b"\xfb\xff\xfe"
    plain = base64.b64encode(content).decode()
    for text in (
        plain,
        plain.rstrip("="),
        plain.replace("+", "-").replace("/", "_"),
        plain.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
        "\r\n".join(plain[i : i + 76] for i in range(0, len(plain), 76)),
    ):
        assert decode_base64(text, param="image") == content
        assert decode_data_uri(f"data:image/png;base64,{text}", param="image") == content
    for text in ("abcde", "&&&&", "%zz=", "\u00e9\u00e9", "a=b="):
        with pytest.raises(Refused, match="base64"):
            decode_base64(text, param="image")


# -- the page ---------------------------------------------------------------------------------------------------------


def test_gradios_queue_keeps_nothing_since_it_is_closed(client):
    for number in range(50):
        event = {"data": [], "fn_index": number * 10**6 - 1, "session_hash": f"s{number}"}
        assert client.post("/gradio_api/queue/join", json=event).status_code == 404
        assert client.post("/gradio_api/run/predict", json=event).status_code == 404
    assert client.get("/gradio_api/queue/data", params={"session_hash": "s1"}).status_code == 404
    assert client.get("/gradio_api/heartbeat/s1").status_code == 404


FORWARDED = ("X-Forwarded-Host", "X-Forwarded-Server", "X-Gradio-Server", "Forwarded", "X-Original-Host")


@pytest.mark.parametrize(
    "value", ["evil.example", "https://evil.example/x", "a b", "[", "evil.example, 127.0.0.1"]
)
def test_what_anybody_says_of_a_proxy_makes_no_address_of_the_page(client, server, value):
    plain = {path: client.get(path).text for path in ("/", "/config")}
    for name in FORWARDED:
        headers = {name: value, "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil"}
        for path in plain:
            response = client.get(path, headers=headers)
            assert response.status_code == 200
            assert "evil" not in response.text
            assert "https://127.0.0.1" not in response.text


def test_a_trusted_proxy_makes_the_pages_addresses():
    engine = Speaking("<answer>1</answer>")
    access = Access.bound_to("127.0.0.1", trusted=["pictures.example"])
    with (
        running(build_app({"speaking": engine}, ServeSettings(access=access)), {}) as server,
        server.client() as client,
    ):
        headers = {"X-Forwarded-Host": "pictures.example", "X-Forwarded-Proto": "https"}
        assert client.get("/config", headers=headers).json()["root"] == "https://pictures.example"


@pytest.mark.parametrize(
    "host", ["a b", "[", "127.0.0.1:99999", "a/b", "evil@127.0.0.1", "\u00e9", "[::1", "a:b:c"]
)
def test_a_host_that_is_none_is_refused_also_where_every_name_is_taken(host):
    engine = Speaking("<answer>1</answer>")
    app = build_app({"speaking": engine}, ServeSettings(access=Access(None, None)), page=False)
    with running(app, {}) as server, connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\nHost: " + host.encode() + b"\r\n\r\n")
        assert connection.recv(4096).split()[1] in (b"400", b"421")


# -- stopping -----------------------------------------------------------------------------------------------------------

GRACE = 1.0
AT_MOST = GRACE + 2.0  # the bar


@contextmanager
def bare_server(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address. See `support/bare_server.py`."""
    script = Path(__file__).parents[1] / "support" / "bare_server.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(GRACE), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return sorted({int(child) for child in found})


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "options", "code"),
    [
        ((signal.SIGTERM,), ("600",), 0),
        ((signal.SIGTERM, signal.SIGINT), ("600", "stuck"), 128 + signal.SIGINT),
        ((signal.SIGTERM,), ("600", "stuck"), 0),
    ],
    ids=["while decoding", "twice", "an engine that never stops"],
)
def test_a_stop_ends_the_process_whatever_is_running(signals, options, code):
    with bare_server(*options) as (process, url), ThreadPoolExecutor(1) as threads:
        picture = repeated_scans(1500, 25_000)
        asking = threads.submit(
            lambda: httpx.post(
                f"{url}/v1/ground", json={"image": uri(picture), "question": "What?"}, timeout=PATIENCE
            )
        )
        until(lambda: children(process.pid))
        decoders = children(process.pid)
        began = time.perf_counter()
        for number in signals:
            process.send_signal(number)
            threading.Event().wait(0.2)
        assert process.wait(PATIENCE) == code
        assert time.perf_counter() - began < AT_MOST
        until(lambda: not any(is_alive(pid) for pid in decoders))
        with suppress(httpx.TransportError):
            assert asking.result(PATIENCE).status_code == 503


@linux
@pytest.mark.slow
def test_with_few_descriptors_three_hundred_half_requests_keep_nobody_out_and_write_no_log():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 400:
        pytest.skip("this process itself may not open 400 descriptors")
    script = Path(__file__).parents[1] / "support" / "bare_server.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(GRACE), "1.5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)),
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        host, port = url.removeprefix("http://").split(":")
        crowd = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(300)]
        for connection in crowd:
            connection.sendall(HALF_HEAD)
        assert health_seconds(url) < HEALTH_SECONDS
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < 220
        given = httpx.post(
            f"{url}/v1/ground", json={"image": uri(SMALL), "question": "What?"}, timeout=PATIENCE
        )
        assert given.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert len(process.stderr.read()) < 10_000
        for connection in crowd:
            connection.close()
    finally:
        process.kill()
        process.wait()

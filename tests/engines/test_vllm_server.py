"""vLLM's own server behind every door: what it answers, and that it is what the model answers in this process."""

from __future__ import annotations

import json
import sys

import pytest
from openai import OpenAI

from engines import environment, free_port, opengrit, serving, vllm_server
from opengrit.data.stickers.sets import examples
from opengrit.runs.folder import RunDir

pytestmark = pytest.mark.needs("vllm")

FRAMES = {"tiny-qwen2.5-vl": "qwen2_5_vl", "tiny-internvl3": "internvl"}
SETS = ("stickers/count", "stickers/spatial")
QUESTIONS = 480


@pytest.fixture(scope="module", params=FRAMES)
def served(request, tmp_path_factory):
    """The name of a packaged model, the address of a vLLM that serves it, and a folder."""
    folder = tmp_path_factory.mktemp(request.param)
    with vllm_server(request.param, folder) as url:
        yield request.param, url, folder


def asked_of(name, url):
    return "--model", name, "--endpoint", url, "--frame", FRAMES[name]


@pytest.fixture(scope="module")
def evaluated(served):
    """The records of all questions, by vLLM and by the model in this process, and both result lines."""
    name, url, folder = served
    data = [word for one in SETS for word in ("--data", one)]
    common = (*data, "--max-new-tokens", 160, "--quiet")
    opengrit("eval", *asked_of(name, url), *common, "--out", folder / "vllm")
    opengrit("eval", "--model", name, *common, "--out", folder / "here")
    return [RunDir.open(folder / which) for which in ("vllm", "here")]


def test_an_evaluation_by_vllm_is_the_evaluation_in_this_process(served, evaluated, record_property):
    records = [sorted(run.records(), key=lambda r: r.id) for run in evaluated]
    assert [len(some) for some in records] == [QUESTIONS, QUESTIONS]
    pairs = [(a, b) for a, b in zip(*records, strict=True) if a.completion.text != b.completion.text]
    record_property(
        "found", f"{served[0]}: {QUESTIONS - len(pairs)} of {QUESTIONS} texts by vLLM are the model's own"
    )
    for a, b in pairs:
        record_property("found", f"{a.id}: vLLM {a.completion.text!r}, here {b.completion.text!r}")
    assert len(pairs) <= 1
    for a, b in zip(*records, strict=True):
        if (a, b) not in pairs:
            assert (a.transcript, a.verdict, a.score, a.completion.finish) == (
                b.transcript, b.verdict, b.score, b.completion.finish,
            )  # fmt: skip
    right = [sum(bool(r.verdict and r.verdict.score) for r in some) for some in records]
    assert abs(right[0] - right[1]) <= 1


def test_a_question_is_answered_with_its_evidence_and_its_usage(served):
    name, url, _ = served
    row = examples("count")[1]
    said = opengrit("ask", row.image, row.question, *asked_of(name, url), "--json")
    here = opengrit("ask", row.image, row.question, "--model", name, "--json")
    vllm, own = (json.loads(text[text.index("{") :]) for text in (said, here))
    assert vllm["transcript"] == own["transcript"]
    assert vllm["boxes"] == own["boxes"]
    assert vllm["completion_tokens"] > 0


@pytest.fixture(scope="module")
def behind(served):
    """`opengrit serve --endpoint` in front of vLLM: a client, and the model's name."""
    name, url, folder = served
    port = free_port()
    command = [sys.executable, "-m", "opengrit", "serve", *asked_of(name, url), "--port", str(port)]
    with serving(
        command, url=f"http://127.0.0.1:{port}/healthz", log=folder / "serve.log", env=environment()
    ):
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        yield client, client.models.list().data[0].id


def messages(row):
    import base64
    from pathlib import Path

    picture = base64.b64encode(Path(row.image).read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": row.question},
    ]
    return [{"role": "user", "content": content}]


def test_a_server_in_front_of_vllm_streams_what_it_answers_whole(behind):
    client, model = behind
    asked = dict(model=model, messages=messages(examples("count")[2]), max_tokens=120, temperature=0)
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([p for p in pieces if p]) > 3  # written as it comes
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens > 0


def test_a_server_in_front_of_vllm_gives_several_answers(behind):
    client, model = behind
    asked = dict(model=model, messages=messages(examples("count")[3]), max_tokens=120, temperature=1.0)
    several = client.chat.completions.create(**asked, n=4, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in several.choices}) > 1


def test_a_run_is_judged_by_a_model_behind_vllm(served):
    """A sticker model cannot judge; what matters is that every answer it gives is a verdict or unjudged, never an error."""
    name, url, folder = served
    opengrit(
        "eval", "--model", name, "--data", "stickers/count", "--limit", 6, "--max-new-tokens", 100, "--quiet",
        "--judge-url", url, "--judge-model", name, "--out", folder / "judged",
    )  # fmt: skip
    assert len(list(RunDir.open(folder / "judged").records())) == 6


def test_the_correlation_asks_vllm_and_counts_what_is_no_choice(served, evaluated):
    name, url, folder = served
    out = folder / "correlation"
    opengrit(
        "probe",
        evaluated[1].path,
        "--out",
        out,
        "--correlation",
        "--judge-url",
        url,
        "--judge-model",
        name,
        "--limit",
        6,
    )
    assert (out / "correlation.jsonl").read_text().strip()

"""The doctor: planted mistakes are named and end with exit code 1, good recipes pass with 0."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from endpoint_stub import Said, endpoint_stub
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.types import Completion, Finish
from opengrit.data import stickers
from opengrit.doctor import Environment, Finding, Level, diagnose, would_be_wasted
from opengrit.doctor.context import installed
from opengrit.doctor.fit import Machine
from opengrit.doctor.resources import changes_that_fit, most_checkpoints
from opengrit.doctor.samples import flat_chance
from opengrit.doctor.settings import usual_rate
from opengrit.grounding.frames import frame_for
from opengrit.grounding.targets import target_text
from opengrit.models.loading import load_for_inference
from opengrit.models.resolve import resolve
from opengrit.recipes.model_section import Model
from opengrit.recipes.register import packaged_recipe
from opengrit.recipes.training_recipe import Recipe, load_recipe
from opengrit.sampling import Sampled
from opengrit.sampling.transformers_engine import TransformersSampler

ROOT = Path(__file__).resolve().parents[2]
DEMO = "demo"
PLENTY = Environment(
    machine=Machine("a computer", 1, 64),
    has_gpu=False,
    has_bf16=False,
    python="3.11.7",
    version=installed,
    free_bytes=lambda folder: 10**12,
    offline=False,
    is_current=False,
)


@functools.cache
def load(model: Model) -> Any:
    return load_for_inference(model)


def look(
    *changes: str, recipe: str = DEMO, environment: Environment = PLENTY, quick: bool = False, **more: Any
) -> list[Finding]:
    wanted = load_recipe(recipe, changes)
    return list(diagnose(wanted, environment=environment, quick=quick, num_questions=2, load=load, **more))


def graver(findings: list[Finding]) -> list[tuple[str, str]]:
    """What is neither well nor left out, shortly."""
    return [(f.level.value, f.name) for f in findings if f.level in (Level.WARN, Level.FAIL)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rows and their pictures as a person has them: a JSONL file beside a folder."""
    folder = tmp_path_factory.mktemp("own")
    stickers.write("train20", folder)
    return folder


# Four good recipes.

GOOD = {
    "the demo": [],
    "its other family": ["model=tiny-internvl3"],
    "with adapters": ["lora={r: 4}", "train.learning_rate=5.0e-4"],
    "own rows and pictures": ["data.train=[{file: OWN/train20.jsonl, images: OWN/images}]", "data.eval=[stickers/count]"],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_recipe_passes_without_a_warning(name, own):
    findings = look(*(change.replace("OWN", str(own)) for change in GOOD[name]))
    assert graver(findings) == []
    assert [f.name for f in findings if f.level is Level.SKIPPED] == []
    assert len({f.area for f in findings}) == 10


# Planted mistakes.


@dataclass
class Planted:
    """A good recipe with one mistake in it: what is changed, and the finding that must name it."""

    name: str
    finding: str
    said: str
    level: Level = Level.FAIL
    changes: list[str] = field(default_factory=list)
    rows: Callable[[list[dict[str, Any]], Path], Any] | None = (
        None  # changes the rows, or the pictures' folder
    )
    environment: Environment = PLENTY
    needs_model: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    files: Callable[[Path], list[str]] | None = None  # makes something, and says what to change


def without(package: str) -> Environment:
    return replace(PLENTY, version=lambda name: None if name == package else installed(name))


def having(**versions: str) -> Environment:
    return replace(PLENTY, version=lambda name: versions.get(name) or installed(name))


def changed(**values: Any) -> Callable[[list[dict[str, Any]], Path], Any]:
    """The first row changed."""
    return lambda rows, images: rows[0].update(values)


def every(**values: Any) -> Callable[[list[dict[str, Any]], Path], Any]:
    return lambda rows, images: [row.update(values) for row in rows]


def remove_picture(rows: list[dict[str, Any]], images: Path) -> None:
    (images / rows[3]["image"]).unlink()


def cut_picture(rows: list[dict[str, Any]], images: Path) -> None:
    file = images / rows[3]["image"]
    file.write_bytes(file.read_bytes()[:2000])


def tiny_picture(rows: list[dict[str, Any]], images: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(images / "tiny.png")
    rows[0].update(image="tiny.png", width=20, height=20, bboxs=[[2, 2, 9, 9]])


def saved_model(folder: Path, change: Callable[[Path], None]) -> list[str]:
    """A copy of a packaged model whose files are changed."""
    copy = folder / "model"
    shutil.copytree(resolve("tiny-qwen2.5-vl"), copy)
    change(copy)
    return [f"model={copy}"]


def blind(row: Any, frame: Any, sample: int) -> str:
    return (
        f"<think>Well.</think><rethink>So.</rethink><answer>{row.answer if sample % 2 else 'what'}</answer>"
    )


def never_right(row: Any, frame: Any, sample: int) -> str:
    """In full format at times and with the right boxes, so that much is earned, but with a wrong answer."""
    return (
        perfect(row, frame, sample).replace(f"<answer>{row.answer}</answer>", "<answer>a zebra</answer>")
        if sample % 2
        else "Well."
    )


def enlarge(rows: list[dict[str, Any]], images: Path) -> None:
    """Pictures of another size, in rows of a person's own."""
    for row in rows:
        with Image.open(images / row["image"]) as picture:
            picture.resize((picture.width * 2, picture.height * 2)).save(images / row["image"])
        row.update(width=row["width"] * 2, height=row["height"] * 2, bboxs=[], dataset="mine")


def pad_right(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"padding_side": "left"', '"padding_side": "right"'))


def hide_picture(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )


class ScriptedSampler:
    """A base that says what a function of the row, the frame and the sample's number gives."""

    def __init__(self, loaded: Any, say: Callable[[Any, Any, int], str], finish: Finish) -> None:
        self._inner, self._say, self._finish = TransformersSampler(loaded), say, finish
        self._frame = loaded.frame

    def sample(self, questions, *, samples_per_question, settings, listener=None):
        rows = {row.id: row for row in stickers.examples("train20")}
        given = []
        for question in questions:
            size = self._inner.prepare(question).picture.seen_size
            frame, tokenizer = frame_for(self._frame, size), self._inner.vlm.processor.tokenizer
            texts = [self._say(rows[question.id], frame, sample) for sample in range(samples_per_question)]
            completions = [
                Completion(text, tuple(tokenizer(text)["input_ids"]), self._finish) for text in texts
            ]
            given.append([Sampled(completion, (), size) for completion in completions])
        return given


def saying(say: Callable[[Any, Any, int], str], finish: Finish = Finish.STOP) -> dict[str, Any]:
    return {"sampler_of": lambda loaded: ScriptedSampler(loaded, say, finish)}


def perfect(row: Any, frame: Any, sample: int) -> str:
    return target_text(row, strategy="grounded", frame=frame)


def in_fractions(row: Any, frame: Any, sample: int) -> str:
    return target_text(row, strategy="grounded", frame=frame_for("unit", frame.seen_size))


PLANTED = [
    # The environment.
    Planted("trl of another minor version", "trl", "needs trl", environment=having(trl="1.15.2")),
    Planted("transformers too old", "transformers", "is 4.57.0", environment=having(transformers="4.57.0")),
    Planted("a package that is not there", "scipy", "is not installed", environment=without("scipy")),
    Planted("torchvision of another torch", "torchvision", "needs torchvision 0.29",
            environment=having(torch="2.14.1", torchvision="0.28.0")),
    Planted("torchvision of another build", "torchvision", "built for cu130 and torchvision for cpu",
            environment=having(torch="2.14.1+cu130", torchvision="0.29.1+cpu")),
    Planted("16 bits without a GPU", "device", "has no GPU", changes=["train.bf16=true"]),
    Planted("vLLM not installed", "vllm", "opengrit[vllm]", changes=["train.vllm_mode=colocate"], environment=without("vllm")),
    Planted("8-bit optimizer not installed", "bitsandbytes", "train.optim adamw_8bit",
            changes=["train.optim=adamw_8bit"], environment=without("bitsandbytes")),
    # The recipe.
    Planted("learning rate a thousand times too high", "learning rate", "0.1, usual for 2.4 million parameters is about 7e-05",
            changes=["train.learning_rate=0.1"]),
    Planted("learning rate of nothing", "learning rate", "nothing would change", Level.WARN,
            changes=["train.learning_rate=1.0e-9"]),
    Planted("temperature near 0", "temperature", "teach nothing", changes=["train.temperature=0.01"]),
    Planted("temperature near 0, seen in the samples", "flat groups", "samples hardly differ", Level.FAIL,
            changes=["train.temperature=0.01"], needs_model=True),
    Planted("completions too short for the format", "completion length", "most would be truncated",
            changes=["train.max_completion_length=12"]),
    Planted("completions too short for these rows", "completion length", "most completions would be cut off",
            changes=["train.max_completion_length=41"], needs_model=True),
    Planted("boxes rewarded and not asked for", "strategy", "asks for no tags", Level.WARN, changes=["strategy=direct"]),
    Planted("no checkpoint in a long run", "checkpoints", "a crash would lose them", Level.WARN,
            changes=["train.max_steps=200", "train.save_steps=null"]),
    # The data.
    Planted("a missing picture", "pictures", "train20-00003.png", rows=remove_picture),
    Planted("a truncated picture", "pictures", "train20-00003.png", rows=cut_picture),
    Planted("a row without an answer", "rows", "answer", rows=changed(answer=None)),
    Planted("a box outside its picture", "boxes", "1 of 20 rows", rows=changed(bboxs=[[10, 10, 900, 900]])),
    Planted("a picture in training and in evaluation", "leaks", "20 of 20 evaluation rows",
            changes=["data.eval=[{file: OWN/train20.jsonl, images: OWN/images}]"], rows=lambda rows, images: None),
    Planted("one answer to everything", "answers", "'yes'", rows=every(answer="yes"), changes=["rewards=answer_only"]),
    Planted("nearly one answer", "answers", "18 of 20", Level.WARN, changes=["rewards=answer_only"],
            rows=lambda rows, images: [row.update(answer="yes") for row in rows[2:]]),
    Planted("counts rewarded where nothing is counted", "rewards", "'box_count' needs counting rows",
            rows=lambda rows, images: rows.__delitem__(slice(0, 10)),
            changes=["train.questions_per_step=10", "train.per_device_train_batch_size=80"]),
    Planted("more questions a step than rows", "questions per step", "asks 40 different questions, and there are 20 rows",
            changes=["train.questions_per_step=40"]),
    Planted("a picture of a few pixels", "tiny pictures", "tiny.png", Level.WARN, rows=tiny_picture),
    Planted("photos for a model of stickers", "what it knows", "20 of 20 rows", Level.WARN, rows=enlarge),
    Planted("a question twice", "duplicates", "occur twice", Level.WARN,
            rows=lambda rows, images: rows.append(dict(rows[0]))),
    Planted("sizes of another picture", "picture sizes", "says 300 x 100", Level.WARN,
            rows=changed(width=300, height=100, bboxs=[])),
    Planted("few rows", "rows", "5 rows are few", Level.WARN, rows=lambda rows, images: rows.__delitem__(slice(5, None)),
            changes=["train.questions_per_step=5", "train.per_device_train_batch_size=40"]),
    # The model.
    Planted("a misspelt model", "model", "tiny-qwen2.5-vl", changes=["model=tiny-qwen25-vl"]),
    Planted("a model that must not be fetched", "model", "HF_HUB_OFFLINE forbids",
            changes=["model=Qwen/Qwen2.5-VL-3B-Instruct", "train.learning_rate=2.0e-6"], environment=replace(PLENTY, offline=True)),
    Planted("a processor that pads on the right", "padding side", "pads on the right", Level.WARN,
            files=lambda folder: saved_model(folder, pad_right)),
    Planted("a chat template without the picture", "chat template", "shows it 0 times", needs_model=True,
            files=lambda folder: saved_model(folder, hide_picture)),
    Planted("adapters on a layer that is not there", "lora", "has no 'q_projection'", needs_model=True,
            changes=["lora={target_modules: [q_projection]}", "train.learning_rate=5.0e-4"]),
    # Prompts, boxes and samples.
    Planted("a prompt longer than the context", "prompt lengths", "of the 2048 that the model holds", needs_model=True,
            rows=changed(question="How many dogs are there?" + " dog" * 2100)),
    Planted("another frame than the boxes are in", "frame of the samples", "set model.frame: pixels",
            changes=["model.name=tiny-qwen2.5-vl", "model.frame=thousand"], needs_model=True),
    Planted("a base that has nothing to learn", "flat groups", "nothing left to learn", needs_model=True,
            more=saying(perfect)),
    Planted("a base that never answers", "reward", "0.00 on average", needs_model=True, changes=["rewards=answer_only"],
            more=saying(lambda row, frame, sample: "I see.")),
    Planted("a base that is never right", "answers of the base", "none of 16 judged samples is right", needs_model=True,
            more=saying(never_right)),
    Planted("a base that writes fractions", "unit of the boxes", "set model.frame: unit", needs_model=True,
            more=saying(in_fractions)),
    Planted("a base that points at nothing", "format", "0.0 boxes", Level.WARN, needs_model=True,
            more=saying(blind)),
    Planted("a base that never stops", "stop", "16 are cut off at 160 tokens", needs_model=True,
            more=saying(lambda row, frame, sample: "<think>" + " dog" * 80, Finish.LENGTH)),
    # What it runs on.
    Planted("too little memory", "memory", "per_device_train_batch_size", environment=replace(PLENTY, machine=Machine("a phone", 1, 2))),
    Planted("too little disk", "disk", "1 MB are free", environment=replace(PLENTY, free_bytes=lambda folder: 10**6)),
    Planted("processes that a step's completions do not divide over", "processes", "over 3 processes",
            environment=replace(PLENTY, machine=Machine("a computer", 3, 64))),
    Planted("a run folder that is taken", "run folder", "choose another --out", more={"out": ROOT / "docs"}),
    Planted("a judge that is not there", "judge", "gave no opinion on a trial question",
            changes=["judge={kind: endpoint, model: toy, url: 'http://127.0.0.1:9/v1', max_tries: 1}"]),
]  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_mistake_is_named(planted, own, tmp_path):
    changes = list(planted.changes)
    if planted.rows is not None:
        images = tmp_path / "images"
        shutil.copytree(own / "images", images)
        rows = [json.loads(line) for line in (own / "train20.jsonl").read_text().splitlines()]
        planted.rows(rows, images)
        (tmp_path / "train20.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        changes += [f"data.train=[{{file: {tmp_path}/train20.jsonl, images: {images}}}]"]
    if planted.files is not None:
        changes += planted.files(tmp_path)
    changes = [change.replace("OWN", str(own)) for change in changes]
    findings = look(*changes, environment=planted.environment, quick=not planted.needs_model, **planted.more)
    named = [f for f in findings if f.name == planted.finding and f.level is planted.level]
    assert named, graver(findings)
    assert any(planted.said in f"{f.found} {f.remedy}" for f in named), named
    assert all(f.remedy for f in named)
    assert would_be_wasted(findings) is (planted.level is Level.FAIL), graver(findings)


def test_at_least_fifteen_planted_mistakes_would_waste_a_run():
    assert sum(planted.level is Level.FAIL for planted in PLANTED) >= 15
    assert len({planted.name for planted in PLANTED}) == len(PLANTED)


def test_a_frame_of_another_family_is_said_before_any_sample_is_looked_at():
    findings = look("model.name=tiny-qwen2.5-vl", "model.frame=thousand")
    assert graver(findings) == [("warn", "frame"), ("fail", "frame of the samples")]
    assert "models of type qwen2_5_vl write pixels" in next(
        f.found for f in findings if f.level is Level.WARN
    )


# A model of the hub that is not on this machine.


@pytest.mark.parametrize("name", ["grit20-qwen2.5-vl-3b-24gb-lora", "grit20-internvl3-2b-16gb-lora"])
def test_a_model_that_is_not_here_is_said_and_the_rest_is_looked_at(name, own):
    gpu = replace(
        PLENTY,
        has_gpu=True,
        has_bf16=True,
        machine=Machine("a GPU", 1, 24),
        version=lambda n: installed(n) or "1",
    )
    data = f"data.train=[{{file: {own}/train20.jsonl, images: {own}/images}}]"
    findings = look(data, "data.eval=[]", "judge=rule", recipe=name, environment=gpu)
    by_name = {f.name: f for f in findings}
    assert "is not on this machine" in by_name["model"].found
    assert "hf download" in by_name["model"].remedy
    assert by_name["memory"].level is Level.OK
    assert by_name["samples"].level is Level.SKIPPED
    assert {"disk", "processes", "rows", "answers"} <= by_name.keys()
    assert not would_be_wasted(findings), graver(findings)


# The judge.


def judged_by(url: str) -> list[str]:
    return [
        f"judge={{kind: endpoint, model: toy, url: '{url}', price_per_million_prompt_tokens: 10, price_per_million_completion_tokens: 30}}"
    ]


def test_a_judge_that_answers_is_asked_once_and_its_cost_is_said():
    with endpoint_stub(lambda request: Said('{"score": 1}')) as stub:
        findings = look(*judged_by(stub.url), quick=True)
        assert len(stub.requests) == 1
    found = next(f for f in findings if f.name == "judge")
    assert found.level is Level.OK
    assert "gives a right answer 1" in found.found
    assert "160 answers" in found.found
    assert "a run" in found.found


def test_a_judge_that_marks_a_right_answer_wrong_is_a_warning():
    with endpoint_stub(lambda request: Said('{"score": 0.1}')) as stub:
        findings = look(*judged_by(stub.url), quick=True)
    assert graver(findings) == [("warn", "judge")]


# Small things, by hand.


def test_the_chance_of_a_flat_group_counts_every_group_of_the_samples():
    assert flat_chance([1.0, 1.0, 0.0, 0.0], size=2) == pytest.approx(2 / 6)
    assert flat_chance([1.0, 1.0, 1.0, 0.0], size=3) == pytest.approx(1 / 4)
    assert flat_chance([2.6, 2.6], size=2) == 1.0
    # Of six pairs only the one with both numbers is not flat: a sample that is cut off is left out.
    assert flat_chance([1.0, None, None, 0.0], size=2) == pytest.approx(5 / 6)
    assert flat_chance([None, None, None], size=2) == 1.0


def test_the_usual_rate_is_the_papers_at_its_size_and_the_demos_at_its():
    assert usual_rate(3_000_000_000, lora=False) == pytest.approx(2e-6)
    assert usual_rate(1_200_000, lora=False) == pytest.approx(1e-4)
    assert usual_rate(3_000_000_000, lora=True) == pytest.approx(2e-5)


def test_what_alone_makes_a_recipe_fit_is_named_and_else_what_does_together():
    recipe = load_recipe(DEMO)

    def small_passes(one: Recipe) -> bool:
        return one.train.per_device_train_batch_size <= 80

    alone = changes_that_fit(recipe, small_passes, has_gpu=False)
    assert alone == ["set train.per_device_train_batch_size: 80", "set train.per_device_train_batch_size: 1"]

    def both(one: Recipe) -> bool:
        return one.train.gradient_checkpointing and small_passes(one)

    assert changes_that_fit(recipe, both, has_gpu=False) == [
        "set train.gradient_checkpointing: true and set train.per_device_train_batch_size: 80"
    ]
    assert changes_that_fit(recipe, lambda one: False, has_gpu=False) == []


# The command.


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "80"})


def test_the_command_passes_the_demo_in_80_columns(tmp_path):
    result = command(DEMO, "--questions", "2", "--out", str(tmp_path / "run"))
    assert result.exit_code == 0, result.stdout
    assert "Ready (0 warnings, 0 not looked at)" in result.stdout
    *lines, last = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert last == f"  opengrit train {DEMO} --out {tmp_path / 'run'}"  # whole, to be copied
    assert not (tmp_path / "run").exists()


def test_the_command_exits_with_1_where_a_run_would_be_wasted_and_says_what_to_change():
    result = command(DEMO, "--quick", "--set", "train.questions_per_step=40")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "-> set train.questions_per_step: 20, or add rows" in text
    assert "This run would be wasted: 1 thing to fix (questions per step)" in text


def test_the_command_prints_json_alone_and_exits_with_2_for_what_is_no_recipe(tmp_path):
    result = command(DEMO, "--quick", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["wasted"]) == (0, False)
    assert {"area", "name", "level", "found", "remedy"} == told["findings"][0].keys()
    (tmp_path / "no.yaml").write_text("modle: x\n")
    assert command(str(tmp_path / "no.yaml")).exit_code == 2


def planned(recipe: str, *options: str) -> dict[str, Any]:
    result = command(recipe, "--quick", "--json", *options)
    return {f["name"]: f for f in json.loads(result.stdout)["findings"]}


def test_gpus_can_be_planned_for_without_any():
    found = planned("grit20-qwen2.5-vl-3b-one-80gb", "--device-gb", "24")
    assert found["memory"]["level"] == "fail"
    assert "add lora: {}" in found["memory"]["remedy"]
    assert found["device"]["level"] == "ok"
    assert found["device"]["found"].count("24 GB") == 1


def test_the_documented_command_of_the_paper_divides_over_its_processes_though_groups_are_spread():
    text = (ROOT / "docs" / "scaling.md").read_text()
    change = re.search(
        r"grit20-qwen2.5-vl-3b(?:-one-80gb)? .*--set (train\.per_device_train_batch_size=\d+)", text
    )
    found = planned("grit20-qwen2.5-vl-3b", "--device-gb", "80", "--num-processes", "8", "--set", change[1])
    assert found["processes"]["level"] == "ok"
    # 20 questions x 4 completions over 8 processes of 5: a process holds two groups and a half.
    assert "each step 10 completions a process, in 2 passes of 5" in found["processes"]["found"]


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        (["train.save_steps=null"], 0),
        (["train.save_steps=10"], 4),  # steps 10, 20, 30 and 40
        (["train.save_steps=15"], 3),  # 15, 30, and the last one
        (["train.save_steps=50"], 1),  # the last one
        (["train.save_steps=1"], 40),
        (["train.save_steps=1", "train.keep_checkpoints=2"], 3),  # the third is whole before the first goes
        (["train.save_steps=10", "train.eval_steps=10", "train.keep_checkpoints=1", "train.keep_best=accuracy"], 3),
        (["train.save_steps=20", "train.keep_checkpoints=5"], 2),
    ],
)  # fmt: skip
def test_the_room_for_checkpoints_is_that_of_those_that_lie_there_at_once(changes, most):
    recipe = load_recipe(DEMO, ["train.max_steps=40", *changes])
    assert most_checkpoints(recipe.train) == most
    found = next(f for f in look("train.max_steps=40", *changes, quick=True) if f.name == "disk")
    assert found.found.startswith(f"{most} checkpoint")


def test_what_the_recipes_say_of_their_memory_is_what_the_doctor_finds():
    paper = ["grit20-qwen2.5-vl-3b", "--device-gb", "80", "--num-processes", "5"]
    alone, shared = planned(*paper), planned(*paper, "--sharding", "zero2")
    assert "shard it over the 5 devices" in alone["memory"]["remedy"]
    head = packaged_recipe(paper[0]).path.read_text()
    total = re.search(r"ZeRO-2: (\d+) of 80 GB a device", head)
    assert shared["memory"]["level"] == "ok"
    assert f"about {total[1]} GB of 80 GB" in shared["memory"]["found"]


def of(findings: list[Finding], name: str) -> Finding:
    """The last finding of a name."""
    return [one for one in findings if one.name == name][-1]


def test_code_of_the_recipes_own_is_named_executed_on_samples_and_found_where_it_breaks(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(
        "def half(attempt):\n    return 0.5\n\ndef wild(attempt):\n    return 7\n"
    )
    text = load_recipe(DEMO).resolved_yaml()
    for rewards in ("half", "wild", "gone"):
        wanted = text.replace("rewards: paper", f"rewards: {{mine.py:{rewards}: 1.0, bleu1: 1.0}}")
        (tmp_path / f"{rewards}.yaml").write_text(wanted)
    good = look(recipe=str(tmp_path / "half.yaml"))
    own = of(good, "own code")
    assert own.level is Level.OK
    assert f"runs the Python in them: {tmp_path / 'mine.py'} (SHA-256 " in own.found
    assert "half 0.50" in of(good, "reward").found
    broken = of(look(recipe=str(tmp_path / "wild.yaml")), "reward")
    assert (broken.level, "returned 7.0" in broken.found) == (Level.FAIL, True)
    assert f"{tmp_path / 'mine.py'}:4" in broken.remedy
    missing = look(recipe=str(tmp_path / "gone.yaml"))
    assert [one.level for one in missing if one.name == "own code"] == [Level.OK, Level.FAIL]
    assert of(missing, "samples").level is Level.SKIPPED


def test_a_prompt_of_the_recipes_own_is_compared_with_what_can_be_read(tmp_path: Path) -> None:
    texts = {
        "good": "{question} Think in <think></think> with boxes under bbox_2d, then <rethink></rethink> and <answer>.",
        "bad": "{question} Reason in <reasoning></reasoning>, and say it in a word.",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
        recipe = load_recipe(DEMO).resolved_yaml().replace("strategy: grounded", f"strategy: {name}.txt")
        (tmp_path / f"{name}.yaml").write_text(recipe)
        found[name] = of(look(recipe=str(tmp_path / f"{name}.yaml"), quick=True), "own prompt")
    assert found["good"].level is Level.OK
    assert found["bad"].level is Level.WARN
    for said in ("</reasoning>, <reasoning>, which nothing reads", "no <answer>", "asks for no boxes"):
        assert said in found["bad"].found

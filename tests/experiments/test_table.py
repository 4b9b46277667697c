"""The table: what it asks and trains, its numbers worked out by hand, and that killing it costs nothing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import re
import signal
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_random
import yaml
from endpoint_stub import Request, Said, endpoint_stub
from forked import Running, command
from moments import Moment, at, terminate
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.boxes import Box, Size
from opengrit.core.errors import DataError, RecipeError, RunError
from opengrit.core.types import Completion, Example, Finish
from opengrit.data import write
from opengrit.evaluation.probes import Probe, Trial
from opengrit.evaluation.rollout import EvaluationProtocol, read
from opengrit.experiments import Way, load_table_recipe, run_table, table_so_far
from opengrit.experiments.pages import NAMES, csv_text, html, latex, markdown
from opengrit.experiments.recipe import TableRecipe
from opengrit.experiments.results import ModelRecords, TableResult, Training, measure
from opengrit.experiments.sentences import findings
from opengrit.judges import RuleJudge
from opengrit.recipes.yaml import parse
from opengrit.rewards.rubric import Rubric
from opengrit.runs.alarms import Alarm, Kind
from opengrit.runs.folder import RunDir
from opengrit.sampling import Sampled, Unsampled
from opengrit.training.checkpoint_sidecar import SIDECAR

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SERVED = """
models: [{name: toy, endpoint: {url: "http://127.0.0.1:1/v1", frame: thousand}}]
data: [stickers/count]
ways: [direct, grounded]
seeds: [0]
"""
TRAINED = """
models: [tiny-qwen2.5-vl]
data: [stickers/count, stickers/spatial]
train_data: [stickers/train20]
train: {bf16: false}
sft: {bf16: false}
"""


# -- recipes ---------------------------------------------------------------------------------------------------------


def test_the_ways_are_asked_and_trained_as_their_names_say():
    recipe = parse(TableRecipe, TRAINED, ["seeds=[3, 5]"])
    runs = list(recipe.runs(recipe.models[0]))
    assert [(run.way.value, run.seed) for run in runs] == [
        ("direct", 3), ("grounded", 3), ("grounded-icl", 3),  # greedy: one run each
        ("grit", 3), ("direct-after", 3), ("blind", 3), ("sft", 3), ("grpo-answer", 3), ("grpo-random", 3),
        ("grit", 5), ("direct-after", 5), ("blind", 5), ("sft", 5), ("grpo-answer", 5), ("grpo-random", 5),
    ]  # fmt: skip
    assert len({run.folder for run in runs}) == 15
    asked = {run.way: recipe.evaluation(run, trained=None).strategy for run in runs}
    assert asked == {
        Way.DIRECT: "direct", Way.GROUNDED: "grounded", Way.GROUNDED_ICL: "grounded-icl",
        Way.SFT: "grounded", Way.GRPO_ANSWER: "grounded", Way.GRPO_RANDOM: "grounded", Way.GRIT: "grounded",
        Way.DIRECT_AFTER: "direct", Way.BLIND: "grounded",
    }  # fmt: skip
    assert [run.way for run in runs if recipe.evaluation(run, trained=None).blind] == [Way.BLIND] * 2
    trained_by = {(run.way, run.seed): run.trained_by for run in runs}
    assert trained_by[Way.BLIND, 5] == trained_by[Way.DIRECT_AFTER, 5] == trained_by[Way.GRIT, 5] == runs[9]
    assert trained_by[Way.GROUNDED, 3] is None
    plain, grit = recipe.grpo(runs[13]), recipe.grpo(runs[9])
    assert recipe.grpo(runs[14]).rewards == "random"
    assert (plain.rewards, grit.rewards) == ("answer_only", "paper")
    assert (plain.train.seed, grit.train.seed) == (5, 5)
    assert plain.model_copy(update={"rewards": "paper"}) == grit  # nothing else differs
    assert recipe.fine_tuning(runs[12]).sft.seed == 5
    assert recipe.evaluation(runs[9], trained=Path("/t/grit")).model.name == "/t/grit"


def test_an_objective_of_the_tables_own_is_grit_but_for_what_it_says():
    own = (
        "objectives={kl: {train: {beta: 0.04}}, boxes: {rewards: {correct: 1, box_dual: {weight: 0.5, where: right}}, "
        "advantage: {objects: {}}}, spatial: {train_data: [stickers/spatial20]}}"
    )
    recipe = parse(TableRecipe, TRAINED, [own, "ways=[direct, grit]", "seeds=[3]"])
    runs = list(recipe.runs(recipe.models[0]))
    assert [str(run.way) for run in runs] == ["direct", "grit", "kl", "boxes", "spatial"]
    assert runs[2].folder == Path("runs/tiny-qwen2.5-vl/kl/seed-3")
    grit, kl, boxes, spatial = (recipe.grpo(run) for run in runs[1:])
    assert kl.model_copy(update={"train": grit.train}) == grit
    assert kl.train == grit.train.model_copy(update={"beta": 0.04})
    assert boxes.advantage.objects is not None
    assert list(boxes.rubric().weights) == ["correct", "box_dual"]
    assert [source.spec for source in spatial.data.train] == ["stickers/spatial20"]
    assert runs[2].trained_by == runs[2]
    assert parse(TableRecipe, recipe.resolved_yaml()) == recipe


def test_with_a_temperature_each_seed_is_a_sampling_of_its_own():
    recipe = parse(TableRecipe, SERVED, ["seeds=[1, 2]", "eval={temperature: 0.7}"])
    assert [(run.way.value, run.seed) for run in recipe.runs(recipe.models[0])] == [
        ("direct", 1), ("grounded", 1), ("direct", 2), ("grounded", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [SERVED, TRAINED])
def test_a_resolved_recipe_loads_as_an_equal_one(text):
    recipe = parse(TableRecipe, text)
    again = parse(TableRecipe, recipe.resolved_yaml())
    assert again == recipe
    assert again.resolved_yaml() == recipe.resolved_yaml()


@pytest.mark.parametrize(
    "name", ["table-stickers", "table-compose", "table-drift", "table-asking", "table-count-ablation"]
)
def test_the_recipes_that_come_with_the_project_are_possible(name):
    assert load_table_recipe(name).models


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (TRAINED, "way=[grit]", "way is not a key of this recipe; did you mean ways"),
        (TRAINED, "ways=[grit, sfd]", "ways.1: input should be 'direct'"),
        (TRAINED, "ways=[grit, grit]", "each entry may occur once, grit occurs twice"),
        (TRAINED, "seeds=[]", "needs at least one entry, has none"),
        (TRAINED, "seeds=[true]", "seeds.0: this key takes no true or false"),
        (TRAINED, "train.seed=3", "seeds lists the seeds, seed is 3 here"),
        (TRAINED, "sft.seed=3", "seeds lists the seeds, seed is 3 here"),
        (
            TRAINED,
            "ways=[direct, blind]",
            "blind ask the model that grit trains, ways leaves grit out; add grit",
        ),
        (TRAINED, "objectives={grit: {}}", "needs a new name of .*got 'grit'; rename"),
        (
            TRAINED,
            "objectives={kl: {train: {beta: -1}}}",
            r"objectives\.kl\.train\.beta: .*greater than or equal to 0",
        ),
        (TRAINED, "objectives={again: {rewards: {hidden: 1}}}", "add asking_again"),
        (TRAINED, "objectives={kl: {train: {seed: 1}}}", r"objectives\.kl\.train has one too"),
        (
            TRAINED,
            "train_data=[]",
            "sft, grpo-answer, grpo-random, grit learn from rows, train_data names none",
        ),
        (TRAINED, "eval.strategy=direct", "ways names the prompts, eval.strategy is direct too"),
        (TRAINED, "models=[a/b, a-b]", "two would be a-b; give one of them another label"),
        (SERVED, "ways=[direct, grit]", "grit learn from rows, train_data names none"),
    ],
)
def test_an_impossible_table_is_refused_with_a_remedy(text, change, message):
    with pytest.raises(RecipeError, match=message):
        parse(TableRecipe, text, [change])


def test_a_served_model_is_not_trained():
    with pytest.raises(RecipeError, match="grit train weights, toy is behind an endpoint"):
        parse(TableRecipe, SERVED, ["ways=[grit]", "train_data=[stickers/train20]"])


# -- numbers ---------------------------------------------------------------------------------------------------------

LEFT, RIGHT = Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0)


def example(number: int, answer: str, **changed) -> Example:
    made = Example(
        id=str(number), question="Is it?", answer=answer, image="p.png", dataset="vsr", picture_size=Size(100, 100),
        boxes=(LEFT,),
    )  # fmt: skip
    return replace(made, **changed)


def record(asked: Example, answer: str, box: Box | None, **changed):
    where = (
        ""
        if box is None
        else json.dumps({"bbox_2d": [round(1000 * v) for v in (box.left, box.top, box.right, box.bottom)]})
    )
    text = f"<think>{where}</think><rethink>so</rethink><answer>{answer}</answer>"
    protocol = EvaluationProtocol("grounded", "thousand", RuleJudge(), Rubric.named("paper"))
    given = Sampled(Completion(text, finish=Finish.STOP), (), Size(100, 100))
    return replace(read(asked, given, protocol=protocol, sample=0), **changed)


def four(answers: str, boxes: list[Box | None]):
    """Records of the four questions: "y" and "n" are what was answered (Yes, Yes, No, No would be right)."""
    words = {"y": "Yes", "n": "No"}
    return [record(e, words[a], b) for e, a, b in zip(QUESTIONS, answers, boxes, strict=True)]


QUESTIONS = [example(1, "Yes"), example(2, "Yes"), example(3, "No"), example(4, "No")]


def small_table(**ways) -> TableResult:
    recipe = parse(TableRecipe, TRAINED, ["seeds=[0, 1]", "models=[toy]", "data=[mine.jsonl]"])
    named = {Way(name.replace("_", "-")): runs for name, runs in ways.items()}
    return measure(recipe, [ModelRecords("toy", named)], {"mine.jsonl": QUESTIONS})


def by_hand() -> TableResult:
    return small_table(
        grounded={0: four("yyyy", [None] * 4)},  # 2 of 4 right, no box
        grit={
            0: four("yynn", [LEFT] * 4),  # all right, IoU 1
            1: four("yynn", [LEFT, LEFT, RIGHT, RIGHT]),  # all right, IoU 1, 1, 0, 0
        },
    )


def test_necessity_sufficiency_and_alarms_are_those_of_the_runs():
    recipe = parse(TableRecipe, TRAINED, ["seeds=[0]", "models=[toy]", "data=[mine.jsonl]", "probe=true"])
    assert [w.value for w in recipe.all_ways if not recipe.is_probed(w)] == [
        "direct",
        "direct-after",
        "blind",
    ]
    answers = {way: four("yynn", [LEFT] * 4) for way in (Way.GRIT, Way.SFT)}

    def tried(way: Way, occlude: str, keep: str, shuffle: str) -> list[Trial]:
        under = zip(*(four(text, [LEFT] * 4) for text in (occlude, keep, shuffle)), strict=True)
        return [Trial(a, dict(zip(Probe, u, strict=True))) for a, u in zip(answers[way], under, strict=True)]

    trials = {
        Way.GRIT: {0: tried(Way.GRIT, "nnyn", "yynn", "nynn")},  # 3 change, all stay, 1 changes by chance
        Way.SFT: {0: tried(Way.SFT, "yynn", "nynn", "yynn")},  # none changes, 3 stay, none
    }
    alarm = Alarm(7, Kind.DRIFT, "boxes drift")
    trainings = {
        Way.GRIT: {0: Training((alarm, replace(alarm, step=9)), 1.5)},
        Way.SFT: {0: Training((), None)},
    }
    by_seed = {way: {0: records} for way, records in answers.items()}
    table = measure(recipe, [ModelRecords("toy", by_seed, trials, trainings)], {"mine.jsonl": QUESTIONS})
    rows = {key: row["value"] for key, row in rows_of(table).items()}
    assert float(rows["grit", "pooled", "necessity"]) == 0.5  # 3/4 - 1/4
    assert float(rows["grit", "0", "sufficiency"]) == 1.0
    assert float(rows["sft", "pooled", "necessity"]) == 0.0
    assert float(rows["grit-minus-sft", "pooled", "sufficiency"]) == 0.25
    assert (rows["grit", "0", "alarms"], rows["sft", "0", "alarms"]) == ("2", "0")
    assert rows["grit", "0", "alarm/boxes drift"] == "7"
    assert "necessity, % | sufficiency, %" in markdown(table)
    assert "Alarms in training: grit seed 0: boxes drift." in markdown(table)
    assert "Alarms in training: grit seed 0: boxes drift." in html(table)
    assert "necessity" not in markdown(by_hand())  # nothing was probed


def rows_of(table: TableResult) -> dict[tuple[str, str, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO(csv_text(table)))
    return {(row["way"], row["seed"], row["quantity"]): row for row in rows}


def test_the_numbers_are_those_that_arithmetic_gives():
    rows = rows_of(by_hand())

    def value(way: str, seed: str, quantity: str) -> float:
        return float(rows[way, seed, quantity]["value"])

    assert value("grounded", "pooled", "accuracy") == 0.5
    assert value("grounded", "pooled", "grounding_iou") == 0.0
    assert value("grit", "0", "accuracy") == value("grit", "1", "accuracy") == 1.0
    assert value("grit", "0", "grounding_iou") == 1.0
    assert value("grit", "1", "grounding_iou") == 0.5
    assert value("grit", "pooled", "grounding_iou") == 0.75  # (1 + 1 + 1/2 + 1/2) / 4
    assert value("grit", "pooled", "box_f1") == 0.75
    assert value("grit", "pooled", "follows_format") == 1.0
    assert value("grounded", "pooled", "follows_format") == 0.0  # its thought names no box
    assert value("control", "pooled", "majority_answer") == 0.5
    assert value("control", "pooled", "whole_picture_iou") == 0.5
    assert value("grit-minus-grounded", "pooled", "accuracy") == 0.5
    assert value("grit-minus-grounded", "pooled", "grounding_iou") == 0.75
    assert rows["grit", "pooled", "accuracy"]["n"] == "4"
    # Two answers turned right, none wrong: two-sided p = 2 x (1/2)^2. Each seed is tested against the only run.
    for seed in ("0", "1"):
        assert value("grit-minus-grounded", seed, "mcnemar_p") == 0.5
        assert rows["grit-minus-grounded", seed, "mcnemar_p"]["n"] == "2"


def test_a_failed_rollout_is_counted_and_is_no_wrong_answer():
    protocol = EvaluationProtocol("grounded", "thousand", RuleJudge(), Rubric.named("paper"))
    failed = read(QUESTIONS[3], Unsampled("the endpoint is down"), protocol=protocol, sample=0)
    table = small_table(grit={0: [*four("yynn", [LEFT] * 4)[:3], failed]})
    rows = rows_of(table)
    assert (rows["grit", "pooled", "accuracy"]["value"], rows["grit", "pooled", "accuracy"]["n"]) == (
        "1.0",
        "3",
    )
    assert (rows["grit", "pooled", "failed"]["value"], rows["grit", "pooled", "failed"]["n"]) == ("1", "4")
    assert "grit 1 of 4" in markdown(table)
    assert "grit 1 of 4" in html(table)


def test_the_words_say_who_wins_and_where_nothing_is_shown():
    many = [example(i, "Yes" if i % 2 else "No", id=str(i)) for i in range(40)]
    recipe = parse(TableRecipe, TRAINED, ["models=[toy]", "data=[mine.jsonl]"])

    def answered(share_right: float, box: Box | None):
        wrong = {"Yes": "No", "No": "Yes"}
        return {
            0: [
                record(e, e.answer if i < share_right * 40 else wrong[e.answer], box)
                for i, e in enumerate(many)
            ]
        }

    ways = {
        Way.DIRECT: answered(1.0, None),
        Way.GROUNDED: answered(0.25, LEFT),
        Way.SFT: answered(0.75, RIGHT),
        Way.GRIT: answered(0.75, LEFT),
    }
    accuracy, iou = findings(measure(recipe, [ModelRecords("toy", ways)], {"mine.jsonl": many}))
    assert accuracy.startswith("toy on mine.jsonl, accuracy: grit has 75.0 % (n = 40).")
    assert re.search(r"It beats grounded \(\+50\.0 points, \+3\d\.\d to \+6\d\.\d\)\.", accuracy)
    assert re.search(r"It loses to direct \(-25\.0 points, -3\d\.\d to -1\d\.\d\)\.", accuracy)
    assert "No difference is shown against sft (0.0 points, 0.0 to 0.0)." in accuracy
    assert "It lies above the most frequent answer" in accuracy
    assert iou.startswith("toy on mine.jsonl, union IoU: grit has 1.000 (n = 40).")
    assert "It beats sft (+1.000, +1.000 to +1.000)." in iou
    assert "No difference is shown against grounded" in iou
    assert "direct asks for no boxes" in iou


def test_without_grit_there_is_a_table_and_nothing_is_compared():
    table = small_table(grounded={0: four("yyyy", [None] * 4)})
    assert findings(table) == []
    assert "minus the others" not in markdown(table) + html(table)


def test_the_table_stands_in_four_files_and_names_are_escaped():
    hostile = "<script>alert(1)</script>|_&"
    table = by_hand()
    table = replace(table, blocks=tuple(replace(b, model=hostile) for b in table.blocks))
    page = html(table)
    assert "<script>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert r"\<script\>alert(1)\</script\>\|\_&" in markdown(table)
    assert r"<script>alert(1)</script>|\_\&" in latex(table)
    assert next(csv.DictReader(io.StringIO(csv_text(table))))["model"] == hostile
    cells = [line.count("|") for line in markdown(by_hand()).splitlines() if line.startswith("| **")]
    assert len(set(cells)) == 1
    assert latex(by_hand()).count("{") == latex(by_hand()).count("}")


def test_mme_and_pope_get_their_own_quantities():
    recipe = parse(TableRecipe, TRAINED, ["models=[toy]", "data=[mme.jsonl, pope.jsonl]", "ways=[grit]"])
    mme = [
        example(i, a, dataset="mme_existence", image=f"{i // 2}.png", id=f"m{i}")
        for i, a in enumerate(["Yes", "No"] * 2)
    ]
    pope = [example(i, a, dataset="pope", id=f"p{i}") for i, a in enumerate(["Yes", "No", "Yes", "No"])]
    # Each second No is answered Yes: of two pictures one has both right; three say yes, two of them rightly.
    answers = ["Yes", "No", "Yes", "Yes"]
    given = [record(e, a, None) for e, a in zip(mme + pope, answers * 2, strict=True)]
    table = measure(
        recipe, [ModelRecords("toy", {Way.GRIT: {0: given}})], {"mme.jsonl": mme, "pope.jsonl": pope}
    )
    rows = {(r["data"], r["quantity"]): r["value"] for r in csv.DictReader(io.StringIO(csv_text(table)))}
    assert float(rows["mme.jsonl", "accuracy_plus/mme_existence"]) == 0.5
    assert float(rows["pope.jsonl", "yes_share"]) == 0.75
    assert float(rows["pope.jsonl", "yes_f1"]) == 0.8  # precision 2/3, recall 1
    assert ("pope.jsonl", "accuracy_plus/mme_existence") not in rows


# -- refusals --------------------------------------------------------------------------------------------------------


def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    out = tmp_path / "table"
    good = parse(TableRecipe, SERVED)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="a table is made by one process, 2 were launched"):
        run_table(good, out)
    monkeypatch.delenv("WORLD_SIZE")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError):
        run_table(parse(TableRecipe, SERVED, [f"data=[{tmp_path / 'empty.jsonl'}]"]), out)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("")
    with pytest.raises(RunError, match="a new run needs a new folder"):
        run_table(good, out)


def test_sets_in_files_of_one_name_are_refused_before_anything_is_written(tmp_path):
    files = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        files.append(tmp_path / place / "test.jsonl")
        write(tiny_random.examples(tmp_path / place, 2), files[-1], images=tmp_path / place)
    wanted = parse(TableRecipe, SERVED, [f"data=[{files[0]}, {files[1]}]"])
    with pytest.raises(DataError, match="ids are unique in one run, 'test:1' occurs more than once"):
        run_table(wanted, tmp_path / "table")
    assert not (tmp_path / "table").exists()


@pytest.mark.slow
def test_a_training_that_cannot_be_is_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "table"
    with pytest.raises(RecipeError, match="all seeds give the same model; lower rows_per_step"):
        run_table(parse(TableRecipe, TRAINED, ["sft.rows_per_step=20", "ways=[sft]"]), out)
    with pytest.raises(RecipeError, match="questions_per_step is 21"):
        run_table(parse(TableRecipe, TRAINED, ["train.questions_per_step=21", "ways=[grit]"]), out)
    assert not out.exists()


# -- kills -----------------------------------------------------------------------------------------------------------

KILLS = 10
LIMIT = 5


class Answerer:
    """Answers by a digest of what it is asked, so that the same question gets the same answer; counts, and kills."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.kill_at: int | None = None  # how many more questions the process gets to ask
        self.reply_first = False
        self.process: Running | None = None
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Said:
        question = json.dumps(request.body, sort_keys=True)
        digest = hashlib.sha256(question.encode()).digest()
        with self._lock:
            self.seen[question] += 1
            if self.kill_at is not None:
                self.kill_at -= 1
                if self.kill_at == 0 and self.process is not None:
                    if self.reply_first:
                        threading.Thread(target=os.kill, args=(self.process.pid, signal.SIGKILL)).start()
                    else:
                        os.kill(self.process.pid, signal.SIGKILL)
        left, top = digest[0], digest[1]
        boxes = f'{{"bbox_2d": [{left}, {top}, {left + 500}, {top + 500}]}}' if digest[2] % 4 else ""
        answer = ("Yes", "No", str(digest[3] % 6), "cup")[digest[4] % 4]
        return Said(f"<think>{boxes}</think><rethink>so</rethink><answer>{answer}</answer>")


def served_recipe(folder: Path, url: str) -> Path:
    recipe = {
        "models": [{"name": "toy", "endpoint": {"url": url, "frame": "thousand"}}],
        "data": ["stickers/count", "stickers/spatial"],
        "ways": ["direct", "grounded", "grounded-icl"],
        "seeds": [0, 1],
        "eval": {"temperature": 0.5, "batch_size": 1, "max_completion_length": 50},
        "limit": LIMIT,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def start(recipe: Path, out: Path) -> Running:
    return command("table", recipe, "--out", out, "--quiet", environment={"OPENAI_API_KEY": "none"})


def files(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in NAMES}


@pytest.mark.slow
def test_a_table_killed_ten_times_ends_as_if_it_had_not_been_and_asks_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    questions = 2 * LIMIT * 3 * 2  # data sets, rows, ways, seeds: 60
    generator = random.Random(2505)
    answer = Answerer()
    with endpoint_stub(answer) as stub:
        recipe = served_recipe(tmp_path, stub.url)
        whole = tmp_path / "whole"
        run_table(load_table_recipe(recipe), whole, quiet=True)
        assert set(answer.seen.values()) == {1}
        assert len(answer.seen) == questions
        asked_once = set(answer.seen)

        killed = tmp_path / "killed"
        answer.seen.clear()
        for _ in range(KILLS):
            answer.kill_at = generator.randint(1, questions // KILLS - 1)
            answer.reply_first = generator.random() < 0.5
            answer.process = None
            with answer._lock:  # no question is answered before the process is known
                answer.process = start(recipe, killed)
            assert answer.process.code() == -signal.SIGKILL, answer.process.said
        answer.kill_at = None
        assert not (killed / "table.html").exists()
        last = start(recipe, killed)
        assert last.code() == 0, last.said
        assert set(answer.seen) == asked_once
        assert sum(answer.seen.values()) <= questions + KILLS  # at most one repeat a kill
        assert files(killed) == files(whole)

        answer.seen.clear()
        run_table(load_table_recipe(recipe), killed, quiet=True)
        assert not answer.seen  # a finished table asks nothing
        assert files(killed) == files(whole)


@pytest.mark.slow
def test_two_tables_do_not_work_in_one_folder(tmp_path):
    asked, release = threading.Event(), threading.Event()

    def answer(request: Request) -> Said:
        asked.set()
        assert release.wait(timeout=300)
        return Said("<answer>Yes</answer>")

    with endpoint_stub(answer) as stub:
        recipe = served_recipe(tmp_path, stub.url)
        first = start(recipe, tmp_path / "table")
        try:
            assert asked.wait(timeout=300)
            second = CliRunner().invoke(app, ["table", str(recipe), "--out", str(tmp_path / "table")])
            assert second.exit_code == 2
            assert "only one process at a time makes a table" in second.stderr
        finally:
            first.process.kill()
            first.code()
            release.set()


def test_questions_that_failed_are_counted_and_asked_again_alone(tmp_path):
    answer, down = Answerer(), threading.Event()

    def sometimes(request: Request) -> Said:
        said = answer(request)
        return Said("no", status=400) if down.is_set() and "shelf" in request.text else said

    with endpoint_stub(sometimes) as stub:
        command = ["table", str(served_recipe(tmp_path, stub.url)), "--quiet", "--set", "seeds=[0]"]
        environment = {"OPENAI_API_KEY": "none"}
        whole = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "whole")], env=environment)
        assert whole.exit_code == 0, whole.stderr
        failing = {q for q in answer.seen if "shelf" in q}  # the worked example's word
        assert failing
        assert len(failing) < len(answer.seen)
        down.set()
        out = [*command, "--out", str(tmp_path / "table")]
        first = CliRunner().invoke(app, out, env=environment)
        assert first.exit_code == 0, first.stderr
        assert (
            f"{len(failing)} rollouts failed and are left out; the same command asks them again"
            in first.stderr
        )
        down.clear()
        answer.seen.clear()
        second = CliRunner().invoke(app, out, env=environment)
        assert second.exit_code == 0, second.stderr
        assert set(answer.seen) == failing
        assert files(tmp_path / "table") == files(tmp_path / "whole")


# -- the whole of it -------------------------------------------------------------------------------------------------


@pytest.mark.trains
@pytest.mark.slow
def test_every_way_is_trained_asked_and_gone_on_with(tmp_path):
    recipe = parse(
        TableRecipe,
        TRAINED,
        [
            "limit=2",
            "seeds=[0]",
            "train={bf16: false, max_steps: 2, num_generations: 2, questions_per_step: 2, save_steps: 1, beta: 0, "
            "per_device_train_batch_size: 4, max_completion_length: 40, gradient_checkpointing: false}",
            "sft={bf16: false, max_steps: 2, save_steps: 1, gradient_checkpointing: false}",
            "eval.max_completion_length=60",
            "objectives={kl: {train: {beta: 0.04}}}",
            "probe=true",
        ],
    )
    out = tmp_path / "table"
    run_table(recipe, out, quiet=True)
    before = files(out)
    probed = sorted(p.parent.parent.parent.name for p in out.glob("runs/*/*/*/probe/records.jsonl"))
    assert probed == ["grit", "grounded", "grounded-icl", "grpo-answer", "grpo-random", "kl", "sft"]
    table_so_far(recipe, out)
    assert files(out) == before
    trained = sorted(str(p.parent.relative_to(out / "runs")) for p in out.glob("runs/*/*/*/train/final"))
    assert trained == [
        f"tiny-qwen2.5-vl/{way}/seed-0/train" for way in ("grit", "grpo-answer", "grpo-random", "kl", "sft")
    ]
    evaluated = list(out.glob("runs/*/*/*/eval/records.jsonl"))
    assert len(evaluated) == 10
    for path in evaluated:
        assert len(path.read_text().splitlines()) == 4
    # As after a crash behind the first checkpoint of one training, before any of its questions.
    here = out / "runs" / "tiny-qwen2.5-vl" / "grit" / "seed-0"
    (here / "eval").rename(tmp_path / "eval")
    (here / "train" / "final").rename(tmp_path / "final")
    (here / "train" / "checkpoints" / "step-000002").rename(tmp_path / "step")
    asked = {path: path.read_bytes() for path in evaluated if path.is_file()}
    so_far = table_so_far(recipe, out)  # as a table in the making is looked at: without grit's seed
    assert "grit" not in {result.way for block in so_far.blocks for result in block.ways}
    run_table(recipe, out, quiet=True)
    steps = [json.loads(line)["step"] for line in (here / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2]
    assert files(out) == before
    assert {path: path.read_bytes() for path in asked} == asked


SMALL = """
models: [tiny-qwen2.5-vl]
data: [stickers/count]
train_data: [stickers/train20]
ways: [grit]
seeds: [0]
limit: 1
train: {bf16: false, max_steps: 3, num_generations: 2, questions_per_step: 1, save_steps: 1, beta: 0,
  per_device_train_batch_size: 2, max_completion_length: 16, gradient_checkpointing: false}
eval: {max_completion_length: 16}
"""


@pytest.mark.trains
def test_a_table_continues_after_a_signal_a_damaged_checkpoint_and_another_version(tmp_path):
    (tmp_path / "recipe.yaml").write_text(SMALL)
    words = ("table", tmp_path / "recipe.yaml", "--out", tmp_path / "table", "--quiet")
    stopped = command(*words, before=at(Moment("loss", 1, 10), terminate))
    assert stopped.code() == 143, stopped.said
    *_, last = stopped.said.splitlines()
    assert last.startswith("[1/1] ")
    assert last.endswith(": stopped by SIGTERM after step 2 of 3; the same command continues the table")
    training = tmp_path / "table" / "runs" / "tiny-qwen2.5-vl" / "grit" / "seed-0" / "train"
    first, second = RunDir.open(training).checkpoints()

    account = json.loads((first / SIDECAR).read_text())
    (first / SIDECAR).write_text(json.dumps(account | {"packages": account["packages"] | {"torch": "1.0"}}))
    other = command(*words, "--set", "limit=2")
    assert other.code() == 2
    assert "limit: 1 then, 2 now" in other.said
    assert "--resume-anyway" not in other.said  # which does not take another table

    (second / "optimizer.pt").write_bytes(b"")
    refused = command(*words)
    assert refused.code() == 2, refused.said
    assert "torch: 1.0 then" in refused.said
    assert "--resume-anyway" in refused.said
    assert second.is_dir()
    ends = command(*words, "--resume-anyway")
    assert ends.code() == 0, ends.said
    assert f"{second} is damaged (optimizer.pt has 0 bytes" in ends.said
    assert [path.name for path in RunDir.open(training).checkpoints()] == [
        "step-000001", "step-000002", "step-000003",
    ]  # fmt: skip
    assert second.with_name("step-000002.set-aside-1").is_dir()
    assert (tmp_path / "table" / "table.html").is_file()


def test_a_table_of_which_a_training_has_no_undamaged_checkpoint_says_which_folder_to_move(tmp_path):
    wanted = parse(TableRecipe, SMALL)
    (run,) = wanted.runs(wanted.models[0])
    training = tmp_path / "table" / run.folder / "train"
    RunDir.create(training, recipe=wanted.grpo(run).resolved_yaml())
    damaged = training / "checkpoints" / "step-000001"
    damaged.mkdir(parents=True)
    (damaged / SIDECAR).write_text("{")
    (tmp_path / "table" / "recipe.yaml").write_text(wanted.resolved_yaml())
    with pytest.raises(RunError, match=f"all in {training} are damaged .*move that folder away"):
        run_table(wanted, tmp_path / "table", quiet=True)


def test_more_training_rows_hold_the_fewer_in_grits_mix_and_show_no_packaged_scene(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import more_rows
    from opengrit.data import load_examples, stickers
    from opengrit.data.stickers import sets

    few, many = more_rows.more_rows(20), more_rows.more_rows(60)
    assert tuple(few) == sets.asked("train20")
    assert many[:20] == few
    others = {asked.scene.fingerprint() for name in stickers.SET_NAMES for asked in sets.asked(name)}
    new = [asked.scene.fingerprint() for asked in many[20:]]
    assert len(set(new)) == 40
    assert not others & set(new)
    # Of each twenty rows ten count, with the answers 0 to 4 twice each, and five ask for a yes or a no.
    for start in (20, 40):
        answers = [asked.answer for asked in many[start : start + 20]]
        assert sorted(a for a in answers if a.isdigit()) == sorted("0123401234")
        assert sum(a in ("Yes", "No") for a in answers) == 5
    path = more_rows.write_rows(40, tmp_path)
    written = load_examples(str(path), str(tmp_path / "images"))
    assert [e.question for e in written] == [asked.question for asked in many[:40]]
    assert [len(e.boxes) for e in written] == [len(asked.pointed) for asked in many[:40]]

"""A prompt of a user's own and a system text: one wording in training, evaluation, asking and serving."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_random
import yaml
from endpoint_stub import Said, endpoint_stub
from small_runs import small_recipe
from typer.testing import CliRunner

from opengrit import Grounder, load_recipe
from opengrit.cli.app import app
from opengrit.core.errors import RecipeError, RunError
from opengrit.core.types import Completion
from opengrit.evaluation.rollout import EvaluationProtocol, ask
from opengrit.grounding.frames import Frame
from opengrit.grounding.own_prompts import OwnPrompt
from opengrit.grounding.prompts import AskedFor, asked_for, strategy_named, user_text
from opengrit.grounding.transcribing import transcribe
from opengrit.judges import RuleJudge
from opengrit.recipes.training_recipe import parse_recipe
from opengrit.rewards import Rubric
from opengrit.runs.folder import RunDir
from opengrit.serving.app import ServeSettings, build_app
from opengrit.serving.local import LocalEngine
from opengrit.training.run import train
from serving import MODEL, grounder, running, scenes

SYSTEM = "You look before you answer."
BASE = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"
TEXT = 'Look closely. {question} Name boxes {"bbox_2d": [...]} inside <think></think>, then <answer>.\n'


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.txt"
    path.write_text(TEXT)
    return path


# -- what a prompt is ---------------------------------------------------------------------------------------------


def test_a_text_file_takes_the_question_where_it_says_and_a_function_makes_the_turn(prompt, tmp_path):
    assert user_text(str(prompt), "How many?") == TEXT.replace("{question}", "How many?")
    (tmp_path / "p.py").write_text("def loud(question):\n    return question.upper() + '!'\n")
    assert user_text(f"{tmp_path / 'p.py'}:loud", "how?") == "HOW?!"


def test_a_recipes_prompt_lies_beside_it_and_is_read_once(prompt):
    (prompt.parent / "recipe.yaml").write_text(BASE + "strategy: prompt.txt\n")
    recipe = load_recipe(prompt.parent / "recipe.yaml")
    assert "strategy: prompt.txt" in recipe.resolved_yaml()
    protocol = EvaluationProtocol(recipe.strategy, "internvl", RuleJudge(), Rubric.named("paper"))
    prompt.write_text("Changed. {question}")
    (example, *_) = tiny_random.examples(prompt.parent, 1)
    assert ask(example, protocol=protocol).text == TEXT.replace("{question}", example.question)


@pytest.mark.parametrize(
    ("strategy", "code", "message"),
    [
        ("p.txt", "no place for it", r"a prompt's text holds \{question\}, .*p\.txt does not"),
        ("p.py:f", "def f(question):\n    return 1 / 0", r"ZeroDivisionError .*fix .*p\.py:2"),
        ("p.py:f", "def f(question):\n    return 7", r"returned 7 .*fix .*p\.py:1"),
        ("p.py:f", "def f(question):\n    exit()", r"SystemExit .*fix .*p\.py:2"),
        ("p.py:f", "async def f(question):\n    return question", r"write it without async .*p\.py:1"),
        ("gone.txt", "", r"names .*gone\.txt, which is not a file"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused(tmp_path, strategy, code, message):
    (tmp_path / strategy.partition(":")[0].replace("gone", "other")).write_text(code)
    with pytest.raises(RecipeError, match=message):
        strategy_named(f"{tmp_path}/{strategy}")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [("prompt.py", r"a \.txt file with \{question\} in it, got 'prompt.py'"), ("grouned", "'grounded'")],
)
def test_a_strategy_that_is_written_wrongly_is_refused_with_its_line(strategy, message):
    with pytest.raises(RecipeError, match=rf"recipe:3: strategy: .*{message}"):
        parse_recipe(BASE + f"strategy: {strategy}\n")


def test_what_a_prompt_asks_for_decides_whether_a_bare_text_is_the_answer(prompt, tmp_path):
    (tmp_path / "bare.txt").write_text("{question} One word.")
    frame = Frame.for_model_type("internvl", seen_size=tiny_random.Size(10, 10))
    bare = OwnPrompt.read(strategy_named(f"{tmp_path / 'bare.txt'}"))
    assert asked_for(str(prompt)) == AskedFor(answer_tag=True, boxes=True)
    assert asked_for(bare) == AskedFor(answer_tag=False, boxes=False)
    assert asked_for(bare, system="Write <answer>.") == AskedFor(answer_tag=True, boxes=False)
    for strategy, system, answer in (
        (bare, None, "two"),
        (bare, "<answer>", None),
        (str(prompt), None, None),
    ):
        assert transcribe(Completion("two"), strategy=strategy, frame=frame, system=system).answer == answer


# -- the same in every command ------------------------------------------------------------------------------------


def test_asking_and_serving_put_the_question_the_same_way(prompt):
    scene = scenes()[0]
    plain = grounder()
    own = Grounder(plain.sampler, frame=plain.frame, strategy=str(prompt), system=SYSTEM, model=MODEL)
    expected = own.ask(scene.png, scene.question)
    wanted = plain.sampler.vlm.processor.tokenizer(SYSTEM, add_special_tokens=False)["input_ids"]
    read = list(plain.sampler.last_prompts[0].ids)
    assert any(read[i : i + len(wanted)] == wanted for i in range(len(read)))
    engine = LocalEngine(plain, name=MODEL)
    settings = ServeSettings(strategy=strategy_named(str(prompt)), system=SYSTEM)
    with (
        running(build_app({MODEL: engine}, settings, page=False), {MODEL: engine}) as server,
        server.client() as client,
    ):
        body = {"image": scene.uri, "question": scene.question}
        given = client.post("/v1/ground", json=body).json()
        named = client.post("/v1/ground", json=body | {"strategy": "grounded"}).json()
        refused = client.post("/v1/ground", json=body | {"strategy": str(prompt)})
    assert given["transcript"] == expected.text
    assert given["prompt_tokens"] == expected.prompt_tokens
    assert named["prompt_tokens"] != given["prompt_tokens"]
    assert refused.status_code == 400  # a request names no file of the server


def test_an_endpoint_gets_a_system_turn_and_the_prompt(prompt):
    seen = []

    def answer(request):
        seen.append(request.body["messages"])
        return Said("<answer>2</answer>")

    with endpoint_stub(answer) as stub:
        asked = Grounder.load(stub.url, model="m", frame="internvl", strategy=str(prompt), system=SYSTEM)
        asked.ask(scenes()[0].png, "How many?")
    (system, user) = seen[0]
    assert system == {"role": "system", "content": SYSTEM}
    assert user["content"][1]["text"] == TEXT.replace("{question}", "How many?")


def test_ask_evaluate_and_train_take_them_and_a_run_resumes_with_the_same_prompt_only(tmp_path):
    path = small_recipe(tmp_path, max_steps=2, save_steps=1, eval_steps=None)
    (tmp_path / "prompt.txt").write_text("{question} Answer behind <answer>.")
    values = yaml.safe_load(path.read_text()) | {"strategy": "prompt.txt", "system": SYSTEM}
    path.write_text(yaml.safe_dump(values))
    out = tmp_path / "run"
    train(load_recipe(path), out, quiet=True)
    assert {record.strategy for record in RunDir.open(out).records()} == {"prompt.txt"}
    assert (out / "own_code" / "prompt.txt").is_file()
    card = (out / "final" / "README.md").read_text()
    assert SYSTEM in card
    assert "{question} Answer behind <answer>." in card
    picture = str(next((tmp_path / "pictures").iterdir()))
    own = [
        "--strategy",
        str(out / "own_code" / "prompt.txt"),
        "--system",
        SYSTEM,
        "--quiet",
        "--max-new-tokens",
        "4",
    ]
    runner = CliRunner()
    asked = runner.invoke(
        app, ["ask", picture, "How many?", "--model", str(out), "--json", *own], catch_exceptions=False
    )
    assert asked.exit_code == 0, asked.output
    data = ["--data", str(tmp_path / "rows.jsonl"), "--images", str(tmp_path / "pictures"), "--limit", "1"]
    done = runner.invoke(
        app,
        ["eval", "--model", str(out), *data, "--out", str(tmp_path / "eval"), *own],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    written = yaml.safe_load((tmp_path / "eval" / "recipe.yaml").read_text())["evaluate"]
    assert written["system"] == SYSTEM
    shutil.rmtree(out / "final")
    shutil.rmtree(out / "checkpoints" / "step-000002")
    (tmp_path / "prompt.txt").write_text("{question} Answer.")
    with pytest.raises(RunError, match=r"own code: prompt\.txt: SHA-256"):
        train(load_recipe(path), out, resume=True, quiet=True)

"""Several processes answer as one does, and an evaluation that lost one resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, chdir
from pathlib import Path

import pytest
from endpoint_stub import Said, endpoint_stub
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.errors import ModelError, RecipeError, RunError
from opengrit.data import load_examples
from opengrit.evaluation.evaluator import evaluate
from opengrit.evaluation.processes import open_samplers
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.evaluation.run import run_evaluation
from opengrit.judges import RuleJudge
from opengrit.recipes.asking import Eval
from opengrit.recipes.data_section import Source
from opengrit.recipes.evaluation_recipe import EvalRecipe, Served
from opengrit.recipes.model_section import Model
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import RunDir
from opengrit.sampling import Asked, SamplingSettings, Unsampled

MODEL = Model(name="tiny-qwen2.5-vl")
PROTOCOL = EvaluationProtocol("grounded", "qwen2_5_vl", RuleJudge(), Rubric.named("paper"))
SHORT = SamplingSettings(temperature=0, max_new_tokens=40)

pytestmark = pytest.mark.slow


def recipe(**more) -> EvalRecipe:
    how = {"max_completion_length": 40, "batch_size": 3} | more
    return EvalRecipe(model=MODEL, data=(Source(name="stickers/count"),), limit=12, eval=Eval(**how), seed=7)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "samples": 2}])
def test_two_processes_write_the_records_that_one_writes(sampling, tmp_path):
    _, alone = run_evaluation(recipe(**sampling), tmp_path / "one", quiet=True)
    run, together = run_evaluation(recipe(**sampling), tmp_path / "two", num_processes=2, quiet=True)
    assert len(together) == 12 * sampling.get("samples", 1)
    assert len({record.completion.text for record in together}) > 3
    assert together == alone
    assert (tmp_path / "two" / "records.jsonl").read_bytes() == (
        tmp_path / "one" / "records.jsonl"
    ).read_bytes()
    again = run_evaluation(recipe(**sampling), run.path, num_processes=2, quiet=True)[1]
    assert again == together


def test_every_process_answers_some_of_the_questions():
    seen = []

    class Noting:
        def __init__(self, inner):
            self.inner = inner

        def sample(self, questions, **how):
            seen.append((self.inner.pid, len(questions)))
            return self.inner.sample(questions, **how)

    with open_samplers(MODEL.model_dump(), count=2) as samplers:
        first, second = [Noting(one) for one in samplers]
        examples = load_examples("stickers/count")[:4]
        evaluate(first, examples, protocol=PROTOCOL, settings=SHORT, more_samplers=[second], quiet=True)
        pids = {one.pid for one in samplers}
    # Two batches for two processes, though one batch of 16 would hold all; which takes which is theirs.
    assert Counter(count for _, count in seen) == {2: 2}
    assert {pid for pid, _ in seen} <= pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_evaluation_that_loses_a_process_keeps_what_the_others_answered_and_goes_on(tmp_path):
    examples = load_examples("stickers/count")[:12]
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    with open_samplers(MODEL.model_dump(), count=2) as samplers:
        first, second = samplers
        os.kill(second.pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"process 2 of 2 was ended by SIGKILL.*same command again"):
            evaluate(
                first,
                examples,
                protocol=PROTOCOL,
                settings=SHORT,
                run=run,
                questions_per_batch=2,
                more_samplers=[second],
                quiet=True,
            )
        kept = [record.example.id for record in run.records()]
        assert kept == [e.id for e in examples if e.id in kept]
        assert len(kept) < 12

        asked = []

        class Noting:
            def sample(self, questions, **how):
                asked.extend(question.id for question in questions)
                return first.sample(questions, **how)

        records = evaluate(Noting(), examples, protocol=PROTOCOL, settings=SHORT, run=run, quiet=True)
    assert asked == [e.id for e in examples if e.id not in kept]
    assert [record.example.id for record in records] == [e.id for e in examples]
    _, alone = run_evaluation(recipe(), tmp_path / "alone", quiet=True)
    assert [r.completion.text for r in records] == [r.completion.text for r in alone]


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    """A model in a process that was started in a folder with a file of a module's name."""
    folder = tmp_path_factory.mktemp("working")
    (folder / "pickle.py").write_text("raise SystemExit('not the module that was meant')\n")
    with ExitStack() as stack:
        with chdir(folder):
            (one,) = stack.enter_context(open_samplers(MODEL.model_dump(), count=1))
        yield one


def test_a_file_in_the_working_folder_stands_in_for_no_module(sampler):
    assert sampler.frame == "qwen2_5_vl"


def test_a_model_that_does_not_load_is_one_error_as_in_one_process(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    broken = recipe().model_copy(update={"model": Model(name=str(tmp_path / "broken"))})
    with pytest.raises(ModelError) as alone:
        run_evaluation(broken, tmp_path / "run", quiet=True)
    with pytest.raises(ModelError) as together:
        run_evaluation(broken, tmp_path / "run", num_processes=2, quiet=True)
    assert str(together.value) == str(alone.value)
    assert not (tmp_path / "run").exists()


def test_a_picture_that_cannot_be_read_is_a_value_in_every_process(sampler, tmp_path):
    ((found,),) = sampler.sample(
        [Asked("a", str(tmp_path / "none.png"), "What?")], samples_per_question=1, settings=SHORT
    )
    assert isinstance(found, Unsampled)


def test_a_process_ends_with_the_evaluation_that_began_it():
    script = (
        "import os, signal\n"
        "from opengrit.evaluation.processes import open_samplers\n"
        "with open_samplers({'name': 'tiny-qwen2.5-vl'}, count=1) as (one,):\n"
        "    print(one.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The pipe to the output is held by the process too: reading ends when both have ended.
    began = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said, _ = began.communicate(timeout=120)
    assert began.returncode == -signal.SIGKILL
    assert said.split()[0].isdigit()


def test_processes_are_for_models_in_memory(tmp_path):
    with endpoint_stub(lambda request: Said("1")) as stub:
        served = recipe().model_copy(update={"endpoint": Served(url=stub.url, frame="qwen2_5_vl")})
        with pytest.raises(RecipeError, match="num-processes"):
            run_evaluation(served, tmp_path / "run", num_processes=2, quiet=True)


def test_the_command_takes_a_number_of_processes(tmp_path: Path):
    command = [
        "eval", "--model", "tiny-qwen2.5-vl", "--data", "stickers/count", "--limit", "2", "--max-new-tokens", "20",
        "--num-processes", "2", "--quiet", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert len(list(RunDir.open(tmp_path / "run").records())) == 2

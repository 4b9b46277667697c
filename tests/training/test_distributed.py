"""Two processes train what one would, write one run with every record, and end together."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import tiny_random
import together
import torch
import typer
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from small_runs import of_the_clock
from small_trainers import config
from typer.testing import CliRunner

import opengrit.models
from opengrit.cli.app import app
from opengrit.cli.launch import arguments, launch, run_together
from opengrit.core.errors import RecipeError, RunError
from opengrit.data.grit import write
from opengrit.recipes.register import FOLDER
from opengrit.recipes.training_recipe import load_recipe
from opengrit.runs.folder import RunDir
from opengrit.training.settings import count_processes
from opengrit.training.sharding import check_sharding
from opengrit.training.trainable_weights import check_model

ROOT = Path(__file__).parents[2]
GENEROUS_SECONDS = 240.0
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")},
    "PYTHONPATH": os.pathsep.join(
        [*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT / "src"), str(ROOT / "tests" / "support")]
    ),
    "OMP_NUM_THREADS": "1",
}


def wait_for(condition, what):
    """The condition's first true value; fails by the clock."""
    end = time.monotonic() + GENEROUS_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.02)
    return found


# What is computed. One process and two are forked from one that has imported everything, once for all tests here.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of all trainings. They begin once more where one was aborted: seen once in many runs, in torch's threads."""
    folder, code, errors = train_together(tmp_path_factory)
    if code == together.ABORTED:
        warnings.warn(
            f"a training was aborted in torch's threads, and all began again:\n{errors}", stacklevel=1
        )
        folder, code, errors = train_together(tmp_path_factory)
    assert code == 0, errors
    return folder


def train_together(tmp_path_factory):
    """The folder, the exit code and what was said."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, str(ROOT / "tests" / "support" / "together.py"), str(folder)]
    began = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = began.communicate(timeout=GENEROUS_SECONDS)
    except subprocess.TimeoutExpired:
        began.terminate()  # and with it all that it has forked
        _, errors = began.communicate()
        done = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        pytest.fail(
            f"the trainings of tests/support/together.py were ended by the clock after {GENEROUS_SECONDS:.0f} s, which says "
            f"nothing about them; begun until then: {done}\n{errors}"
        )
    return folder, began.returncode, errors


ENDS = """
import os, time
import together

def wrong():
    raise ValueError("wrong")

def late():
    time.sleep(60)

def told(*jobs):
    return together._wait_for([together.fork(job) for job in jobs])

print(told(os.abort, late), told(late, wrong))
"""


def test_an_abort_is_told_from_a_failure():
    done = subprocess.run(
        [sys.executable, "-c", ENDS], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(together.ABORTED), "2"]


def both(trained, name):
    return [RunDir.open(trained / f"{count}-{name}" / "run") for count in (1, 2)]


def weights(trained, name):
    return torch.load(trained / name / "weights.pt")


def apart(one, two):
    """The length of the difference of two sets of weights, as a share of the first's."""
    assert one.keys() == two.keys()
    difference = sum((one[name].double() - two[name].double()).square().sum() for name in one)
    return (difference / sum(value.double().square().sum() for value in one.values())).sqrt().item()


@pytest.mark.parametrize("name", ["qwen", "internvl", "credit"])
def test_two_processes_learn_from_fixed_rollouts_the_weights_that_one_learns(name, trained):
    one, two = [weights(trained, f"{count}-{name}") for count in (1, 2)]
    base = (
        tiny_random.qwen()
        if name == "qwen"
        else together.base(trained, "internvl" if name == "internvl" else "qwen")
    )
    assert apart(dict(base.model.state_dict()), one) > 1e-4
    assert apart(one, two) <= 1e-5
    totals = [(trained / f"2-{name}" / rank / "total").read_text() for rank in ("0", "1")]
    assert totals[0] == totals[1]


def test_a_batched_reward_of_ones_own_sees_the_rows_of_its_process_in_their_order(trained):
    """Three groups of four over two processes: six rows each, and the second group is on both."""
    records = list(RunDir.open(trained / "2-batched" / "run").records())
    shares = [json.loads((trained / f"seen-{rank}.json").read_text()) for rank in range(2)]
    assert [len(share) for share in shares] == [6, 6]
    assert [[r.example.id, r.transcript.text] for r in records] == shares[0] + shares[1]
    assert [r.score.parts["first_of_batch"] for r in records] == [1 / (1 + n) for n in range(6)] * 2
    groups = [r.example.id for r in records]
    assert groups == [name for name in groups[::4] for _ in range(4)]


@pytest.mark.parametrize(("whole", "shared"), [("qwen", "fsdp-qwen"), ("piece", "fsdp-piece")])
def test_sharded_weights_learn_what_whole_ones_learn(whole, shared, trained):
    assert apart(weights(trained, f"1-{whole}"), weights(trained, f"2-{shared}")) <= 1e-5
    shares = [json.loads((trained / f"2-{shared}" / rank / "share").read_text()) for rank in ("0", "1")]
    total = sum(value.numel() for value in weights(trained, f"1-{whole}").values())
    assert sum(shares) == total
    assert max(shares) < 0.51 * total
    one, two = [RunDir.open(trained / name / "run") for name in (f"1-{whole}", f"2-{shared}")]
    assert {r.id: r.completion for r in one.records()} == {r.id: r.completion for r in two.records()}


def test_a_final_model_and_an_evaluation_of_sharded_weights_are_those_of_whole_ones(trained):
    final = opengrit.models.load(str(trained / "2-fsdp-qwen" / "final")).model.state_dict()
    assert all(torch.equal(value, final[name]) for name, value in weights(trained, "2-fsdp-qwen").items())
    rows = list(RunDir.open(trained / "2-fsdp-qwen" / "run").metrics())
    assert [row["step"] for row in rows if "eval/held-out/n" in row] == [2]


def test_a_checkpoint_of_sharded_weights_is_whole_and_resumes_to_the_same_end(trained):
    straight, resumed = [weights(trained, f"2-{name}") for name in ("fsdp-qwen", "fsdp-resumed")]
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    last = RunDir.open(trained / "2-fsdp-resumed" / "run").checkpoints()[-1]
    assert last.name == "step-000003"
    assert not list(last.glob("pytorch_model*"))  # no pickle of what model.safetensors holds
    read = opengrit.models.load(str(last)).model.state_dict()
    assert all(torch.equal(resumed[name], read[name]) for name in resumed)


def test_a_loss_that_is_no_number_on_one_process_leaves_the_step_out_on_all_that_share_weights(trained):
    rows = list(RunDir.open(trained / "2-fsdp-nan" / "run").metrics())
    assert [row["nonfinite/skipped_step"] for row in rows] == [0.0, 1.0]


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_gradients_sharded_by_deepspeed_learn_what_whole_ones_learn_and_resume(trained):
    straight, resumed = [weights(trained, f"2-{name}") for name in ("zero-qwen", "zero-resumed")]
    assert apart(weights(trained, "1-qwen"), straight) <= 1e-5
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert list((RunDir.open(trained / "2-zero-qwen" / "run").checkpoints()[-1]).glob("global_step*"))


ACCELERATE = FOLDER / "accelerate"


def started(name):
    """The environment of a process that accelerate's launcher starts with one of our files."""
    args = launch_command_parser().parse_args(["--config_file", str(ACCELERATE / f"{name}.yaml"), "a.py"])
    args, defaults, _ = _validate_launch_command(args)
    if not args.use_deepspeed:
        return prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return prepare_deepspeed_cmd_env(args)[1]


@pytest.mark.parametrize(("name", "tested"), [("fsdp2", together.SHARDED), ("zero2", together.ZERO_2)])
def test_the_files_for_accelerate_ask_for_what_is_tested_here(name, tested):
    assert {key: started(name).get(key) for key in tested} == tested
    assert {path.stem for path in ACCELERATE.glob("*.yaml")} == {"ddp", "fsdp2", "zero2", "zero3"}
    assert "ACCELERATE_USE_FSDP" not in started("ddp")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version 1"),
        ({"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, "SHARDED_STATE_DICT"),
    ],
)
def test_other_ways_of_sharding_weights_are_refused_by_name(changes, message, tmp_path, monkeypatch):
    args = config(tmp_path)
    for key, value in (together.SHARDED | changes).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RecipeError, match=message):
        check_sharding(args)


def test_zero_3_is_refused_by_name(tmp_path):
    args = config(tmp_path)
    args.deepspeed_plugin = SimpleNamespace(zero_stage=3)
    with pytest.raises(RecipeError, match="ZeRO-3"):
        check_sharding(args)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU weights can be sharded")
def test_weights_are_not_said_to_be_sharded_where_accelerate_would_not(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="on GPUs only"):
        count_processes()


def test_adapters_and_sharding_are_refused_together(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    recipe = load_recipe("demo", ["lora={}"])
    with pytest.raises(RecipeError, match="adapters"):
        check_model(recipe.model, recipe.lora)


# One process makes one pass of eight completions (qwen) or two of four (internvl), two processes one pass of four each:
# passes hold different numbers of tokens, and of rows with boxes, with a verdict, and cut off.
@pytest.mark.parametrize("name", ["qwen", "internvl", "half", "piece"])
def test_every_metric_of_two_processes_is_that_of_one(name, trained):
    one, two = [list(run.metrics()) for run in both(trained, name)]
    assert [row["step"] for row in one] == {"qwen": [1, 2, 3], "internvl": [4]}.get(name, [1, 2])
    for alone, beside in zip(one, two, strict=True):
        assert alone.keys() == beside.keys()
        for key in {name for name in alone if not of_the_clock(name)}:
            # What goes through the model is rounded otherwise where other rows stand beside it.
            within = 1e-5 if key in ("loss", "grad_norm", "kl", "entropy") else 1e-6
            assert beside[key] == pytest.approx(alone[key], rel=within, abs=within), key


def test_metrics_of_several_steps_are_means_over_rows_and_tokens_not_means_of_means(trained):
    for run in both(trained, "internvl"):
        records = list(run.records())
        [row] = run.metrics()
        scored = [record.score.total for record in records if record.score.total is not None]
        assert len(scored) < len(records)
        assert row["reward"] == pytest.approx(sum(scored) / len(scored))
        by_dataset = {r.example.dataset: [] for r in records}
        for record in records:
            if record.score.parts.get("grounding_iou") is not None:
                by_dataset[record.example.dataset].append(record.score.parts["grounding_iou"])
        assert by_dataset["tally"] == []  # its boxes are not known
        assert row["parts/grounding_iou"] == pytest.approx(sum(by_dataset["vsr"]) / len(by_dataset["vsr"]))
        lengths = [len(record.completion.token_ids) for record in records]
        assert row["completions/mean_length"] == pytest.approx(sum(lengths) / len(lengths))
        assert row["completions/max_length"] == max(lengths)
        assert row["completions/min_length"] == min(lengths)


# 4 completions of one question over two processes, 2 each; and 12 of three, where each holds half of the second group.
@pytest.mark.parametrize(("name", "questions"), [("half", 1), ("piece", 3)])
def test_a_group_spread_over_processes_is_the_group_that_one_process_draws(name, questions, trained):
    one, two = [{record.id: record for record in run.records()} for run in both(trained, name)]
    assert len(two) == 2 * questions * 4
    assert two.keys() == one.keys()
    groups: dict[tuple, list] = {}
    for key, record in two.items():
        assert record.completion == one[key].completion
        assert record.advantage == pytest.approx(one[key].advantage, abs=1e-5)
        groups.setdefault((record.step, record.example.id), []).append(record)
    for group in groups.values():
        assert [record.sample for record in group] == [0, 1, 2, 3]
        assert len({record.completion.token_ids for record in group}) == 4
    assert any(record.advantage for record in two.values())


@pytest.mark.parametrize("name", ["qwen", "internvl", "half", "piece"])
def test_one_process_writes_and_every_record_is_there_once(name, trained):
    one, two = both(trained, name)
    written = [json.loads(line)["id"] for line in (two.path / "records.jsonl").read_text().splitlines()]
    assert len(written) == len(set(written))
    assert sorted(written) == sorted(record.id for record in one.records())


def test_a_process_without_any_readable_picture_goes_through_the_step_and_learns_nothing(trained):
    records = list(RunDir.open(trained / "2-gone" / "run").records())
    failed = [record for record in records if record.failure is not None]
    assert (len(records), len(failed)) == (16, 8)  # in two steps, one question of four completions each
    assert all(record.advantage == 0.0 and record.score.total is None for record in failed)
    totals = [(trained / "2-gone" / rank / "total").read_text() for rank in ("0", "1")]
    assert totals[0] == totals[1]


def test_a_checkpoint_of_two_processes_holds_the_random_states_of_both(trained):
    checkpoint = both(trained, "qwen")[1].checkpoints()[-1]
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= {
        path.name for path in checkpoint.iterdir()
    }


# The command, with one process killed. The rest is tried with small programs in the training's place.


def recipe(folder):
    base = tiny_random.save(tiny_random.talkative(tiny_random.qwen()), folder / "base")
    (folder / "pictures").mkdir()
    write(tiny_random.examples(folder / "pictures", 2), folder / "rows.jsonl", images=folder / "pictures")
    (folder / "recipe.yaml").write_text(f"""
model: {base}
data: {{train: [{{file: {folder / "rows.jsonl"}, images: {folder / "pictures"}}}]}}
rewards: {{tag_walk: 1.0, repetition: 0.25}}
strategy: direct
train:
  {{max_steps: 12, num_generations: 4, questions_per_step: 2, per_device_train_batch_size: 4, max_completion_length: 20,
   bf16: false, beta: 0.0, save_steps: 2, eval_steps: null, gradient_checkpointing: false, learning_rate: 0.001}}
""")
    return folder / "recipe.yaml"


def test_a_killed_process_takes_the_training_down_by_name_and_the_run_is_resumed(tmp_path):
    words = ["train", str(recipe(tmp_path)), "--out", str(tmp_path / "run"), "--num-processes", "2"]
    command = [sys.executable, "-m", "opengrit", *words]
    began = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "step-000002").is_dir(), "a checkpoint")
    crew = psutil.Process(began.pid).children()
    second = next(one for one in crew if one.environ()["RANK"] == "1")
    second.send_signal(signal.SIGKILL)
    said, errors = began.communicate(timeout=GENEROUS_SECONDS)
    assert began.returncode == 2
    assert said == ""
    told = [line for line in errors.splitlines() if not line.startswith(("step ", "a loss near 0 is normal"))]
    assert len(told) == 1, errors
    assert "process 2 of 2 (rank 1) was ended by SIGKILL" in told[0]
    assert "--resume" in told[0]
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in crew)
    run = RunDir.open(tmp_path / "run")
    assert len(run.checkpoints()) < 6
    again = subprocess.run(
        [*command, "--resume"], env=ENVIRONMENT, capture_output=True, text=True, timeout=GENEROUS_SECONDS
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout == f"trained model: {tmp_path / 'run' / 'final'}\n"
    assert len(run.checkpoints()) == 6
    assert len({record.id for record in run.records()}) == 12 * 8


STUB = """
import json, os, signal, sys, time
rank, folder = int(os.environ["RANK"]), sys.argv[1]
def wait(name):
    while not os.path.exists(f"{folder}/{name}"):
        time.sleep(0.01)
def mark(name):
    open(f"{folder}/{name}", "w").close()
def report(text):
    with open(os.environ["OPENGRIT_REPORT"], "w") as file:
        json.dump({"at": time.monotonic(), "text": text}, file)
"""


def stub(folder, body):
    """A command that stands for a training: `body` knows rank, wait, mark and report."""
    return [sys.executable, "-c", STUB + body, str(folder)]


def test_a_refusal_of_every_process_is_said_once(tmp_path, capfd):
    body = "print('error: a rule is broken', file=sys.stderr); sys.exit(2)"
    assert run_together(stub(tmp_path, body), count=3) == 2
    assert capfd.readouterr().err == "error: a rule is broken\n"


def test_a_refusal_of_one_process_is_said_though_the_first_only_missed_it(tmp_path, capfd):
    body = """
if rank == 0:
    wait("refused")
    report("Connection closed by peer")
    sys.exit(1)
print("error: a picture is gone", file=sys.stderr)
mark("refused")
sys.exit(2)
"""
    assert run_together(stub(tmp_path, body), count=2) == 2
    assert capfd.readouterr().err == "error: a picture is gone\n"


def test_a_lost_process_is_named_and_not_what_the_others_said_of_it(tmp_path, capfd):
    body = """
if rank == 1:
    mark("gone")
    os.kill(os.getpid(), signal.SIGKILL)
wait("gone")
if rank == 0:
    report("Connection closed by peer")
    sys.exit(1)
wait("what never comes")
"""
    with pytest.raises(RunError, match=r"process 2 of 3 \(rank 1\) was ended by SIGKILL.*--resume"):
        run_together(stub(tmp_path, body), count=3)
    assert capfd.readouterr().err == ""


def test_of_a_bug_the_first_traceback_is_shown_with_its_process(tmp_path, capfd):
    body = """
if rank == 0:
    wait("bug")
report(f"Traceback of {rank}")
mark("bug")
sys.exit(1)
"""
    assert run_together(stub(tmp_path, body), count=2) == 1
    assert capfd.readouterr().err == "process 2 of 2:\nTraceback of 1\n"


def test_what_other_processes_say_is_passed_on_with_their_name(tmp_path, capfd):
    assert run_together(stub(tmp_path, "print('a warning', flush=True)"), count=2) == 0
    said = capfd.readouterr()
    assert said.out == "a warning\n"
    assert said.err == "process 2 of 2: a warning\n"


LAUNCHER = (
    "import sys; from opengrit.cli.launch import run_together; sys.exit(run_together(sys.argv[1:], count=2))"
)
HEARS = """
heard = []
def hear(number, _):
    heard.append(number)
    mark(f"heard-{rank}-{len(heard)}")
    if len(heard) == LAST:
        sys.exit(128 + number)
signal.signal(signal.SIGTERM, hear)
signal.signal(signal.SIGINT, hear)
mark(f"ready-{rank}")
wait("what never comes")
"""


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_signals_reach_every_process_once_and_the_exit_code_is_theirs(number, times, tmp_path):
    command = stub(tmp_path, HEARS.replace("LAST", str(times)))
    began = subprocess.Popen([sys.executable, "-c", LAUNCHER, *command], env=ENVIRONMENT)
    for rank in (0, 1):
        wait_for((tmp_path / f"ready-{rank}").exists, "a process")
    for time_ in range(1, times + 1):
        began.send_signal(number)
        for rank in (0, 1):
            wait_for((tmp_path / f"heard-{rank}-{time_}").exists, "the signal")
    assert began.wait(GENEROUS_SECONDS) == 128 + number
    assert len(list(tmp_path.glob("heard-*"))) == 2 * times


STOPS = """
stopping = False
def hear(number, _):
    global stopping
    stopping = True
signal.signal(signal.SIGTERM, hear)
mark(f"ready-{rank}")
while not stopping:
    time.sleep(0.01)
"""
AFTER_A_SIGNAL = {
    "a refusal of the first": (
        "if rank == 0: print('error: the disk is full', file=sys.stderr); mark('refused'); sys.exit(2)\n"
        "wait('refused'); report('Connection closed by peer'); sys.exit(1)",
        2, "error: the disk is full\n",
    ),
    "a refusal of another": (
        "if rank == 1: print('error: the disk is full', file=sys.stderr); mark('refused'); sys.exit(2)\n"
        "wait('refused'); report('Connection closed by peer'); sys.exit(1)",
        2, "error: the disk is full\n",
    ),
    "a bug": (
        "if rank == 0: wait('bug')\nreport(f'Traceback of {rank}'); mark('bug'); sys.exit(1)",
        1, "process 2 of 2:\nTraceback of 1\n",
    ),
    "a bug of one": ("if rank == 1: report('Traceback'); sys.exit(1)\nsys.exit(143)", 1, "process 2 of 2:\nTraceback\n"),
    "an end by the signal itself, of which another dies": (
        "if rank == 1: mark('gone'); signal.signal(15, signal.SIG_DFL); os.kill(os.getpid(), 15)\n"
        "wait('gone'); report('Connection closed by peer'); sys.exit(1)",
        143, "",
    ),
    "a loss": (
        "if rank == 1: mark('gone'); os.kill(os.getpid(), signal.SIGKILL)\nwait('gone'); sys.exit(143)",
        1, "process 2 of 2 (rank 1) was ended by SIGKILL",  # as RunError
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AFTER_A_SIGNAL)
def test_what_goes_wrong_after_a_signal_is_said_and_keeps_its_exit_code(name, tmp_path):
    body, code, said = AFTER_A_SIGNAL[name]
    command = [sys.executable, "-c", LAUNCHER, *stub(tmp_path, STOPS + body)]
    began = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    for rank in (0, 1):
        wait_for((tmp_path / f"ready-{rank}").exists, "a process")
    began.send_signal(signal.SIGTERM)
    heard = began.communicate(timeout=GENEROUS_SECONDS)[1]
    assert began.returncode == code, heard
    assert said in heard
    assert "closed by peer" not in heard


def test_a_signal_that_the_launcher_ignores_reaches_nobody(tmp_path):
    command = [sys.executable, "-c", LAUNCHER, *stub(tmp_path, HEARS.replace("LAST", "1"))]
    # As under nohup, or in the background of a script.
    ignoring = ["env", "--ignore-signal=INT", *command]
    began = subprocess.Popen(ignoring, env=ENVIRONMENT)
    for rank in (0, 1):
        wait_for((tmp_path / f"ready-{rank}").exists, "a process")
    began.send_signal(signal.SIGINT)
    began.send_signal(signal.SIGTERM)
    assert began.wait(GENEROUS_SECONDS) == 128 + signal.SIGTERM


def test_processes_end_with_a_launcher_that_is_killed(tmp_path):
    body = """
import threading
from opengrit.cli.worker import _end_with_the_launcher
threading.Thread(target=_end_with_the_launcher, daemon=True).start()
mark(f"pid-{os.getpid()}")
wait("what never comes")
"""
    began = subprocess.Popen([sys.executable, "-c", LAUNCHER, *stub(tmp_path, body)], env=ENVIRONMENT)
    wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2, "both processes")
    began.kill()
    began.wait()
    for name in tmp_path.glob("pid-*"):
        wait_for(lambda pid=int(name.name[4:]): not psutil.pid_exists(pid), "its end")


# The command line.


def test_each_process_gets_every_argument_but_the_number_of_processes():
    command = typer.main.get_command(app).commands["train"]
    given = [
        "a recipe.yaml", "--out", "run", "--set", "train.seed=2", "--set", "data.eval=[]", "--resume", "--num-processes", "3",
    ]  # fmt: skip
    context = command.make_context("train", list(given))
    written = arguments(context, without="num_processes")
    assert "--num-processes" not in written
    again = command.make_context("train", written)
    assert again.params == {**context.params, "num_processes": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "demo", "--num-processes", "3"], "divide evenly over 3 processes"),
        (["sft", "sft-demo", "--num-processes", "7"], "divide evenly over 7 processes"),
    ],
)
def test_a_number_of_processes_that_does_not_divide_the_work_is_refused_at_once(
    words, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_processes_that_another_launcher_started_start_none(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    context = typer.main.get_command(app).commands["train"].make_context("train", ["a.yaml", "--out", "b"])
    with pytest.raises(RecipeError, match="one launcher"):
        launch(context, count=2)

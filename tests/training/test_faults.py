"""What can go wrong around a training, one test each: it stops with one clear line, the checkpoints stay, and it resumes."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small_trainers
import tiny_random
import torch
from forked import Running, command, wait_for
from moments import Measure, Moment, at, fill_disk, interrupt, kill, terminate
from small_runs import check_equal, check_readable, check_same_weights, resuming, small_recipe
from transformers import TrainerCallback

from opengrit.core.errors import RewardError, RunError
from opengrit.core.types import Unjudged, Verdict
from opengrit.judges import Case
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.recipes.training_recipe import load_recipe
from opengrit.rewards.rubric import REWARDS, Rubric
from opengrit.runs.folder import RunDir
from opengrit.runs.lock import held
from opengrit.training.callbacks import MOST_IN_A_ROW
from opengrit.training.checkpoint_sidecar import SIDECAR
from opengrit.training.rollouts import JudgeSettings
from opengrit.training.run import train
from opengrit.training.settings import sft_config
from opengrit.training.sft import GritSFTTrainer, sft_examples

ROOT = Path(__file__).parents[2]


def go(recipe: Path, out: Path, *options: object, before: Callable[[], Any] | None = None) -> Running:
    """The training, started or resumed, in a process of its own; waited for."""
    running = command("train", recipe, "--out", out, "--quiet", *resuming(out), *options, before=before)
    running.code()
    return running


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and the run of it that nothing disturbed, in `whole`."""
    folder = tmp_path_factory.mktemp("faults")
    undisturbed = go(small_recipe(folder), folder / "whole")
    assert undisturbed.code() == 0, undisturbed.said
    return folder


def resumes(scene: Path, out: Path, *options: object) -> None:
    """The run ends as the one that nothing disturbed."""
    again = go(scene / "recipe.yaml", out, *options)
    assert again.code() == 0, again.said
    check_equal(out, scene / "whole")


def refusal(running: Running) -> str:
    """The one line of error that a command ends with."""
    assert running.code() == 2, running.said
    lines = [line for line in running.said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, running.said
    assert "Traceback" not in running.said
    return lines[0]


def steps(out: Path) -> list[int]:
    run = RunDir.open(out)
    return [run.step_of(path) for path in run.checkpoints()]


# -- signals ------------------------------------------------------------------------------------------------------


def test_sigterm_ends_the_step_with_a_checkpoint_and_exits_143(scene: Path, tmp_path: Path) -> None:
    stopped = go(scene / "recipe.yaml", tmp_path / "run", before=at(Moment("generation", 2, 40), terminate))
    assert stopped.code() == 143, stopped.said
    assert "stopped by SIGTERM after step 3 of 6; the same command with --resume continues" in stopped.said
    assert steps(tmp_path / "run") == [2, 3]
    assert not (tmp_path / "run" / ".lock").exists()
    again = go(scene / "recipe.yaml", tmp_path / "run")
    assert again.code() == 0, again.said
    check_equal(tmp_path / "run", scene / "whole")


def test_sigterm_within_a_generations_use_waits_for_its_end(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, num_iterations=2, save_steps=4, eval_steps=None)
    whole = go(recipe, tmp_path / "whole")
    assert whole.code() == 0, whole.said
    # The first loss of step 1: a checkpoint there would lack the rollouts that step 2 learns from.
    stopped = go(recipe, tmp_path / "run", before=at(Moment("loss", 0, 10), terminate))
    assert stopped.code() == 143, stopped.said
    assert steps(tmp_path / "run") == [2]
    again = go(recipe, tmp_path / "run")
    assert again.code() == 0, again.said
    check_equal(tmp_path / "run", tmp_path / "whole")


def test_sigterm_in_a_last_step_within_a_generations_use_saves_it_and_a_resume_writes_the_final_model(
    tmp_path: Path,
) -> None:
    recipe = small_recipe(tmp_path, max_steps=3, num_iterations=2, save_steps=None, eval_steps=None)
    whole = go(recipe, tmp_path / "whole")
    assert whole.code() == 0, whole.said
    stopped = go(recipe, tmp_path / "run", before=at(Moment("loss", 4, 10), terminate))  # two passes a step
    assert stopped.code() == 143, stopped.said
    assert "after step 3 of 3" in stopped.said
    assert steps(tmp_path / "run") == [3]
    again = go(recipe, tmp_path / "run")
    assert again.code() == 0, again.said
    check_same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_run_killed_after_a_last_step_within_a_generations_use_is_resumed(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, max_steps=3, num_iterations=2, save_steps=2, eval_steps=None)
    killed = go(recipe, tmp_path / "run", before=at(Moment("final model"), kill))
    assert killed.code() == -signal.SIGKILL, killed.said
    assert steps(tmp_path / "run") == [2, 3]
    again = go(recipe, tmp_path / "run")
    assert again.code() == 0, again.said
    last = tmp_path / "run" / "checkpoints" / "step-000003" / "model.safetensors"
    assert (tmp_path / "run" / "final" / "model.safetensors").read_bytes() == last.read_bytes()


def test_a_signal_after_the_last_step_that_no_checkpoint_holds_throws_nothing_away(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, max_steps=1, save_steps=None, eval_steps=None)
    whole = go(recipe, tmp_path / "whole", before=Measure(tmp_path / "lengths"))
    assert whole.code() == 0, whole.said
    # The last line that is written is the step's, behind its end.
    last = len(json.loads((tmp_path / "lengths").read_text())["record write"]) - 1
    late = go(recipe, tmp_path / "run", before=at(Moment("record write", last), terminate))
    assert late.code() == 0, late.said
    assert "SIGTERM came after the last step, which has no checkpoint" in late.said
    assert steps(tmp_path / "run") == []
    check_same_weights(tmp_path / "run", tmp_path / "whole")


def test_sigint_once_saves_and_exits_130_also_where_the_recipe_saves_nothing(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, save_steps=None, eval_steps=None)
    stopped = go(recipe, tmp_path / "run", before=at(Moment("loss", 1, 10), interrupt))
    assert stopped.code() == 130, stopped.said
    assert steps(tmp_path / "run") == [1]
    assert stopped.said.splitlines()[-1].endswith("--resume continues")


def test_sigint_twice_stops_at_once_with_the_last_checkpoint_intact(scene: Path, tmp_path: Path) -> None:
    twice = at(Moment("generation", 3, 40), interrupt, Moment("generation", 3, 80), interrupt)
    stopped = go(scene / "recipe.yaml", tmp_path / "run", before=twice)
    assert stopped.code() == -signal.SIGINT, stopped.said
    assert steps(tmp_path / "run") == [2]
    check_readable(tmp_path / "run")
    resumes(scene, tmp_path / "run")


def test_fine_tuning_stops_and_goes_on_in_the_same_way(tmp_path: Path) -> None:
    changes = ("max_steps=4", "rows_per_step=2", "per_device_train_batch_size=2", "save_steps=2")
    words = [word for change in changes for word in ("--set", f"sft.{change}")]
    train = ("sft", "sft-demo", *words, "--out")
    whole = command(*train, tmp_path / "whole")
    assert whole.code() == 0, whole.said
    stopped = command(*train, tmp_path / "run", before=at(Moment("before rename"), terminate))
    assert stopped.code() == 143, stopped.said
    assert steps(tmp_path / "run") == [2, 3]
    again = command(*train, tmp_path / "run", "--resume")
    assert again.code() == 0, again.said
    check_same_weights(tmp_path / "run", tmp_path / "whole")


# -- one training a folder ----------------------------------------------------------------------------------------


def test_a_second_training_in_a_folder_is_refused_before_it_loads_a_model(
    scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = command("train", scene / "recipe.yaml", "--out", out, "--quiet", "--set", "train.max_steps=2000")
    try:
        wait_for(lambda: (out / "recipe.yaml").exists(), of=[first])
        wanted = load_recipe(scene / "recipe.yaml", ["train.max_steps=2000"])
        weights = scene / "base" / "model.safetensors"
        shutil.move(weights, scene / "elsewhere")  # there is no model to load
        try:
            with pytest.raises(RunError, match=r"another process is training in .*; wait until it ends"):
                train(wanted, out, resume=True)
        finally:
            shutil.move(scene / "elsewhere", weights)
    finally:
        first.process.kill()
    assert first.code() == -signal.SIGKILL
    with held(out):  # the lock has gone with its process
        pass
    assert not (out / ".lock").exists()


def test_a_folder_that_is_held_and_still_empty_is_refused_too(scene: Path, tmp_path: Path) -> None:
    with (
        held(tmp_path / "run"),
        pytest.raises(RunError, match="another process is training"),
    ):
        train(load_recipe(scene / "recipe.yaml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- no room, no right --------------------------------------------------------------------------------------------

# In the order of a run: what is written when the disk is full.
FULL_AT = [
    Moment("beginning"),
    Moment("record write", 0),
    Moment("weights", 0),
    Moment("torch.save", 0),
    Moment("torch.save", 1),
    Moment("torch.save", 2),
    Moment("torch.save", 3),
    Moment("trainer_state", 0),
    Moment("sidecar", 0),
    Moment("sync", 0),
    Moment("record write", 5),
    Moment("final model", 0),
]


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_stops_the_run_and_costs_no_checkpoint(
    scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for moment in FULL_AT:
        before = steps(out) if (out / "recipe.yaml").exists() else []
        stopped = go(scene / "recipe.yaml", out, before=at(moment, fill_disk))
        said = refusal(stopped)
        assert re.search(r"must be (able to write|writable)", said), said
        assert "File too large" in said or "perhaps at a full disk" in said, said
        check_readable(out)
        assert not list(out.rglob(".staged-*")), moment
        if (out / "recipe.yaml").exists():
            assert steps(out)[: len(before)] == before
    resumes(scene, out)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """A file system of that size at `folder`; gives a function that changes its size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system needs the right to mount one; RLIMIT_FSIZE stands in for it above")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(folder)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_file_system_that_is_full_stops_the_run_and_more_room_lets_it_go_on(
    scene: Path, tmp_path: Path
) -> None:
    checkpoint = scene / "whole" / "checkpoints" / "step-000002"
    size = sum(path.stat().st_size for path in checkpoint.iterdir()) // 1024
    with small_disk(tmp_path / "disk", int(1.6 * size)) as resize:
        out = tmp_path / "disk" / "run"
        said = refusal(go(scene / "recipe.yaml", out))
        assert "No space left on device" in said or "perhaps at a full disk" in said, said
        assert steps(out) == [2]
        check_readable(out)
        resize(10 * size)
        resumes(scene, out)


@contextmanager
def without_the_right_to_write(folder: Path) -> Iterator[None]:
    """The folder cannot be changed in the block, by root neither where the file system knows immutable folders."""
    if os.geteuid():
        folder.chmod(0o555)
        undo: Callable[[], Any] = lambda: folder.chmod(0o755)  # noqa: E731
    else:
        if (
            shutil.which("chattr") is None
            or subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode
        ):
            pytest.skip("root may write everywhere, and this file system has no immutable folders")
        undo = lambda: subprocess.run(["chattr", "-i", str(folder)], check=True)  # noqa: E731
    try:
        yield
    finally:
        undo()


@pytest.mark.parametrize("place", ["", "checkpoints"], ids=["the run's folder", "the checkpoints' folder"])
def test_a_folder_without_the_right_to_write_stops_the_run_with_its_checkpoints_intact(
    place: str, scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert go(scene / "recipe.yaml", out, before=at(Moment("loss", 3, 1), terminate)).code() == 143
    before = steps(out)
    with without_the_right_to_write(out / place):
        assert "must be writable" in refusal(go(scene / "recipe.yaml", out))
    assert steps(out) == before
    check_readable(out)
    resumes(scene, out)


def test_a_file_where_the_checkpoints_belong_stops_the_run_with_one_line(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert go(scene / "recipe.yaml", out, before=at(Moment("generation", 0, 1), terminate)).code() == 143
    shutil.move(out / "checkpoints", tmp_path / "kept")
    (out / "checkpoints").write_text("")
    assert "must be writable" in refusal(go(scene / "recipe.yaml", out))
    (out / "checkpoints").unlink()
    shutil.move(tmp_path / "kept", out / "checkpoints")
    resumes(scene, out)


# -- checkpoints that are damaged ---------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = [
    (cut, "model.safetensors"),
    (flip, "model.safetensors"),
    (Path.unlink, "model.safetensors"),
    (cut, "optimizer.pt"),
    (flip, "optimizer.pt"),
    (cut, "scheduler.pt"),
    (cut, "rng_state.pth"),
    (Path.unlink, "rng_state.pth"),
    (cut, "trainer_state.json"),
    (cut, SIDECAR),
]


@pytest.fixture(scope="module")
def unfinished(scene: Path) -> Path:
    """The undisturbed run as it was before its last folder came: checkpoints of steps 2, 4 and 6."""
    shutil.copytree(scene / "whole", scene / "unfinished")
    shutil.rmtree(scene / "unfinished" / "final")
    shutil.rmtree(scene / "unfinished" / "checkpoints" / "step-000006")
    return scene / "unfinished"


@pytest.mark.parametrize(
    ("damage", "name"), DAMAGES, ids=[f"{damage.__name__} {name}" for damage, name in DAMAGES]
)
def test_a_damaged_checkpoint_is_named_with_its_file_and_the_way_on_and_nothing_changes(
    damage: Callable[[Path], Any], name: str, scene: Path, unfinished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unfinished, out)
    damage(out / "checkpoints" / "step-000004" / name)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"step-000004 is damaged .*--resume-from step-000002") as refused:
        train(load_recipe(scene / "recipe.yaml"), out, resume=True, quiet=True)
    assert name in str(refused.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_which_is_set_aside(
    scene: Path, unfinished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unfinished, out)
    cut(out / "checkpoints" / "step-000004" / "optimizer.pt")
    resumes(scene, out, "--resume-from", "step-000002")
    assert (out / "checkpoints" / "step-000004.set-aside-1" / "optimizer.pt").is_file()
    assert steps(out) == [2, 4, 6]


# -- during a step ------------------------------------------------------------------------------------------------


class Keep(TrainerCallback):
    """Keeps the weights after each step, and does something after some."""

    def __init__(self, after: dict[int, Callable[[], None]] | None = None) -> None:
        self.after, self.weights = after or {}, {}

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        self.weights[state.global_step] = small_trainers.weights(model)
        self.after.get(state.global_step, lambda: None)()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def raises_once(reward: Any, *, at_row: int) -> Any:
    """A reward that raises at one row, once."""
    rows = itertools.count(1)

    def rewarded(attempt: Any) -> Any:
        if next(rows) == at_row:
            raise ZeroDivisionError("a reward divided by zero")
        return reward(attempt)

    return rewarded


def test_a_reward_that_raises_once_ends_the_run_and_a_resume_comes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    straight = small_trainers.trainer(tmp_path, max_steps=4)
    straight.train()
    run = small_trainers.new_run(tmp_path)
    # Eight rows a step: the twentieth is in the third, and each is scored once when it is judged.
    monkeypatch.setitem(REWARDS, "tag_walk", raises_once(REWARDS["tag_walk"], at_row=20))
    broken = small_trainers.trainer(tmp_path, run=run, **saving)
    with pytest.raises(RewardError, match=r"rewards\.tag_walk raised ZeroDivisionError .* for the row "):
        broken.train()
    newest = run.checkpoints()[-1]
    check_readable(run.path)
    again = small_trainers.trainer(tmp_path, run=run, **saving)
    again.train(resume_from_checkpoint=str(newest))
    assert same(small_trainers.weights(straight.model), small_trainers.weights(again.model))


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0], ids=["clipped", "not clipped"])
def test_a_step_that_is_not_finite_changes_no_weight_is_counted_and_learning_resumes(
    what: str, max_grad_norm: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = small_trainers.new_run(tmp_path)
    made = small_trainers.trainer(
        tmp_path, run=run, max_steps=3, max_grad_norm=max_grad_norm, weight_decay=0.1,
        lr_scheduler_type="constant", max_completion_length=30,
    )  # fmt: skip
    bad = threading.Event()
    spoil(made.model, bad, what)
    course = Keep({1: bad.set, 2: bad.clear})
    made.add_callback(course)
    with caplog.at_level("WARNING", logger="opengrit"):
        made.train()
    assert same(course.weights[1], course.weights[2])
    assert not same(course.weights[2], course.weights[3])
    assert [row["nonfinite/skipped_step"] for row in run.metrics()] == [0, 1, 0]
    assert "step 2 is skipped: its loss or its gradient is not finite" in caplog.text


def spoil(model: Any, bad: threading.Event, what: str) -> None:
    """While `bad` is set, hidden states that are learned from are NaN, or a gradient is infinite."""
    if what == "loss":
        model.get_decoder().norm.register_forward_hook(
            lambda _, args, output: output * float("nan") if bad.is_set() and output.requires_grad else None
        )
    else:
        parameter = next(p for n, p in model.named_parameters() if "down_proj" in n)
        parameter.register_hook(
            lambda gradient: torch.full_like(gradient, float("inf")) if bad.is_set() else None
        )


def test_a_step_of_fine_tuning_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    settings = {"max_steps": 3, "rows_per_step": 2, "per_device_train_batch_size": 2, "learning_rate": 0.01}
    settings |= {"bf16": False, "gradient_checkpointing": False, "lr_scheduler_type": "constant"}
    recipe = SftRecipe.model_validate({"model": "x", "data": {"train": ["y"]}, "sft": settings})
    loaded = tiny_random.qwen()
    examples = sft_examples(tiny_random.examples(tmp_path, 4), loaded=loaded, strategy="grounded")
    run = small_trainers.new_run(tmp_path)
    made = GritSFTTrainer(
        loaded, examples, args=sft_config(recipe.sft, tmp_path / "unused", num_rows=4), run=run
    )
    bad = threading.Event()
    spoil(made.model, bad, "gradient")
    course = Keep({1: bad.set, 2: bad.clear})
    made.add_callback(course)
    made.train()
    assert [row["nonfinite/skipped_step"] for row in run.metrics()] == [0, 1, 0]
    assert same(course.weights[1], course.weights[2])
    assert not same(course.weights[2], course.weights[3])


def test_steps_that_are_never_finite_end_the_run_with_the_weights_as_they_were(tmp_path: Path) -> None:
    run = small_trainers.new_run(tmp_path)
    made = small_trainers.trainer(
        tmp_path, run=run, max_steps=MOST_IN_A_ROW + 5, save_strategy="steps", save_steps=1
    )
    bad = threading.Event()
    spoil(made.model, bad, "loss")
    course = Keep({1: bad.set})
    made.add_callback(course)
    with pytest.raises(RunError, match=rf"the last {MOST_IN_A_ROW} up to step {MOST_IN_A_ROW + 1} had none"):
        made.train()
    assert same(course.weights[1], small_trainers.weights(made.model))
    check_readable(run.path)


class Judged:
    """A judge that is there, down or slow; says yes to every second answer."""

    def __init__(self) -> None:
        self.down, self.slow = threading.Event(), threading.Event()

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        return Verdict(correct=len(given) % 2 == 0, score=float(len(given) % 2 == 0), judge="counting")

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        if self.down.is_set():
            return [Unjudged("out of order")] * len(cases)
        if self.slow.is_set():
            time.sleep(deadline_seconds or 0)
            return [Unjudged("not judged within the deadline")] * len(cases)
        return [self.judge(case.question, expected=case.expected, given=case.given) for case in cases]


@pytest.mark.parametrize("how", ["down", "slow"])
def test_ten_steps_without_a_judge_change_no_weight_and_the_eleventh_is_learned_from(
    how: str, tmp_path: Path
) -> None:
    judge = Judged()
    fault: threading.Event = getattr(judge, how)
    run = small_trainers.new_run(tmp_path)
    made = small_trainers.trainer(
        tmp_path, run=run, judge=judge, rubric=Rubric.from_weights({"correct": 1.0, "tag_walk": 0.5}), max_steps=12,
        lr_scheduler_type="constant", extra={"judge_settings": JudgeSettings(0.05, 0.5)}, max_completion_length=30,
    )  # fmt: skip
    course = Keep({1: fault.set, 11: fault.clear})
    made.add_callback(course)
    made.train()
    made.scorer.close()
    assert [row["judge/skipped_step"] for row in run.metrics()] == [0, *[1] * 10, 0]
    assert same(course.weights[1], course.weights[11])
    assert not same(course.weights[11], course.weights[12])


@dataclass(frozen=True)
class JumpingClock:
    """Called in a process before its command: the wall clock jumps a day back and forth at each look."""

    def __call__(self) -> None:
        now, turn = time.time, iter(range(10**9))
        time.time = lambda: now() + 86400.0 * (-1) ** next(turn)


def test_a_clock_that_jumps_changes_nothing(scene: Path, tmp_path: Path) -> None:
    stopped = command(
        "train", scene / "recipe.yaml", "--out", tmp_path / "run", "--quiet", before=JumpingClock()
    )
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "step-000002").exists(), of=[stopped])
    stopped.process.kill()
    stopped.code()
    again = go(scene / "recipe.yaml", tmp_path / "run", before=JumpingClock())
    assert again.code() == 0, again.said
    check_equal(tmp_path / "run", scene / "whole")


# -- the page -----------------------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    for file, test in named:
        assert re.search(
            rf"^def {test}\(", next((ROOT / "tests").rglob(file)).read_text(encoding="utf-8"), re.MULTILINE
        ), (
            file,
            test,
        )


def test_the_page_says_what_the_code_does() -> None:
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert f"{MOST_IN_A_ROW} such steps in a row" in page

"""Trainings in one process and in two, forked from a process that has imported everything: `python together.py FOLDER`.

Each scenario writes a run folder, the weights it ended with and, by process, the sum of its weights.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tiny_random
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from small_trainers import config
from transformers import TrainerCallback

import opengrit.models
from opengrit.core.types import Completion, Finish, Unjudged
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.recipes.asking import Eval
from opengrit.recipes.objective import Advantage, ObjectCredit
from opengrit.rewards.rubric import Rubric
from opengrit.rewards.settings import rubric_of
from opengrit.runs.folder import RunDir
from opengrit.sampling.replay import ReplaySampler
from opengrit.training.sharding import whole_weights
from opengrit.training.trainer import GritTrainer
from opengrit.training.training_evaluation import TrainingEvaluation
from opengrit.training.training_loop import save_final

RUBRIC = Rubric.from_weights({"correct": 1.0, "tag_walk": 0.5, "answer_tag": 0.5, "grounding_iou": 0.5})
GROUP = 4
ABORTED = 134  # the first that failed was aborted: no error of Python's, but of a library's thread
ASKED = Eval(max_completion_length=20)
SAID = (
    '<think>{{"bbox_2d": [0, 0, 40, {n}]}} {n} dogs</think><rethink>so</rethink><answer>{n}</answer>',
    "<think>one two</think><answer>no</answer>",
    "<answer>{n}</answer>",
    "yes no yes {n}",
)


class MoodyJudge(RuleJudge):
    """Has no opinion of the answer "no"."""

    def judge_many(self, cases, *, deadline_seconds=None):
        opinions = super().judge_many(cases, deadline_seconds=deadline_seconds)
        return [
            Unjudged("no opinion") if case.given == "no" else opinion
            for case, opinion in zip(cases, opinions, strict=True)
        ]


def written(loaded, examples):
    """Completions of each example: tags, boxes and lengths differ; every seventh is cut off."""
    tokenizer = loaded.processor.tokenizer
    rollouts = {}
    for number, example in enumerate(examples):
        rollouts[example.id] = []
        for sample in range(GROUP):
            text = SAID[(sample + number) % 4].format(n=(number * 7 + sample) % 5) + " go" * (number * sample)
            cut_off = (number * GROUP + sample) % 7 == 6
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = ids if cut_off else [*ids, tokenizer.eos_token_id]
            finish = Finish.LENGTH if cut_off else Finish.EOS
            rollouts[example.id].append(Completion(text, tuple(ids), finish))
    return rollouts


BATCHED = """
import json
import os
from pathlib import Path

from opengrit.rewards import reward


@reward(batched=True)
def first_of_batch(attempts):
    seen = [[a.example.id, a.transcript.text] for a in attempts]
    Path(__file__).with_name(f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen))
    return [1 / (1 + place) for place in range(len(attempts))]
"""


SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}  # what accelerate's launcher sets from accelerate/fsdp2; a test compares the two


ZERO_2 = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
}  # and from accelerate/zero2


class StopAfter(TrainerCallback):
    """Ends a training early."""

    def __init__(self, step):
        self._step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self._step


class NotANumber(TrainerCallback):
    """Has the last process alone find no number in the loss of the second step."""

    def __init__(self, trainer):
        self._trainer = trainer

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 1 and not self._trainer.accelerator.is_main_process:
            self._trainer.nonfinite_guard.check_loss(torch.tensor(torch.nan))


def train(
    folder, name, loaded, *, fixed, rows=4, stop_after=None, resume=False, every=None, gone=False, nan=False,
    advantage=None, rubric=RUBRIC, **changes
):  # fmt: skip
    """One scenario; every process of the group calls this."""
    state = PartialState(cpu=True)
    place = folder / f"{state.num_processes}-{name}"
    own = place / str(state.process_index)
    (own / "pictures").mkdir(parents=True, exist_ok=resume)
    run = place / "run"
    if state.is_main_process and not resume:
        RunDir.create(run, recipe="a: 1\n")
    state.wait_for_everyone()
    examples = tiny_random.examples(own / "pictures", rows)
    if gone and not state.is_main_process:
        for picture in (own / "pictures").iterdir():
            picture.unlink()
    if fixed:  # the boxes of every other row are not known
        examples = [replace(e, boxes=()) if i % 2 else e for i, e in enumerate(examples)]
    sampler = ReplaySampler(written(loaded, examples), seen_size=examples[0].picture_size) if fixed else None
    per_process = changes.pop("rows_per_step") // state.num_processes
    batch = min(per_process, changes.pop("largest_pass", per_process))
    args = config(
        place,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=per_process // batch,
        num_generations=GROUP,
        ddp_find_unused_parameters=False,
        **changes,
    )
    # On CPUs accelerate would not shard, though torch and DeepSpeed do.
    if "ACCELERATE_USE_FSDP" in os.environ:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    if "ACCELERATE_USE_DEEPSPEED" in os.environ:
        importlib.import_module("deepspeed").init_distributed(dist_backend="gloo")
        PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
    made = GritTrainer(
        loaded,
        examples,
        args=args,
        protocol=EvaluationProtocol("direct", loaded.frame, MoodyJudge(), rubric),
        run=RunDir.open(run),
        rollout_sampler=sampler,
        evaluations=[TrainingEvaluation("held-out", tuple(examples), ASKED, every=every)] if every else (),
        advantage=advantage,
    )
    if stop_after is not None:
        made.add_callback(StopAfter(stop_after))
    if nan:
        made.add_callback(NotANumber(made))
    checkpoints = RunDir.open(run).checkpoints()
    made.train(resume_from_checkpoint=str(checkpoints[-1]) if resume else None)
    model = made.accelerator.unwrap_model(made.model)
    shares = [getattr(p, "_local_tensor", p) for p in model.parameters()]  # a DTensor's own share
    (own / "total").write_text(json.dumps(sum(p.double().abs().sum().item() for p in shares)))
    (own / "share").write_text(json.dumps(sum(p.numel() for p in shares)))
    weights = whole_weights(model)
    if state.is_main_process:
        torch.save(model.state_dict() if weights is None else weights, place / "weights.pt")
    if stop_after is None:
        save_final(made, place / "final")


FIXED = {
    "fixed": True, "rows_per_step": 8, "max_steps": 3, "max_completion_length": 300, "learning_rate": 1e-3,
    "save_strategy": "steps", "save_steps": 2,
}  # fmt: skip
SAMPLED = {"fixed": False, "max_steps": 2, "max_completion_length": 60, "learning_rate": 1e-3}


def scenarios(folder):
    """What one process and two with whole weights do."""
    train(folder, "qwen", tiny_random.qwen(), **FIXED)
    changes = {"max_steps": 4, "num_iterations": 2, "beta": 0.05, "logging_steps": 4, "save_strategy": "no"}
    train(folder, "internvl", base(folder, "internvl"), largest_pass=4, **FIXED | changes)
    train(folder, "half", tiny_random.talkative(tiny_random.qwen()), rows_per_step=4, **SAMPLED)
    train(folder, "piece", base(folder, "qwen"), rows_per_step=12, beta=0.05, **SAMPLED)
    # A group begins on one process and ends on the next.
    apart = Advantage(combine="normalize_then_sum", objects=ObjectCredit())
    credit = FIXED | {"rows_per_step": 12, "save_strategy": "no"}
    train(folder, "credit", base(folder, "qwen"), advantage=apart, **credit)
    if PartialState().num_processes == 2:
        own = rubric_of({f"{folder / 'batched.py'}:first_of_batch": 1.0})
        once = credit | {"max_steps": 1}
        train(folder, "batched", base(folder, "qwen"), rubric=own, **once)
        train(
            folder, "gone", tiny_random.talkative(tiny_random.qwen()), rows_per_step=8, gone=True, **SAMPLED
        )


def sharded(folder):
    """What two with sharded weights (FSDP2) do; the first of it once more, stopped and resumed."""
    train(folder, "fsdp-qwen", tiny_random.qwen(), every=2, **FIXED)
    train(folder, "fsdp-resumed", tiny_random.qwen(), stop_after=2, **FIXED)
    train(folder, "fsdp-resumed", tiny_random.qwen(), resume=True, **FIXED)
    train(folder, "fsdp-nan", tiny_random.qwen(), nan=True, **FIXED | {"max_steps": 2, "save_strategy": "no"})
    again = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    train(folder, "fsdp-piece", base(folder, "qwen"), rows_per_step=12, beta=0.05, **SAMPLED, **again)


def shared_gradients(folder):
    """What two under DeepSpeed's ZeRO-2 do, in one go and resumed."""
    train(folder, "zero-qwen", tiny_random.qwen(), **FIXED)
    train(folder, "zero-resumed", tiny_random.qwen(), stop_after=2, **FIXED)
    train(folder, "zero-resumed", tiny_random.qwen(), resume=True, **FIXED)


def base(folder, family):
    """A model that was loaded from a folder, as a reference model must be."""
    return opengrit.models.load(str(folder / f"base-{family}"))


def fork(job: Callable[[], None], **environment: object) -> int:
    """The process id of a child that does the job with these environment variables; it exits with 0 where all went well."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        faulthandler.enable()  # an abort in torch's own threads shows where the others were
        os.environ |= {name: str(value) for name, value in environment.items()}
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait_for(children: list[int]) -> int:
    """How many failed, or ABORTED. One that fails, or a signal to this process, ends the others: they would wait for it."""

    def end_all(*_: object) -> None:
        for child in running:
            os.kill(child, signal.SIGKILL)

    running = set(children)
    signal.signal(signal.SIGTERM, end_all)
    failed, aborted = 0, False
    while running:
        child, status = os.wait()
        running.discard(child)
        if status != 0:
            if not failed:
                aborted = os.waitstatus_to_exitcode(status) == -signal.SIGABRT
            failed += 1
            end_all()
    return ABORTED if aborted else failed


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def main(folder: Path) -> int:
    """Fork all processes and wait for them; how many failed, or ABORTED."""
    torch.set_num_threads(1)
    (folder / "batched.py").write_text(BATCHED)
    for family in (tiny_random.qwen, tiny_random.internvl):
        tiny_random.save(tiny_random.talkative(family()), folder / f"base-{family.__name__}")
    world = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    children = [fork(lambda: scenarios(folder), RANK=rank, LOCAL_RANK=rank, **world) for rank in range(2)]
    children.append(fork(lambda: scenarios(folder)))
    other = world | {"MASTER_PORT": _free_port()} | SHARDED
    children += [fork(lambda: sharded(folder), RANK=rank, LOCAL_RANK=rank, **other) for rank in range(2)]
    if importlib.util.find_spec("deepspeed") is not None:
        other = world | {"MASTER_PORT": _free_port(), "DS_ACCELERATOR": "cpu"} | ZERO_2
        children += [
            fork(lambda: shared_gradients(folder), RANK=rank, LOCAL_RANK=rank, **other) for rank in range(2)
        ]
    return _wait_for(children)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

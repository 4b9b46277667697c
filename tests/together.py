"""Trainings in one process and in two, forked from a process that has imported everything: `python together.py FOLDER`.

Each scenario writes a run folder, the weights it ended with and, by process, the sum of its weights.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

import opengrit.models
import tiny_random
from opengrit.judge import RuleJudge
from opengrit.rewards import Rubric
from opengrit.rollout import Exam
from opengrit.rundir import RunDir
from opengrit.samplers.replay import ReplaySampler
from opengrit.trainer import GritTrainer
from opengrit.types import Completion, Finish, Unjudged
from test_trainer import config

RUBRIC = Rubric.from_weights({"correct": 1.0, "tag_walk": 0.5, "grounding_iou": 0.5, "repetition": 0.25})
GROUP = 4
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


def train(folder, name, loaded, *, fixed, rows=4, **changes):
    """One scenario; every process of the group calls this."""
    state = PartialState(cpu=True)
    place = folder / f"{state.num_processes}-{name}"
    own = place / str(state.process_index)
    (own / "pictures").mkdir(parents=True)
    run = place / "run"
    if state.is_main_process:
        RunDir.create(run, recipe="a: 1\n")
    state.wait_for_everyone()
    examples = tiny_random.examples(own / "pictures", rows)
    if fixed:  # the boxes of every other row are not known
        examples = [replace(e, boxes=()) if i % 2 else e for i, e in enumerate(examples)]
    sampler = ReplaySampler(written(loaded, examples), seen_size=examples[0].picture_size) if fixed else None
    per_process = changes.pop("rows_per_step") // state.num_processes
    batch = min(per_process, changes.pop("largest_pass", per_process))
    made = GritTrainer(
        loaded,
        examples,
        args=config(
            place,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=per_process // batch,
            num_generations=GROUP,
            ddp_find_unused_parameters=False,
            **changes,
        ),
        exam=Exam("direct", loaded.frame, MoodyJudge(), RUBRIC),
        run=RunDir.open(run),
        rollouts=sampler,
    )
    made.train()
    model = made.accelerator.unwrap_model(made.model)
    (own / "total").write_text(json.dumps(sum(p.double().abs().sum().item() for p in model.parameters())))
    if state.is_main_process:
        torch.save(model.state_dict(), place / "weights.pt")


def scenarios(folder):
    """All of them, one after the other."""
    train(
        folder, "qwen", tiny_random.qwen(), fixed=True, rows_per_step=8, max_steps=3,
        max_completion_length=300, learning_rate=1e-3, save_strategy="steps", save_steps=3,
    )  # fmt: skip
    base = opengrit.models.load(str(folder / "base"))
    train(
        folder, "internvl", base, fixed=True, rows_per_step=8, largest_pass=4, max_steps=4, num_iterations=2,
        max_completion_length=300, learning_rate=1e-3, beta=0.05, logging_steps=4,
    )  # fmt: skip
    for name, rows_per_step in (("half", 4), ("piece", 12)):
        loaded = tiny_random.talkative(tiny_random.qwen())
        train(
            folder, name, loaded, fixed=False, rows_per_step=rows_per_step, max_steps=2, max_completion_length=30
        )  # fmt: skip


def fork(job: Callable[[], None], **environment: object) -> int:
    """The process id of a child that does the job with these environment variables; it exits with 0 where all went well."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= {name: str(value) for name, value in environment.items()}
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(folder: Path) -> int:
    """Fork all processes and wait for them; how many failed."""
    torch.set_num_threads(1)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    tiny_random.save(tiny_random.internvl(), folder / "base")
    world = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [fork(lambda: scenarios(folder), RANK=rank, LOCAL_RANK=rank, **world) for rank in range(2)]
    children.append(fork(lambda: scenarios(folder)))
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

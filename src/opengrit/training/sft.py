"""Few-shot supervised fine-tuning: from a recipe to a model in a run's folder, by TRL's trainer with our prompts."""

# B rows, T tokens, A position axes.
from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from opengrit.core.types import Example
from opengrit.data import load_examples, require_readable
from opengrit.grounding.frames import frame_for
from opengrit.grounding.prompts import user_text
from opengrit.grounding.targets import target_text
from opengrit.models.families import Loaded, base_model
from opengrit.models.sticker_models import tell_what_it_knows
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.runs.folder import FINAL, RunDir
from opengrit.sampling import Asked
from opengrit.sampling.model_inputs import PreparedPrompt, widen
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.training.callbacks import NonFiniteGuard, TimesCallback
from opengrit.training.checkpoint import restore_weights, save_checkpoint
from opengrit.training.resume import TRAIN, Inputs, Resume, create_run, is_finished, locked_start
from opengrit.training.settings import sft_config
from opengrit.training.step_times import OF_EXAMPLES, Part, StepTimes
from opengrit.training.tiled_head import add_tiled_head
from opengrit.training.trackers import open_trackers
from opengrit.training.trainable_weights import check_model, load_trainable, lora_config
from opengrit.training.training_loop import save_final, take_steps

_log = logging.getLogger(__name__)
_PICTURE_INPUTS = ("pixel_values", "image_grid_thw")
_NO_LOSS = -100  # a label that is not learned


def fine_tune(
    recipe: SftRecipe,
    out: str | Path,
    *,
    resume: bool = False,
    resume_anyway: bool = False,
    resume_from: str | None = None,
) -> RunDir:
    """Fine-tune as the recipe says; the run's folder, with the model and its processor in `final`.

    With `resume` the run in `out` continues from its last checkpoint, or as `opengrit.training.train` says for the other
    two; a finished run is left as it is. Everything that can be refused is refused before a model is loaded or a file is
    written. Raises RecipeError for settings that cannot apply, DataError for the data, ModelError for the model's name,
    RunError for the folder and the checkpoint, and Stopped where a signal ended the steps.
    """
    text = recipe.resolved_yaml()
    wanted = Resume.asked(resume=resume, anyway=resume_anyway, checkpoint=resume_from)
    examples = [
        e
        for source in recipe.data.train
        for e in load_examples(source.spec, source.images, table=source.table)
    ]
    require_readable(examples)
    check_model(recipe.model, recipe.lora)
    with tempfile.TemporaryDirectory() as scratch:
        args = sft_config(recipe.sft, scratch, num_rows=len(examples))
        inputs = Inputs({TRAIN: examples}, recipe.model.name, recipe.data.train)
        if is_finished(out, recipe=text, resume=wanted, inputs=inputs):
            return RunDir.open(out)
        with locked_start(out, recipe=text, resume=wanted, inputs=inputs) as start:
            loaded = load_trainable(recipe.model, recipe.lora, freeze_vision=recipe.freeze_vision)
            if PartialState().is_main_process:
                tell_what_it_knows(recipe.model.name, examples)
            run = create_run(
                out, recipe=text, seed=recipe.sft.seed, resume=wanted, start=start, inputs=inputs
            )
            trainer = GritSFTTrainer(
                loaded,
                sft_examples(examples, loaded=loaded, strategy=recipe.strategy, system=recipe.system),
                args=args,
                run=run,
                peft_config=lora_config(recipe.lora, loaded.family, freeze_vision=recipe.freeze_vision),
            )
            with open_trackers(recipe.sft, run, checkpoint=start.checkpoint) as trackers:
                for callback in trackers.callbacks:
                    trainer.add_callback(callback)
                take_steps(trainer, run, checkpoint=start.checkpoint)
            save_final(trainer, run.path / FINAL)
    return run


def sft_examples(
    examples: Sequence[Example], *, loaded: Loaded, strategy: str, system: str | None = None
) -> list[SftExample]:
    """Each row's prompt and target, with its boxes as the model sees the picture.

    The first process logs how many rows have no box.
    """
    preparer = TransformersSampler(loaded)
    found = []
    for example in examples:
        text = user_text(strategy, example.question, family=loaded.frame)
        asked = Asked(example.id, example.image, text, system)
        frame = frame_for(loaded.frame, preparer.prepare(asked).picture.seen_size)
        found.append(SftExample(asked, target_text(example, strategy=strategy, frame=frame)))
    without = sum(not example.boxes for example in examples)
    if without and PartialState().is_main_process:
        _log.info("%d of %d rows have no box: their targets have no boxes", without, len(examples))
    return found


@dataclass(frozen=True, slots=True)
class SftExample:
    """A question about a picture, as it is asked, and the reply to learn (without the token that ends it)."""

    asked: Asked
    reply: str


class GritSFTTrainer(SFTTrainer):
    """TRL's SFTTrainer on `SftExample` rows. The loss is taken on the reply and its end token alone.

    Overridden, and why: batches (prompts and pictures are prepared as they are when the model is asked, token for
    token, and are never cut), the weights a resume starts from (all of them), checkpoints (whole or not at all) and
    the log (our file).
    """

    def __init__(
        self,
        loaded: Loaded,
        examples: Sequence[SftExample],
        *,
        args: SFTConfig,
        run: RunDir | None = None,
        peft_config: LoraConfig | None = None,
    ) -> None:
        self.loaded, self.run = loaded, run
        self.examples = list(examples)
        self.preparer = TransformersSampler(loaded)
        self.times = StepTimes(OF_EXAMPLES)
        super().__init__(
            model=loaded.model,
            args=args,
            data_collator=self.batch_of,
            # A column "image" tells TRL to leave the rows to the collator.
            train_dataset=Dataset.from_dict(
                {
                    "image": [str(example.asked.image) for example in self.examples],
                    "example": list(range(len(self.examples))),
                }
            ),
            processing_class=loaded.processor,
            peft_config=peft_config,
        )
        add_tiled_head(base_model(self.model), entropy=True, top1=True)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(NonFiniteGuard(self))
        self.add_callback(TimesCallback(self))

    def batch_of(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The model's inputs for rows of the data set, padded on the right; labels on the replies alone."""
        with self.times.part(Part.PREPARE):
            examples = [self.examples[row["example"]] for row in rows]
            batch = sft_batch(
                self.loaded, [(self.preparer.prepare(one.asked), self.reply_ids(one)) for one in examples]
            )
        self.times.add_tokens(int(batch["attention_mask"].sum()))
        return batch

    def reply_ids(self, example: SftExample) -> list[int]:
        """The token ids of a reply, the token that ends it included."""
        tokenizer = self.loaded.processor.tokenizer
        return [*tokenizer(example.reply, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As TRL's, on the clock."""
        with self.times.part(Part.LOSS):
            step: torch.Tensor = super().training_step(*args, **kwargs)
        return step

    # -- checkpoints and log ------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        rows = self.args.train_batch_size * self.accelerator.num_processes
        passes = self.state.global_step * self.args.gradient_accumulation_steps
        epoch, batch = divmod(passes, math.ceil(len(self.examples) / rows))
        order = {"epoch": epoch, "batch": batch, "seed": self.args.seed}
        with self.times.part(Part.WRITE):
            save_checkpoint(self, model, trial, run=self.run, data_order=order)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore_weights(model or self.model, Path(resume_from_checkpoint))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL does, and to metrics.jsonl and the log: one line for each step that is logged."""
        if "loss" in logs:
            logs.update(self.times.row())  # here, so that trackers are told as well
        super().log(logs, start_time)
        if "loss" not in logs or not self.accelerator.is_main_process:
            return  # the summary at the end of training
        row = {"step": self.state.global_step, **logs}
        if self.run is not None:
            with self.run.append_metrics() as writer:
                writer.write_metrics(row)
        _log.info(
            "step %d/%d  loss %.3f  tokens right %.2f",
            row["step"],
            self.state.max_steps,
            row["loss"],
            row["mean_token_accuracy"],
        )


def sft_batch(
    loaded: Loaded, rows: Sequence[tuple[PreparedPrompt, Sequence[int]]]
) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask`, `labels` (B x T), `position_ids` and the pictures of prompts with their replies."""
    width = max(len(prompt.ids) + len(reply) for prompt, reply in rows)
    ids_BT = torch.full((len(rows), width), loaded.processor.tokenizer.pad_token_id or 0)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.long)
    labels_BT = torch.full((len(rows), width), _NO_LOSS)
    positions_ABT = torch.zeros(loaded.position_axes, len(rows), width, dtype=torch.long)
    for row, (prompt, reply) in enumerate(rows):
        start, end = len(prompt.ids), len(prompt.ids) + len(reply)
        ids_BT[row, :end] = torch.tensor([*prompt.ids, *reply])
        mask_BT[row, :end] = 1
        labels_BT[row, start:end] = torch.tensor(list(reply))
        positions_ABT[:, row, :start] = prompt.positions_AP
        after = torch.arange(len(reply)) + prompt.next_position
        positions_ABT[:, row, start:end] = widen(after, axes=1).expand(loaded.position_axes, -1)
    pictures = [prompt.picture.inputs for prompt, _ in rows]
    shown = {
        name: torch.cat([inputs[name] for inputs in pictures])
        for name in _PICTURE_INPUTS
        if name in pictures[0]
    }
    positions = positions_ABT if loaded.position_axes > 1 else positions_ABT[0]
    return {
        "input_ids": ids_BT,
        "attention_mask": mask_BT,
        "position_ids": positions,
        "labels": labels_BT,
        **shown,
    }

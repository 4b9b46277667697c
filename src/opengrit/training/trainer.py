"""GRPO on grounded answers: TRL's trainer with our sampler, our rubric, even data order and resumable checkpoints."""

# R rows (completions) of a process, G siblings of one question, T completion tokens.
from __future__ import annotations

import logging
import math
import os
import sys

# TRL warns about rollout_func.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather, gather_object
from peft import LoraConfig
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer

from opengrit.core.types import Example, Record
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.prompts import asked_for
from opengrit.models.families import Loaded, base_model
from opengrit.recipes.asking import AskingAgain
from opengrit.recipes.objective import Advantage, ObjectCredit
from opengrit.runs.alarms import Setting
from opengrit.runs.folder import RunDir
from opengrit.sampling import Sampler, SamplingSettings
from opengrit.sampling.transformers_engine import ENCODED_AT_ONCE, TransformersSampler
from opengrit.sampling.vllm import VllmSampler, forgetting_pictures
from opengrit.training.callbacks import GritCallback, NonFiniteGuard, TimesCallback
from opengrit.training.checkpoint import restore_weights, save_checkpoint
from opengrit.training.credit import RewardColumns, flat_groups, flat_rows, idle_rows, with_object_credit
from opengrit.training.data_order import EvenOrder
from opengrit.training.metrics import MetricSums, StepLog, add_lengths, add_pass, add_scores, merged, put_sums
from opengrit.training.progress_table import ProgressTable
from opengrit.training.retention import CheckpointRetention
from opengrit.training.rollout_sampling import OwnRows, RolloutSampling
from opengrit.training.rollouts import STOP, JudgeSettings, Rollouts, RolloutScorer, split_rows, trl_rows
from opengrit.training.sampler_check import SamplerCheck, agreement
from opengrit.training.scoring import RowScorer
from opengrit.training.settings import check_processor, check_settings
from opengrit.training.sharding import asks_for_fsdp, gather_weights, shard_by_layers
from opengrit.training.shared_prefix import share_prefix
from opengrit.training.step_times import Part, StepTimes
from opengrit.training.tiled_head import add_tiled_head
from opengrit.training.trackers import Trackers
from opengrit.training.trainable_weights import vision_is_fixed
from opengrit.training.training_evaluation import TrainingEvaluation

log = logging.getLogger(__name__)


class GritTrainer(GRPOTrainer):
    """TRL's GRPOTrainer on `Example` rows. Pictures stay out of its data set: rows carry the example's number.

    Overridden, and why: the data order (every row used each epoch, the same after a resume), the splitting of a
    generation batch (groups stay together), log-probabilities (each picture encoded once, each prompt read once, no
    gradient where there is nothing to learn), the rewards (our records hold them), the weights a resume starts from
    (all of them), checkpoints (whole or not at all) and the log (our files and table, and sums and counts over all
    processes and passes where TRL takes means of means).

    Answers are judged on a thread while the reference log-probabilities are computed. A step of which too few answers
    are judged is skipped: it is counted in the metrics, and no weight and no optimizer state changes. DeepSpeed steps
    by itself: there the gradient of a skipped step is zero, and momentum, weight decay and the moments still apply.

    `rollout_sampler` samples the completions; by default the model in this process does, or vLLM where `args.use_vllm`.
    """

    args: GRPOConfig
    model: Any
    num_generations: int
    max_completion_length: int
    rollouts: Rollouts  # of the newest generation
    _buffered_inputs: Any

    def __init__(
        self,
        loaded: Loaded,
        examples: Sequence[Example],
        *,
        args: GRPOConfig,
        protocol: EvaluationProtocol,
        run: RunDir | None = None,
        peft_config: LoraConfig | None = None,
        evaluations: Sequence[TrainingEvaluation] = (),
        progress: ProgressTable | None = None,
        trackers: Trackers | None = None,
        rollout_sampler: Sampler | None = None,
        judge_settings: JudgeSettings | None = None,
        retention: CheckpointRetention | None = None,
        stop: tuple[str, ...] = STOP,
        advantage: Advantage | None = None,
        asking_again: AskingAgain | None = None,
        resample_flat_groups: int = 0,
    ) -> None:
        check_settings(args, num_rows=len(examples))
        check_processor(loaded.processor)
        self.examples, self.protocol, self.run = list(examples), protocol, run
        self.evaluations = tuple(evaluations)
        self.retention = retention or CheckpointRetention()
        self.scorer = RolloutScorer(protocol, judge_settings or JudgeSettings(), asking_again)
        self.skips = False  # the current generation is not learned from
        self._flat_groups: list[bool | None] = []  # of the current generation, on all processes
        self.metric_sums = MetricSums()  # of this process, since the last line of the log
        self.sampler_check = SamplerCheck(self._log_metric)
        self._batch_examples: list[Example] = []
        self._rows: list[int] = []
        self._idle: frozenset[int] = frozenset()  # rows that teach nothing
        advantage = advantage or Advantage()
        args.multi_objective_aggregation = advantage.combine
        self.object_credit = advantage.objects
        self.columns = RewardColumns(protocol.rubric, apart=advantage.combine == "normalize_then_sum")
        if asks_for_fsdp():
            shard_by_layers(loaded)
        super().__init__(
            model=loaded.model,
            reward_funcs=self.columns.functions,
            args=args,
            train_dataset=trl_rows(self.examples),
            processing_class=loaded.processor,
            peft_config=peft_config,
            rollout_func=_rollout_func,
        )
        self.reward_weights = torch.tensor(self.columns.weights, dtype=torch.float32)
        self.aux_loss_enabled = False  # experts: the loss is GRPO's alone
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.nonfinite_guard = NonFiniteGuard(self)
        trackers = trackers or Trackers()
        for added in (self.nonfinite_guard, GritCallback(self), TimesCallback(self), *trackers.callbacks):
            self.add_callback(added)
        self.step_log = StepLog(run, setting=self._setting(), progress=progress, trackers=trackers)
        self.loaded = replace(loaded, model=self.model)
        self.rollout_sampler = rollout_sampler
        self._set_up_sampling(stop, resample_flat_groups)
        self._set_up_scoring()

    def _setting(self) -> Setting:
        """What the alarms know of the run."""
        return Setting(
            max_completion_length=self.max_completion_length,
            frame=self.protocol.frame,
            asks_for_boxes=asked_for(self.protocol.strategy, system=self.protocol.system).boxes,
            num_iterations=self.args.num_iterations,
            beta=self.args.beta,
        )

    def _set_up_sampling(self, stop: tuple[str, ...], resample_flat_groups: int) -> None:
        self.sampler = TransformersSampler(
            self.loaded,
            vision_is_fixed=vision_is_fixed(self.loaded),
            # Processes that shard weights run the tower equally often, whatever pictures they have.
            encoded_at_once=sys.maxsize if asks_for_fsdp() else ENCODED_AT_ONCE,
        )
        self.second_sampler = TransformersSampler(self.loaded, kept_bytes=0)  # its pictures are shown once
        self.rollout_sampling = RolloutSampling(
            self.sampler,
            self.second_sampler,
            protocol=self.protocol,
            scorer=self.scorer,
            settings=SamplingSettings(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                max_new_tokens=self.max_completion_length,
                seed=self.args.seed,
                stop=stop,
            ),
            resample_flat_groups=resample_flat_groups,
            end_ids=self.eos_token_ids,
            appended_id=self._tokenizer.eos_token_id,
            autocast=self.accelerator.autocast,
        )

    def _set_up_scoring(self) -> None:
        models = [self.accelerator.unwrap_model(m) for m in (self.model, self.ref_model) if m is not None]
        shares_prefix = all([share_prefix(base_model(model)) for model in models])
        self.times = StepTimes()
        self.row_scorer = RowScorer(self.sampler, self.accelerator, shares_prefix)
        # An entropy bonus needs the entropy's gradient, which TRL's head has.
        args = self.args
        tiled = not (args.cast_lm_head_to_fp32 or args.entropy_coef or args.use_adaptive_entropy)
        for model in models:
            add_tiled_head(base_model(model), temperature=self.temperature, entropy=True, tiled=tiled)

    # -- data -------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Any = None) -> EvenOrder:
        self.order = EvenOrder(
            len(self.examples),
            questions=(self.args.generation_batch_size or 0) // self.num_generations,
            group=self.num_generations,
            repeats=self._passes_per_generation,
            seed=self.args.seed,
        )
        return self.order

    @property
    def _passes_per_generation(self) -> int:
        """Forward and backward passes made with one generation batch before the next is sampled."""
        return self.num_iterations * self.args.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return self.order.num_batches * self.num_iterations

    # -- experience -------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._batch_examples = [self.examples[row["example"]] for row in inputs]
        self._rows = list(range(len(inputs)))
        output = super()._generate_and_score_completions(inputs)
        output["row"] = torch.arange(len(inputs))
        self.sampler_check.is_due = self.rollouts.log_probs is not None
        self._compare_with_sampler(output.get("old_per_token_logps"))
        # TRL takes a group for flat where its standard deviation is below 1e-8, which rounding in 32 bits is above.
        # Its rows would be taught that rounding, and pass through the model with a gradient for it.
        first_row = self.accelerator.process_index * len(inputs)
        flat = flat_rows(self._flat_groups, first_row, len(inputs), group=self.num_generations)
        output["advantages"][flat] = 0.0
        self._write_records(output["advantages"].tolist())
        if self.object_credit is not None:
            output["advantages"] = self._with_object_credit(output, self.object_credit)
        return output

    def _with_object_credit(self, output: Mapping[str, Any], section: ObjectCredit) -> torch.Tensor:
        records = self.rollouts.records
        advantages_RT, credited = with_object_credit(
            output["advantages"],
            [replace(r, score=replace(r.score, total=None)) for r in records] if self.skips else records,
            section=section,
            group=self.num_generations,
            width=output["completion_ids"].shape[1],
            first_row=self.accelerator.process_index * len(records),
            tokenizer=self._tokenizer,
        )
        for found in credited:
            self._log_metric("objects/credited", float(found))
        return advantages_RT

    def _roll_out(self) -> dict[str, Any]:
        """Sample and parse the current batch, and start to judge it; what TRL asks of a rollout function."""
        gather_weights(self.model, self.ref_model)
        rows = OwnRows(
            self._batch_examples,
            group=self.num_generations,
            first_row=self.accelerator.process_index * len(self._batch_examples),
            generation=self._step // self._passes_per_generation,
            step=self.state.global_step + 1,
        )
        self.rollouts = self.rollout_sampling.roll_out(rows, self._sampler_of_rollouts(), self.metric_sums)
        add_lengths(self.metric_sums, self.rollouts.records, self.rollouts.lengths)
        self.times.add_tokens(sum(self.rollouts.lengths))
        return self.rollouts.for_trl()

    def _sampler_of_rollouts(self) -> Sampler:
        if self.rollout_sampler is None and self.use_vllm:
            trained = not vision_is_fixed(self.loaded)
            self.rollout_sampler = VllmSampler(
                self.sampler,
                self.vllm_generation.generate,
                expands_pictures=self.vllm_mode == "colocate",
                forget_pictures=forgetting_pictures(self.vllm_generation) if trained else None,
            )
        return self.rollout_sampler or self.sampler

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """What all processes' rows are worth, NaN where that is not known; their parts go to the metrics row by row.

        TRL's own would warn of every batch with a completion that was cut off. TRL computes the reference
        log-probabilities before it calls this, so that the judge has had that long.
        """
        with self.times.part(Part.JUDGE):
            records, skip_reason = self.scorer.finish(self.rollouts.records)
        self.rollouts, self.skips = replace(self.rollouts, records=records), skip_reason is not None
        if self.skips and self.accelerator.is_main_process:
            log.warning("step %d is skipped: %s", self.state.global_step + 1, skip_reason)
        totals = [math.nan if self.skips or r.score.total is None else r.score.total for r in records]
        add_scores(self.metric_sums, records, totals)
        rows = self.columns.of(records, skipped=self.skips)
        every = gather(torch.tensor(rows, dtype=torch.float32, device=self.accelerator.device))
        self._flat_groups = flat_groups(every.tolist(), group=self.num_generations)
        for flat in self._flat_groups:
            if flat is not None:
                self.metric_sums.add("frac_reward_zero_std", float(flat))
        return every

    def _compare_with_sampler(self, log_probs_RT: torch.Tensor | None) -> None:
        """Once a generation, with the first scores of it by the weights that sampled it."""
        if log_probs_RT is None or self.rollouts.log_probs is None or not self.sampler_check.is_due:
            return
        reported, lengths = self.rollouts.log_probs, self.rollouts.lengths
        self.sampler_check.take(
            agreement(
                log_probs_RT,
                [reported[row] for row in self._rows],
                [lengths[row] for row in self._rows],
                gather,
            )
        )

    def _write_records(self, advantages: Sequence[float]) -> None:
        own = [replace(r, advantage=a) for r, a in zip(self.rollouts.records, advantages, strict=True)]
        every: list[Record] = gather_object(own)
        if self.accelerator.is_main_process:
            with self.times.part(Part.WRITE):
                self.step_log.add_records(every, self.state.global_step + 1)

    # -- learning ---------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not self.model.training:
            raise RuntimeError(
                "GritTrainer evaluates through opengrit.evaluation.evaluator, never through TRL's evaluation loop"
            )
        if self._step % self._passes_per_generation == 0 or self._buffered_inputs is None:
            whole = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_rows(whole, self.args.gradient_accumulation_steps)
        return self._buffered_inputs[self._step % self.args.gradient_accumulation_steps]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As TRL's; what is sampled, judged and written within it has parts of its own."""
        with self.times.part(Part.LOSS):
            step: torch.Tensor = super().training_step(*args, **kwargs)
        return step

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        gather_weights(self.model)
        self._rows = inputs["row"].tolist()
        if self.beta == 0.0 or self.skips:
            prompts = [self.rollouts.prompts[row] for row in self._rows]
            self._idle = idle_rows(self._rows, prompts, inputs["advantages"])
        try:
            loss = super()._compute_loss(model, inputs)
            self.nonfinite_guard.check_loss(loss)
            tokens = int((inputs["completion_mask"] * inputs["tool_mask"]).sum())
            add_pass(self.metric_sums, self._metrics["train"], tokens=tokens)
            return 0.0 * loss if self.skips else loss
        finally:
            self._idle = frozenset()

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Scores of the rows in `self._rows`. TRL's left-padded prompt ids are not looked at: our prompts are."""
        ids_RT, mask_RT = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:]
        # The loss's pass wants entropies, others do not.
        with nullcontext() if compute_entropy else self.times.part(Part.REFERENCE):
            scores = self.row_scorer.score(
                model,
                self.rollouts,
                self._rows,
                ids_RT,
                mask_RT,
                idle=self._idle,
                at_once=batch_size or len(self._rows),
                entropy=compute_entropy,
            )
        if compute_entropy:
            self._compare_with_sampler(scores.log_probs_RT)
        return scores.log_probs_RT, scores.entropies_RT if compute_entropy else None, None

    # -- checkpoints and log ----------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        is_last = step >= self.state.max_steps  # no step is left that would use the rollouts
        epoch, of_epoch = divmod(step, self.steps_per_epoch)
        batch = of_epoch // self.num_iterations
        with self.times.part(Part.WRITE):
            save_checkpoint(
                self,
                model,
                trial,
                run=self.run,
                data_order={
                    "epoch": epoch,
                    "batch": batch,
                    "rows": len(self.examples),
                    "seed": self.args.seed,
                },
                cycle_step=0 if is_last else step % self.num_iterations,
            )
        if self.run is not None and self.accelerator.is_main_process:
            self.retention.apply(self.run, evaluations=[one.name for one in self.evaluations])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore_weights(model or self.model, Path(resume_from_checkpoint))

    def _log_metric(self, name: str, value: float) -> None:
        """One row's value; the mean is that of the rows of all processes and of all steps of a line of the log."""
        self.metric_sums.add(name, value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL does, and to metrics.jsonl and the table: one line for each step that is logged."""
        if "loss" in logs:
            put_sums(self._metrics["train"], merged(gather_object([self.metric_sums])))
            self.metric_sums = MetricSums()
            logs.update(self.times.row())  # here, so that trackers are told as well
        super().log(logs, start_time)
        if "loss" in logs and self.accelerator.is_main_process:  # not for the summary at the end of training
            self.step_log.add({"step": self.state.global_step, **logs})


def _rollout_func(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    with trainer.times.part(Part.DRAW):
        rolled: dict[str, Any] = trainer._roll_out()
    return rolled

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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather, gather_object
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer

from opengrit.core.errors import ImageError, ModelError, RecipeError, RunError
from opengrit.core.types import Example, Record, Unjudged, Verdict
from opengrit.evaluation.evaluator import evaluate
from opengrit.evaluation.metrics import (
    Quantity,
    count_error,
    follows_format,
    grounding_iou,
    num_boxes,
    right,
    truncated,
    unjudged,
)
from opengrit.evaluation.rollout import EvaluationProtocol, ask, case_of, roll_out, with_verdicts
from opengrit.judges import Case
from opengrit.judges.pool import JudgePool, PendingVerdicts, Skip, decide
from opengrit.models.families import Loaded, base_model
from opengrit.models.resolve import save_origin
from opengrit.runs.alarms import AlarmMonitor, Setting, alarm_row, alarms_of, resumed_row, zero_loss_is_normal
from opengrit.runs.folder import RunDir
from opengrit.sampling import Asked, Sampler, SamplingSettings
from opengrit.sampling.model_inputs import PreparedPrompt, distinct_pictures
from opengrit.sampling.transformers_engine import ENCODED_AT_ONCE, TransformersSampler
from opengrit.sampling.vllm import VllmSampler
from opengrit.training.checkpoint import restore_weights, save_step, thin_out
from opengrit.training.data_order import EvenOrder
from opengrit.training.metric_sums import Tally, merged
from opengrit.training.nonfinite_guard import FiniteSteps
from opengrit.training.progress_table import Watch
from opengrit.training.sharding import (
    asks_for_fsdp,
    check_sharding,
    drop_second_copy,
    gather_weights,
    share_by_layers,
)
from opengrit.training.shared_prefix import TokenScores, packed_scores, row_scores, share_prefix

log = logging.getLogger(__name__)
STOP = ("</answer>",)
_QUANTITIES: dict[str, Quantity] = {
    "accuracy": right,
    "format": follows_format,
    "grounding_iou": grounding_iou,
    "boxes": num_boxes,
    "count_error": count_error,
    "truncated": truncated,
    "unjudged": unjudged,
}
_SEED_STEP = 1_000_003  # keeps the seeds of different runs and steps apart
# What TRL averages over passes and steps though they hold different numbers of tokens or rows: added up by us instead.
_BY_TOKEN = ("entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")
_BY_ROW = frozenset(
    {"reward", "rewards/rubric_total/mean", "completions/clipped_ratio", "frac_reward_zero_std"}
    | {f"completions/{which}_length" for which in ("mean", "min", "max")}
    | {f"completions/{which}_terminated_length" for which in ("mean", "min", "max")}
)


@dataclass(frozen=True, slots=True)
class Probe:
    """Examples measured while training, every `every` steps; `name` is their name in the metrics."""

    name: str
    examples: tuple[Example, ...]
    settings: SamplingSettings
    every: int
    questions_per_batch: int = 16
    samples_per_question: int = 1
    strategy: str | None = None  # None: the training's own


@dataclass(frozen=True, slots=True)
class Judging:
    """How patiently a step's answers are judged, and which share of them (0 to 1) a step needs to be learned from."""

    deadline_seconds: float = 300.0
    min_judged_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which checkpoints stay: the newest `newest` (None: all), and the one whose probes had the highest mean of `best`."""

    newest: int | None = None
    best: str | None = None


class GritTrainer(GRPOTrainer):
    """TRL's GRPOTrainer on `Example` rows. Pictures stay out of its data set: rows carry the example's number.

    Overridden, and why: the data order (every row used each epoch, the same after a resume), the splitting of a
    generation batch (groups stay together), log-probabilities (each picture encoded once, each prompt read once, no
    gradient where there is nothing to learn), the rewards (our records hold them), the weights a resume starts from
    (all of them), checkpoints (whole or not at all) and the log (our files and table, and sums and counts over all
    processes and passes where TRL takes means of means).

    Answers are judged on a thread while the reference log-probabilities are computed. A step of which too few answers
    are judged is skipped: it is counted in the metrics, and no weight and no optimizer state changes. DeepSpeed steps
    by itself: there the gradient of a skipped step is zero, and momentum, weight decay and the moments go on.

    `rollouts` draws the completions; by default the model in this process does, or vLLM where `args.use_vllm`.
    """

    args: GRPOConfig
    model: Any
    num_generations: int
    max_completion_length: int
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
        probes: Sequence[Probe] = (),
        watch: Watch | None = None,
        rollouts: Sampler | None = None,
        judging: Judging | None = None,
        keeping: Keeping | None = None,
        rows_per_batch: int = 192,
        stop: tuple[str, ...] = STOP,
    ) -> None:
        check_settings(args, num_rows=len(examples))
        check_processor(loaded.processor)
        self.examples = list(examples)
        self.protocol, self.run, self.probes, self.watch = protocol, run, tuple(probes), watch
        self.stop = stop
        self.judging = judging or Judging()
        self.keeping = keeping or Keeping()
        self.judge_pool = JudgePool(protocol.judge)
        self._pending: PendingVerdicts | None = None
        self.skips = False  # the current generation is not learned from
        self._flat_groups: list[bool | None] = []  # of the current generation, on all processes
        self._explained = False  # a loss of nothing
        self.tally = Tally()  # of this process, since the last line of the log
        self._batch_examples: list[Example] = []
        self._records: list[Record] = []
        self._prompts: list[PreparedPrompt] = []
        self._lengths: list[int] = []  # of each row: tokens that were sampled
        self._rows: list[int] = []
        self._idle: frozenset[int] = frozenset()  # rows that teach nothing
        if asks_for_fsdp():
            share_by_layers(loaded)
        super().__init__(
            model=loaded.model,
            reward_funcs=[self.rubric_total],
            args=args,
            train_dataset=_rows(self.examples),
            processing_class=loaded.processor,
            peft_config=peft_config,
            rollout_func=_rollout_func,
        )
        self.aux_loss_enabled = False  # experts: the loss is GRPO's alone
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.finite = FiniteSteps(self)
        self.add_callback(self.finite)
        self.add_callback(_Course(self))
        self.alarm_setting = Setting(
            max_completion_length=self.max_completion_length,
            frame=protocol.frame,
            asks_for_boxes=protocol.strategy != "direct",
            num_iterations=args.num_iterations,
            beta=args.beta,
        )
        self.watchman = AlarmMonitor(self.alarm_setting)
        self.loaded = replace(loaded, model=self.model)
        self.sampler = TransformersSampler(
            self.loaded,
            rows_per_batch=rows_per_batch,
            vision_is_fixed=vision_is_fixed(self.loaded),
            # Processes that share weights out go through the tower as often as one another, whatever pictures they have.
            encoded_at_once=sys.maxsize if asks_for_fsdp() else ENCODED_AT_ONCE,
        )
        self.rollouts = rollouts
        models = [m for m in (self.model, self.ref_model) if m is not None]
        self.shares_prefix = all([share_prefix(base_model(self.accelerator.unwrap_model(m))) for m in models])

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
        """Forward and backward passes made with one generation batch before the next is drawn."""
        return self.num_iterations * self.args.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return self.order.num_batches * self.num_iterations

    # -- experience -------------------------------------------------------------------------------------------

    def sampling_settings(self, generation: int) -> SamplingSettings:
        """How the rollouts of the `generation`-th batch are drawn: the same whenever it is drawn, and on every process.

        A completion's random numbers come from the seed, its question and its place in the group, so that several
        processes draw what one would.
        """
        return SamplingSettings(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_completion_length,
            seed=self.args.seed * _SEED_STEP + generation,
            stop=self.stop,
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._batch_examples = [self.examples[row["example"]] for row in inputs]
        self._rows = list(range(len(inputs)))
        output = super()._generate_and_score_completions(inputs)
        output["row"] = torch.arange(len(inputs))
        # TRL takes a group for flat where its standard deviation is below 1e-8, which rounding in 32 bits is above.
        # Its rows would be taught that rounding, and gone through with a gradient for it.
        output["advantages"][self._flat_rows(len(inputs))] = 0.0
        self._keep_records(output["advantages"].tolist())
        return output

    def _flat_rows(self, count: int) -> list[int]:
        """Of this process's rows those of groups that teach nothing; processes hold consecutive rows of the batch."""
        first = self.accelerator.process_index * count
        return [
            row
            for row in range(count)
            if self._flat_groups[(first + row) // self.num_generations] is not False
        ]

    def _roll_out(self) -> dict[str, Any]:
        """Sample and parse the current batch, and begin to judge it; what TRL asks of a rollout function."""
        gather_weights(self.model, self.ref_model)
        size, places = self._slices(len(self._batch_examples))
        examples = self._batch_examples[::size]
        settings = self.sampling_settings(self._step // self._passes_per_generation)
        drawer = self._drawer()
        with self.accelerator.autocast():
            groups = roll_out(
                drawer,
                examples,
                protocol=self.protocol,
                samples_per_question=size,
                settings=[replace(settings, first_sample=place) for place in places],
                step=self.state.global_step + 1,
            )
        self._records = [record for records in groups for record in records]
        cases = [case for record in self._records if (case := case_of(record)) is not None]
        self._pending = self._judge(cases)
        self._prompts = self._prompts_of(groups, drawer)
        completion_ids, env_mask = zip(
            *(self._completion_row(record) for record in self._records), strict=True
        )
        self._lengths = [sum(mask) for mask in env_mask]
        self._tally_lengths()
        return {
            "prompt_ids": [list(prompt.ids) for prompt in self._prompts],
            "completion_ids": list(completion_ids),
            "logprobs": self._sampled_log_probs(drawer, completion_ids),
            "env_mask": list(env_mask),
        }

    def _slices(self, rows: int) -> tuple[int, list[int]]:
        """In what pieces this process draws its rows: completions of one piece, and each piece's place in its group.

        Processes hold consecutive rows of the generation batch, so a group may begin on one and end on the next.
        """
        size = math.gcd(rows, self.num_generations)
        first = self.accelerator.process_index * rows
        return size, [start % self.num_generations for start in range(first, first + rows, size)]

    def _tally_lengths(self) -> None:
        for record, length in zip(self._records, self._lengths, strict=True):
            if record.failure is not None:
                continue
            cut_off = bool(truncated(record))
            self.tally.add("completions/clipped_ratio", float(cut_off))
            for kind in ("length",) if cut_off else ("length", "terminated_length"):
                self.tally.add(f"completions/mean_{kind}", length)
                self.tally.add_smallest(f"completions/min_{kind}", length)
                self.tally.add_largest(f"completions/max_{kind}", length)

    def _judge(self, cases: Sequence[Case]) -> PendingVerdicts | None:
        if not cases:
            return None
        return self.judge_pool.start(cases, deadline_seconds=self.judging.deadline_seconds)

    def _take_verdicts(self) -> None:
        """Scores the batch with the opinions that are there by the deadline, and decides whether it is learned from."""
        opinions = [] if self._pending is None else self._pending.result()
        asked = [case_of(record) is not None for record in self._records]
        self._records = with_verdicts(self._records, opinions, rubric=self.protocol.rubric)
        # An opinion that is missing and that no reward needs does no harm.
        counted: list[Verdict | Unjudged] = [
            record.verdict
            for record, was_asked in zip(self._records, asked, strict=True)
            if was_asked and (isinstance(record.verdict, Verdict) or record.score.total is None)
        ]
        decision = decide(gather_object(counted), min_judged_share=self.judging.min_judged_share)
        self.skips = isinstance(decision, Skip)
        if isinstance(decision, Skip) and self.accelerator.is_main_process:
            log.warning("step %d is not learned from: %s", self.state.global_step + 1, decision.reason)
        for record, was_asked in zip(self._records, asked, strict=True):
            if was_asked:
                self._log_metric("judge/unjudged", float(isinstance(record.verdict, Unjudged)))

    def _drawer(self) -> Sampler:
        if self.rollouts is None and self.use_vllm:
            self.rollouts = VllmSampler(self.sampler, self.vllm_generation.generate)
        return self.rollouts or self.sampler

    @staticmethod
    def _sampled_log_probs(
        drawer: Sampler, completion_ids: Sequence[Sequence[int]]
    ) -> list[list[float | None]] | None:
        """The log-probabilities that vLLM sampled with, as long as the rows (appended tokens count for nothing)."""
        if not isinstance(drawer, VllmSampler):
            return None
        rows = zip(drawer.last_log_probs, completion_ids, strict=True)
        return [[*given[: len(ids)], *[0.0] * (len(ids) - len(given))] for given, ids in rows]

    def _prompts_of(self, groups: Sequence[Sequence[Record]], drawer: Sampler) -> list[PreparedPrompt]:
        """Each row's prompt. A failed row takes another row's prompt: its mask is empty and it teaches nothing."""
        prompts: Sequence[PreparedPrompt | None]
        if isinstance(drawer, (TransformersSampler, VllmSampler)):
            prompts = drawer.last_prompts  # not prepared again: a picture may have gone since
        else:
            asked = [ask(group[0].example, protocol=self.protocol) for group in groups]
            prompts = [self.sampler.prepare(question) for question in asked]
        stand_in = next((p for p in prompts if p is not None), None)
        if not any(gather_object([stand_in is not None])):
            raise ImageError(
                f"some picture of a batch must be readable, none of {len(groups)} is ({groups[0][0].failure}); "
                "check the image folder"
            )
        # Others have pictures where this process has none: it learns nothing in this step, and goes through it.
        stand_in = stand_in or self.sampler.prepare(Asked.blank())
        shared: dict[str, PreparedPrompt] = {}  # pieces of one group share their prompt
        return [
            shared.setdefault(group[0].example.id, prompt or stand_in)
            for prompt, group in zip(prompts, groups, strict=True)
            for _ in group
        ]

    def _completion_row(self, record: Record) -> tuple[list[int], list[int]]:
        """Token ids and the mask of the sampled ones. TRL takes a row without a last end token for truncated."""
        ids = list(record.completion.token_ids)
        mask = [1] * len(ids)
        if record.failure is None and (ids[-1] in self.eos_token_ids or truncated(record)):
            return ids, mask
        return [*ids, self._tokenizer.eos_token_id], [*mask, 0]

    def rubric_total(self, **_: Any) -> list[float | None]:
        """The rows' totals, None where a row could not be scored, and in all rows of a step that is skipped."""
        return [None if self.skips else record.score.total for record in self._records]

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """The totals of all processes' rows, NaN where there is none; their parts go to the metrics row by row.

        TRL's own would warn of every batch with a completion that was cut off. TRL computes the reference
        log-probabilities before it comes here, so that the judge has had that long.
        """
        self._take_verdicts()
        for record in self._records:
            for name, value in _measures(record).items():
                self._log_metric(name, value)
        totals = [math.nan if total is None else total for total in self.rubric_total()]
        for total in totals:
            self.tally.add("reward", total)
            self.tally.add("rewards/rubric_total/mean", total)
        every = gather(torch.tensor(totals, dtype=torch.float32, device=self.accelerator.device)[:, None])
        self._flat_groups = flat_groups(every[:, 0].tolist(), group=self.num_generations)
        for flat in self._flat_groups:
            if flat is not None:
                self.tally.add("frac_reward_zero_std", float(flat))
        return every

    def _keep_records(self, advantages: Sequence[float]) -> None:
        kept = [replace(r, advantage=a) for r, a in zip(self._records, advantages, strict=True)]
        kept = gather_object(kept)
        if self.run is None or not self.accelerator.is_main_process:
            return
        with self.run.append_records() as writer:
            for record in kept:
                writer.write_record(record)

    # -- learning ---------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not self.model.training:
            raise RuntimeError(
                "GritTrainer evaluates through opengrit.evaluation.evaluator, never through TRL's evaluation loop"
            )
        if self._step % self._passes_per_generation == 0 or self._buffered_inputs is None:
            whole = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = _split(whole, self.args.gradient_accumulation_steps)
        return self._buffered_inputs[self._step % self.args.gradient_accumulation_steps]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        gather_weights(self.model)
        self._rows = inputs["row"].tolist()
        self._idle = self._rows_that_teach_nothing(inputs["advantages"].tolist())
        try:
            loss = super()._compute_loss(model, inputs)
            self.finite.saw(loss)
            self._tally_pass(int((inputs["completion_mask"] * inputs["tool_mask"]).sum()))
            return 0.0 * loss if self.skips else loss
        finally:
            self._idle = frozenset()

    def _rows_that_teach_nothing(self, advantages: Sequence[float]) -> frozenset[int]:
        """Of the pass's rows those of groups without any advantage: without a KL term their gradient is zero.

        One group is always left: a loss has a gradient, and processes that learn together wait for each other's.
        """
        if self.beta != 0.0 and not self.skips:
            return frozenset()
        teaching = {
            id(self._prompts[row]) for row, given in zip(self._rows, advantages, strict=True) if given
        }
        teaching = teaching or {id(self._prompts[self._rows[0]])}
        return frozenset(row for row in self._rows if id(self._prompts[row]) not in teaching)

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
        step = batch_size or len(self._rows)
        places = range(len(self._rows))
        chunks: list[tuple[list[int], bool]] = []  # places of rows, and whether they are learned from
        for start in range(0, len(places), step):
            chunk = places[start : start + step]
            chunks.append(([i for i in chunk if self._rows[i] in self._idle], False))
            chunks.append(([i for i in chunk if self._rows[i] not in self._idle], True))
        chunks = [(chunk, learn) for chunk, learn in chunks if chunk]
        scores = [
            self._score(model, [self._rows[i] for i in chunk], ids_RT[chunk], mask_RT[chunk], learn=learn)
            for chunk, learn in chunks
        ]
        back = torch.tensor([i for chunk, _ in chunks for i in chunk], device=ids_RT.device).argsort()
        log_probs = torch.cat([s.log_probs_RT for s in scores])[back]
        entropies = [s.entropies_RT for s in scores if s.entropies_RT is not None]
        return log_probs, torch.cat(entropies)[back] if compute_entropy else None, None

    def _score(
        self, model: Any, rows: Sequence[int], ids_RT: torch.Tensor, mask_RT: torch.Tensor, *, learn: bool
    ) -> TokenScores:
        prompts = [self._prompts[row] for row in rows]
        whole = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast(), torch.set_grad_enabled(torch.is_grad_enabled() and learn):
            # A wrapper that holds processes together goes through as many passes on each: those that learn.
            scorer = model if learn else whole
            visual = self.sampler.encode(base_model(whole), distinct_pictures(prompts))
            if not self.shares_prefix:
                return row_scores(
                    scorer, self.loaded, prompts, visual, completion_ids_RT=ids_RT, completion_mask_RT=mask_RT
                )
            return packed_scores(
                scorer,
                self.loaded,
                prompts,
                visual,
                completion_ids_RT=ids_RT,
                lengths=[self._lengths[row] for row in rows],
            )

    # -- checkpoints ------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.run is None:
            raise RunError("a checkpoint belongs to a run folder, this trainer has none; give it run=")
        # Past TRL's own override, which writes a model card that names this machine's folders.
        write = partial(super(GRPOTrainer, self)._save_checkpoint, model, trial)

        def save() -> None:
            write()
            if self.accelerator.is_main_process:
                folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
                drop_second_copy(folder)
                save_origin(folder, self.loaded)

        # After the last step nothing is left that would use the rollouts.
        is_last = self.state.global_step >= self.state.max_steps
        epoch, step = divmod(self.state.global_step, self.steps_per_epoch)
        order = {"epoch": epoch, "batch": step // self.num_iterations, "rows": len(self.examples)}
        save_step(
            self,
            self.run,
            save,
            data_order={**order, "seed": self.args.seed},
            cycle_step=0 if is_last else self.state.global_step % self.num_iterations,
        )
        if self.keeping.newest is not None and self.accelerator.is_main_process:
            thin_out(self.run, keep=self.keeping.newest, best=self._measured())

    def _measured(self) -> dict[int, float]:
        """By step: the mean over the probes of what the best checkpoint is chosen by; the newest measurement counts."""
        if self.run is None or self.keeping.best is None:
            return {}
        names = [f"eval/{probe.name}/{self.keeping.best}" for probe in self.probes]
        found: dict[int, dict[str, float]] = {}
        for row in self.run.metrics():
            for name in names:
                if row.get(name) is not None:
                    found.setdefault(row["step"], {})[name] = row[name]
        return {step: sum(v.values()) / len(v) for step, v in found.items() if len(v) == len(names)}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore_weights(model or self.model, Path(resume_from_checkpoint))

    # -- log --------------------------------------------------------------------------------------------------

    def _log_metric(self, name: str, value: float) -> None:
        """One row's value; the mean is that of the rows of all processes and of all steps of a line of the log."""
        self.tally.add(name, value)

    def _tally_pass(self, tokens: int) -> None:
        """Takes over what TRL found in this pass: means over the tokens of all processes, of which here are `tokens`."""
        found = self._metrics["train"]
        for name in _BY_TOKEN:
            if found.get(name):
                self.tally.add(name, found[name].pop(), weight=tokens)
        if found.get("clip_ratio/low_min"):
            self.tally.add_smallest("clip_ratio/low_min", found["clip_ratio/low_min"].pop())
            self.tally.add_largest("clip_ratio/high_max", found["clip_ratio/high_max"].pop())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL does, and to metrics.jsonl and the table: one line for each step that is logged."""
        if "loss" in logs:
            found = self._metrics["train"]
            found |= {name: [math.nan] for name in _BY_ROW & found.keys()}  # logged as null
            whole = merged(gather_object([self.tally]))
            found |= {name: [value] for name, value in whole.values().items()}
            self.tally = Tally()
        super().log(logs, start_time)
        if "loss" not in logs or not self.accelerator.is_main_process:
            return  # the summary at the end of training
        row = {"step": self.state.global_step, **logs}
        if self.run is not None:
            with self.run.append_metrics() as writer:
                writer.write_metrics(row)
        self._raise_alarms(row)
        if self.watch is not None:
            self.watch.show(row)

    def _raise_alarms(self, row: Mapping[str, Any]) -> None:
        """Logs what goes wrong by this row, keeps it in the run's alarms.jsonl, and hands it to the table."""
        normal = None if self._explained else zero_loss_is_normal(row, self.alarm_setting)
        if normal is not None:
            log.info(normal)
            self._explained = True
        for alarm in self.watchman.take(row):
            log.warning("alarm at step %d, %s: %s", alarm.step, alarm.kind.value, alarm.text)
            if self.run is not None:
                with self.run.append_alarms() as writer:
                    writer.write_metrics(alarm_row(alarm))
            if self.watch is not None:
                self.watch.warn(alarm)

    def probe(self, probe: Probe) -> dict[str, float]:
        """Measure a probe's examples with the weights as they are; accuracy, IoU and format rate by name."""
        with self.accelerator.autocast():
            records = evaluate(
                self.sampler,
                probe.examples,
                protocol=replace(self.protocol, strategy=probe.strategy or self.protocol.strategy),
                settings=probe.settings,
                samples_per_question=probe.samples_per_question,
                questions_per_batch=probe.questions_per_batch,
                quiet=True,
            )
        return _probe_row(probe.name, records)


class _Course(TrainerCallback):
    """Keeps the data order and TRL's step counter in time, runs the probes, and leaves out steps that are skipped."""

    def __init__(self, trainer: GritTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer._step = state.global_step * args.gradient_accumulation_steps
        run = self._trainer.run
        if run is None or not self._trainer.accelerator.is_main_process:
            return
        # A resumed run knows how it went before, and what it goes through once more.
        rows = {row["step"]: row for row in run.metrics() if "loss" in row}
        self._trainer.watchman.recall(rows[step] for step in sorted(rows) if step <= state.global_step)
        if any(alarm.step > state.global_step for alarm in alarms_of(run.alarms())):
            with run.append_alarms() as writer:
                writer.write_metrics(resumed_row(state.global_step))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.order.set_epoch(state.global_step // self._trainer.steps_per_epoch)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A gradient of zero would still move weights, by momentum and decay; without one an optimizer does nothing.

        DeepSpeed has stepped by now (within `accelerator.backward`), with a gradient of zero.
        """
        if self._trainer.skips:
            for parameter in self._trainer.model.parameters():
                parameter.grad = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer = self._trainer
        counts = trainer._metrics["train"]  # by step: of a generation that is skipped every iteration is
        counts["nonfinite/skipped_step"].append(float(trainer.finite.left_out))
        counts["judge/skipped_step"].append(float(trainer.skips))
        due = [probe for probe in trainer.probes if state.global_step % probe.every == 0]
        if due:
            gather_weights(trainer.model)
        for probe in due:
            if trainer.accelerator.is_main_process and trainer.run is not None:
                row = {"step": state.global_step, **trainer.probe(probe)}
                with trainer.run.append_metrics() as writer:
                    writer.write_metrics(row)


def _rollout_func(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    return trainer._roll_out()


def _rows(examples: Sequence[Example]) -> Dataset:
    """What TRL sees of the examples: the question, for its tables, and the example's number."""
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": example.question}] for example in examples],
            "example": list(range(len(examples))),
        }
    )


def _split(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """The generation batch in `parts` slices of consecutive rows; scalars go to every slice."""
    size = batch["row"].shape[0] // parts
    return [
        {k: v[i * size : (i + 1) * size] if v.ndim else v for k, v in batch.items()} for i in range(parts)
    ]


def _measures(record: Record) -> dict[str, float]:
    """What a record adds to the metrics of its step, by name; what does not apply to it is left out."""
    found = {name: quantity(record) for name, quantity in _QUANTITIES.items()}
    found["failed"] = float(record.failure is not None)
    found["rejected_boxes"] = float(len(record.transcript.rejected)) if found["boxes"] is not None else None
    for part, value in record.score.parts.items():
        found[f"parts/{part}"] = value
        found[f"parts/{record.example.dataset}/{part}"] = value
    return {name: value for name, value in found.items() if value is not None}


def flat_groups(totals: Sequence[float], *, group: int) -> list[bool | None]:
    """Of which groups all measured totals are equal; None where none is measured (NaN). Only False teaches something.

    `totals` of consecutive rows make a group. Equal sums in 32 bits differ by rounding, rewards by far more.
    """
    groups = [totals[start : start + group] for start in range(0, len(totals), group)]
    measured = [[total for total in one if not math.isnan(total)] for one in groups]
    return [max(one) - min(one) < 1e-5 if one else None for one in measured]


def _probe_row(name: str, records: Sequence[Record]) -> dict[str, float]:
    row: dict[str, float] = {f"eval/{name}/n": float(len(records))}
    for quantity_name, quantity in _QUANTITIES.items():
        values = [v for v in map(quantity, records) if v is not None]
        if values:
            row[f"eval/{name}/{quantity_name}"] = sum(values) / len(values)
    return row


def vision_is_fixed(loaded: Loaded) -> bool:
    """Whether no weight of the vision tower or of the projector learns."""
    learning = (name for name, p in loaded.model.named_parameters() if p.requires_grad)
    return not any(map(loaded.family.is_vision, learning))


def freeze_vision(loaded: Loaded) -> None:
    """Keep the vision tower and the projector as they are."""
    for name, parameter in loaded.model.named_parameters():
        if loaded.family.is_vision(name):
            parameter.requires_grad_(False)


def check_processor(processor: Any) -> None:
    """Raise ModelError for a processor that pads on the right: log-probabilities would be those of other tokens."""
    side = processor.tokenizer.padding_side
    if side != "left":
        raise ModelError(
            f"a processor pads on the left (completions follow their prompts), this one pads on the {side}; "
            'set processor.tokenizer.padding_side = "left", or load it with opengrit.models.load'
        )


def check_settings(args: GRPOConfig, *, num_rows: int) -> None:
    """Raise RecipeError for settings that TRL would accept and that would train on nothing, or not what was asked."""
    group, batch = args.num_generations or 0, args.generation_batch_size or 0
    check_rows(num_rows, batch // group)
    if args.steps_per_generation != args.gradient_accumulation_steps:
        raise RecipeError(
            f"a generation batch is one optimizer step, got steps_per_generation {args.steps_per_generation} and "
            f"gradient_accumulation_steps {args.gradient_accumulation_steps}; make them equal"
        )
    if args.save_strategy == "steps" and args.save_steps % args.num_iterations:
        raise RecipeError(
            f"a checkpoint ends a generation's use, got save_steps {args.save_steps} and num_iterations "
            f"{args.num_iterations}; make save_steps a multiple"
        )
    check_sharding(args)


def check_rows(num_rows: int, questions_per_step: int) -> None:
    """Raise RecipeError where the data has fewer rows than one step asks questions."""
    if num_rows < questions_per_step:
        raise RecipeError(
            f"a step asks distinct questions, train.questions_per_step is {questions_per_step} and data.train has "
            f"{num_rows} rows; lower questions_per_step to at most {num_rows} or add rows"
        )

"""A language model on this machine as the judge: any causal model of transformers, with the paper's prompt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from opengrit.core.errors import ModelError
from opengrit.core.escaping import shortened
from opengrit.core.messages import first_few
from opengrit.core.types import Unjudged, Verdict
from opengrit.core.weights import refuse_remote_code, require_safetensors
from opengrit.judges.model_judge import (
    CostEstimate,
    ReplySettings,
    Threshold,
    prompt_text,
    prompt_version,
    score_of,
)
from opengrit.judges.protocol import Case
from opengrit.judges.reply import READING

_NO_LIMIT = 1 << 20  # positions, where a model's config names none


def _require_whole(model: Any, found: Mapping[str, Any], source: str) -> None:
    """Raise ModelError where a weight is missing, of another shape or no finite number: its scores would mean nothing."""
    wrong = [*map(str, found["missing_keys"]), *(str(key) for key, *_ in found["mismatched_keys"])]
    wrong += [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if wrong:
        raise ModelError(
            f"a local judge's checkpoint holds every weight in its shape and as a finite number, that of {source} does not "
            f"({len(wrong)}: {first_few(sorted(wrong))}); check that its folder is complete, or name another "
            "with judge.model"
        )


class LocalJudge:
    """Judges answers with a text model, several prompts at once. Greedy, so that it is repeatable.

    A prompt that is longer than the model can read, and one that does not fit into memory, leaves its case
    `Unjudged`. It may be used by several threads, one batch at a time.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        reply_settings: ReplySettings | None = None,
        threshold: Threshold | None = None,
        batch_size: int = 16,
        device: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Loads a model by folder or hub id, in safetensors. Raises ModelError where that fails.

        Only `max_tokens` of `reply_settings` is used (64 where it is None).
        """
        self._source = str(model)
        self._max_new_tokens = (reply_settings or ReplySettings(max_tokens=64)).max_tokens or 64
        self._threshold = threshold or Threshold()
        self._batch_size, self._clock = batch_size, clock
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.float32 if self._device.type == "cpu" else "auto"
        require_safetensors(self._source, self._source)
        try:
            # Not left out: transformers would ask on the terminal whether to run a model's own code.
            config = AutoConfig.from_pretrained(self._source, trust_remote_code=False)
            refuse_remote_code(config, self._source)
            self._tokenizer = AutoTokenizer.from_pretrained(
                self._source, padding_side="left", trust_remote_code=False
            )
            model_class: Any = AutoModelForCausalLM
            self._model: Any
            self._model, found = model_class.from_pretrained(
                self._source,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"a local judge is a causal language model with a tokenizer, in safetensors; {self._source} cannot "
                f"be loaded ({' '.join(str(error).split())[:300]}); name another with judge.model"
            ) from error
        _require_whole(self._model, found, self._source)
        self._model.to(self._device).eval()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.convert_ids_to_tokens(0)
        # Of added tokens those that are no special ones count too: "<think>", "<tool_call>".
        added = self._tokenizer.added_tokens_decoder.values()
        self._control_tokens = sorted(
            {*self._tokenizer.all_special_tokens, *(token.content for token in added)}
        )
        ends = self._model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self._generation = GenerationConfig(
            do_sample=False,
            max_new_tokens=self._max_new_tokens,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        limit = getattr(self._model.config, "max_position_embeddings", None) or _NO_LIMIT
        self._longest_prompt = limit - self._max_new_tokens
        self._lock = threading.Lock()
        self.fingerprint: dict[str, Any] = {
            "kind": "local",
            "model": self._source,
            "weights": _weights_version(self._source, self._model),
            "prompt": prompt_version(),
            "reading": READING,
            "params": {"max_tokens": self._max_new_tokens},
        }

    @property
    def cost(self) -> float:
        """Nothing: no one is paid."""
        return 0.0

    def close(self) -> None:
        """Nothing to close; the model goes with its judge."""

    @property
    def name(self) -> str:
        """How the judge is called in its verdicts."""
        return f"local:{Path(self._source).name}"

    def verdict(self, score: float) -> Verdict:
        """The verdict for a score in [0, 1]."""
        return self._threshold.verdict(score, judge=self.name)

    def estimate(self, cases: Sequence[Case]) -> CostEstimate:
        """What these cases ask for: the exact number of prompt tokens, and the most it may write. It is free."""
        prompt = sum(len(self._token_ids(case)) for case in cases)
        return CostEstimate(len(cases), prompt, self._max_new_tokens * len(cases), 0.0)

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        """The model's verdict on one answer, or why there is none."""
        return self.judge_many([Case(question, expected=expected, given=given)])[0]

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        """One opinion a case, in order.

        No batch is started that would end after the deadline if it took as long as the longest before it.
        """
        ends_at = None if deadline_seconds is None else self._clock() + deadline_seconds
        found: list[Verdict | Unjudged] = [
            Unjudged(f"not judged within the deadline of {deadline_seconds} s") for _ in cases
        ]
        longest_seconds = 0.0
        with self._lock:
            for batch in self._batches(cases, found):
                begun_at = self._clock()
                if ends_at is not None and begun_at + longest_seconds >= ends_at:
                    break
                for number, opinion in zip(batch, self._judge_batch([cases[i] for i in batch]), strict=True):
                    found[number] = opinion
                longest_seconds = max(longest_seconds, self._clock() - begun_at)
        return found

    def _batches(self, cases: Sequence[Case], found: list[Verdict | Unjudged]) -> Iterator[list[int]]:
        """Places of cases that can be read, shortest first, so that padding is little."""
        lengths = {i: len(self._token_ids(case)) for i, case in enumerate(cases)}
        for i, length in lengths.items():
            if length > self._longest_prompt:
                found[i] = Unjudged(f"the prompt has {length} tokens, the judge reads {self._longest_prompt}")
        fitting = sorted((i for i in lengths if lengths[i] <= self._longest_prompt), key=lengths.__getitem__)
        for start in range(0, len(fitting), self._batch_size):
            yield fitting[start : start + self._batch_size]

    def _prompt(self, case: Case) -> str:
        """The text that the model continues. No text of the case can write one of the tokenizer's control tokens."""
        said = prompt_text(case, reserved=self._control_tokens)
        if self._tokenizer.chat_template is None:
            return said
        messages = [{"role": "user", "content": said}]
        return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def _token_ids(self, case: Case) -> list[int]:
        has_template = self._tokenizer.chat_template is not None
        return self._tokenizer(self._prompt(case), add_special_tokens=not has_template)["input_ids"]

    @torch.inference_mode()
    def _judge_batch(self, cases: Sequence[Case]) -> list[Verdict | Unjudged]:
        rows = {"input_ids": [self._token_ids(case) for case in cases]}
        inputs = self._tokenizer.pad(rows, return_tensors="pt").to(self._device)
        prompt_length = inputs["input_ids"].shape[1]
        try:
            written = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=self._generation,
            )
        except torch.OutOfMemoryError:
            return [Unjudged("the judge ran out of memory") for _ in cases]
        return [
            self._opinion(case, ids)
            for case, ids in zip(cases, written[:, prompt_length:].tolist(), strict=True)
        ]

    def _opinion(self, case: Case, written: list[int]) -> Verdict | Unjudged:
        """What the tokens of a reply say. One that no end was written to was cut off, perhaps inside a quotation."""
        reply = str(self._tokenizer.decode(written, skip_special_tokens=True))
        if not self._ends & set(written):
            shown = shortened(" ".join(reply.split()))
            return Unjudged(f"the judge's reply was cut off at {self._max_new_tokens} tokens: {shown}")
        if self._prompt(case).rstrip().endswith("<think>"):  # a template that begins the reasoning itself
            reply = f"<think>{reply}"
        score = score_of(reply, case)
        return score if isinstance(score, Unjudged) else self.verdict(score)


def _weights_version(source: str, model: Any) -> list[Any]:
    """What identifies a state of the weights: a hub commit, or the files of a folder."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit is not None:
        return [commit]
    files = sorted(Path(source).glob("*.safetensors"))
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]

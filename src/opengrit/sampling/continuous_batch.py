"""A running batch: questions join it, every step writes one token in each row, rows leave when they have ended."""

# R rows, V vocabulary.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from opengrit.core.errors import ImageError
from opengrit.core.types import Completion, Finish
from opengrit.sampling.detokenizing import StopFinder, TextStream, decode
from opengrit.sampling.kv_buffers import compacted
from opengrit.sampling.kv_cache import Memory, Prefix
from opengrit.sampling.model_inputs import (
    PreparedPicture,
    PreparedPrompt,
    VisionLanguageModel,
    VisualTokens,
    distinct_pictures,
)
from opengrit.sampling.protocol import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.token_sampling import Draws, pick_tokens


@dataclass(slots=True)
class Counts:
    """Work done since the sampler was made: the numbers that tests and benchmarks compare with the minimum."""

    pictures_prepared: int = 0
    pictures_encoded: int = 0
    prompt_tokens: int = 0  # padding excluded
    decode_tokens: int = 0  # one for each row and forward pass after the prompt


class Engine(Protocol):
    """What a running batch needs of the sampler that runs it."""

    vlm: VisionLanguageModel
    counts: Counts

    def prepare(self, question: Asked) -> PreparedPrompt: ...

    def encode(
        self, model: Any, pictures: Sequence[PreparedPicture]
    ) -> Mapping[tuple[str, int, int], VisualTokens]: ...

    def read(
        self, prompts: Sequence[PreparedPrompt], visual: Mapping[tuple[str, int, int], VisualTokens]
    ) -> Prefix: ...

    def memory(self) -> Memory: ...

    def stops(self, stop: tuple[str, ...]) -> StopFinder: ...


@dataclass(frozen=True, slots=True)
class Wrote:
    """What a step wrote in one row: new text, and the whole completion where it has ended."""

    handle: int
    sample: int
    text: str
    done: Sampled | None


@dataclass(frozen=True, slots=True)
class Joining:
    """A question about to join: its prompt, its settings and what its random numbers are known by."""

    prompt: PreparedPrompt
    settings: SamplingSettings
    question_id: str
    repeat: int = 0  # earlier questions of the same id and first sample in the same call


@dataclass(slots=True, eq=False)
class _Row:
    """One completion while it is written."""

    handle: int
    sample: int
    joining: Joining
    stops: StopFinder
    draws: Draws
    stream: TextStream | None
    ids: list[int] = field(default_factory=list)

    @property
    def settings(self) -> SamplingSettings:
        return self.joining.settings


class ContinuousBatch:
    """A batch that runs on while questions join and completions leave. One thread drives it.

    Each question has its own settings and its own random numbers, so what it is told does not depend on the batch
    beyond the rounding of its logits. With `tells_text` off, steps report ended completions only and no text on the
    way. The model is put in evaluation mode.
    """

    def __init__(self, sampler: Engine, *, tells_text: bool = True) -> None:
        vlm = sampler.vlm
        self._sampler = sampler
        self._vlm = vlm
        self._tells_text = tells_text
        self._device = vlm.model.device
        self._ends = frozenset(vlm.end_ids)
        self._forbidden = torch.tensor(vlm.forbidden_ids, device=self._device, dtype=torch.long)
        self._memory = sampler.memory()
        self._rows: list[_Row] = []
        self._positions_R = torch.empty(0, dtype=torch.long, device=self._device)
        # Either the logits of each row's next token are known, or the newest token of each row is still to be read.
        self._logits_RV: torch.Tensor | None = None
        self._tokens_R: torch.Tensor | None = None
        self._next_handle = 0
        if vlm.model.training:
            vlm.model.eval()

    @property
    def live(self) -> int:
        """How many completions are being written."""
        return len(self._rows)

    def admit(
        self,
        questions: Sequence[Asked],
        settings: Sequence[SamplingSettings],
        *,
        samples_per_question: int = 1,
    ) -> list[int | Unsampled]:
        """A handle for each question, whose prompt is read here; `Unsampled` where it cannot be asked."""
        joining: list[Joining] = []
        outcomes: list[int | Unsampled] = []
        for question, own in zip(questions, settings, strict=True):
            try:
                prompt = self._sampler.prepare(question)
            except ImageError as error:
                outcomes.append(Unsampled(str(error)))
                continue
            outcomes.append(self._next_handle + len(joining))
            joining.append(Joining(prompt, own, question.id))
        if joining:
            with torch.no_grad():
                visual = self._sampler.encode(self._vlm.model, distinct_pictures([j.prompt for j in joining]))
            self.join(joining, visual, samples_per_question=samples_per_question)
        return outcomes

    @torch.inference_mode()
    def join(
        self,
        joining: Sequence[Joining],
        visual: Mapping[tuple[str, int, int], VisualTokens],
        *,
        samples_per_question: int,
    ) -> list[int]:
        """Handles, one after the other, of questions whose pictures are encoded already."""
        self._read_on()
        prefix = self._sampler.read([j.prompt for j in joining], visual)
        handles = list(range(self._next_handle, self._next_handle + len(joining)))
        self._next_handle += len(joining)
        for handle, own in zip(handles, joining, strict=True):
            self._rows += [self._row(handle, sample, own) for sample in range(samples_per_question)]
        logits_RV = prefix.last_logits_UV.repeat_interleave(samples_per_question, 0)
        positions_R = prefix.next_position_U.repeat_interleave(samples_per_question)
        self._logits_RV = logits_RV if self._logits_RV is None else torch.cat([self._logits_RV, logits_RV])
        self._positions_R = torch.cat([self._positions_R, positions_R])
        self._memory.join(prefix, samples=samples_per_question)
        return handles

    def _row(self, handle: int, sample: int, joining: Joining) -> _Row:
        tokenizer = self._vlm.processor.tokenizer
        return _Row(
            handle,
            sample,
            joining,
            self._sampler.stops(joining.settings.stop),
            Draws(
                joining.settings.seed,
                joining.question_id,
                joining.settings.first_sample + sample,
                repeat=joining.repeat,
            ),
            TextStream(tokenizer) if self._tells_text else None,
        )

    @torch.inference_mode()
    def step(self) -> list[Wrote]:
        """One more token in every row; tells of rows that have new text or have ended. Ended rows have left."""
        if not self._rows:
            return []
        self._read_on()
        assert self._logits_RV is not None
        self._logits_RV[:, self._forbidden] = -torch.inf
        uniforms = [row.draws.next() if row.settings.temperature else 0.0 for row in self._rows]
        self._tokens_R = pick_tokens(self._logits_RV, [row.settings for row in self._rows], uniforms)
        self._logits_RV = None
        told: list[Wrote] = []
        staying: list[int] = []
        for place, (row, token) in enumerate(zip(self._rows, self._tokens_R.tolist(), strict=True)):
            finish = self._write(row, token)
            if finish is None:
                staying.append(place)
                text = "" if row.stream is None else row.stream.add(token)
                if text:
                    told.append(Wrote(row.handle, row.sample, text, None))
            else:
                told.append(self._ended(row, finish))
        self._keep(staying)
        return told

    @torch.inference_mode()
    def drop(self, handle: int) -> None:
        """Take a question's rows out of the batch; nothing happens where they have ended."""
        self._keep([place for place, row in enumerate(self._rows) if row.handle != handle])

    def _write(self, row: _Row, token: int) -> Finish | None:
        row.ids.append(token)
        if token in self._ends:
            return Finish.EOS
        if row.stops.may_complete(token) and row.stops.completes(row.ids):
            return Finish.STOP
        return Finish.LENGTH if len(row.ids) >= row.settings.max_new_tokens else None

    def _ended(self, row: _Row, finish: Finish) -> Wrote:
        said = row.ids[:-1] if finish is Finish.EOS else row.ids
        text = row.stops.cut(decode(self._vlm.processor.tokenizer, said))
        prompt = row.joining.prompt
        done = Sampled(Completion(text, tuple(row.ids), finish), prompt.ids, prompt.picture.seen_size)
        return Wrote(row.handle, row.sample, "" if row.stream is None else row.stream.rest(text), done)

    def _keep(self, staying: list[int]) -> None:
        if len(staying) == len(self._rows):
            return
        order = compacted(staying)
        self._rows = [self._rows[place] for place in order]
        if not order:  # nothing is left to remember
            self._memory = self._sampler.memory()
            self._positions_R, self._logits_RV, self._tokens_R = self._positions_R[:0], None, None
            return
        order_R = torch.tensor(order, device=self._device)
        self._memory.keep(order)
        self._positions_R = self._positions_R[order_R]
        self._logits_RV = None if self._logits_RV is None else self._logits_RV[order_R]
        self._tokens_R = None if self._tokens_R is None else self._tokens_R[order_R]

    def _read_on(self) -> None:
        """Let the model read each row's newest token, if it has not."""
        if self._tokens_R is None:
            return
        self._logits_RV = self._memory.read(self._tokens_R, self._positions_R)
        self._positions_R = self._positions_R + 1
        self._tokens_R = None
        self._sampler.counts.decode_tokens += len(self._rows)

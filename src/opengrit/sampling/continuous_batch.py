"""A continuous batch: questions join it, every step samples one token in each row, finished rows leave."""

# R rows, V vocabulary.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from opengrit.core.errors import ImageError
from opengrit.core.types import Completion, Finish
from opengrit.sampling.detokenizing import IncrementalDetokenizer, StopFinder, decode
from opengrit.sampling.kv_buffers import compacted
from opengrit.sampling.kv_cache import KVCache, Prefix
from opengrit.sampling.model_inputs import (
    PictureKey,
    PreparedPicture,
    PreparedPrompt,
    VisionLanguageModel,
    VisualTokens,
    distinct_pictures,
)
from opengrit.sampling.protocol import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.token_sampling import RandomStream, sample_tokens


@dataclass(slots=True)
class Counts:
    """Work done since the engine was made; tests and benchmarks compare it with the minimum."""

    pictures_prepared: int = 0
    pictures_encoded: int = 0
    prompt_tokens: int = 0  # padding excluded
    decode_tokens: int = 0  # one for each row and forward pass after the prompt


class Engine(Protocol):
    """What a running batch needs of the sampler that runs it: prefill, KV caches and stop strings."""

    vlm: VisionLanguageModel
    counts: Counts

    def prepare(self, question: Asked) -> PreparedPrompt: ...

    def encode(
        self, model: Any, pictures: Sequence[PreparedPicture]
    ) -> Mapping[PictureKey, VisualTokens]: ...

    def prefill(
        self, prompts: Sequence[PreparedPrompt], visual: Mapping[PictureKey, VisualTokens]
    ) -> Prefix: ...

    def new_kv_cache(self) -> KVCache: ...

    def stop_finder(self, stop: tuple[str, ...]) -> StopFinder: ...


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """The result of a step in one row: new text, and the whole completion where it is finished."""

    handle: int
    sample: int
    text: str
    done: Sampled | None


@dataclass(frozen=True, slots=True)
class Request:
    """A question that joins: its prompt, its settings and what its random streams are derived from."""

    prompt: PreparedPrompt
    settings: SamplingSettings
    question_id: str
    repeat: int = 0  # earlier ones of the same id, prompt and first sample in the same call


@dataclass(slots=True, eq=False)
class _Row:
    """One completion while it is sampled."""

    handle: int
    sample: int
    request: Request
    stops: StopFinder
    random: RandomStream
    text: IncrementalDetokenizer | None
    ids: list[int] = field(default_factory=list)

    @property
    def settings(self) -> SamplingSettings:
        return self.request.settings


class ContinuousBatch:
    """A batch that runs on while questions join and completions leave. One thread drives it.

    Each question has its own settings and its own random streams, so its completions do not depend on the batch
    beyond the rounding of their logits. With `streams_text` off, steps report finished completions only. The model is
    put in evaluation mode.
    """

    def __init__(self, engine: Engine, *, streams_text: bool = True) -> None:
        vlm = engine.vlm
        self._engine = engine
        self._vlm = vlm
        self._streams_text = streams_text
        self._device = vlm.model.device
        self._ends = frozenset(vlm.end_ids)
        self._forbidden = torch.tensor(vlm.forbidden_ids, device=self._device, dtype=torch.long)
        self._kv_cache = engine.new_kv_cache()
        self._rows: list[_Row] = []
        self._positions_R = torch.empty(0, dtype=torch.long, device=self._device)
        # Either the logits of each row's next token are known, or each row's newest token is still to be decoded.
        self._logits_RV: torch.Tensor | None = None
        self._tokens_R: torch.Tensor | None = None
        self._next_handle = 0
        if vlm.model.training:
            vlm.model.eval()

    @property
    def live(self) -> int:
        """How many completions are being sampled."""
        return len(self._rows)

    def admit(
        self,
        questions: Sequence[Asked],
        settings: Sequence[SamplingSettings],
        *,
        samples_per_question: int = 1,
    ) -> list[int | Unsampled]:
        """A handle for each question, whose prompt is prefilled here; `Unsampled` where it cannot be asked."""
        requests: list[Request] = []
        outcomes: list[int | Unsampled] = []
        for question, own in zip(questions, settings, strict=True):
            try:
                prompt = self._engine.prepare(question)
            except ImageError as error:
                outcomes.append(Unsampled(str(error)))
                continue
            outcomes.append(self._next_handle + len(requests))
            requests.append(Request(prompt, own, question.id))
        if requests:
            with torch.no_grad():
                visual = self._engine.encode(self._vlm.model, distinct_pictures([r.prompt for r in requests]))
            self.add(requests, visual, samples_per_question=samples_per_question)
        return outcomes

    @torch.inference_mode()
    def add(
        self,
        requests: Sequence[Request],
        visual: Mapping[PictureKey, VisualTokens],
        *,
        samples_per_question: int,
    ) -> list[int]:
        """Handles, one after the other, of questions whose pictures are encoded already."""
        self._decode_newest()
        prefix = self._engine.prefill([r.prompt for r in requests], visual)
        handles = list(range(self._next_handle, self._next_handle + len(requests)))
        self._next_handle += len(requests)
        for handle, request in zip(handles, requests, strict=True):
            self._rows += [self._row(handle, sample, request) for sample in range(samples_per_question)]
        logits_RV = prefix.last_logits_UV.repeat_interleave(samples_per_question, 0)
        positions_R = prefix.next_position_U.repeat_interleave(samples_per_question)
        self._logits_RV = logits_RV if self._logits_RV is None else torch.cat([self._logits_RV, logits_RV])
        self._positions_R = torch.cat([self._positions_R, positions_R])
        self._kv_cache.add(prefix, samples=samples_per_question)
        return handles

    def _row(self, handle: int, sample: int, request: Request) -> _Row:
        settings = request.settings
        number = settings.first_sample + sample
        stops = self._engine.stop_finder(settings.stop)
        random = RandomStream(settings.seed, request.question_id, number, repeat=request.repeat)
        text = IncrementalDetokenizer(self._vlm.processor.tokenizer) if self._streams_text else None
        return _Row(handle, sample, request, stops, random, text)

    @torch.inference_mode()
    def step(self) -> list[RowUpdate]:
        """One more token in every row; an update for each row with new text or a finished completion, which leaves."""
        if not self._rows:
            return []
        self._decode_newest()
        assert self._logits_RV is not None
        self._logits_RV[:, self._forbidden] = -torch.inf
        uniforms = [row.random.next() if row.settings.temperature else 0.0 for row in self._rows]
        self._tokens_R = sample_tokens(self._logits_RV, [row.settings for row in self._rows], uniforms)
        self._logits_RV = None
        updates: list[RowUpdate] = []
        staying: list[int] = []
        for place, (row, token) in enumerate(zip(self._rows, self._tokens_R.tolist(), strict=True)):
            finish = self._append(row, token)
            if finish is None:
                staying.append(place)
                text = "" if row.text is None else row.text.add(token)
                if text:
                    updates.append(RowUpdate(row.handle, row.sample, text, None))
            else:
                updates.append(self._finished(row, finish))
        self._keep(staying)
        return updates

    @torch.inference_mode()
    def drop(self, handle: int) -> None:
        """Take a question's rows out of the batch; nothing happens where they are finished."""
        self._keep([place for place, row in enumerate(self._rows) if row.handle != handle])

    def _append(self, row: _Row, token: int) -> Finish | None:
        row.ids.append(token)
        if token in self._ends:
            return Finish.EOS
        if row.stops.may_complete(token) and row.stops.completes(row.ids):
            return Finish.STOP
        return Finish.LENGTH if len(row.ids) >= row.settings.max_new_tokens else None

    def _finished(self, row: _Row, finish: Finish) -> RowUpdate:
        ids = row.ids[:-1] if finish is Finish.EOS else row.ids
        text = row.stops.cut(decode(self._vlm.processor.tokenizer, ids))
        prompt = row.request.prompt
        done = Sampled(Completion(text, tuple(row.ids), finish), prompt.ids, prompt.picture.seen_size)
        return RowUpdate(row.handle, row.sample, "" if row.text is None else row.text.rest(text), done)

    def _keep(self, staying: list[int]) -> None:
        if len(staying) == len(self._rows):
            return
        order = compacted(staying)
        self._rows = [self._rows[place] for place in order]
        if not order:
            self._kv_cache = self._engine.new_kv_cache()
            self._positions_R, self._logits_RV, self._tokens_R = self._positions_R[:0], None, None
            return
        order_R = torch.tensor(order, device=self._device)
        self._kv_cache.keep(order)
        self._positions_R = self._positions_R[order_R]
        self._logits_RV = None if self._logits_RV is None else self._logits_RV[order_R]
        self._tokens_R = None if self._tokens_R is None else self._tokens_R[order_R]

    def _decode_newest(self) -> None:
        """Run the model over each row's newest token, if it has not seen it."""
        if self._tokens_R is None:
            return
        self._logits_RV = self._kv_cache.decode(self._tokens_R, self._positions_R)
        self._positions_R = self._positions_R + 1
        self._tokens_R = None
        self._engine.counts.decode_tokens += len(self._rows)

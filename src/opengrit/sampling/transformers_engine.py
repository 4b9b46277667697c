"""The transformers sampler: each picture is encoded once, each prompt is prefilled once, completions share both."""

# U distinct prompts.
from __future__ import annotations

import hashlib
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import DynamicCache

from opengrit.core.boxes import Size
from opengrit.core.errors import ImageError, first_line
from opengrit.core.images import open_picture
from opengrit.grounding.prompts import user_turn
from opengrit.sampling.continuous_batch import ContinuousBatch, Counts, Request
from opengrit.sampling.detokenizing import StopFinder, token_texts
from opengrit.sampling.kv_cache import KVCache, Prefix, kv_cache_for
from opengrit.sampling.model_inputs import (
    TEMPLATE_ERRORS,
    PictureKey,
    PreparedPicture,
    PreparedPrompt,
    VisionLanguageModel,
    VisualTokens,
    distinct_pictures,
    next_positions,
    prompt_batch,
)
from opengrit.sampling.protocol import Asked, Listener, Sampled, SamplingSettings, Unsampled, settings_of_each

ENCODED_AT_ONCE = 128 * 2**20  # bytes of pixels in one pass of the vision tower: bounds its memory
_STOP_FINDERS = 64  # kept, one for each list of stop strings


class TransformersSampler:
    """Samples completions from a model in this process.

    Every distinct picture of a call is prepared and encoded once and every distinct prompt is prefilled once, however
    many samples are asked for; finished rows leave the batch. `rows_per_batch` bounds the rows decoded together. With
    `vision_is_fixed` the encodings are kept between calls: only for a vision tower whose weights do not change.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        *,
        rows_per_batch: int = 192,
        vision_is_fixed: bool = False,
        kept_bytes: int = 256 * 2**20,
        encoded_at_once: int = ENCODED_AT_ONCE,
        open_image: Callable[[str], Image.Image] = open_picture,
    ) -> None:
        self.vlm = vlm
        self.counts = Counts()
        # Of the last `sample`, in the order of its questions; None where one could not be asked.
        self.last_prompts: tuple[PreparedPrompt | None, ...] = ()
        self._rows_per_batch = rows_per_batch
        self._vision_is_fixed = vision_is_fixed
        self._kept_bytes = kept_bytes
        self._encoded_at_once = encoded_at_once
        self._open_image = open_image
        self._prepared: OrderedDict[PictureKey, PreparedPicture] = OrderedDict()
        self._prepared_bytes = 0
        self._encoded: dict[PictureKey, VisualTokens] = {}
        self._stop_finders: OrderedDict[tuple[str, ...], StopFinder] = OrderedDict()
        self._token_texts: list[str] = []
        self._logged: set[str] = set()  # what is logged once only

    # -- preparing ----------------------------------------------------------------------------------------------

    def prepare(self, question: Asked) -> PreparedPrompt:
        """The prompt as the model takes it. Raises ImageError when the picture cannot be read."""
        processor = self.vlm.processor
        picture = self._prepare_picture(question.image)
        turn = user_turn(question.text, system=question.system)
        try:
            text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        except TEMPLATE_ERRORS as error:
            raise ImageError(
                f"a model's chat template must take every question, this one fails for question {question.id} "
                f"({first_line(error)}); use the processor that belongs to the model"
            ) from error
        before, _, after = text.partition(processor.image_token)
        tokenizer = processor.tokenizer
        ids = [
            *tokenizer(before, add_special_tokens=False)["input_ids"],
            *picture.placeholder_ids,
            *tokenizer(after, add_special_tokens=False)["input_ids"],
        ]
        image_id = processor.image_token_id
        if ids.count(image_id) != picture.placeholder_ids.count(image_id):
            raise ImageError(
                f"a question must not contain the model's picture token {processor.image_token!r}, question "
                f"{question.id} does; remove it from the question"
            )
        return PreparedPrompt(tuple(ids), self.vlm.positions(ids, picture.inputs), picture)

    def _prepare_picture(self, picture: str | Image.Image) -> PreparedPicture:
        if not isinstance(picture, str):
            picture = picture.convert("RGB")
        key = _file_key(picture) if isinstance(picture, str) else _pixel_key(picture)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        image = self._open_image(picture) if isinstance(picture, str) else picture
        processor = self.vlm.processor
        try:
            made = processor(images=[[image]], text=[processor.image_token], return_tensors="pt")
        except ValueError as error:  # Qwen's: a picture more than 200 times as long as wide
            raise ImageError(
                f"a picture must suit the model's processor, this one of {image.width} x {image.height} pixels does not "
                f"({error}): {picture if isinstance(picture, str) else 'an opened picture'}; crop it"
            ) from error
        inputs = {k: v for k, v in made.items() if k in processor.image_processor.model_input_names}
        prepared = PreparedPicture(
            key=key,
            inputs=inputs,
            placeholder_ids=tuple(made["input_ids"][0].tolist()),
            seen_size=self.vlm.seen_size(inputs, Size(*image.size)),
        )
        self.counts.pictures_prepared += 1
        self._keep(prepared)
        return prepared

    def _keep(self, picture: PreparedPicture) -> None:
        self._prepared[picture.key] = picture
        self._prepared_bytes += _bytes(picture)
        while self._prepared_bytes > self._kept_bytes and len(self._prepared) > 1:
            _, dropped = self._prepared.popitem(last=False)
            self._prepared_bytes -= _bytes(dropped)
            self._encoded.pop(dropped.key, None)

    # -- encoding and prefill ------------------------------------------------------------------------------------

    def encode(self, model: Any, pictures: Sequence[PreparedPicture]) -> dict[PictureKey, VisualTokens]:
        """The pictures' tokens by key; each is encoded once, and once for all calls where the vision is fixed."""
        missing = [p for p in pictures if p.key not in self._encoded]
        fresh: dict[PictureKey, VisualTokens] = {}
        for chunk in self._chunks(missing):
            # A frozen tower needs no graph, and a kept encoding must not hold one.
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self._vision_is_fixed):
                fresh |= dict(zip((p.key for p in chunk), self.vlm.encode(model, chunk), strict=True))
            self.counts.pictures_encoded += len(chunk)
        if self._vision_is_fixed:
            self._encoded |= {key: tokens for key, tokens in fresh.items() if key in self._prepared}
        return {p.key: fresh[p.key] if p.key in fresh else self._encoded[p.key] for p in pictures}

    def _chunks(self, pictures: Sequence[PreparedPicture]) -> Iterator[list[PreparedPicture]]:
        """The pictures in chunks of at most `encoded_at_once` bytes of pixels (one picture may be larger)."""
        chunk: list[PreparedPicture] = []
        size = 0
        for picture in pictures:
            if chunk and size + _bytes(picture) > self._encoded_at_once:
                yield chunk
                chunk, size = [], 0
            chunk.append(picture)
            size += _bytes(picture)
        if chunk:
            yield chunk

    def prefill(self, prompts: Sequence[PreparedPrompt], visual: Mapping[PictureKey, VisualTokens]) -> Prefix:
        """The prompts' keys, values and last logits, from one forward pass."""
        model = self.vlm.model
        batch = prompt_batch(prompts, device=model.device)
        cache = DynamicCache()
        out = model(
            **batch,
            mm_encoder_outputs=self.vlm.encoder_outputs([visual[p.picture.key] for p in prompts]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.counts.prompt_tokens += sum(len(p.ids) for p in prompts)
        return Prefix(
            cache, batch["attention_mask"], next_positions(prompts, device=model.device), out.logits[:, -1]
        )

    # -- sampling -----------------------------------------------------------------------------------------------

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """As the protocol says. The same questions, settings and weights give the same completions again.

        A completion's random numbers depend on its settings' seed, its question's id and its number alone (a question
        asked twice in one call gets others the second time), so it does not depend on what else is asked but for the
        rounding of its logits, which differs from batch to batch and can tip a sample that lies on an edge.
        """
        each = settings_of_each(settings, count=len(questions))
        prepared: dict[int, PreparedPrompt] = {}
        results: list[list[Sampled | Unsampled]] = [
            [Unsampled.unwanted()] * samples_per_question for _ in questions
        ]
        for index, question in enumerate(questions):
            try:
                prepared[index] = self.prepare(question)
            except ImageError as error:
                results[index] = [Unsampled(str(error))] * samples_per_question
        self.last_prompts = tuple(prepared.get(index) for index in range(len(questions)))
        if not prepared or not samples_per_question:
            return results
        asked: Counter[tuple[object, ...]] = Counter()
        requests: dict[int, Request] = {}
        for index, prompt in prepared.items():
            same = questions[index].id, prompt.ids, prompt.picture.key, each[index].first_sample
            requests[index] = Request(prompt, each[index], questions[index].id, repeat=asked[same])
            asked[same] += 1
        was_training = self.vlm.model.training
        self.vlm.model.eval()
        try:
            for index, sample, sampled in self._run(requests, samples_per_question, listener):
                results[index][sample] = sampled
        finally:
            self.vlm.model.train(was_training)
        return results

    def _run(
        self, requests: Mapping[int, Request], samples: int, listener: Listener | None
    ) -> Iterator[tuple[int, int, Sampled]]:
        """Question, sample and completion of each that is finished; prompts of like length are prefilled together."""
        with torch.no_grad():
            visual = self.encode(self.vlm.model, distinct_pictures([r.prompt for r in requests.values()]))
        waiting = sorted(requests, key=lambda i: (len(requests[i].prompt.ids), i), reverse=True)
        batch = ContinuousBatch(self, streams_text=listener is not None)
        questions: dict[int, int] = {}  # by handle
        while waiting or batch.live:
            if listener is not None:
                for handle, index in list(questions.items()):
                    if not listener.wants(index):
                        batch.drop(handle)
                        del questions[handle]
                waiting = [index for index in waiting if listener.wants(index)]
            # Filled up when half empty, so that prompts are prefilled several at a time.
            if waiting and batch.live <= self._rows_per_batch // 2:
                room = max(1, (self._rows_per_batch - batch.live) // samples)
                chosen = [waiting.pop() for _ in range(min(room, len(waiting)))]
                handles = batch.add([requests[i] for i in chosen], visual, samples_per_question=samples)
                questions |= dict(zip(handles, chosen, strict=True))
            for update in batch.step():
                index = questions[update.handle]
                if listener is not None and update.text:
                    listener.wrote(index, update.sample, update.text)
                if update.done is not None:
                    yield index, update.sample, update.done

    def new_kv_cache(self) -> KVCache:
        """An empty cache for a running batch of this model."""
        return kv_cache_for(self.vlm.base, axes=self.vlm.position_axes, logged=self._logged)

    def stop_finder(self, stop: tuple[str, ...]) -> StopFinder:
        """The finder of these stop strings in this model's tokens; the last few are kept, as clients choose their own."""
        tokenizer = self.vlm.processor.tokenizer
        if stop not in self._stop_finders:
            self._token_texts = self._token_texts or token_texts(tokenizer)
            self._stop_finders[stop] = StopFinder(tokenizer, stop, texts=self._token_texts)
        self._stop_finders.move_to_end(stop)
        while len(self._stop_finders) > _STOP_FINDERS:
            self._stop_finders.popitem(last=False)
        return self._stop_finders[stop]


def _bytes(picture: PreparedPicture) -> int:
    return sum(t.element_size() * t.nelement() for t in picture.inputs.values())


def _file_key(path: str) -> PictureKey:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ImageError(
            f"a picture must be a readable file, {path} is not ({error.strerror}); check the path"
        ) from error
    return path, stat.st_mtime_ns, stat.st_size


def _pixel_key(picture: Image.Image) -> PictureKey:
    digest = hashlib.blake2b(picture.tobytes(), digest_size=16).hexdigest()
    return f"pixels:{digest}", picture.width, picture.height

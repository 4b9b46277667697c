"""The transformers sampler: each picture is encoded once, each prompt is read once, its completions share both."""

# U distinct prompts, G samples a prompt, R = U x G rows, P prompt tokens, T completion tokens, V vocabulary,
# A position axes (3 for Qwen's rotary positions, 1 otherwise), N picture tokens, D width.
from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from PIL import Image
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from opengrit.boxes import Size
from opengrit.errors import ImageError
from opengrit.images import open_picture
from opengrit.samplers import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.types import Completion, Finish

_ENCODED_AT_ONCE = (
    128 * 2**20
)  # bytes of pixels; bounds the vision tower's memory when many pictures are asked about


class Speaker(Protocol):
    """What the sampler needs of a loaded model; `opengrit.models.Loaded` is one."""

    @property
    def model(self) -> Any: ...

    @property
    def processor(self) -> Any: ...

    @property
    def end_ids(self) -> tuple[int, ...]: ...

    @property
    def forbidden_ids(self) -> tuple[int, ...]: ...

    @property
    def position_axes(self) -> int: ...

    def seen_size(self, picture_inputs: Mapping[str, torch.Tensor], picture_size: Size) -> Size: ...

    def positions(self, ids: list[int], picture_inputs: Mapping[str, torch.Tensor]) -> torch.Tensor: ...

    def encode(self, model: Any, pictures: Sequence[PreparedPicture]) -> list[VisualTokens]: ...

    def show(self, visual: Sequence[VisualTokens]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPicture:
    """A picture as the vision tower takes it, and the token ids that stand for it in a prompt."""

    key: tuple[str, int, int]  # path, modification time (ns), bytes
    inputs: Mapping[str, torch.Tensor]
    placeholder_ids: tuple[int, ...]
    seen_size: Size


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPrompt:
    """A prompt ready for the model: token ids, their positions (A x P), and its picture."""

    ids: tuple[int, ...]
    positions_AP: torch.Tensor
    picture: PreparedPicture

    @property
    def next_position(self) -> int:
        """The position of the first completion token."""
        return int(self.positions_AP.max()) + 1


@dataclass(frozen=True, slots=True, eq=False)
class VisualTokens:
    """A picture's tokens (N x D) for the language model, and those that deeper layers add, if the family has them."""

    tokens_ND: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()


@dataclass(slots=True)
class Counts:
    """Work done since the sampler was made: the numbers that tests and benchmarks compare with the minimum."""

    pictures_prepared: int = 0
    pictures_encoded: int = 0
    prompt_tokens: int = 0  # padding excluded
    decode_tokens: int = 0  # one for each row and forward pass after the prompt


@dataclass(slots=True)
class Prefix:
    """Prompts read by the model: keys and values, the mask over them, and the next position of each prompt."""

    cache: DynamicCache
    mask_UP: torch.Tensor
    next_position_U: torch.Tensor
    last_logits_UV: torch.Tensor

    def make_room(self) -> None:
        """Let the cache take in token after token without copying what it holds. Nothing learns through it then."""
        self.cache.layers = [
            RoomyLayer(cast(Any, layer.keys), cast(Any, layer.values))
            if type(layer) is DynamicLayer
            else layer
            for layer in self.cache.layers
        ]

    def spread(self, rows_R: torch.Tensor) -> None:
        """Let row r continue prompt `rows_R[r]`, in place."""
        self.cache.batch_select_indices(rows_R)
        self.mask_UP = self.mask_UP[rows_R]
        self.next_position_U = self.next_position_U[rows_R]
        self.last_logits_UV = self.last_logits_UV[rows_R]


def pad_left(rows: Sequence[Sequence[int]], *, value: int, device: torch.device) -> torch.Tensor:
    """The rows as one tensor, padded on the left with `value`."""
    width = max(len(row) for row in rows)
    return torch.tensor(
        [[value] * (width - len(row)) + list(row) for row in rows], dtype=torch.long, device=device
    )


def prompt_batch(
    prompts: Sequence[PreparedPrompt], *, device: torch.device, drop_last: int = 0
) -> dict[str, Any]:
    """`input_ids`, `attention_mask` (U x P) and `position_ids` (U x P, or 3 x U x P) of prompts padded on the left.

    `drop_last` leaves that many tokens off the end of every prompt.
    """
    kept = [p.ids[: len(p.ids) - drop_last] for p in prompts]
    width = max(len(ids) for ids in kept)
    axes = prompts[0].positions_AP.shape[0]
    positions_AUP = torch.zeros(axes, len(prompts), width, dtype=torch.long)
    for row, (prompt, ids) in enumerate(zip(prompts, kept, strict=True)):
        positions_AUP[:, row, width - len(ids) :] = prompt.positions_AP[:, : len(ids)]
    return {
        "input_ids": pad_left(kept, value=0, device=device),
        "attention_mask": pad_left([[1] * len(ids) for ids in kept], value=0, device=device),
        "position_ids": (positions_AUP if axes > 1 else positions_AUP[0]).to(device),
    }


def next_positions(prompts: Sequence[PreparedPrompt], *, device: torch.device) -> torch.Tensor:
    """The position of the first completion token of each prompt (U)."""
    return torch.tensor([p.next_position for p in prompts], device=device)


def widen(positions_RT: torch.Tensor, *, axes: int) -> torch.Tensor:
    """Text positions for a family with `axes` position axes: R x T, or A x R x T."""
    return positions_RT if axes == 1 else positions_RT[None].expand(axes, *positions_RT.shape)


def distinct_pictures(prompts: Sequence[PreparedPrompt]) -> list[PreparedPicture]:
    """The prompts' pictures, each once, in order of first use."""
    return list({p.picture.key: p.picture for p in prompts}.values())


class StopFinder:
    """Tells at which token a stop string is complete, decoding only where the newest token can complete one."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._reach = (
            max((len(s) for s in stops), default=0) + 1
        )  # a token holds one character of a stop, or more
        texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))]) if stops else []
        self._completers = frozenset(i for i, text in enumerate(texts) if self._text_may_complete(text))

    def may_complete(self, token: int) -> bool:
        """False where a completion whose newest token this is cannot just have completed a stop string."""
        return token in self._completers

    def _text_may_complete(self, text: str) -> bool:
        stripped = text.lstrip()  # some tokenizers drop a leading space when they decode one token alone
        return any(
            s in text or any(stripped.startswith(s[i:]) for i in range(1, len(s))) for s in self._stops
        )

    def completes(self, ids: Sequence[int]) -> bool:
        """True if a stop string ends within the last token."""
        tail = self._tokenizer.decode(ids[-self._reach :])
        return any(s in tail for s in self._stops)

    def cut(self, text: str) -> str:
        """The text up to the end of its first stop string."""
        ends = [text.index(s) + len(s) for s in self._stops if s in text]
        return text[: min(ends)] if ends else text


def pick_tokens(
    logits_RV: torch.Tensor, settings: SamplingSettings, generator: torch.Generator
) -> torch.Tensor:
    """One token id for each row (R), drawn after temperature, `top_k` and `top_p`; the argmax at temperature 0."""
    if settings.temperature == 0:
        return logits_RV.argmax(-1)
    logits_RV = logits_RV.float() / settings.temperature
    if 0 < settings.top_k < logits_RV.shape[-1]:
        kept = logits_RV.topk(settings.top_k).values[:, -1:]
        logits_RV = logits_RV.masked_fill(logits_RV < kept, -torch.inf)
    if settings.top_p < 1:
        sorted_RV, order_RV = logits_RV.sort(descending=True)
        before_RV = sorted_RV.softmax(-1).cumsum(-1) - sorted_RV.softmax(-1)  # mass of the more likely tokens
        outside_RV = torch.zeros_like(logits_RV, dtype=torch.bool).scatter(
            1, order_RV, before_RV >= settings.top_p
        )
        logits_RV = logits_RV.masked_fill(outside_RV, -torch.inf)
    # One uniform number a row through the cumulative distribution: far fewer random numbers than torch.multinomial.
    mass_RV = logits_RV.softmax(-1).double().cumsum(-1)
    uniform_R1 = torch.rand(len(mass_RV), 1, generator=generator, device=mass_RV.device, dtype=torch.double)
    return torch.searchsorted(mass_RV, uniform_R1 * mass_RV[:, -1:], right=True)[:, 0]


class RoomyLayer(DynamicLayer):
    """A layer of keys and values with room behind them: a step writes one token where a plain one copies them all.

    For decoding only: it writes in place, and gradients do not go through it.
    """

    ROOM = 64  # tokens

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._length = keys.shape[2]
        self._keys, self._values = self._widened(keys), self._widened(values)
        self._show()

    def _widened(self, held: torch.Tensor) -> torch.Tensor:
        rows, heads, length, width = held.shape
        wide = held.new_empty(rows, heads, length + self.ROOM, width)
        wide[:, :, :length] = held
        return wide

    def _show(self) -> None:
        self.keys = self._keys[:, :, : self._length]
        self.values = self._values[:, :, : self._length]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, the new ones behind the others."""
        start, self._length = self._length, self._length + key_states.shape[2]
        while self._length > self._keys.shape[2]:
            self._keys, self._values = self._widened(self._keys), self._widened(self._values)
        self._keys[:, :, start : self._length] = key_states
        self._values[:, :, start : self._length] = value_states
        self._show()
        return cast(torch.Tensor, self.keys), cast(torch.Tensor, self.values)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._show()


@dataclass(slots=True)
class _Row:
    """One completion while it is written."""

    ids: list[int] = field(default_factory=list)
    finish: Finish = Finish.LENGTH


class TransformersSampler:
    """Draws completions from a model in this process.

    Every distinct picture of a call is prepared and encoded once and every distinct prompt is read once, however many
    samples are drawn; rows that have ended leave the batch. `rows_per_batch` bounds the rows decoded together.
    With `vision_is_fixed` the encodings are kept between calls: only for a vision tower whose weights do not change.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        rows_per_batch: int = 192,
        vision_is_fixed: bool = False,
        kept_bytes: int = 256 * 2**20,
        open_image: Callable[[str], Image.Image] = open_picture,
    ) -> None:
        self.speaker = speaker
        self.counts = Counts()
        # Of the last `sample`, in the order of its questions; None where one could not be asked.
        self.last_prompts: tuple[PreparedPrompt | None, ...] = ()
        self._rows_per_batch = rows_per_batch
        self._vision_is_fixed = vision_is_fixed
        self._kept_bytes = kept_bytes
        self._open_image = open_image
        self._prepared: OrderedDict[tuple[str, int, int], PreparedPicture] = OrderedDict()
        self._prepared_bytes = 0
        self._encoded: dict[tuple[str, int, int], VisualTokens] = {}
        self._stop_finders: dict[tuple[str, ...], StopFinder] = {}

    # -- preparing ----------------------------------------------------------------------------------------------

    def prepare(self, question: Asked) -> PreparedPrompt:
        """The prompt as the model takes it. Raises ImageError when the picture cannot be read."""
        processor = self.speaker.processor
        picture = self._prepare_picture(question.image)
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        before, _, after = text.partition(processor.image_token)
        tokenizer = processor.tokenizer
        ids = [
            *tokenizer(before, add_special_tokens=False)["input_ids"],
            *picture.placeholder_ids,
            *tokenizer(after, add_special_tokens=False)["input_ids"],
        ]
        if self._image_token_count(ids) != self._image_token_count(picture.placeholder_ids):
            raise ImageError(
                f"a question must not contain the model's picture token {processor.image_token!r}, "
                f"question {question.id} does; take it out of the question"
            )
        return PreparedPrompt(tuple(ids), self.speaker.positions(ids, picture.inputs), picture)

    def _image_token_count(self, ids: Sequence[int]) -> int:
        return list(ids).count(self.speaker.processor.image_token_id)

    def _prepare_picture(self, path: str) -> PreparedPicture:
        try:
            stat = os.stat(path)
        except OSError as error:
            raise ImageError(
                f"a picture must be a readable file, {path} is not ({error.strerror}); check the path"
            ) from error
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        image = self._open_image(path)
        processor = self.speaker.processor
        try:
            made = processor(images=[[image]], text=[processor.image_token], return_tensors="pt")
        except ValueError as error:  # Qwen's: a picture more than 200 times as long as wide
            raise ImageError(
                f"a picture must suit the model's processor, this one of {image.width} x {image.height} pixels does not "
                f"({error}): {path}; crop it"
            ) from error
        inputs = {k: v for k, v in made.items() if k in processor.image_processor.model_input_names}
        picture = PreparedPicture(
            key=key,
            inputs=inputs,
            placeholder_ids=tuple(made["input_ids"][0].tolist()),
            seen_size=self.speaker.seen_size(inputs, Size(*image.size)),
        )
        self.counts.pictures_prepared += 1
        self._keep(picture)
        return picture

    def _keep(self, picture: PreparedPicture) -> None:
        self._prepared[picture.key] = picture
        self._prepared_bytes += _bytes(picture)
        while self._prepared_bytes > self._kept_bytes and len(self._prepared) > 1:
            _, dropped = self._prepared.popitem(last=False)
            self._prepared_bytes -= _bytes(dropped)
            self._encoded.pop(dropped.key, None)

    # -- encoding and reading -----------------------------------------------------------------------------------

    def encode(
        self, model: Any, pictures: Sequence[PreparedPicture]
    ) -> dict[tuple[str, int, int], VisualTokens]:
        """The pictures' tokens by key; each picture is encoded once, and once for all where the vision is fixed."""
        missing = [p for p in pictures if p.key not in self._encoded]
        fresh: dict[tuple[str, int, int], VisualTokens] = {}
        for chunk in self._chunks(missing):
            # A tower that does not learn needs no graph, and what is kept for later must not hang on one.
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self._vision_is_fixed):
                fresh |= dict(zip((p.key for p in chunk), self.speaker.encode(model, chunk), strict=True))
            self.counts.pictures_encoded += len(chunk)
        if self._vision_is_fixed:
            self._encoded |= {key: tokens for key, tokens in fresh.items() if key in self._prepared}
        return {p.key: fresh[p.key] if p.key in fresh else self._encoded[p.key] for p in pictures}

    def _chunks(self, pictures: Sequence[PreparedPicture]) -> Iterator[list[PreparedPicture]]:
        """The pictures in runs of at most `_ENCODED_AT_ONCE` bytes of pixels (one picture may be larger)."""
        chunk: list[PreparedPicture] = []
        size = 0
        for picture in pictures:
            if chunk and size + _bytes(picture) > _ENCODED_AT_ONCE:
                yield chunk
                chunk, size = [], 0
            chunk.append(picture)
            size += _bytes(picture)
        if chunk:
            yield chunk

    def _read(
        self, prompts: Sequence[PreparedPrompt], visual: Mapping[tuple[str, int, int], VisualTokens]
    ) -> Prefix:
        model = self.speaker.model
        batch = prompt_batch(prompts, device=model.device)
        cache = DynamicCache()
        out = model(
            **batch,
            mm_encoder_outputs=self.speaker.show([visual[p.picture.key] for p in prompts]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.counts.prompt_tokens += sum(len(p.ids) for p in prompts)
        return Prefix(
            cache, batch["attention_mask"], next_positions(prompts, device=model.device), out.logits[:, -1]
        )

    # -- sampling -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, questions: Sequence[Asked], *, samples_per_question: int, settings: SamplingSettings
    ) -> list[list[Sampled | Unsampled]]:
        """As the protocol says. The same questions, settings and weights give the same completions again."""
        prepared: dict[int, PreparedPrompt] = {}
        results: list[list[Sampled | Unsampled]] = [[] for _ in questions]
        for index, question in enumerate(questions):
            try:
                prepared[index] = self.prepare(question)
            except ImageError as error:
                results[index] = [Unsampled(str(error))] * samples_per_question
        self.last_prompts = tuple(prepared.get(index) for index in range(len(questions)))
        if not prepared:
            return results
        was_training = self.speaker.model.training
        self.speaker.model.eval()
        try:
            visual = self.encode(self.speaker.model, distinct_pictures(list(prepared.values())))
            generator = torch.Generator(self.speaker.model.device).manual_seed(settings.seed)
            for group in self._batches(prepared, samples_per_question):
                prompts = [prepared[i] for i in group]
                rows = self._decode(self._read(prompts, visual), samples_per_question, settings, generator)
                for place, index in enumerate(group):
                    own = rows[place * samples_per_question : (place + 1) * samples_per_question]
                    results[index] = [self._sampled(row, prepared[index], settings) for row in own]
        finally:
            self.speaker.model.train(was_training)
        return results

    def _batches(self, prepared: Mapping[int, PreparedPrompt], samples: int) -> list[list[int]]:
        order = sorted(prepared, key=lambda i: (len(prepared[i].ids), i))
        width = max(1, self._rows_per_batch // samples)
        return [order[start : start + width] for start in range(0, len(order), width)]

    def _sampled(self, row: _Row, prompt: PreparedPrompt, settings: SamplingSettings) -> Sampled:
        said = row.ids[:-1] if row.finish is Finish.EOS else row.ids
        text = self._stops(settings).cut(
            self.speaker.processor.tokenizer.decode(said, clean_up_tokenization_spaces=False)
        )
        return Sampled(Completion(text, tuple(row.ids), row.finish), prompt.ids, prompt.picture.seen_size)

    def _stops(self, settings: SamplingSettings) -> StopFinder:
        if settings.stop not in self._stop_finders:
            self._stop_finders[settings.stop] = StopFinder(self.speaker.processor.tokenizer, settings.stop)
        return self._stop_finders[settings.stop]

    def _decode(
        self, prefix: Prefix, samples: int, settings: SamplingSettings, generator: torch.Generator
    ) -> list[_Row]:
        model, device = self.speaker.model, self.speaker.model.device
        axes = self.speaker.position_axes
        stops = self._stops(settings)
        forbidden = torch.tensor(self.speaker.forbidden_ids, device=device, dtype=torch.long)
        prefix.spread(torch.arange(prefix.mask_UP.shape[0], device=device).repeat_interleave(samples))
        prefix.make_room()
        rows = [_Row() for _ in range(prefix.mask_UP.shape[0])]
        live = list(range(len(rows)))
        logits_RV = prefix.last_logits_UV
        # Without padding in front the mask says nothing that causality does not, and attention is faster without it.
        mask_RP = None if bool(prefix.mask_UP.all()) else prefix.mask_UP
        for step in range(settings.max_new_tokens):
            logits_RV[:, forbidden] = -torch.inf
            tokens_R = pick_tokens(logits_RV, settings, generator)
            staying = self._extend(rows, live, tokens_R.tolist(), stops)
            if not staying or step + 1 == settings.max_new_tokens:
                break
            if len(staying) <= 0.9 * len(live):
                kept = torch.tensor(staying, device=device)
                prefix.spread(kept)
                mask_RP = None if mask_RP is None else mask_RP[kept]
                tokens_R = tokens_R[kept]
                live = [live[place] for place in staying]
            if mask_RP is not None:
                mask_RP = torch.cat([mask_RP, mask_RP.new_ones(len(live), 1)], 1)
            position_R1 = (prefix.next_position_U + step)[:, None]
            logits_RV = model(
                input_ids=tokens_R[:, None],
                attention_mask=mask_RP,
                position_ids=widen(position_R1, axes=axes),
                past_key_values=prefix.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            self.counts.decode_tokens += len(live)
        return rows

    def _extend(self, rows: list[_Row], live: list[int], tokens: list[int], stops: StopFinder) -> list[int]:
        """Write each live row's new token; the places in `live` of the rows that go on."""
        staying = []
        for place, (index, token) in enumerate(zip(live, tokens, strict=True)):
            row = rows[index]
            if row.finish is not Finish.LENGTH:
                continue  # ended earlier, still in the batch
            row.ids.append(token)
            if token in self.speaker.end_ids:
                row.finish = Finish.EOS
            elif stops.may_complete(token) and stops.completes(row.ids):
                row.finish = Finish.STOP
            else:
                staying.append(place)
        return staying


def _bytes(picture: PreparedPicture) -> int:
    return sum(t.element_size() * t.nelement() for t in picture.inputs.values())

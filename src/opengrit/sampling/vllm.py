"""The vLLM sampler: rollouts by the vLLM that TRL keeps in sync with the weights, in this process or on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from opengrit.core.errors import ImageError, ModelError
from opengrit.core.images import open_picture
from opengrit.core.types import Completion, Finish
from opengrit.sampling.detokenizing import cut_at_stop, decode
from opengrit.sampling.model_inputs import PreparedPrompt
from opengrit.sampling.protocol import Asked, Listener, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.transformers_engine import TransformersSampler

# prompts (token ids, one list a row), images (one list a row), num_generations -> prompt ids, completion ids,
# log-probabilities (one list a token, the sampled token's first), token ids of those; `VLLMGeneration.generate` of TRL
Generate = Callable[..., tuple[Any, list[list[int]], list[list[list[float | None]]], Any]]


@dataclass(frozen=True, slots=True)
class _Row:
    ids: list[int]
    log_probs: list[float | None]


def forgetting_pictures(generation: Any) -> Callable[[], None]:
    """A call that drops the pictures that a vLLM has encoded; `generation` is TRL's `VLLMGeneration`, in either mode.

    TRL drops the keys and values of prompts when it has pushed weights, and leaves encoded pictures to later rollouts.
    A server is asked by the first process alone, at an address for development that `trl vllm-serve` opens.
    """
    if generation.mode == "colocate":
        return generation.llm.llm_engine.reset_encoder_cache

    def forget() -> None:
        if not generation.accelerator.is_main_process:
            return
        client = generation.vllm_client
        answered = client.session.post(f"{client.base_url}/reset_encoder_cache")
        if answered.status_code != 200:
            raise ModelError(
                "vLLM's server must drop the picture encodings of earlier weights, POST /reset_encoder_cache at "
                f"{client.base_url} answered {answered.status_code}; start it with `trl vllm-serve` of the vllm and trl "
                "that opengrit[vllm] installs, or set freeze_vision: true"
            )

    return forget


def unexpanded(prompt: PreparedPrompt, *, picture_id: int) -> list[int]:
    """The prompt's ids with the picture's tokens taken back to the one that the chat template writes.

    What a processor writes for that token is the family's own: a run of it (Qwen), or a run of it between two
    marks (InternVL).
    """
    placed = prompt.picture.placeholder_ids
    start = next(i for i in range(len(prompt.ids)) if prompt.ids[i : i + len(placed)] == placed)
    return [*prompt.ids[:start], picture_id, *prompt.ids[start + len(placed) :]]


class VllmSampler:
    """Samples completions with TRL's vLLM; prompts are prepared by `prompts`, which the loss uses as well.

    Temperature, limits and stop strings are those that vLLM was configured with: of the settings, `stop`, `temperature`
    and `max_new_tokens` have to say the same. vLLM has random numbers of its own: a seed does not repeat a rollout.
    `expands_pictures` says whether this vLLM puts a picture's tokens into the prompt itself, as one in this process
    does (it is handed the one token that the chat template writes), or takes a prompt that has them, as TRL's server
    does. Either way the prompt that vLLM says it read has to be the one that the loss uses: `sample` raises ModelError
    where it is another, because its completions would be learned as answers to a question that was not asked.

    Every process asks vLLM for the same number of rows, as a server answers all in one call: a placeholder takes the
    place of a question that cannot be asked, and its completions are dropped.
    """

    def __init__(
        self,
        prompts: TransformersSampler,
        generate: Generate,
        *,
        expands_pictures: bool = True,
        forget_pictures: Callable[[], None] | None = None,
    ) -> None:
        """`forget_pictures` is called before every `sample`, where earlier weights may have encoded pictures."""
        self._prompts = prompts
        self._generate = generate
        self._expands_pictures = expands_pictures
        self._forget_pictures = forget_pictures
        # Of the last `sample`: the prompts, None where one could not be asked, and the rows' log-probabilities.
        self.last_prompts: tuple[PreparedPrompt | None, ...] = ()
        self.last_log_probs: tuple[list[float | None], ...] = ()

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """As the protocol says. Raises ValueError for settings that differ between questions.

        Where no picture can be read a blank one takes its place: vLLM samples for all processes in one call.
        """
        if not isinstance(settings, SamplingSettings):
            if len({replace(own, first_sample=0) for own in settings}) != 1:
                raise ValueError(
                    "vLLM samples a batch with one set of settings, these differ between questions"
                )
            settings = settings[0]
        asked: list[tuple[PreparedPrompt, Image.Image] | str] = [self._open(q) for q in questions]
        self.last_prompts = tuple(None if isinstance(a, str) else a[0] for a in asked)
        whole = [self._placeholder(asked) if isinstance(a, str) else a for a in asked]
        rows = [pair for pair in whole for _ in range(samples_per_question)]
        if self._forget_pictures is not None:
            self._forget_pictures()
        read, ids, log_probs, _ = self._generate(
            prompts=[self._handed_over(prompt) for prompt, _ in rows],
            images=[[image] for _, image in rows],
            num_generations=samples_per_question,
        )
        self._check_prompts([prompt for prompt, _ in rows], read)
        trimmed = [
            self._trimmed(i, [token[0] for token in p], settings) for i, p in zip(ids, log_probs, strict=True)
        ]
        self.last_log_probs = tuple(one.log_probs for one in trimmed)
        results: list[list[Sampled | Unsampled]] = []
        for place, a in enumerate(asked):
            own = trimmed[place * samples_per_question : (place + 1) * samples_per_question]
            results.append(
                [Unsampled(a) if isinstance(a, str) else self._sampled(one, a[0], settings) for one in own]
            )
            for sample, result in enumerate(results[-1]):
                if listener is not None and isinstance(result, Sampled):
                    listener.wrote(place, sample, result.completion.text)
        return results

    def _handed_over(self, prompt: PreparedPrompt) -> list[int]:
        """The prompt's ids as vLLM takes them: with a picture's tokens, or with the one that stands for all of them."""
        if not self._expands_pictures:
            return list(prompt.ids)
        return unexpanded(prompt, picture_id=self._prompts.vlm.processor.image_token_id)

    def _check_prompts(self, prompts: Sequence[PreparedPrompt], read: Sequence[Sequence[int]]) -> None:
        picture_id = self._prompts.vlm.processor.image_token_id
        for prompt, ids in zip(prompts, read, strict=True):
            if tuple(ids) != prompt.ids:
                raise ModelError(
                    f"vLLM must read the prompt that is trained on, it read another: {len(ids)} tokens, "
                    f"{list(ids).count(picture_id)} of them for the picture, instead of {len(prompt.ids)} and "
                    f"{prompt.ids.count(picture_id)}; give vLLM the same model folder and picture limits (min_pixels, "
                    "max_pixels), or set train.vllm_mode: null"
                )

    def _placeholder(
        self, asked: Sequence[tuple[PreparedPrompt, Image.Image] | str]
    ) -> tuple[PreparedPrompt, Image.Image]:
        blank = Asked.blank()
        assert isinstance(blank.image, Image.Image)
        readable = (a for a in asked if not isinstance(a, str))
        return next(readable, None) or (self._prompts.prepare(blank), blank.image)

    def _open(self, question: Asked) -> tuple[PreparedPrompt, Image.Image] | str:
        """The prompt and its picture, or why there is none."""
        try:
            image = question.image
            return self._prompts.prepare(question), open_picture(image) if isinstance(image, str) else image
        except ImageError as error:
            return str(error)

    def _trimmed(
        self, ids: Sequence[int], log_probs: Sequence[float | None], settings: SamplingSettings
    ) -> _Row:
        """Up to the first end token or the token that completes a stop string, whatever follows it."""
        ends = self._prompts.vlm.end_ids
        end = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
        kept = list(ids[: end + 1])
        while len(kept) > 1 and self._stopped(kept[:-1], settings):
            kept.pop()
        return _Row(kept, list(log_probs[: len(kept)]))

    def _stopped(self, ids: Sequence[int], settings: SamplingSettings) -> bool:
        text = self._prompts.vlm.processor.tokenizer.decode(ids)
        return any(stop in text for stop in settings.stop)

    def _sampled(self, one: _Row, prompt: PreparedPrompt, settings: SamplingSettings) -> Sampled | Unsampled:
        vlm = self._prompts.vlm
        if not one.ids:
            return Unsampled("vLLM wrote nothing")
        if set(one.ids) & (set(vlm.forbidden_ids) - set(vlm.end_ids)):
            return Unsampled("vLLM wrote a picture placeholder token")  # it cannot be learned from
        if one.ids[-1] in vlm.end_ids:
            finish, ids = Finish.EOS, one.ids[:-1]
        else:
            finish, ids = Finish.STOP if self._stopped(one.ids, settings) else Finish.LENGTH, one.ids
        text = decode(vlm.processor.tokenizer, ids)
        cut = cut_at_stop(text, settings.stop)
        completion = Completion(text if cut is None else cut, tuple(one.ids), finish)
        return Sampled(completion, prompt.ids, prompt.picture.seen_size)

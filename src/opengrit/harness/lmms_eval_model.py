"""Our models in lmms-eval: `--model opengrit --model_args pretrained=NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lmms_eval.api.model import lmms
from PIL import Image

from opengrit.core.errors import DataError, ModelError
from opengrit.harness.replies import in_thousandths
from opengrit.inference import Answer, Grounder

OUR_TASKS = "opengrit_"  # how the names of our own tasks begin


class GrounderModel(lmms):
    """A `Grounder` that lmms-eval asks: one picture and one question each.

    To our own tasks it replies with all that the model wrote, boxes in thousandths of the picture; to the others with the
    answer alone, since they compare the whole reply.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        *,
        strategy: str = "grounded",
        frame: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        model: str | None = None,
        max_new_tokens: int = 1000,
        seed: int = 0,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        """`pretrained` to `model` are `Grounder.load`'s: a packaged name, a run's folder, a hub id or an endpoint's URL.

        `max_new_tokens` is the least that an answer may have, since a task's own bound does not count the thought.
        `batch_size` questions are asked together (default 16); `max_batch_size` and `device` are lmms-eval's and change
        nothing: a model goes to the GPU if there is one. Raises as `Grounder.load` does.
        """
        super().__init__()
        self._grounder = Grounder.load(
            pretrained,
            strategy=strategy,
            frame=frame,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            model=model,
        )
        self._max_new_tokens, self._seed = max_new_tokens, seed
        self._batch_size = int(batch_size or 16)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The reply to each request, in order. Raises DataError for a request that is not one picture and one question, and
        ModelError for one that could not be answered: lmms-eval has no place for what is neither right nor wrong.
        """
        found: list[str] = []
        for settings, group in groupby(requests, key=self._settings):
            same = list(group)
            for start in range(0, len(same), self._batch_size):
                asked = [self._asked(request) for request in same[start : start + self._batch_size]]
                answers = self._grounder.ask_many(
                    [(one.picture, one.question) for one in asked],
                    max_new_tokens=settings[0],
                    temperature=settings[1],
                    seed=self._seed,
                )
                found += [_reply(answer, one) for answer, one in zip(answers, asked, strict=True)]
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: grounded answers are written. Raises ModelError."""
        raise ModelError(
            f"tasks for this model ask for text, {_task(requests[0])} asks for likelihoods; choose another task"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: a question is asked once. Raises ModelError."""
        raise ModelError(
            f"tasks for this model have one round, {_task(requests[0])} has several; choose another task"
        )

    def _settings(self, request: Any) -> tuple[int, float]:
        """The most tokens of an answer, and the temperature."""
        _, _, settings, *_ = request.args
        asked = int(settings.get("max_new_tokens") or 0)
        return max(asked, self._max_new_tokens), float(settings.get("temperature") or 0.0)

    def _asked(self, request: Any) -> _Asked:
        _, messages_of, _, document, task, split = request.args
        turns = messages_of(self.task_dict[task][split][document])
        parts = [part for turn in turns for part in turn["content"]]
        shown = [part["url"] for part in parts if part["type"] == "image"]
        words = [part["text"] for part in parts if part["type"] == "text"]
        if len(turns) != 1 or len(shown) != 1 or len(shown) + len(words) != len(parts):
            raise DataError(
                f"this model takes one picture and one question, document {document} of {task} has {len(turns)} turns, "
                f"{len(shown)} pictures and {len(parts) - len(shown) - len(words)} other parts; choose another task"
            )
        return _Asked(task, shown[0], "\n".join(words))


@dataclass(frozen=True, slots=True)
class _Asked:
    task: str
    picture: Image.Image
    question: str


def _reply(answer: Any, asked: _Asked) -> str:
    if not isinstance(answer, Answer):
        raise ModelError(
            f"every question of a task is answered, one of {asked.task} was not ({answer.reason}); run it again"
        )
    if asked.task.startswith(OUR_TASKS):
        return in_thousandths(answer.transcript)
    return answer.text if answer.answer is None else answer.answer.strip()


def _task(request: Any) -> str:
    return str(getattr(request, "task_name", "one"))

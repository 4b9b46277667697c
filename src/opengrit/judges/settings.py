"""The judge section of a recipe, and the judge it describes. A new kind of judge is opened here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from opengrit.core.errors import RecipeError
from opengrit.core.plugins import FunctionReference, Reference, looks_own
from opengrit.core.recipe_section import Count, NotNegative, Positive, RecipeSection, Share
from opengrit.judges.breaker import Breaker
from opengrit.judges.cache import CachedJudge, JudgeCache
from opengrit.judges.model_judge import ModelJudge, ReplySettings, Threshold
from opengrit.judges.own import OwnJudge
from opengrit.judges.rule import RuleJudge

if TYPE_CHECKING:
    from opengrit.clients import EndpointSettings


_ANY_KIND = {"kind", "deadline_seconds", "min_judged_share"}


class JudgeSection(RecipeSection):
    """Who says whether an answer is right. The rule needs no network, no model and no other key."""

    kind: Literal["rule", "endpoint", "local", "own"] = Field(
        default="rule",
        description="the rule, a model behind an endpoint (GRIT: GPT-4o), one on this machine, or a function of your own",
    )
    function: FunctionReference | None = Field(
        default=None, description="own only: my_judge.py:judge or my_package.judges:judge"
    )
    keywords: dict[str, Any] = Field(
        default={}, description="own only: what the function is called with, beside the answer"
    )
    model: str | None = Field(
        default=None, min_length=1, description="the model's name at the endpoint, or its folder or hub id"
    )
    url: str | None = Field(
        default=None, description="endpoint only: base address, for example http://127.0.0.1:8000/v1"
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", min_length=1, description="variable that holds the key; unset: none is sent"
    )
    temperature: NotNegative | None = Field(
        default=0.0,
        description="of the judge's reply; null: not sent (GRIT does not set it; our choice: greedy)",
    )
    max_tokens: Count | None = Field(
        default=256, description="most tokens of the judge's reply; null: not sent (our choice)"
    )
    correct_from: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5,
        description="score from which an answer counts as right (our choice; GRIT does not state it)",
    )
    cache: str | None = Field(
        default=None, description="file of scores, shared by runs; null: each run asks anew"
    )
    fallback: Literal["none", "rule"] = Field(
        default="none", description="who judges what the model could not; its verdicts are marked as its own"
    )
    concurrency: Count = Field(default=8, description="endpoint only: requests under way at once")
    timeout_seconds: Positive = Field(default=60.0, description="endpoint only: seconds of one request")
    max_tries: Count = Field(default=6, description="endpoint only: requests for one answer")
    requests_per_minute: Positive | None = Field(default=None, description="endpoint only; null: no limit")
    tokens_per_minute: Positive | None = Field(default=None, description="endpoint only; null: no limit")
    price_per_million_prompt_tokens: NotNegative | None = Field(
        default=None, description="for the cost that is shown; null: not shown"
    )
    price_per_million_completion_tokens: NotNegative | None = Field(
        default=None, description="for the cost that is shown; null: not shown"
    )
    batch_size: Count = Field(default=16, description="local only: answers judged together")
    deadline_seconds: Positive = Field(
        default=300.0,
        description="training: seconds for a step's answers; later ones are unjudged (our choice)",
    )
    min_judged_share: Share = Field(
        default=0.5, description="training: a step with fewer answers judged is skipped (our choice)"
    )

    @model_validator(mode="after")
    def _possible(self) -> JudgeSection:
        needed = {
            "rule": (),
            "endpoint": ("model", "url"),
            "local": ("model",),
            "own": ("function",),
        }[self.kind]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"a judge of kind {self.kind} has a {name}, this one has none; add it")
        if self.kind in ("rule", "own"):
            extra = sorted(
                self.model_fields_set - _ANY_KIND - ({"function", "keywords"} if needed else set())
            )
            changed = [name for name in extra if getattr(self, name) != type(self).model_fields[name].default]
            if changed:
                who = "the rule" if self.kind == "rule" else "a judge of your own"
                raise ValueError(
                    f"{who} takes no {', '.join(changed)}; leave it out, or write kind: endpoint"
                )
            return self
        if self.function is not None or self.keywords:
            raise ValueError(
                f"a judge of kind {self.kind} has no function and no keywords, this one has; leave them out, or write kind: own"
            )
        if self.kind == "local" and self.url is not None:
            raise ValueError(
                "a judge of kind local has no url, this one has; leave it out, or write kind: endpoint"
            )
        from opengrit.clients.settings import check_key_name  # brings a client that a rule does not need

        try:
            check_key_name(self.api_key_env)
            if self.kind == "endpoint":
                self.endpoint()
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return self

    @model_serializer(mode="wrap")
    def _without_what_only_own_has(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipe whose judge is another reads as it did before there were judges of one's own."""
        written: dict[str, Any] = write(self)
        return (
            written
            if self.kind == "own"
            else {k: v for k, v in written.items() if k not in ("function", "keywords")}
        )

    def endpoint(self) -> EndpointSettings:
        """Where an endpoint judge asks. Raises RecipeError for a url that is no such address."""
        from opengrit.clients import EndpointSettings  # brings a client that a rule does not need

        return EndpointSettings(
            url=self.url or "",
            model=self.model or "",
            api_key_env=self.api_key_env,
            concurrency=self.concurrency,
            timeout_seconds=self.timeout_seconds,
            max_tries=self.max_tries,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            price_per_million_prompt_tokens=self.price_per_million_prompt_tokens,
            price_per_million_completion_tokens=self.price_per_million_completion_tokens,
        )


def judge_section(value: Any) -> Any:
    """A bare name becomes a section of that kind, and a function one of your own; for pydantic's BeforeValidator."""
    if isinstance(value, str):
        return {"kind": "own", "function": value} if looks_own(value) else {"kind": value}
    return {"kind": "own", **value} if isinstance(value, dict) and "function" in value else value


def own_judge(section: JudgeSection) -> OwnJudge:
    """The judge of your own that a section names; its file is executed now. Raises RecipeError."""
    name = section.function or ""
    reference = name if isinstance(name, Reference) else Reference(name)
    return OwnJudge.read(reference, section.keywords)


@contextmanager
def open_judge(
    section: JudgeSection, *, breaker: Breaker | None = None
) -> Iterator[RuleJudge | OwnJudge | CachedJudge]:
    """The judge that a recipe describes, closed with the block. A local model is loaded here, and a cache opened.

    Raises RecipeError, ModelError for a local model that cannot be loaded, and RunError for a cache that cannot be
    written.
    """
    if section.kind == "rule":
        yield RuleJudge()
        return
    if section.kind == "own":
        yield own_judge(section)
        return
    cache = None if section.cache is None else JudgeCache(Path(section.cache))
    fallback = RuleJudge() if section.fallback == "rule" else None
    judge = CachedJudge(_model_judge(section, breaker), cache=cache, fallback=fallback)
    try:
        yield judge
    finally:
        judge.close()


def _model_judge(section: JudgeSection, breaker: Breaker | None) -> ModelJudge:
    reply_settings, threshold = (
        ReplySettings(section.temperature, section.max_tokens),
        Threshold(section.correct_from),
    )
    if section.kind == "endpoint":
        from opengrit.judges.endpoint import EndpointJudge

        return EndpointJudge(
            section.endpoint(), reply_settings=reply_settings, threshold=threshold, breaker=breaker
        )
    from opengrit.judges.local import LocalJudge

    return LocalJudge(
        section.model or "", reply_settings=reply_settings, threshold=threshold, batch_size=section.batch_size
    )

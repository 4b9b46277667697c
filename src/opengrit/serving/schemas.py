"""Requests and responses: the JSON of `/v1/ground` and of OpenAI's chat completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opengrit.serving.security import Refused, bad_parameter

_SHOWN = 80  # characters of a wrong value in a message

Temperature = Annotated[
    float, Field(ge=0, le=2, allow_inf_nan=False, description="0 takes the most likely token.")
]
TopP = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Probability share of the likeliest tokens to sample from.",
    ),
]
TopK = Annotated[
    int, Field(ge=-1, le=1_000_000, description="Number of tokens to sample from; 0 or -1 means all.")
]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1, description="Longest text, in tokens.")]
Seed = Annotated[
    int,
    Field(ge=-1, le=2**63 - 1, description="The same seed samples the same text; -1 draws one at random."),
]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
Stops = Annotated[
    list[Stop], Field(max_length=16, description="Strings that end the text; the text does not include them.")
]
Strategy = Literal["direct", "grounded", "grounded-icl", "sft"]


class GroundRequest(BaseModel):
    """One question about one picture. The defaults are those of `Grounder.ask`."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(
        description="The picture's file in base64, or as a data URI; an address only from hosts the server allows."
    )
    question: str = Field(description="The question about the picture.")
    model: str | None = Field(
        None, max_length=500, description="A name from /v1/models (default: the first)."
    )
    strategy: Strategy | None = Field(None, description="How to ask (default: the server's, grounded).")
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    max_new_tokens: Tokens = 1000
    seed: Seed = 0
    stop: Stops = Field(default_factory=list)


class GroundForm(GroundRequest):
    """The same as a form; `image` is the uploaded file."""

    image: str = Field(json_schema_extra={"format": "binary"}, description="The picture's file.")


class BoxSeen(BaseModel):
    """A pointing: its place in the transcript (in characters), and its box."""

    number: int = Field(description="Its number among the boxes, from 1.")
    label: str | None = Field(description="The label the model gives it, if any.")
    section: Literal["thought", "rethink", "answer", "outside"] = Field(description="Where it is written.")
    pixels: Annotated[list[float], Field(min_length=4, max_length=4)] = Field(
        description="Left, top, right, bottom in pixels of the picture as sent, upright."
    )
    unit: Annotated[list[float], Field(min_length=4, max_length=4)] = Field(description="The same, 0 to 1.")
    start: int = Field(description="Its first character in the transcript.")
    end: int = Field(description="The position after its last character.")


class NoBox(BaseModel):
    """Coordinates that cannot be a box."""

    text: str = Field(description="What the model wrote.")
    reason: str = Field(description="Why it is no box.")


class GroundResponse(BaseModel):
    """A grounded answer, as `Answer.as_json` gives it."""

    question: str = Field(description="The question.")
    answer: str | None = Field(description="The final answer; null if the model gave none.")
    transcript: str = Field(description="All that the model wrote.")
    thought: str | None = Field(description="The text between `<think>` and `</think>`.")
    rethink: str | None = Field(description="The text between `<rethink>` and `</rethink>`.")
    boxes: list[BoxSeen] = Field(description="The boxes in the order of the text.")
    rejected: list[NoBox] = Field(description="Coordinates that are not a valid box.")
    finish: Literal["stop", "eos", "length", "unknown"] = Field(
        description=(
            "What ended the text: `</answer>` or a stop string, the model's end token, the token limit, or unknown."
        )
    )
    picture_size: list[int] = Field(
        description="Width and height of the picture as sent, upright, in pixels."
    )
    seen_size: list[int] = Field(description="Width and height of the picture the model saw, in pixels.")
    seconds: float = Field(description="Wall-clock seconds for the answer.")
    prompt_tokens: int | None = Field(description="Prompt tokens, including the picture's.")
    completion_tokens: int | None = Field(description="Tokens written.")
    model: str = Field(description="The model's name.")


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """An error, in OpenAI's shape."""

    error: ErrorBody


# -- chat completions -------------------------------------------------------------------------------------------------


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    url: str


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl | str


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], Field(max_length=64)] | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """OpenAI's chat completion, as far as one question about one picture needs it; unknown fields are ignored.

    Fields that would change the answer and are not supported (tools, logprobs, response formats, penalties, and what other
    servers add, such as min_p or guided decoding) are refused.
    """

    model: str = Field(max_length=500)
    messages: Annotated[list[Message], Field(min_length=1, max_length=64)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    seed: Seed | None = None
    stop: Stop | Stops | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    strategy: Strategy | None = None


# Fields of OpenAI and of other servers that change the response, with the values that change nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "prediction": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
    # vLLM, SGLang, llama.cpp and text-generation-inference
    "repetition_penalty": (None, 1),
    "length_penalty": (None, 1),
    "min_p": (None, 0),
    "typical_p": (None, 1),
    "top_a": (None, 0),
    "tfs_z": (None, 1),
    "min_tokens": (None, 0),
    "max_think_tokens": (None,),
    "thinking_token_budget": (None,),
    "stop_token_ids": (None, []),
    "stop_regex": (None, [], ""),
    "bad_words": (None, []),
    "allowed_token_ids": (None,),
    "ignore_eos": (None, False),
    "include_stop_str_in_output": (None, False),
    "no_stop_trim": (None, False),
    "skip_special_tokens": (None, True),
    "spaces_between_special_tokens": (None, True),
    "truncate_prompt_tokens": (None, -1),
    "prompt_logprobs": (None, 0),
    "use_beam_search": (None, False),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "add_generation_prompt": (None, True),
    "continue_final_message": (None, False),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "documents": (None, []),
    "mm_processor_kwargs": (None, {}),
    "logits_processors": (None, []),
    "custom_logit_processor": (None,),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "regex": (None,),
    "ebnf": (None,),
    "grammar": (None, ""),
    "json_schema": (None,),
    "structural_tag": (None,),
    "mirostat": (None, 0),
    "repeat_penalty": (None, 1),
    "dynatemp_range": (None, 0),
    "xtc_probability": (None, 0),
    "dry_multiplier": (None, 0),
    "lora_path": (None,),
}

_M = TypeVar("_M", bound=BaseModel)


def read(kind: type[_M], value: Any, *, strict: bool = True) -> _M:
    """The request a JSON value holds; with `strict` off, numbers may be written as text (as in forms).

    Raises Refused with the first problem.
    """
    if not isinstance(value, dict):
        raise Refused(400, f"a body is a JSON object, got {_short(value)}; see /openapi.json")
    if kind is ChatRequest:
        for name in value.keys() & _UNSUPPORTED.keys():
            if value[name] not in _UNSUPPORTED[name]:
                raise bad_parameter(name, f"is not supported here, got {_short(value[name])}; leave it out")
    try:
        return kind.model_validate(value, strict=strict)
    except ValidationError as error:
        problem = _first_problem(error)
        place = _cut(".".join(_place(problem["loc"], value)))
        rule = _cut(problem["msg"][:1].lower() + problem["msg"][1:], 300)
        got = "" if problem["type"] == "missing" else f", got {_short(problem['input'])}"
        raise bad_parameter(place, f"{rule}{got}; see /openapi.json") from None


def _first_problem(error: ValidationError) -> Any:
    """The problem to tell: of a union's branches the deepest one says most."""
    problems = error.errors(include_url=False, include_context=False)
    return max(problems, key=lambda p: len(p["loc"])) if len(problems) > 1 else problems[0]


def _place(location: tuple[int | str, ...], value: Any) -> list[str]:
    """The keys and indices of an error's location; the names of a union's branches are left out."""
    place: list[str] = []
    for number, part in enumerate(location):
        if isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict) and (part in value or number == len(location) - 1):
            value = value.get(part)
        else:
            continue
        place.append(str(part)[:_SHOWN])
    return place


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return type(value).__name__
    return _cut(ascii(value[: _SHOWN + 1] if isinstance(value, str) else value))


def _cut(text: str, most: int = _SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}..."

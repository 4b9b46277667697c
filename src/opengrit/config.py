"""Recipes: one YAML file says everything a run does, and a wrong key is an error before anything loads."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from opengrit.errors import RecipeError
from opengrit.judge.settings import JudgeSection, judge_section
from opengrit.rewards import Rubric

Strategy = Literal["direct", "grounded", "grounded-icl", "sft"]
FrameName = Literal["pixels", "thousand", "unit"]
RewardSet = Literal["paper", "released", "answer_only"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are not a value for this key; write a number")
    return value


Weight = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]

# Which alternative a value means is decided by its shape, so that one mistake gives one message.
Rewards = Annotated[
    Annotated[RewardSet, Tag("[named]")] | Annotated[dict[str, Weight], Tag("[weights]")],
    Discriminator(lambda value: "[weights]" if isinstance(value, dict) else "[named]"),
]
Modules = Annotated[
    Annotated[Literal["all-linear"], Tag("[named]")] | Annotated[tuple[str, ...], Tag("[list]")],
    Discriminator(lambda value: "[list]" if isinstance(value, list | tuple) else "[named]"),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        return value if bool in (annotation, *get_args(annotation)) else _not_bool(value)


def _named(value: Any) -> Any:
    """A bare model name stands for a section with that name."""
    return {"name": value} if isinstance(value, str) else value


def _data_source(value: Any) -> Any:
    """A bare string stands for a packaged set, or for a file where it ends in .jsonl."""
    if not isinstance(value, str):
        return value
    return {"file": value} if value.endswith(".jsonl") else {"name": value}


class Model(_Section):
    """What is trained or asked. The keys are arguments of `opengrit.models.load`, but for `quantization`."""

    name: str = Field(min_length=1, description="packaged model, folder, or hub id; no default")
    frame: FrameName | None = Field(
        default=None,
        description="coordinates the model writes; null: by the model type in its config (facts: Qwen, InternVL)",
    )
    min_pixels: Count | None = Field(
        default=None, description="smallest picture the model sees, pixels; null: the processor's own"
    )
    max_pixels: Count | None = Field(
        default=None, description="largest picture the model sees, pixels; null: the processor's own"
    )
    max_tiles: Count | None = Field(
        default=None,
        description="InternVL only: most tiles a picture is cut into, thumbnail apart; null: the processor's own",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="numbers the weights are kept in; null: float32 to train, and to ask what the checkpoint has (float32 on a CPU)",
    )
    quantization: Literal["nf4"] | None = Field(
        default=None,
        description="keep frozen weights in 4 bits (bitsandbytes, double quantization); needs a GPU, and lora to train",
    )

    @model_validator(mode="after")
    def _possible(self) -> Model:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels is at most max_pixels, got {self.min_pixels} and {self.max_pixels}; lower min_pixels"
            )
        if self.quantization is not None and self.dtype is not None:
            raise ValueError(
                f"a quantized model has no dtype, got {self.quantization} and {self.dtype}; leave one of them out"
            )
        return self


class Source(_Section):
    """One data set."""

    name: str | None = Field(
        default=None, description="packaged set, for example stickers/train20; null: a file is named"
    )
    file: str | None = Field(
        default=None, description="GRIT JSONL file, relative to the working folder; null: a set is named"
    )
    images: str | None = Field(
        default=None,
        description="folder the file's image paths start from; null: the folder the file lies in",
    )

    @model_validator(mode="after")
    def _possible(self) -> Source:
        if (self.name is None) == (self.file is None):
            raise ValueError("a data set has either name or file, this one has both or neither; keep one")
        if self.name is not None and self.images is not None:
            raise ValueError(
                "a packaged set brings its own pictures, this one has images too; leave images out"
            )
        return self

    @property
    def spec(self) -> str:
        """What `opengrit.data.load_examples` takes."""
        return self.name or self.file or ""


class Data(_Section):
    """What is learned from, and what is kept apart to measure with."""

    train: tuple[Annotated[Source, BeforeValidator(_data_source)], ...] = Field(
        description="data sets trained on, taken together; no default"
    )
    eval: tuple[Annotated[Source, BeforeValidator(_data_source)], ...] = Field(
        default=(), description="data sets measured on, each reported by itself; default: none"
    )

    @field_validator("train")
    @classmethod
    def _some_data(cls, value: tuple[Source, ...]) -> tuple[Source, ...]:
        if not value:
            raise ValueError(
                "at least one data set is trained on, none is named; write stickers/train20, for example"
            )
        return value


class Train(_Section):
    """How it learns. Names are those of TRL's GRPOConfig where it has the field."""

    learning_rate: Positive = Field(
        default=2e-6, description="peak step size of the optimizer (GRIT section 4.2)"
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        default="cosine", description="shape of the learning rate over the steps (GRIT section 4.2)"
    )
    warmup_steps: NotNegative = Field(
        default=0.0,
        description="steps of linear warm-up; below 1 a share of all steps (released GRIT script: none)",
    )
    max_steps: Count = Field(default=200, description="optimizer steps (GRIT section 4.2)")
    num_generations: Annotated[int, Field(ge=2)] = Field(
        default=4,
        description="completions of one question, the group that is compared with itself (GRIT section 4.2)",
    )
    questions_per_step: Count = Field(
        default=20, description="distinct questions of one optimizer step (GRIT: each step uses all 20 rows)"
    )
    per_device_train_batch_size: Count = Field(
        default=4,
        description="completions in one forward and backward pass of one device (released GRIT script)",
    )
    num_iterations: Count = Field(
        default=1, description="optimizer steps made from one generation (TRL's default)"
    )
    beta: NotNegative = Field(
        default=0.01, description="weight of the KL term; 0: no reference model (released GRIT script)"
    )
    use_bias_correction_kl: bool = Field(
        default=False,
        description="weigh the KL term by the policy ratio (false: the KL term of the GRIT paper)",
    )
    epsilon: Positive = Field(
        default=0.2, description="clip range of the policy ratio (TRL's default; GRIT does not state it)"
    )
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = Field(
        default="grpo",
        description="how token losses are averaged (GRIT: plain GRPO, the mean over each completion)",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group",
        description="what rewards are divided by, the standard deviation of (GRIT: the group)",
    )
    temperature: Positive = Field(
        default=0.9, description="sampling temperature of rollouts (TRL's when GRIT was released)"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of probability sampled from (TRL's default)"
    )
    top_k: Annotated[int, Field(ge=0)] = Field(
        default=0, description="number of tokens sampled from; 0: all (TRL's default)"
    )
    max_completion_length: Count = Field(
        default=1000, description="most tokens of one completion (released GRIT script)"
    )
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="adamw_torch", description="optimizer (GRIT section 4.2: AdamW)"
    )
    weight_decay: NotNegative = Field(default=0.0, description="AdamW's weight decay (released GRIT script)")
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="decay of AdamW's mean of gradients (released GRIT script)"
    )
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.999, description="decay of AdamW's mean of squared gradients (released GRIT script)"
    )
    max_grad_norm: NotNegative = Field(
        default=1.0, description="norm gradients are clipped to; 0: not clipped (released GRIT script)"
    )
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations to save memory (TRL's default)"
    )
    bf16: bool = Field(default=True, description="compute in bfloat16 (released GRIT script; false on CPU)")
    vllm_mode: Literal["colocate", "server"] | None = Field(
        default=None,
        description="rollouts drawn by vLLM, on the training GPUs or by a `trl vllm-serve`; null: by the model itself",
    )
    vllm_server_host: str = Field(
        default="127.0.0.1", min_length=1, description="where `trl vllm-serve` runs (vllm_mode: server)"
    )
    vllm_server_port: Annotated[int, Field(ge=1, lt=2**16)] = Field(
        default=8000, description="the port it listens on (TRL's default)"
    )
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3, description="share of each GPU's memory for vLLM (vllm_mode: colocate; TRL's default)"
    )
    vllm_importance_sampling_correction: bool = Field(
        default=True,
        description="weigh tokens by what vLLM and the model disagree on; costs one more pass without gradient (TRL's default)",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=42, description="seed of data order and sampling (transformers' default)"
    )
    save_steps: Count | None = Field(
        default=50,
        description="steps between checkpoints; null: none, only the final model (released GRIT script: 50)",
    )
    eval_steps: Count | None = Field(
        default=50, description="steps between evaluations; null: none while training (released GRIT script)"
    )
    logging_steps: Count = Field(
        default=1, description="steps between rows of metrics (every step is written)"
    )

    @property
    def completions_per_step(self) -> int:
        """Completions of one optimizer step, over all devices."""
        return self.questions_per_step * self.num_generations

    @model_validator(mode="after")
    def _possible(self) -> Train:
        if self.completions_per_step % self.per_device_train_batch_size:
            raise ValueError(
                f"questions_per_step x num_generations ({self.completions_per_step}) is divided evenly by "
                f"per_device_train_batch_size, got {self.per_device_train_batch_size}; choose a divisor"
            )
        if self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps is smaller than max_steps, got {self.warmup_steps:g} and {self.max_steps}; lower it"
            )
        return self


class Lora(_Section):
    """Low-rank adapters; the section stands for full fine-tuning where it is null."""

    r: Count = Field(default=16, description="rank of the adapters (our choice; GRIT trains all weights)")
    alpha: Positive = Field(
        default=32.0, description="scale of the adapters, divided by r (twice r, as is usual)"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="dropout before the adapters (off, for RL)"
    )
    target_modules: Modules = Field(
        default="all-linear",
        description="modules that get one, by name (peft's all-linear: every linear layer)",
    )


class Eval(_Section):
    """How it is measured."""

    strategy: Strategy | None = Field(
        default=None, description="prompt asked with; null: the recipe's own strategy"
    )
    max_completion_length: Count = Field(
        default=1000, description="most tokens of one completion (released GRIT script)"
    )
    batch_size: Count = Field(
        default=16, description="questions asked together (our choice; no effect on greedy answers)"
    )
    samples: Count = Field(default=1, description="completions of each question (GRIT: one)")
    temperature: NotNegative = Field(
        default=0.0, description="sampling temperature; 0: greedy (GRIT: greedy in effect)"
    )

    @model_validator(mode="after")
    def _possible(self) -> Eval:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples is 1 where temperature is 0 (all would be the same), got {self.samples}; raise one"
            )
        return self


class Recipe(_Section):
    """Everything a run does. The output folder is not in it: the same recipe gives the same run anywhere."""

    model: Annotated[Model, BeforeValidator(_named)] = Field(
        description="what is trained; a bare string is its name"
    )
    data: Data = Field(description="data sets to train on and to measure with")
    strategy: Strategy = Field(default="grounded", description="prompt asked with (GRIT figure 7: grounded)")
    rewards: Rewards = Field(
        default="paper", description="a named set, or weights by the reward's name (paper: GRIT section 3.2)"
    )
    judge: Annotated[JudgeSection, BeforeValidator(judge_section)] = Field(
        default=JudgeSection(),
        description="who says whether an answer is right; a bare name is its kind (rule: needs no network)",
    )
    train: Train = Field(default=Train(), description="how it learns")
    lora: Lora | None = Field(
        default=None, description="adapters; null: all weights are trained (released GRIT script)"
    )
    freeze_vision: bool = Field(
        default=False, description="keep the vision tower as it is (released GRIT script: trained)"
    )
    eval: Eval = Field(default=Eval(), description="how it is measured")

    @field_validator("rewards")
    @classmethod
    def _known_rewards(cls, value: RewardSet | dict[str, float]) -> RewardSet | dict[str, float]:
        if isinstance(value, str):
            return value
        try:
            Rubric.from_weights(value)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        if not any(value.values()):
            raise ValueError(
                "some reward has a weight other than 0, none has; name one, such as correct: 1.0"
            )
        return value

    @model_validator(mode="after")
    def _can_learn(self) -> Recipe:
        if self.model.quantization is not None and self.lora is None:
            raise ValueError(
                f"weights in 4 bits cannot learn, model.quantization is {self.model.quantization} and lora is null; "
                "add lora: {}"
            )
        return self

    def rubric(self) -> Rubric:
        """The rewards and their weights."""
        return (
            Rubric.named(self.rewards) if isinstance(self.rewards, str) else Rubric.from_weights(self.rewards)
        )

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; loading it gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def hash(self) -> str:
        """The SHA-256 of the resolved recipe, hexadecimal: equal for recipes that do the same."""
        return hashlib.sha256(self.resolved_yaml().encode("utf-8")).hexdigest()


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, changed by overrides such as "train.seed=3" (the value is YAML too).

    Raises:
        RecipeError: the file is not readable YAML, an override is not key=value, or the result is not a possible
            recipe; every wrong key and value is listed, with its line and, for a misspelt key, the one meant.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"a recipe is a readable YAML file, {path} is not ({error}); check the path"
        ) from error
    return parse_recipe(text, overrides, place=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), *, place: str = "recipe") -> Recipe:
    """The recipe in a YAML text; `place` is what messages call it. Raises RecipeError as `load_recipe` does."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = _key_lines(node, place)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"a recipe is YAML, {place} is not ({_one_line(error)}); mend that line") from error
    if not isinstance(values, dict):
        raise RecipeError(f"a recipe is a mapping of sections, {place} is not; start with model: and data:")
    set_here = set()
    for override in overrides:
        set_here.add(_override(values, override))
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_message(error, place, lines, set_here)) from error


def _key_lines(node: yaml.Node | None, place: str) -> dict[tuple[str, ...], int]:
    """The line of every key, by its path. Raises RecipeError for a key that stands twice, which YAML would forgive."""
    found: dict[tuple[str, ...], int] = {}

    def walk(node: yaml.Node | None, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, (*path, str(index)))
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in found:
                raise RecipeError(
                    f"a key stands once in a recipe, {'.'.join(here)} stands on line {found[here]} "
                    f"and on line {line} of {place}; keep one"
                )
            found[here] = line
            walk(value, here)

    walk(node, ())
    return found


def _override(values: dict[str, Any], override: str) -> tuple[str, ...]:
    """Sets one value in place and returns its key's path."""
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise RecipeError(f"--set takes key=value, got {override!r}; write --set train.seed=3, for example")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"--set {key} takes a YAML value, got {text!r} ({_one_line(error)}); quote it"
        ) from error
    place: Any = values
    for depth, part in enumerate(path[:-1]):
        place = _step_into(place, part, path[: depth + 1], override)
    if isinstance(place, list):
        place[_index(place, path[-1], override)] = value
    else:
        place[path[-1]] = value
    return path


def _step_into(place: Any, part: str, path: tuple[str, ...], override: str) -> Any:
    key: Any = _index(place, part, override) if isinstance(place, list) else part
    inner = place[key] if isinstance(place, list) else place.get(key)
    if isinstance(inner, str) and path == ("model",):
        inner = _named(inner)
    elif isinstance(inner, str) and path == ("judge",):
        inner = judge_section(inner)
    elif isinstance(inner, str) and path[0] == "data":
        inner = _data_source(inner)
    elif inner is None:
        inner = {}
    if not isinstance(inner, dict | list):
        raise RecipeError(
            f"--set {override}: {'.'.join(path)} is {inner!r} and has no keys of its own; set it whole"
        )
    place[key] = inner
    return inner


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isascii() or not part.isdigit() or int(part) >= len(items):
        raise RecipeError(
            f"--set {override}: a list of {len(items)} is indexed from 0, got {part!r}; set the list whole"
        )
    return int(part)


_SHAPES = {
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
}


def _message(
    error: ValidationError, place: str, lines: dict[tuple[str, ...], int], set_here: set[tuple[str, ...]]
) -> str:
    found = []
    for item in error.errors(include_url=False):
        path = tuple(str(part) for part in item["loc"] if not _is_branch(part))
        text = _unknown_key(path) if item["type"] == "extra_forbidden" else _wrong_value(path, item)
        found.append(f"{_where(path, place, lines, set_here)}: {text}")
    found = list(dict.fromkeys(found))
    if len(found) == 1:
        return found[0]
    return "\n".join(
        [
            "every key of a recipe is known and every value possible, these are not:",
            *(f"  {f}" for f in found),
        ]
    )


def _is_branch(part: Any) -> bool:
    """Whether a part of pydantic's path is the tag of a union's alternative, and no key of ours."""
    return part in ("[named]", "[weights]", "[list]")


def _where(
    path: tuple[str, ...], place: str, lines: dict[tuple[str, ...], int], set_here: set[tuple[str, ...]]
) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in set_here:
            return f"--set {'.'.join(path[:length])}"
        if path[:length] in lines:
            return f"{place}:{lines[path[:length]]}"
    return place


def _wrong_value(path: tuple[str, ...], item: Any) -> str:
    key = ".".join(path) or "the recipe"
    if item["type"] == "missing":
        return f"{key} is required and is not there; add it"
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}"
    shown = repr(item["input"])
    rule = _SHAPES.get(item["type"]) or item["msg"][0].lower() + item["msg"][1:]
    return f"{key}: {rule}, got {shown if len(shown) <= 60 else shown[:57] + '...'}; change it"


def _unknown_key(path: tuple[str, ...]) -> str:
    known = _keys()
    section = tuple(part for part in path[:-1] if not part.isdigit())
    siblings = [keys[-1] for keys in known if keys[:-1] == section]
    near = difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.6)
    elsewhere = [".".join(keys) for keys in known if keys[-1] == path[-1]]
    if near:
        remedy = f"did you mean {near[0]}?"
    elif elsewhere:
        remedy = f"did you mean {' or '.join(elsewhere)}?"
    else:
        remedy = f"known here: {', '.join(siblings)}"
    return f"{'.'.join(path)} is not a key of a recipe; {remedy}"


def _keys() -> list[tuple[str, ...]]:
    """Every key a recipe can have, by its path."""
    sections: list[tuple[tuple[str, ...], type[BaseModel]]] = [
        ((), Recipe),
        (("model",), Model),
        (("data",), Data),
        (("data", "train"), Source),
        (("data", "eval"), Source),
        (("judge",), JudgeSection),
        (("train",), Train),
        (("lora",), Lora),
        (("eval",), Eval),
    ]
    return [(*path, name) for path, section in sections for name in section.model_fields]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""Load a model and its processor by packaged name, folder or hub id; know its family from the config alone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from safetensors import SafetensorError
from transformers.modeling_outputs import BaseModelOutputWithPooling

from opengrit.core.boxes import Size
from opengrit.core.errors import ModelError
from opengrit.core.weights import require_own_code, require_safetensors
from opengrit.runs.folder import CHECKPOINTS, FINAL, RECIPE, RunDir
from opengrit.sampling.transformers_engine import PreparedPicture, VisualTokens

PACKAGED_FOLDER = "models/packaged"
_PLACEHOLDERS = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
)
_BRACKETS = ("start_image_token_id", "end_image_token_id")
_OWN_FILE = "opengrit.json"
_ADAPTER_FILE = "adapter_config.json"
_THOUGHT = "<think>"
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between model families, by the config's `model_type`."""

    model_type: str
    frame: str  # the coordinate frame its text is in, by the frame's name
    position_axes: int  # 3: time, row and column, as in Qwen's rotary positions; 1: plain positions
    has_grid: bool  # its processor says how many patches it cut the picture into, and is bounded in pixels; else in tiles
    picture_tokens: tuple[str, ...]  # stand for pictures and videos in a prompt, and are never sampled
    vision_modules: tuple[str, ...]  # the vision tower and its projector, by their names in the model

    @property
    def lora_exclude(self) -> str:
        """A pattern (peft's `exclude_modules`) of every module of the vision tower and its projector."""
        return rf"(.*\.)?({'|'.join(map(re.escape, self.vision_modules))})(\..*)?"

    def is_vision(self, name: str) -> bool:
        """Whether a parameter or module of that dotted name belongs to the vision tower or its projector."""
        return not set(self.vision_modules).isdisjoint(name.split("."))


_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
_INTERN_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")


def _qwen(model_type: str) -> Family:
    return Family(model_type, model_type, 3, True, _QWEN_TOKENS, ("visual",))


_FAMILIES = {
    family.model_type: family
    for family in (
        _qwen("qwen2_vl"),
        _qwen("qwen2_5_vl"),
        _qwen("qwen3_vl"),
        _qwen("qwen3_vl_moe"),
        Family("internvl", "internvl", 1, False, _INTERN_TOKENS, ("vision_tower", "multi_modal_projector")),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model with its processor and what we know of it; the transformers sampler's `VisionLanguageModel`.

    `name` is what the user asked for, `path` the folder or hub id it came from. `end_ids` end a completion,
    `forbidden_ids` (picture placeholders) are never sampled. `frame` is the coordinate frame of its boxes.
    """

    model: Any
    processor: Any
    family: Family
    frame: str
    name: str
    path: str
    end_ids: tuple[int, ...]
    forbidden_ids: tuple[int, ...]

    @property
    def base(self) -> Any:
        """The model itself, without an adapter's wrapper."""
        return base_model(self.model)

    @property
    def position_axes(self) -> int:
        return self.family.position_axes

    def seen_size(self, picture_inputs: Mapping[str, torch.Tensor], picture_size: Size) -> Size:
        """The size in pixels that the model saw: from the processor's grid where it has one, else the picture's own.

        A family without a grid writes 0-1000 and its boxes do not depend on the size.
        """
        if not self.family.has_grid:
            return picture_size
        _, rows, columns = picture_inputs["image_grid_thw"][0].tolist()
        patch = self.processor.image_processor.patch_size
        return Size(columns * patch, rows * patch)

    def positions(self, ids: list[int], picture_inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The position of each token, `position_axes` x tokens, on the CPU."""
        if self.family.position_axes == 1:
            return torch.arange(len(ids))[None]
        ids_1P = torch.tensor([ids])
        positions_31P, _ = self.base.model.get_rope_index(
            ids_1P,
            mm_token_type_ids=(ids_1P == self.processor.image_token_id).int(),
            image_grid_thw=picture_inputs["image_grid_thw"],
        )
        return positions_31P[:, 0]

    def encode(self, model: Any, pictures: Sequence[PreparedPicture]) -> list[VisualTokens]:
        """Each picture's tokens for the language model, all in one pass of `model`'s vision tower."""
        model = base_model(model)
        pixels = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        image_id = self.processor.image_token_id
        lengths = [p.placeholder_ids.count(image_id) for p in pictures]
        if not self.family.has_grid:
            encoded = model.get_image_features(pixel_values=pixels, return_dict=True)
            flat_ND = encoded.pooler_output.flatten(0, 1)
            return [VisualTokens(tokens) for tokens in flat_ND.split(lengths)]
        grid = torch.cat([p.inputs["image_grid_thw"] for p in pictures]).to(model.device)
        encoded = model.get_image_features(pixel_values=pixels, image_grid_thw=grid, return_dict=True)
        layers = encoded.get("deepstack_features") or []
        deep = list(zip(*layers, strict=True)) if layers else [()] * len(pictures)
        return [VisualTokens(tokens, tuple(d)) for tokens, d in zip(encoded.pooler_output, deep, strict=True)]

    def show(self, visual: Sequence[VisualTokens]) -> dict[str, Any]:
        """The tokens of a batch's pictures in order, as the `mm_encoder_outputs` that the model's forward takes."""
        if not self.family.has_grid:
            return {
                "image": BaseModelOutputWithPooling(
                    pooler_output=torch.cat([v.tokens_ND for v in visual])[None]
                )
            }
        encoded: Any = BaseModelOutputWithPooling()
        encoded["pooler_output"] = tuple(v.tokens_ND for v in visual)
        if visual[0].deep:
            encoded["deepstack_features"] = list(zip(*(v.deep for v in visual), strict=True))
        return {"image": encoded}


def base_model(model: Any) -> Any:
    """The transformers model inside an adapter's wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def packaged_names() -> list[str]:
    """The names of the models that come with the package."""
    folder = resources.files("opengrit") / PACKAGED_FOLDER
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "config.json").is_file())


def family_of(model_type: str) -> Family:
    """The family of a config's `model_type`; ModelError for one we do not know."""
    if model_type not in _FAMILIES:
        raise ModelError(
            f"a model's config names one of the families {', '.join(sorted(_FAMILIES))}, got model_type {model_type!r}; "
            "choose a model of one of these families"
        )
    return _FAMILIES[model_type]


def resolve(name: str) -> str:
    """The folder or hub id that a model's name stands for.

    A packaged name gives its folder in the package; a run's folder gives its `final` folder; a folder with a model or
    an adapter gives itself; `owner/name` that is no folder, where `owner` is none either, is taken for a hub id.
    Raises ModelError for the rest.
    """
    if name in packaged_names():
        return str(resources.files("opengrit") / PACKAGED_FOLDER / name)
    path = Path(name).expanduser()
    if name and path.is_dir():
        for folder in (path, path / FINAL):
            if (folder / "config.json").is_file() or (folder / _ADAPTER_FILE).is_file():
                return str(folder)
        raise _no_model_in(path)
    owner, slash, repository = name.partition("/")
    looks_like_hub_id = (
        bool(slash and owner and repository) and "/" not in repository and owner not in (".", "..", "~")
    )
    if path.is_absolute() or not looks_like_hub_id:
        raise ModelError(
            f"a model is a packaged name ({', '.join(packaged_names()) or 'none is installed'}), a folder or a hub id "
            f"(owner/name), {name!r} is none of them; check the spelling"
        )
    if any(
        Path(owner).glob(f"*/{RECIPE}")
    ):  # a misspelt run; asking the hub for it would take long and say less
        raise ModelError(
            f"a model is a folder that exists or a hub id, there is no {repository} in {owner}/; check the spelling"
        )
    return name


def _no_model_in(path: Path) -> ModelError:
    """What is wrong with a folder that holds neither a model nor an adapter: often a training's that has not ended."""
    run = RunDir(path.parent if path.name == CHECKPOINTS else path)
    checkpoints = run.checkpoints()
    if not checkpoints:
        return ModelError(
            f"a model's folder holds config.json or adapter_config.json, {path} holds neither; "
            "name the folder that save_pretrained wrote"
        )
    newest = checkpoints[-1]
    if (run.path / FINAL).is_dir():
        return ModelError(
            f"a model is one folder, {path} holds checkpoints; name {run.path} for the trained model, or one of them, "
            f"as {newest}"
        )
    return ModelError(
        f"a training's model is there when it has ended, that in {run.path} has not; finish it with --resume, or name a "
        f"checkpoint, as {newest}"
    )


def load(
    name: str,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    frame: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_tiles: int | None = None,
) -> Loaded:
    """The model and processor of a packaged name, a folder (model, adapter or run) or a hub id, in evaluation mode.

    `dtype` None is the checkpoint's own on a GPU and 32 bits on a CPU, "auto" the checkpoint's own anywhere; `device` defaults to the GPU if there is one. `frame` overrides the
    family's coordinate frame. `min_pixels` and `max_pixels` bound the resized picture (width x height, Qwen families),
    `max_tiles` the tiles a picture is cut into (InternVL).
    Raises ModelError for an unknown name, family or folder, and where a bound does not take effect.
    """
    path = resolve(name)
    base_path = _adapter_base(path) or path
    for folder in dict.fromkeys((path, base_path)):
        require_safetensors(folder, name)
    config = load_config(base_path, name)
    require_own_code(config, name)
    family = family_of(config.model_type)
    processor = load_processor(
        path,
        base_path=base_path,
        name=name,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        max_tiles=max_tiles,
    )
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None:
        dtype = "auto" if device.type == "cuda" else torch.float32
    model = _load_weights(base_path, name, dtype)
    if base_path != path:
        model = _load_adapter(model, path)
    model = model.to(device).eval()
    return describe(model, processor, family=family, frame=frame or saved_frame(path), name=name, path=path)


def load_config(path: str, name: str) -> Any:
    """The config of a folder or hub id, without running any code of its own. Raises ModelError."""
    return _from_pretrained("AutoConfig", path, name)


def own_frame(loaded: Loaded) -> str | None:
    """The frame that a recipe, or the run that the model comes from, chose; None where the family's own holds."""
    return None if loaded.frame == loaded.family.frame else loaded.frame


def save_origin(folder: Path, loaded: Loaded) -> None:
    """Put beside weights trained from `loaded` what they do not say: its own frame, and an adapter's base by its name.

    peft names the base by this machine's folder; the name (a packaged one, a hub id) loads on another machine too.
    """
    frame = own_frame(loaded)
    if frame is not None:
        (folder / _OWN_FILE).write_text(json.dumps({"frame": frame}) + "\n", encoding="utf-8")
    adapter = folder / _ADAPTER_FILE
    if loaded.name and adapter.is_file():
        facts = json.loads(adapter.read_text(encoding="utf-8"))
        facts["base_model_name_or_path"] = _recorded_base(loaded.path) or loaded.name
        adapter.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def saved_frame(path: str) -> str | None:
    """The frame that is kept beside a model, or beside the base of an adapter; None where the family's own holds.

    Raises ModelError where the file that keeps it cannot be read.
    """
    for folder in dict.fromkeys((path, _adapter_base(path) or path)):
        file = Path(folder) / _OWN_FILE
        if not file.is_file():
            continue
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["frame"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelError(
                f"a model's {_OWN_FILE} names its frame, {file} does not ({_first_line(error)}); "
                'write {"frame": "pixels"}, "thousand" or "unit" into it'
            ) from error
    return None


def names_adapter(name: str) -> bool:
    """Whether a model's name stands for an adapter. Raises ModelError for a name that stands for nothing."""
    return (Path(resolve(name)) / _ADAPTER_FILE).is_file()


def describe(
    model: Any,
    processor: Any,
    *,
    family: Family | None = None,
    frame: str | None = None,
    name: str = "",
    path: str = "",
) -> Loaded:
    """A model and processor that are in memory already, as `Loaded`. Settles the processor as `load_processor` does."""
    family = family or family_of(model.config.model_type)
    _settle(processor, name or path or family.model_type)
    tokenizer = processor.tokenizer
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    ends: set[int] = {i for i in (tokenizer.eos_token_id, *declared) if i is not None}
    named = [getattr(model.config, key, None) for key in _PLACEHOLDERS]
    named += [getattr(processor, key, None) for key in ("image_token_id", *_BRACKETS)]
    written = tokenizer.get_vocab()
    named += [written.get(token) for token in family.picture_tokens]
    placeholders = {int(i) for i in named if i is not None}
    vocabulary = model.get_output_embeddings().weight.shape[0]
    unknown = set(range(len(tokenizer), vocabulary))  # rows that fill the matrix up and stand for no token
    return Loaded(
        model=model,
        processor=processor,
        family=family,
        frame=frame or family.frame,
        name=name,
        path=path,
        end_ids=tuple(sorted(ends)),
        forbidden_ids=tuple(sorted((placeholders - ends) | unknown)),
    )


def load_processor(
    path: str,
    *,
    base_path: str | None = None,
    name: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_tiles: int | None = None,
) -> Any:
    """The processor of a folder (or of the base it adapts), with left padding and pixel bounds that hold.

    Its chat template shows the picture, and leaves the opening of the thought to the model: "thinking" checkpoints write
    it into the prompt, where a completion in GRIT's format would lack it. Raises ModelError where that cannot be had.
    """
    own = any((Path(path) / file).is_file() for file in _PROCESSOR_FILES)
    processor = _from_pretrained(
        "AutoProcessor", path if own or base_path is None else base_path, name or path
    )
    _settle(processor, name or path)
    if min_pixels is not None or max_pixels is not None:
        _bound_pixels(processor, min_pixels=min_pixels, max_pixels=max_pixels, name=name or path)
    if max_tiles is not None:
        _bound_tiles(processor, max_tiles=max_tiles, name=name or path)
    return processor


def _settle(processor: Any, name: str) -> None:
    """Left padding, and a chat template that shows the picture once and opens no thought; ModelError otherwise."""
    processor.tokenizer.padding_side = "left"
    turn = _rendered_turn(processor, name)
    if turn.count(processor.image_token) != 1:
        raise ModelError(
            f"a model's chat template shows the picture once, that of {name} shows it {turn.count(processor.image_token)} "
            "times; use the processor and the template that belong to the model"
        )
    if not turn.rstrip().endswith(_THOUGHT):
        return
    template = processor.chat_template
    head, opening, tail = template.rpartition(_THOUGHT) if isinstance(template, str) else ("", "", "")
    processor.chat_template = head + re.sub(r"^(\\n|\s)+", "", tail) if opening else template
    if _rendered_turn(processor, name) != turn[: turn.rindex(_THOUGHT)]:
        raise ModelError(
            f"the model itself opens its thought with {_THOUGHT}, the chat template of {name} does it already; "
            f"take the {_THOUGHT} behind the generation prompt out of its chat template"
        )


def _rendered_turn(processor: Any, name: str) -> str:
    """A user's turn with a picture and a word, as the chat template writes it before a completion."""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    try:
        return processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    except (ValueError, TypeError, TemplateError) as error:  # none is there, or it does not take a picture
        raise ModelError(
            f"a model's processor has a chat template that takes a picture, that of {name} has none "
            f"({_first_line(error)}); use the processor that belongs to the model"
        ) from error


def _bound_tiles(processor: Any, *, max_tiles: int, name: str) -> None:
    image_processor = processor.image_processor
    if "num_patches" not in image_processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt"):
        raise ModelError(
            f"max_tiles bounds the pictures of models that cut them into tiles, {name} does not; leave it out"
        )
    image_processor.max_patches = max_tiles
    image_processor.min_patches = min(image_processor.min_patches, max_tiles)
    wide = Image.new("RGB", (image_processor.size["width"] * (max_tiles + 1), image_processor.size["height"]))
    made = int(image_processor(images=[wide], crop_to_patches=True, return_tensors="pt")["num_patches"][0])
    if made > max_tiles + 1:  # the thumbnail comes on top
        raise ModelError(
            f"max_tiles must bound the tiles of a picture, {name} made {made} with max_tiles {max_tiles}; "
            "this version of its processor ignores the bound"
        )


def _bound_pixels(processor: Any, *, min_pixels: int | None, max_pixels: int | None, name: str) -> None:
    image_processor = processor.image_processor
    size = dict(image_processor.size)
    if size.get("shortest_edge") is None or size.get("longest_edge") is None:
        raise ModelError(
            f"min_pixels and max_pixels bound the pictures of models that resize freely, {name} cuts pictures into fixed "
            "tiles; leave both out"
        )
    if min_pixels is not None:
        size["shortest_edge"] = min_pixels
    if max_pixels is not None:
        size["longest_edge"] = max_pixels
    side = image_processor.patch_size * image_processor.merge_size
    if not side * side <= size["longest_edge"] or size["shortest_edge"] > size["longest_edge"]:
        raise ModelError(
            f"min_pixels is at most max_pixels, and max_pixels at least {side} x {side} = {side * side}, got "
            f"{size['shortest_edge']} and {size['longest_edge']} for {name}; change them in the recipe"
        )
    image_processor.size = {"shortest_edge": size["shortest_edge"], "longest_edge": size["longest_edge"]}
    edge = int((4 * size["longest_edge"]) ** 0.5) + side
    grid = image_processor(images=[Image.new("RGB", (edge, edge))], return_tensors="pt")["image_grid_thw"][0]
    made = int(grid.prod()) * image_processor.patch_size**2
    if made > size["longest_edge"]:
        raise ModelError(
            f"max_pixels must bound the resized picture, {name} made {made} pixels of a larger one with max_pixels "
            f"{size['longest_edge']}; this version of its processor ignores the bound"
        )


def base_folder(name: str) -> str:
    """The folder or hub id of a model by its name; of an adapter, that of its base. Raises ModelError as `resolve` does."""
    path = resolve(name)
    return _adapter_base(path) or path


def _adapter_base(path: str) -> str | None:
    """The base model that an adapter folder names, resolved; None where `path` is no adapter folder."""
    recorded = _recorded_base(path)
    return None if recorded is None else resolve(recorded)


def _recorded_base(path: str) -> str | None:
    """The name of the base model that an adapter folder has; None where `path` is no adapter folder."""
    file = Path(path) / _ADAPTER_FILE
    if not path or not file.is_file():
        return None
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        recorded = None
    if not isinstance(recorded, str) or not recorded:
        raise ModelError(
            f"an adapter names its base model, {file} does not; add base_model_name_or_path to it"
        )
    return recorded


def _load_weights(path: str, name: str, dtype: torch.dtype | str) -> Any:
    """The model, with every weight from its checkpoint: transformers would make up what is not there."""
    from transformers.utils import logging as chatter

    level = chatter.get_verbosity()
    chatter.set_verbosity_error()  # its table of missing weights: ours is an error
    try:
        model, found = _from_pretrained(
            "AutoModelForImageTextToText",
            path,
            name,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
        )
    finally:
        chatter.set_verbosity(level)
    wrong = sorted(found["missing_keys"]) or sorted(str(key) for key, *_ in found["mismatched_keys"])
    if wrong:
        raise ModelError(
            f"a model's checkpoint holds every weight in its shape, that of {name} does not ({len(wrong)} missing or of "
            f"another shape: {', '.join(wrong[:3])}); check that config.json and the weights belong together"
        )
    return model


def _load_adapter(model: Any, path: str) -> Any:
    from peft import PeftModel

    if not (Path(path) / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"an adapter's folder holds adapter_model.safetensors, {path} does not; "
            "name the folder that save_pretrained wrote"
        )
    try:
        adapted = PeftModel.from_pretrained(model, path, is_trainable=True)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"an adapter must load onto its base model, {path} does not ({_first_line(error)}); "
            "check that the folder is complete and its base model the right one"
        ) from error
    for adapter in adapted.peft_config.values():  # on saving, peft would ask the hub for a packaged name
        adapter.base_model_name_or_path = model.name_or_path
    return adapted


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _from_pretrained(auto_class: str, path: str, name: str, **kwargs: Any) -> Any:
    """`transformers.<auto_class>.from_pretrained`, with a ModelError that says what to do where it fails."""
    import transformers

    try:
        return getattr(transformers, auto_class).from_pretrained(path, trust_remote_code=False, **kwargs)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ImportError,
        SafetensorError,
    ) as error:  # files of another shape than transformers expects, or a package they ask for
        reason = _first_line(error)
        remedy = "check that the folder is complete (config.json, weights, tokenizer, processor)"
        if not Path(path).is_dir():
            offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
            remedy = (
                "HF_HUB_OFFLINE is set, so only downloaded models can be used: unset it or name a folder"
                if offline
                else "check its name and the network, or name a folder"
            )
        raise ModelError(
            f"a model must load through transformers' {auto_class}, {name} does not ({reason}); {remedy}"
        ) from error

"""InternVL from its makers' layout, which needs code of theirs, to transformers' own: weights renamed and split, files rewritten.

The folder is read, nothing in it is run. Weights are streamed, one file at a time; no model is built but in shape.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from opengrit.core.errors import ModelError, first_line
from opengrit.core.weights import require_safetensors
from opengrit.models.pretrained import MAKERS_INTERNVL, require_layers
from opengrit.models.weight_files import INDEX, WHOLE, StoredTensor, some, stored_model

# The makers' text models and transformers' names of them; InternLM2 is computed as Llama is, with q, k and v in one matrix.
_TEXT_MODELS = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "internlm2": "llama"}
# Of the text model's config what its class in transformers has itself, and these; the rest is the makers' code's.
_TEXT_TAKEN = {
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
}
_VISION_KEYS = {
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
    "dropout": "hidden_dropout_prob",
}
_VISION_TAKEN = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "image_size", "patch_size",
    "layer_norm_eps", "norm_type", "num_channels", "attention_dropout", "initializer_range",
)  # fmt: skip

# Patterns of names, tried in order; the first that matches gives the new name. Names that nothing matches stay.
_VISION = (
    (r"vision_model\.embeddings\.class_embedding", "vision_tower.embeddings.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", "vision_tower.embeddings.position_embeddings"),
    (r"vision_model\.embeddings\.patch_embedding\.(\w+)", r"vision_tower.embeddings.patch_embeddings.projection.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.ls([12])", r"vision_tower.encoder.layer.\1.lambda_\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.norm1\.(\w+)", r"vision_tower.encoder.layer.\1.layernorm_before.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.norm2\.(\w+)", r"vision_tower.encoder.layer.\1.layernorm_after.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.attn\.proj\.(\w+)", r"vision_tower.encoder.layer.\1.attention.projection_layer.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.attn\.(.+)", r"vision_tower.encoder.layer.\1.attention.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(.+)", r"vision_tower.encoder.layer.\1.mlp.\2"),
    (r"mlp1\.0\.(\w+)", r"multi_modal_projector.layer_norm.\1"),
    (r"mlp1\.1\.(\w+)", r"multi_modal_projector.linear_1.\1"),
    (r"mlp1\.3\.(\w+)", r"multi_modal_projector.linear_2.\1"),
)  # fmt: skip
_LAYER = r"language_model\.model\.layers\.(\d+)"
_INTERNLM2 = (
    (r"language_model\.model\.tok_embeddings\.weight", "language_model.model.embed_tokens.weight"),
    (r"language_model\.output\.weight", "language_model.lm_head.weight"),
    (_LAYER + r"\.attention\.wo\.(\w+)", r"language_model.model.layers.\1.self_attn.o_proj.\2"),
    (_LAYER + r"\.attention\.(wqkv\.\w+)", r"language_model.model.layers.\1.self_attn.\2"),
    (_LAYER + r"\.feed_forward\.w1\.(\w+)", r"language_model.model.layers.\1.mlp.gate_proj.\2"),
    (_LAYER + r"\.feed_forward\.w2\.(\w+)", r"language_model.model.layers.\1.mlp.down_proj.\2"),
    (_LAYER + r"\.feed_forward\.w3\.(\w+)", r"language_model.model.layers.\1.mlp.up_proj.\2"),
    (_LAYER + r"\.attention_norm\.(\w+)", r"language_model.model.layers.\1.input_layernorm.\2"),
    (_LAYER + r"\.ffn_norm\.(\w+)", r"language_model.model.layers.\1.post_attention_layernorm.\2"),
)  # fmt: skip

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TOKENS = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
_VIDEO_TOKENS = (
    "<video>",
    "<|video_pad|>",
)  # the first that the vocabulary has: a new one would have no row in the weights
_TURN_END = "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class MakersLayout:
    """What the makers' config says that renaming needs: the text model, and how its queries, keys and values lie together."""

    config: Mapping[str, Any]
    text_model: str  # the makers' name
    num_heads: int
    num_key_value_heads: int
    head_dim: int

    @classmethod
    def of(cls, folder: Path) -> MakersLayout:
        """The layout of a folder. Raises ModelError where it is not the makers', or of a kind that is not converted."""
        file = folder / "config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            text, _ = dict(config["llm_config"]), dict(config["vision_config"])
            layout = cls(
                config,
                text_model=str(text["model_type"]),
                num_heads=int(text["num_attention_heads"]),
                num_key_value_heads=int(text.get("num_key_value_heads") or text["num_attention_heads"]),
                head_dim=int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]),
            )
        except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError) as error:
            raise ModelError(
                f"an InternVL in its makers' layout has llm_config and vision_config in its config.json, {file} does "
                f"not ({type(error).__name__}: {first_line(error)}); name the folder that was downloaded"
            ) from error
        kind, version = config.get("model_type"), config.get("ps_version", "v1")
        layer = config.get("select_layer", -1)
        if kind != MAKERS_INTERNVL or layout.text_model not in _TEXT_MODELS:
            raise ModelError(
                f"only {MAKERS_INTERNVL} on {', '.join(_TEXT_MODELS)} can be converted, {file} is {kind!r} on "
                f"{layout.text_model!r}; use a version in transformers' layout, whose name ends in -hf"
            )
        if version != "v2" or layer != -1:
            raise ModelError(
                f"transformers' InternVL shuffles pixels as v2 does and uses the last layer, {file} says ps_version "
                f"{version!r} and select_layer {layer}; it cannot be converted"
            )
        return layout

    def converted(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """A tensor under transformers' name; three where queries, keys and values lie together. Raises ModelError for a name not known."""
        new = self._renamed(name)
        if ".attention.qkv." in new:  # one after the other
            parts = tensor.chunk(3, dim=0)
        elif ".self_attn.wqkv." in new:
            parts = self._split_groups(tensor)
        else:
            return {new: tensor}
        joined = ".wqkv." if ".wqkv." in new else ".qkv."
        return {
            new.replace(joined, f".{part}_proj."): piece.contiguous()
            for part, piece in zip("qkv", parts, strict=True)
        }

    def _renamed(self, name: str) -> str:
        tables = _VISION + (_INTERNLM2 if self.text_model == "internlm2" else ())
        for pattern, new in tables:
            if (found := re.fullmatch(pattern, name)) is not None:
                return found.expand(new)
        if name.startswith("language_model."):
            return name
        raise ModelError(
            f"a weight of an InternVL belongs to its vision model, projector or text model, {name} does not; use the "
            "published files"
        )

    def _split_groups(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """InternLM2's matrix: for each key-value head the queries that share it, its key and its value, `head_dim` rows each."""
        queries = self.num_heads // self.num_key_value_heads
        grouped = tensor.unflatten(0, (self.num_key_value_heads, queries + 2, self.head_dim))
        q, k, v = grouped.split([queries, 1, 1], dim=1)
        return q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2)


def convert(source: str | Path, out: str | Path, *, tokenizer: str | Path | None = None) -> Path:
    """The new folder `out`, with the model of `source` in transformers' layout; `tokenizer` names a folder with another one.

    Raises ModelError where `source` is no such model or is incomplete, and where `out` exists; then `out` is not made.
    """
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise ModelError(
            f"the model to convert must be a folder, {source} is not; download the model first: hf download OWNER/NAME "
            "--local-dir FOLDER"
        )
    if out.exists():
        raise ModelError(
            f"a converted model needs a new folder, {out} exists; choose another name with --out"
        )
    require_layers(source / "config.json", str(source))
    layout = MakersLayout.of(source)
    require_safetensors(source, str(source))
    tensors = stored_model(source, str(source))
    if not tensors:
        raise ModelError(
            f"a model's folder must have safetensors weights, {source} has none; download it completely"
        )
    processor = _processor(layout, Path(tokenizer) if tokenizer is not None else source)
    config = _config(layout, processor, tied="language_model.lm_head.weight" not in _names(layout, tensors))
    _require_whole(config, layout, tensors, source)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an interrupted call
    part.mkdir(parents=True)
    _write_weights(layout, tensors, part)
    processor.save_pretrained(part)
    _generation_config(processor, config, source).save_pretrained(part)
    config.save_pretrained(part)
    os.replace(part, out)
    return out


def _names(layout: MakersLayout, tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    """The new names, and shapes, of the tensors that files hold; no tensor is read."""
    found: dict[str, tuple[int, ...]] = {}
    for name, stored in tensors.items():
        try:
            new = layout.converted(name, torch.empty(stored.shape, device="meta"))
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"a model's config and weights belong together, {name} has the shape {list(stored.shape)}, which does "
                f"not divide as the config says ({first_line(error)}); use both from the same source"
            ) from error
        found |= {key: tuple(value.shape) for key, value in new.items()}
    return found


def _require_whole(
    config: Any, layout: MakersLayout, tensors: Mapping[str, StoredTensor], source: Path
) -> None:
    """Raise ModelError where the converted tensors are not those of transformers' class, by name and shape."""
    from transformers import InternVLForConditionalGeneration

    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    given = {_in_memory(name): shape for name, shape in _names(layout, tensors).items()}
    missing, extra = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    other = {name for name in wanted.keys() & given.keys() if wanted[name] != given[name]}
    for what, names in (("are missing", missing), ("are left over", extra), ("have another shape", other)):
        if names:
            raise ModelError(
                f"a model's config and weights belong together, of {source} {what} after renaming {some(names)}; use "
                "both from the same source, complete"
            )


def _in_memory(name: str) -> str:
    """A tensor's name in transformers' model, by its name in files."""
    if name == "language_model.lm_head.weight":
        return "lm_head.weight"
    return f"model.{re.sub(r'^language_model[.]model[.]', 'language_model.', name)}"


def _write_weights(layout: MakersLayout, tensors: Mapping[str, StoredTensor], out: Path) -> None:
    """One new file for each old one: no more than that is in memory."""
    by_file: dict[Path, list[str]] = defaultdict(list)
    for name, stored in tensors.items():
        by_file[stored.file].append(name)
    weight_map: dict[str, str] = {}
    size = 0
    for number, (file, names) in enumerate(sorted(by_file.items()), start=1):
        shard = WHOLE if len(by_file) == 1 else f"model-{number:05d}-of-{len(by_file):05d}.safetensors"
        new: dict[str, torch.Tensor] = {}
        with safe_open(file, framework="pt") as reader:
            for name in names:
                new |= layout.converted(name, reader.get_tensor(name))
        save_file(new, out / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(new, shard)
        size += sum(tensor.numel() * tensor.element_size() for tensor in new.values())
    if len(by_file) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _config(layout: MakersLayout, processor: Any, *, tied: bool) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, InternVLConfig, PreTrainedConfig

    makers, text_class = layout.config, CONFIG_MAPPING[_TEXT_MODELS[layout.text_model]]
    taken = _TEXT_TAKEN | {field.name for field in fields(text_class)} - {
        field.name for field in fields(PreTrainedConfig)
    }
    text = {key: value for key, value in makers["llm_config"].items() if key in taken}
    if layout.text_model == "internlm2":
        text["attention_bias"] = text["mlp_bias"] = bool(makers["llm_config"].get("bias", False))
    given = makers["vision_config"]
    vision = {key: given[key] for key in _VISION_TAKEN if key in given}
    vision |= {new: given[key] for key, new in _VISION_KEYS.items() if key in given}
    vision["image_size"] = makers.get("force_image_size") or given["image_size"]
    try:
        return InternVLConfig(
            text_config=text_class(**text | {"tie_word_embeddings": tied, "use_cache": True}),
            vision_config=vision,
            image_token_id=processor.image_token_id,
            image_seq_length=processor.image_seq_length,
            downsample_ratio=makers.get("downsample_ratio", 0.5),
            tie_word_embeddings=tied,
            dtype=makers.get("torch_dtype") or makers["llm_config"].get("torch_dtype"),
            architectures=["InternVLForConditionalGeneration"],
        )
    except (TypeError, ValueError, LookupError, AttributeError, StrictDataclassError) as error:
        raise ModelError(
            f"a config must have values that transformers' InternVL accepts, this one does not ({first_line(error)}); "
            "use the published config.json"
        ) from error


def _processor(layout: MakersLayout, folder: Path) -> Any:
    from transformers import InternVLProcessor
    from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    makers, tokenizer = layout.config, _tokenizer(folder)
    side = int(makers.get("force_image_size") or makers["vision_config"]["image_size"])
    patches = side // int(makers["vision_config"]["patch_size"])
    image_processor = GotOcr2ImageProcessor(
        size={"height": side, "width": side},
        crop_to_patches=bool(makers.get("dynamic_image_size", True)),
        min_patches=int(makers.get("min_dynamic_patch", 1)),
        max_patches=int(makers.get("max_dynamic_patch", 12)),
        image_mean=list(_IMAGENET_MEAN),
        image_std=list(_IMAGENET_STD),
    )
    return InternVLProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=int(patches**2 * float(makers.get("downsample_ratio", 0.5)) ** 2),
        chat_template=_CHAT_TEMPLATE,
    )


def _tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, read by transformers' own classes, with names for the tokens around a picture."""
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    if (folder / "tokenizer.json").is_file():
        reader: Any = PreTrainedTokenizerFast
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        reader = Qwen2Tokenizer
    else:
        raise ModelError(
            f"a tokenizer needs tokenizer.json, or vocab.json and merges.txt, {folder} has neither (other tokenizers "
            "need remote code); name the folder of the same model in transformers' layout with --tokenizer"
        )
    vocabulary = reader.from_pretrained(folder, trust_remote_code=False).get_vocab()
    missing = [token for token in (*_TOKENS.values(), _TURN_END) if token not in vocabulary]
    video = next((token for token in _VIDEO_TOKENS if token in vocabulary), None)
    if missing or video is None:
        raise ModelError(
            f"the tokenizer of an InternVL knows {', '.join([*_TOKENS.values(), _TURN_END, _VIDEO_TOKENS[1]])}, that in "
            f"{folder} lacks {', '.join(missing) or _VIDEO_TOKENS[1]}; use the published tokenizer"
        )
    return reader.from_pretrained(
        folder,
        extra_special_tokens=_TOKENS | {"video_token": video},
        padding_side="left",
        trust_remote_code=False,
    )


def _generation_config(processor: Any, config: Any, source: Path) -> Any:
    """Ends of an answer: the end of a turn, which the makers' chat stops at, and what their files name."""
    from transformers import GenerationConfig

    tokenizer = processor.tokenizer
    ends = {
        tokenizer.convert_tokens_to_ids(_TURN_END),
        tokenizer.eos_token_id,
        config.text_config.eos_token_id,
    }
    file = source / "generation_config.json"
    if file.is_file():
        try:
            named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError):
            named = None
        ends |= set(named) if isinstance(named, list) else {named}
    known = sorted(one for one in ends if isinstance(one, int))
    return GenerationConfig(eos_token_id=known, pad_token_id=tokenizer.pad_token_id)

"""The shape of a model, from the numbers in its config: how many parameters each part has.

Nothing is loaded and torch is not imported. Counts are exact: a test compares them with the real classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from opengrit.core.errors import ModelError


class Part(Enum):
    """Whose parameters they are."""

    LAYERS = "layers"  # of the language model, its last norm included
    EMBEDDINGS = "embeddings"  # the tokens' vectors, and the head where it has weights of its own
    VISION = "vision"  # the tower and its projector


@dataclass(frozen=True, slots=True)
class TextShape:
    """The language model's numbers; `experts` 0 is one feed-forward a layer."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int  # of one expert, where there are experts
    vocabulary: int
    tied: bool  # the head is the embedding
    is_qwen3: bool  # norms its heads and has no biases; Qwen2: biases on queries, keys and values
    experts: int = 0
    experts_per_token: int = 0

    @property
    def linear_parameters(self) -> int:
        """Weights of the attention and feed-forward matrices of all layers: what 4-bit loading stores in 4 bits."""
        h, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        feed_forward = 3 * h * self.intermediate
        return self.layers * (2 * h * q + 2 * h * kv + (0 if self.experts else feed_forward))

    @property
    def layer_parameters(self) -> int:
        """All parameters of the layers and the last norm."""
        h, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        small = 2 * self.head_dim if self.is_qwen3 else q + 2 * kv
        experts = self.experts * (3 * h * self.intermediate + h)  # with the router's row
        return self.linear_parameters + self.layers * (small + 2 * h + experts) + h

    @property
    def embedding_parameters(self) -> int:
        """The embedding, and the head where it is not the same."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def lora_parameters(self, rank: int) -> int:
        """Adapters of that rank on every linear layer (experts are no linear layers): rank x (inputs + outputs) each."""
        h, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = 2 * (h + q) + 2 * (h + kv) + (0 if self.experts else 3 * (h + self.intermediate))
        return self.layers * rank * sides


@dataclass(frozen=True, slots=True)
class VisionShape:
    """The vision tower's numbers. `merge` patches on a side make one token for the language model."""

    model_type: str
    hidden: int
    layers: int
    intermediate: int
    out: int  # the language model's width
    patch: int  # pixels
    merge: int
    positions: int = 0  # learned position embeddings
    deep: int = 0  # layers whose features go to the language model as well (Qwen3-VL)

    @property
    def is_internvl(self) -> bool:
        return self.model_type == "internvl"

    @property
    def block_parameters(self) -> int:
        """Of one layer: two norms, attention with biases, feed-forward with biases."""
        h, i = self.hidden, self.intermediate
        attention = 4 * h * h + 4 * h
        match self.model_type:
            case "qwen2_5_vl":  # RMS norms and a gated feed-forward
                return 2 * h + attention + 3 * h * i + 2 * i + h
            case "internvl":  # with two learned scales
                return 4 * h + attention + 2 * h * i + i + h + 2 * h
            case _:
                return 4 * h + attention + 2 * h * i + i + h

    @property
    def parameters(self) -> int:
        """The tower and the projector."""
        h, out = self.hidden, self.out
        wide = h * self.merge**2
        if self.is_internvl:
            # A class token with its position, and a bias.
            embeddings = 3 * h + self.positions * h + 3 * h * self.patch**2
            projector = 2 * wide + wide * out + out + out * out + out
            return embeddings + self.layers * self.block_parameters + projector
        embeddings = 3 * h * 2 * self.patch**2  # two frames to a patch
        norm = h if self.model_type == "qwen2_5_vl" else 2 * h
        merger = wide * wide + wide + wide * out + out
        if self.deep:
            embeddings += h + self.positions * h
        mergers = norm + merger + self.deep * (2 * wide + merger)
        return embeddings + self.layers * self.block_parameters + mergers


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the estimate needs to know of a model."""

    model_type: str
    text: TextShape
    vision: VisionShape

    def parameters(self, part: Part | None = None) -> int:
        """The number of parameters, of one part or of the whole model."""
        match part:
            case Part.LAYERS:
                return self.text.layer_parameters
            case Part.EMBEDDINGS:
                return self.text.embedding_parameters
            case Part.VISION:
                return self.vision.parameters
            case None:
                return sum(self.parameters(p) for p in Part)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelFacts:
        """From a transformers config as `to_dict` gives it. Raises ModelError for a family or a config not known."""
        model_type = config.get("model_type")
        try:
            text, vision = config["text_config"], config["vision_config"]
            return cls(str(model_type), _text(text, config), _vision(str(model_type), vision, text, config))
        except (KeyError, TypeError) as error:
            raise ModelError(
                "a memory estimate needs the config of a Qwen-VL or InternVL model in transformers' form, got "
                f"model_type {model_type!r} without {error}; load it with transformers' AutoConfig first"
            ) from error


def _text(text: Mapping[str, Any], config: Mapping[str, Any]) -> TextShape:
    experts = text.get("num_experts") or text.get("num_local_experts") or 0
    return TextShape(
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
        intermediate=text["moe_intermediate_size"] if experts else text["intermediate_size"],
        vocabulary=text["vocab_size"],
        tied=bool(config["tie_word_embeddings"]),
        is_qwen3=str(text["model_type"]).startswith("qwen3"),
        experts=experts,
        experts_per_token=text["num_experts_per_tok"] if experts else 0,
    )


def _vision(
    model_type: str, vision: Mapping[str, Any], text: Mapping[str, Any], config: Mapping[str, Any]
) -> VisionShape:
    if model_type == "internvl":
        patch, side = vision["patch_size"][0], vision["image_size"][0]
        return VisionShape(
            model_type, vision["hidden_size"], vision["num_hidden_layers"], vision["intermediate_size"],
            text["hidden_size"], patch, round(1 / config["downsample_ratio"]), positions=(side // patch) ** 2,
        )  # fmt: skip
    if model_type == "qwen2_vl":
        width = vision["embed_dim"]
        return VisionShape(
            model_type, width, vision["depth"], int(width * vision["mlp_ratio"]), vision["hidden_size"],
            vision["patch_size"], vision["spatial_merge_size"],
        )  # fmt: skip
    tower = model_type.removesuffix("_moe")  # the experts are the language model's
    return VisionShape(
        tower, vision["hidden_size"], vision["depth"], vision["intermediate_size"], vision["out_hidden_size"],
        vision["patch_size"], vision["spatial_merge_size"], positions=vision.get("num_position_embeddings", 0),
        deep=len(vision.get("deepstack_visual_indexes", ())),
    )  # fmt: skip


# Numbers of the published configs, in the order of the classes' fields.


def _qwen2_text(
    hidden: int, layers: int, heads: int, kv: int, wide: int, vocabulary: int, tied: bool
) -> TextShape:
    return TextShape(hidden, layers, heads, kv, hidden // heads, wide, vocabulary, tied, is_qwen3=False)


def _qwen3_text(hidden: int, layers: int, heads: int, wide: int, tied: bool) -> TextShape:
    return TextShape(hidden, layers, heads, 8, 128, wide, 151_936, tied, is_qwen3=True)


def _qwen2_vl(model_type: str, text: TextShape, wide: int) -> ModelFacts:
    return ModelFacts(model_type, text, VisionShape(model_type, 1280, 32, wide, text.hidden, 14, 2))


def _qwen3_vl(text: TextShape, *, large: bool = False, model_type: str = "qwen3_vl") -> ModelFacts:
    hidden, layers, wide = (1152, 27, 4304) if large else (1024, 24, 4096)
    vision = VisionShape("qwen3_vl", hidden, layers, wide, text.hidden, 16, 2, positions=2304, deep=3)
    return ModelFacts(model_type, text, vision)


def _internvl(text: TextShape) -> ModelFacts:
    return ModelFacts(
        "internvl", text, VisionShape("internvl", 1024, 24, 4096, text.hidden, 14, 2, positions=1024)
    )


_QWEN_7B = _qwen2_text(3584, 28, 28, 4, 18_944, 152_064, False)
_MOE = TextShape(2048, 48, 32, 4, 128, 768, 151_936, False, is_qwen3=True, experts=128, experts_per_token=8)

KNOWN: dict[str, ModelFacts] = {
    "Qwen/Qwen2-VL-2B-Instruct": _qwen2_vl(
        "qwen2_vl", _qwen2_text(1536, 28, 12, 2, 8960, 151_936, True), 5120
    ),
    "Qwen/Qwen2-VL-7B-Instruct": _qwen2_vl("qwen2_vl", _QWEN_7B, 5120),
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_vl(
        "qwen2_5_vl", _qwen2_text(2048, 36, 16, 2, 11_008, 151_936, True), 3420
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2_vl("qwen2_5_vl", _QWEN_7B, 3420),
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3_vl(_qwen3_text(2048, 28, 16, 6144, True)),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3_vl(_qwen3_text(2560, 36, 32, 9728, True)),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3_vl(_qwen3_text(4096, 36, 32, 12_288, False), large=True),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": _qwen3_vl(_MOE, large=True, model_type="qwen3_vl_moe"),
    "OpenGVLab/InternVL3-1B-hf": _internvl(_qwen2_text(896, 24, 14, 2, 4864, 151_674, False)),
    "OpenGVLab/InternVL3-2B-hf": _internvl(_qwen2_text(1536, 28, 12, 2, 8960, 151_674, False)),
    "OpenGVLab/InternVL3-8B-hf": _internvl(_qwen2_text(3584, 28, 28, 4, 18_944, 151_674, False)),
    "OpenGVLab/InternVL3_5-1B-HF": _internvl(_qwen3_text(1024, 28, 16, 3072, False)),
    "OpenGVLab/InternVL3_5-2B-HF": _internvl(_qwen3_text(2048, 28, 16, 6144, False)),
    "OpenGVLab/InternVL3_5-4B-HF": _internvl(_qwen3_text(2560, 36, 32, 9728, False)),
    "OpenGVLab/InternVL3_5-8B-HF": _internvl(_qwen3_text(4096, 36, 32, 12_288, False)),
}

"""How much memory a run needs, by arithmetic: weights, gradients, optimizer, reference, activations, keys and values.

Nothing is loaded and torch is not imported: a model's facts come from the numbers in its config. What a line of the estimate
counts, and where its formula comes from, is said at the function that computes it. Parameter counts are exact (a test
compares them with the real classes); activations are an upper estimate of what autograd keeps (a test measures how close).
"""

# Sizes are in bytes unless a name says otherwise. One GB is 10^9 bytes, as GPU vendors count.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from opengrit.core.errors import ModelError

GB = 10**9
FLOAT, HALF = 4, 2  # bytes of a number in 32 and in 16 bits

# bitsandbytes' NF4 with double quantisation: 4 bits, 8 bits for each block of 64 and 32 bits for each 256 blocks
# (QLoRA, arXiv 2305.14314, section 3).
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8

# One tile of TRL 1.16's fused head: this many tokens by this many words of the vocabulary, in 16 bits and, while it is
# worked on, three times in 32 bits (trl/kernels/chunked_logprob.py).
_TILE = 4096 * 32_768
_TILE_BYTES = HALF + 3 * FLOAT


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
    positions: int = 0  # learnt ones
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
            case "internvl":  # with two learnt scales
                return 4 * h + attention + 2 * h * i + i + h + 2 * h
            case _:
                return 4 * h + attention + 2 * h * i + i + h

    @property
    def parameters(self) -> int:
        """The tower and the projector."""
        h, out = self.hidden, self.out
        wide = h * self.merge**2
        if self.is_internvl:
            embeddings = (
                3 * h + self.positions * h + 3 * h * self.patch**2
            )  # a class token with its position, a bias
            projector = 2 * wide + wide * out + out + out * out + out
            return embeddings + self.layers * self.block_parameters + projector
        embeddings = 3 * h * 2 * self.patch**2  # two frames to a patch
        norm = {"qwen2_5_vl": h}.get(self.model_type, 2 * h)
        merger = wide * wide + wide + wide * out + out
        if self.deep:
            embeddings += h + self.positions * h
        return (
            embeddings
            + self.layers * self.block_parameters
            + (norm + merger)
            + self.deep * (2 * wide + merger)
        )


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
                "a memory estimate needs the config of a Qwen-VL or InternVL model as transformers writes it, "
                f"got model_type {model_type!r} without {error}; load it with transformers' AutoConfig first"
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
    return VisionShape(
        model_type, vision["hidden_size"], vision["depth"], vision["intermediate_size"], vision["out_hidden_size"],
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


def _internvit(out: int) -> VisionShape:
    return VisionShape("internvl", 1024, 24, 4096, out, 14, 2, positions=1024)


def _qwen3_vision(out: int, *, large: bool) -> VisionShape:
    hidden, layers, wide = (1152, 27, 4304) if large else (1024, 24, 4096)
    return VisionShape("qwen3_vl", hidden, layers, wide, out, 16, 2, positions=2304, deep=3)


_QWEN_7B = _qwen2_text(3584, 28, 28, 4, 18_944, 152_064, False)
_MOE = TextShape(2048, 48, 32, 4, 128, 768, 151_936, False, is_qwen3=True, experts=128, experts_per_token=8)

KNOWN: dict[str, ModelFacts] = {
    "Qwen/Qwen2-VL-2B-Instruct": ModelFacts(
        "qwen2_vl",
        _qwen2_text(1536, 28, 12, 2, 8960, 151_936, True),
        VisionShape("qwen2_vl", 1280, 32, 5120, 1536, 14, 2),
    ),
    "Qwen/Qwen2-VL-7B-Instruct": ModelFacts(
        "qwen2_vl", _QWEN_7B, VisionShape("qwen2_vl", 1280, 32, 5120, 3584, 14, 2)
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": ModelFacts(
        "qwen2_5_vl",
        _qwen2_text(2048, 36, 16, 2, 11_008, 151_936, True),
        VisionShape("qwen2_5_vl", 1280, 32, 3420, 2048, 14, 2),
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": ModelFacts(
        "qwen2_5_vl", _QWEN_7B, VisionShape("qwen2_5_vl", 1280, 32, 3420, 3584, 14, 2)
    ),
    "Qwen/Qwen3-VL-2B-Instruct": ModelFacts(
        "qwen3_vl", _qwen3_text(2048, 28, 16, 6144, True), _qwen3_vision(2048, large=False)
    ),
    "Qwen/Qwen3-VL-4B-Instruct": ModelFacts(
        "qwen3_vl", _qwen3_text(2560, 36, 32, 9728, True), _qwen3_vision(2560, large=False)
    ),
    "Qwen/Qwen3-VL-8B-Instruct": ModelFacts(
        "qwen3_vl", _qwen3_text(4096, 36, 32, 12_288, False), _qwen3_vision(4096, large=True)
    ),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": ModelFacts("qwen3_vl_moe", _MOE, _qwen3_vision(2048, large=True)),
    "OpenGVLab/InternVL3-1B-hf": ModelFacts(
        "internvl", _qwen2_text(896, 24, 14, 2, 4864, 151_674, False), _internvit(896)
    ),
    "OpenGVLab/InternVL3-2B-hf": ModelFacts(
        "internvl", _qwen2_text(1536, 28, 12, 2, 8960, 151_674, False), _internvit(1536)
    ),
    "OpenGVLab/InternVL3-8B-hf": ModelFacts(
        "internvl", _qwen2_text(3584, 28, 28, 4, 18_944, 151_674, False), _internvit(3584)
    ),
    "OpenGVLab/InternVL3_5-1B-HF": ModelFacts(
        "internvl", _qwen3_text(1024, 28, 16, 3072, False), _internvit(1024)
    ),
    "OpenGVLab/InternVL3_5-2B-HF": ModelFacts(
        "internvl", _qwen3_text(2048, 28, 16, 6144, False), _internvit(2048)
    ),
    "OpenGVLab/InternVL3_5-4B-HF": ModelFacts(
        "internvl", _qwen3_text(2560, 36, 32, 9728, False), _internvit(2560)
    ),
    "OpenGVLab/InternVL3_5-8B-HF": ModelFacts(
        "internvl", _qwen3_text(4096, 36, 32, 12_288, False), _internvit(4096)
    ),
}


class Learned(Enum):
    """Which weights learn."""

    ALL = "all"
    ADAPTERS = "adapters"  # LoRA on every linear layer of the language model


class Sharding(Enum):
    """What a device holds of what learns: all of it, or its share (ZeRO, arXiv 1910.02054, section 5)."""

    NONE = "none"  # DDP
    ZERO1 = "zero1"  # shares the optimizer's state
    ZERO2 = "zero2"  # and the gradients
    ZERO3 = "zero3"  # and the weights
    FSDP = "fsdp"  # the same, with weights kept in 32 bits


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is trained, on each of `devices` devices: all that the estimate needs of a recipe and a machine.

    `questions` and `rows` are those of one forward and backward pass of one device; `decoded_rows` are written together.
    Lengths are in tokens, the longest that occur: `prompt_tokens` without the picture, `picture_tokens` as the language
    model sees it.
    """

    learned: Learned
    questions: int
    rows: int
    decoded_rows: int
    prompt_tokens: int
    picture_tokens: int
    completion_tokens: int
    weight_bytes: float = (
        FLOAT  # of a frozen or learning weight as loaded; NF4 for 4 bits in the linear layers
    )
    compute_bytes: int = HALF  # of a number in the forward pass
    optimizer_bytes: int = 2 * FLOAT  # for each number that learns: AdamW's two means; 2 in 8 bits
    reference: bool = (
        False  # a second model for the KL term (with adapters the model itself is the reference)
    )
    vision_learns: bool = True
    checkpointing: bool = True
    lora_rank: int = 16
    sharding: Sharding = Sharding.NONE
    devices: int = 1


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on each device. The first five are there all the time; learning and generating take turns with the rest."""

    weights: int
    working_copies: int  # of weights in 16 bits, while a pass lasts
    gradients: int
    optimizer: int
    reference: int
    activations: int  # of the language model
    vision: int  # activations of the tower and the projector
    logits: int  # the head's tile, and the gradient of its weights
    cache: int  # keys and values while completions are written
    sampling: int  # the words' probabilities of one step
    overhead: (
        int  # the device's context and what the allocator leaves unused: an allowance, not a computation
    )

    @property
    def steady(self) -> int:
        """What is there all the time."""
        return self.weights + self.gradients + self.optimizer + self.reference

    @property
    def learning(self) -> int:
        """The most while a loss is computed, the steady part left out."""
        return self.working_copies + self.activations + self.vision + self.logits

    @property
    def generating(self) -> int:
        """The most while completions are written, the steady part left out."""
        return self.working_copies + self.cache + self.sampling

    @property
    def total(self) -> int:
        """The most at any time."""
        return self.steady + max(self.learning, self.generating) + self.overhead

    def lines(self) -> list[str]:
        """A line for each part that is not nothing, and the total, in GB."""
        parts = [(f.name.replace("_", " "), getattr(self, f.name)) for f in fields(self)]
        shown = [f"{name:<14} {bytes_ / GB:6.1f} GB" for name, bytes_ in parts if bytes_ >= GB / 20]
        return [*shown, f"{'most at once':<14} {self.total / GB:6.1f} GB a device"]


def estimate(facts: ModelFacts, plan: Plan) -> MemoryEstimate:
    """What each device needs for a run of `plan`. Upper in its activations, blind to what else runs on the device."""
    share = 1 / plan.devices
    splits_weights = plan.sharding in (Sharding.ZERO3, Sharding.FSDP)
    weights = _weights(facts, plan) * (share if splits_weights else 1)
    learning = learning_parameters(facts, plan)
    gradients = float(learning * _gradient_bytes(plan))
    if plan.sharding in (Sharding.ZERO2, Sharding.ZERO3, Sharding.FSDP):
        gradients *= share
    optimizer = learning * _optimizer_bytes(plan) * (1 if plan.sharding is Sharding.NONE else share)
    reference = 0.0
    if plan.reference and plan.learned is Learned.ALL:
        each = HALF if _is_zero(plan) else plan.weight_bytes
        reference = facts.parameters() * each * (share if splits_weights else 1)
    tokens = plan.questions * (plan.prompt_tokens + plan.picture_tokens) + plan.rows * plan.completion_tokens
    copies = _working_copies(facts, plan)
    activations = _activations(facts.text, plan, tokens) + _masks(plan)
    vision = _vision_activations(facts.vision, plan)
    logits = _logits(facts.text, plan, tokens)
    length = plan.prompt_tokens + plan.picture_tokens + plan.completion_tokens
    text = facts.text
    # Keys and values of every layer, token and row (arXiv 1911.02150 for heads that share them).
    cache = 2 * text.layers * text.kv_heads * text.head_dim * plan.compute_bytes * length * plan.decoded_rows
    # Logits as they come and in 32 bits, and their running sum in 64 (samplers).
    sampling = plan.decoded_rows * text.vocabulary * (plan.compute_bytes + FLOAT + 2 * 8)
    moving = copies + max(activations + vision + logits, cache + sampling)
    return MemoryEstimate(
        weights=round(weights),
        working_copies=round(copies),
        gradients=round(gradients),
        optimizer=round(optimizer),
        reference=round(reference),
        activations=round(activations),
        vision=round(vision),
        logits=round(logits),
        cache=round(cache),
        sampling=round(sampling),
        overhead=round(GB + 0.08 * moving),
    )


def learning_parameters(facts: ModelFacts, plan: Plan) -> int:
    """How many numbers learn."""
    if plan.learned is Learned.ADAPTERS:
        return facts.text.lora_parameters(plan.lora_rank)
    return facts.parameters() - (0 if plan.vision_learns else facts.parameters(Part.VISION))


def _is_zero(plan: Plan) -> bool:
    return plan.sharding in (Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)


def _weights(facts: ModelFacts, plan: Plan) -> float:
    """As loaded, adapters (32 bits) on top. ZeRO keeps the working weights in 16 bits (its section 3.1)."""
    adapters = learning_parameters(facts, plan) * FLOAT if plan.learned is Learned.ADAPTERS else 0
    if _is_zero(plan):
        return facts.parameters() * HALF + adapters
    if (
        plan.weight_bytes < 1
    ):  # 4 bits hold the linear layers; embeddings, norms, experts and the tower stay in 16
        return (
            facts.text.linear_parameters * plan.weight_bytes
            + (facts.parameters() - facts.text.linear_parameters) * HALF
            + adapters
        )
    return facts.parameters() * plan.weight_bytes + adapters


def _gradient_bytes(plan: Plan) -> int:
    """As wide as the weight that learns: 32 bits, and 16 under ZeRO."""
    return HALF if _is_zero(plan) else FLOAT


def _optimizer_bytes(plan: Plan) -> int:
    """The optimizer's means, and under ZeRO the 32-bit weights that the 16-bit ones are taken from (its section 3.1)."""
    return plan.optimizer_bytes + (FLOAT if _is_zero(plan) else 0)


def _working_copies(facts: ModelFacts, plan: Plan) -> float:
    """The 16-bit weights of a pass over 32-bit ones: autocast keeps one of each that learns until the pass is over.

    Of a frozen weight a copy lives as long as its layer's graph; with shards, two layers and the embeddings are whole at once.
    """
    text = facts.text
    a_layer = text.layer_parameters / text.layers
    if plan.sharding in (Sharding.ZERO3, Sharding.FSDP):
        return (2 * a_layer + text.embedding_parameters) * HALF
    if plan.weight_bytes < 1:  # a layer at a time is unpacked
        return a_layer * HALF
    if _is_zero(plan) or plan.weight_bytes <= plan.compute_bytes:
        return 0.0
    if plan.learned is Learned.ALL:
        return facts.parameters() * plan.compute_bytes
    return (a_layer if plan.checkpointing else text.layer_parameters) * plan.compute_bytes


def _kept_by_layer(text: TextShape, plan: Plan) -> float:
    """Bytes that autograd keeps of one layer for each token, nothing recomputed.

    Two norms keep their input and its scaled form in 32 bits and hand on an input in the pass's width; attention keeps
    queries, keys, values (repeated for the heads that share them), its result and the output projection's input; the
    gated feed-forward keeps its two inner results, the gate's activation and the product. Counted as Korthikanti et al.
    count them (arXiv 2205.05198, section 4.1), for these blocks.
    """
    wide = plan.compute_bytes
    norms = 2 * text.hidden * (2 * FLOAT + wide)
    head_norms = 2 * 2 * text.heads * text.head_dim * FLOAT if text.is_qwen3 else 0
    attention = 5 * text.heads * text.head_dim * wide + text.heads * FLOAT
    feed_forward = 4 * text.intermediate * max(1, text.experts_per_token) * wide
    adapters = 7 * plan.lora_rank * FLOAT + text.hidden * FLOAT * 4 if plan.learned is Learned.ADAPTERS else 0
    return norms + head_norms + attention + feed_forward + adapters


def _activations(text: TextShape, plan: Plan, tokens: int) -> float:
    """Of the language model: all layers, or each layer's input and one layer (recomputation, arXiv 1604.06174)."""
    stream = FLOAT if plan.weight_bytes == FLOAT and not _is_zero(plan) else plan.compute_bytes
    one = _kept_by_layer(text, plan) * tokens
    ends = (
        tokens * text.hidden * (2 * FLOAT + plan.compute_bytes)
    )  # the last norm, and what the head is given
    if not plan.checkpointing:
        return text.layers * one + ends
    return text.layers * tokens * text.hidden * stream + 2 * one + ends  # kept, and its gradients


def _masks(plan: Plan) -> float:
    """What each completion token may see, true or false and as a number to add, for the rows of a pass."""
    length = plan.prompt_tokens + plan.picture_tokens + plan.completion_tokens
    return plan.rows * plan.completion_tokens * length * (1 + plan.compute_bytes)


def _vision_activations(vision: VisionShape, plan: Plan) -> float:
    """Of the tower, for the pictures of a pass. A tower that does not learn keeps nothing but the layer it is at.

    As the language model's, but attention keeps twice as much: the parts of a joint projection, and their copies by picture
    and window.
    """
    patches = plan.questions * plan.picture_tokens * vision.merge**2
    wide = plan.compute_bytes
    gated = 4 if vision.model_type == "qwen2_5_vl" else 2
    one = patches * (
        2 * vision.hidden * (2 * FLOAT + wide)
        + 10 * vision.hidden * wide
        + gated * vision.intermediate * wide
    )
    merged = (1 + vision.deep) * patches * vision.hidden * (2 * FLOAT + 2 * wide)
    ends = merged + patches * 2 * 3 * vision.patch**2 * FLOAT  # and the pixels
    if not plan.vision_learns or plan.learned is Learned.ADAPTERS:
        return one + ends
    if plan.checkpointing:
        return vision.layers * patches * vision.hidden * FLOAT + 2 * one + ends
    return vision.layers * one + ends


def _logits(text: TextShape, plan: Plan, tokens: int) -> float:
    """The fused head works on tiles and never holds all logits; the gradient of its weights is whole, in 32 bits."""
    tile = min(_TILE, tokens * 32_768) * _TILE_BYTES
    gradient = text.vocabulary * text.hidden * FLOAT if plan.learned is Learned.ALL else 0
    return tile + gradient

"""How much memory a run needs, by arithmetic: weights, gradients, optimizer, reference, activations, KV cache.

Nothing is loaded and torch is not imported: a model's numbers come from `shapes.py`. Each function says what it counts
and where its formula comes from. Activations are an upper estimate of what autograd keeps; a test measures how close.
"""

# Sizes are in bytes unless a name says otherwise. One GB is 10^9 bytes, as GPU vendors count.
from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from opengrit.models.shapes import ModelFacts, Part, TextShape, VisionShape

GB = 10**9
FLOAT, HALF = 4, 2  # bytes of a number in 32 and in 16 bits

# bitsandbytes' NF4 with double quantisation: 4 bits, 8 bits for each block of 64 and 32 bits for each 256 blocks
# (QLoRA, arXiv 2305.14314, section 3).
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8

# One tile of TRL 1.16's fused head: this many tokens by this many entries of the vocabulary, in 16 bits and, while it is
# worked on, three times in 32 bits (trl/kernels/chunked_logprob.py).
_TILE = 4096 * 32_768
_TILE_BYTES = HALF + 3 * FLOAT


class Trainable(Enum):
    """Which weights are trained."""

    ALL = "all"
    ADAPTERS = "adapters"  # LoRA on every linear layer of the language model


class Sharding(Enum):
    """What a device holds of the training state: all of it, or its share (ZeRO, arXiv 1910.02054, section 5)."""

    NONE = "none"  # DDP
    ZERO1 = "zero1"  # shares the optimizer's state
    ZERO2 = "zero2"  # and the gradients
    ZERO3 = "zero3"  # and the weights
    FSDP = "fsdp"  # the same, with weights kept in 32 bits


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is trained, on each of `devices` devices: all that the estimate needs of a recipe and a machine.

    `questions` and `rows` are those of one forward and backward pass of one device; `decoded_rows` are sampled together.
    Lengths are in tokens, the longest that occur: `prompt_tokens` without the picture, `picture_tokens` as the language
    model sees it.
    """

    trainable: Trainable
    questions: int
    rows: int
    decoded_rows: int
    prompt_tokens: int
    picture_tokens: int
    completion_tokens: int
    weight_bytes: float = FLOAT  # of a weight as loaded; NF4 for 4 bits in the linear layers
    compute_bytes: int = HALF  # of a number in the forward pass
    optimizer_bytes: int = 2 * FLOAT  # for each trainable number: AdamW's two means; 2 in 8 bits
    reference: bool = False  # a second model for the KL term (with adapters the model itself is it)
    train_vision: bool = True
    checkpointing: bool = True
    lora_rank: int = 16
    sharding: Sharding = Sharding.NONE
    devices: int = 1


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on each device. Weights, gradients, optimizer and reference stay; training and generating alternate."""

    weights: int
    working_copies: int  # of weights in 16 bits, while a pass lasts
    gradients: int
    optimizer: int
    reference: int
    activations: int  # of the language model
    vision: int  # activations of the tower and the projector
    logits: int  # the head's tile, and the gradient of its weights
    cache: int  # keys and values of the completions being sampled
    sampling: int  # the vocabulary's probabilities of one step
    overhead: int  # an allowance for the device's context and what the allocator leaves unused

    @property
    def steady(self) -> int:
        """What stays in memory throughout."""
        return self.weights + self.gradients + self.optimizer + self.reference

    @property
    def training(self) -> int:
        """The peak while a loss is computed, the steady part left out."""
        return self.working_copies + self.activations + self.vision + self.logits

    @property
    def generating(self) -> int:
        """The peak while completions are sampled, the steady part left out."""
        return self.working_copies + self.cache + self.sampling

    @property
    def total(self) -> int:
        """The peak at any time."""
        return self.steady + max(self.training, self.generating) + self.overhead

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
    trainable = trainable_parameters(facts, plan)
    # Gradients are as wide as the trained weight: 32 bits, and 16 under ZeRO, which then keeps a 32-bit copy of the
    # weights with the optimizer's means (its section 3.1).
    gradients = float(trainable * (HALF if _is_zero(plan) else FLOAT))
    if plan.sharding in (Sharding.ZERO2, Sharding.ZERO3, Sharding.FSDP):
        gradients *= share
    optimizer_bytes = plan.optimizer_bytes + (FLOAT if _is_zero(plan) else 0)
    optimizer = trainable * optimizer_bytes * (1 if plan.sharding is Sharding.NONE else share)
    reference = 0.0
    if plan.reference and plan.trainable is Trainable.ALL:
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
    # Logits as computed and in 32 bits, and their running sum in 64 (`sampling/token_sampling.py`).
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


def trainable_parameters(facts: ModelFacts, plan: Plan) -> int:
    """How many numbers are trained."""
    if plan.trainable is Trainable.ADAPTERS:
        return facts.text.lora_parameters(plan.lora_rank)
    return facts.parameters() - (0 if plan.train_vision else facts.parameters(Part.VISION))


def _is_zero(plan: Plan) -> bool:
    return plan.sharding in (Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)


def _weights(facts: ModelFacts, plan: Plan) -> float:
    """As loaded, adapters (32 bits) on top. ZeRO keeps the working weights in 16 bits (its section 3.1)."""
    adapters = trainable_parameters(facts, plan) * FLOAT if plan.trainable is Trainable.ADAPTERS else 0
    if _is_zero(plan):
        return facts.parameters() * HALF + adapters
    if plan.weight_bytes < 1:  # the linear layers; embeddings, norms, experts and the tower stay in 16 bits
        linear = facts.text.linear_parameters
        return linear * plan.weight_bytes + (facts.parameters() - linear) * HALF + adapters
    return facts.parameters() * plan.weight_bytes + adapters


def _working_copies(facts: ModelFacts, plan: Plan) -> float:
    """The 16-bit weights of a pass over 32-bit ones: autocast keeps one of each trained weight until the pass is over.

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
    if plan.trainable is Trainable.ALL:
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
    adapters = (
        7 * plan.lora_rank * FLOAT + text.hidden * FLOAT * 4 if plan.trainable is Trainable.ADAPTERS else 0
    )
    return norms + head_norms + attention + feed_forward + adapters


def _activations(text: TextShape, plan: Plan, tokens: int) -> float:
    """Of the language model: all layers, or each layer's input and one layer (recomputation, arXiv 1604.06174)."""
    stream = FLOAT if plan.weight_bytes == FLOAT and not _is_zero(plan) else plan.compute_bytes
    one = _kept_by_layer(text, plan) * tokens
    ends = tokens * text.hidden * (2 * FLOAT + plan.compute_bytes)  # the last norm, and the head's input
    if not plan.checkpointing:
        return text.layers * one + ends
    return text.layers * tokens * text.hidden * stream + 2 * one + ends  # kept, and its gradients


def _masks(plan: Plan) -> float:
    """The attention mask of each completion token, boolean and as a bias, for the rows of a pass."""
    length = plan.prompt_tokens + plan.picture_tokens + plan.completion_tokens
    return plan.rows * plan.completion_tokens * length * (1 + plan.compute_bytes)


def _vision_activations(vision: VisionShape, plan: Plan) -> float:
    """Of the tower, for the pictures of a pass. A frozen tower keeps nothing but the current layer.

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
    if not plan.train_vision or plan.trainable is Trainable.ADAPTERS:
        return one + ends
    if plan.checkpointing:
        return vision.layers * patches * vision.hidden * FLOAT + 2 * one + ends
    return vision.layers * one + ends


def _logits(text: TextShape, plan: Plan, tokens: int) -> float:
    """The fused head works on tiles and never holds all logits; the gradient of its weights is whole, in 32 bits."""
    tile = min(_TILE, tokens * 32_768) * _TILE_BYTES
    gradient = text.vocabulary * text.hidden * FLOAT if plan.trainable is Trainable.ALL else 0
    return tile + gradient

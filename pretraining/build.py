"""The two tiny models before training: tokenizer, processors and random weights of the real classes."""

from __future__ import annotations

import math

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from opengrit.data.stickers.questions import RELATIONS
from opengrit.data.stickers.two_looks import SUPERLATIVES
from opengrit.data.stickers.world import KINDS, PLURALS
from opengrit.grounding.prompts import GROUNDED_SUFFIX

PATCH, MERGE = 14, 2
TILE = 112
MAX_PIXELS = 168 * 168
HIDDEN = 128
LARGEST_NUMBER = 1000

SPECIAL = {
    "tiny-qwen2.5-vl": [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ],
    "tiny-internvl3": [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<img>",
        "</img>",
        "<IMG_CONTEXT>",
        "<video>",
    ],
}
# Whole phrases as one token: what repeats in every sequence costs one step, not ten.
PHRASES = [
    GROUNDED_SUFFIX, "<think>", "</think>", "<rethink>", "</rethink>", "<answer>", "</answer>",
    '{"bbox_2d": [', '], "label": "', '"}', ", ", "Question: ", "user\n", "assistant\n",
    "Let me look.", "There are ", "There is ", "How many ", " are there?", "Detect all ", "Is the ", "What is ", "The ",
]  # fmt: skip

QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in c %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERN_TEMPLATE = QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")


def words() -> list[str]:
    """The words sticker world speaks, each with a leading space (as inside a sentence)."""
    texts = [*KINDS, *PLURALS.values(), *(w for r in RELATIONS for w in r.split())]
    texts += [
        "is",
        "are",
        "not",
        "there",
        "the",
        "no",
        "None",
        "of",
        "to",
        "a",
        "it",
        "and",
        "in",
        "at",
        "see",
        "picture",
        *SUPERLATIVES,
        "things",
        "between",
        "from",
        "left",
        "right",
        "top",
        "bottom",
        "more",
        "fewer",
        "than",
    ]
    return sorted({" " + t for t in texts} | {t for t in texts} | {"Yes", "No", "no"})


def build_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that reads any text, with numbers, sticker words and phrases as whole tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(SPECIAL[name])}
    whole = [w.replace(" ", "\u0120") for w in words()] + [str(n) for n in range(10, LARGEST_NUMBER + 1)]
    for token in alphabet + whole:
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    pieces = Regex(r" ?\p{L}+|\p{N}{1,4}|\s|[^\s\p{L}\p{N}]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL[name])
    tokenizer.add_tokens([AddedToken(p, normalized=False, special=False) for p in PHRASES])
    extra = {}
    if name == "tiny-internvl3":
        extra = dict(
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=extra or None,
        **({} if extra else {"additional_special_tokens": SPECIAL[name][1:2] + SPECIAL[name][3:]}),
    )


def build_processor(name: str, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor | InternVLProcessor:
    """The family's own processor class around the tokenizer, sized for small pictures."""
    if name == "tiny-qwen2.5-vl":
        size = {"shortest_edge": 56 * 56, "longest_edge": MAX_PIXELS}
        return Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(size=size, patch_size=PATCH, merge_size=MERGE),
            tokenizer=tokenizer,
            video_processor=Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=MERGE),
            chat_template=QWEN_TEMPLATE,
        )
    square = {"height": TILE, "width": TILE}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size=square, crop_to_patches=False, min_patches=1, max_patches=1
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=square),
        image_seq_length=(TILE // PATCH // 2) ** 2,
        chat_template=INTERN_TEMPLATE,
    )


def build_model(
    name: str, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen2_5_VLForConditionalGeneration | InternVLForConditionalGeneration:
    """Random weights of the family's real class; number embeddings start as smooth functions of the number."""
    torch.manual_seed(seed)
    common = dict(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=352, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.03,
    )  # fmt: skip
    token = tokenizer.convert_tokens_to_ids
    if name == "tiny-qwen2.5-vl":
        # A small theta: with the default one the columns, which turn slowest, would differ by thousandths of a radian
        # in a head of 32 dimensions, and nothing could tell them apart. Three sections are what other engines can read.
        rope = {"rope_type": "default", "rope_theta": 40.0, "mrope_section": [3, 6, 7]}
        config = Qwen2_5_VLConfig(
            text_config=common | {"rope_parameters": rope},
            vision_config=dict(
                depth=4, hidden_size=128, intermediate_size=320, num_heads=4, out_hidden_size=HIDDEN, patch_size=PATCH,
                spatial_merge_size=MERGE, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[0, 1, 2, 3],
                initializer_range=0.03,
            ),
            image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
        )  # fmt: skip
        model = Qwen2_5_VLForConditionalGeneration(config)
    else:
        config = InternVLConfig(
            text_config=common | {"model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}},
            vision_config=dict(
                hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
                image_size=[TILE, TILE], patch_size=[PATCH, PATCH], layer_scale_init_value=1.0, initializer_range=0.03,
            ),
            image_token_id=token("<IMG_CONTEXT>"), image_seq_length=(TILE // PATCH // 2) ** 2, tie_word_embeddings=True,
        )  # fmt: skip
        model = InternVLForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.vision_tower.embeddings.position_embeddings, std=0.05)
    _order_numbers(model, tokenizer, longest=500.0 if name == "tiny-qwen2.5-vl" else 3000.0)
    generation = model.generation_config
    generation.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    generation.pad_token_id = tokenizer.pad_token_id
    generation.bos_token_id = None
    return model


def _order_numbers(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, longest: float) -> None:
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(str(n)) for n in range(LARGEST_NUMBER + 1)])
    numbers = torch.arange(LARGEST_NUMBER + 1, dtype=torch.float32)
    pairs = HIDDEN // 4
    wavelengths = torch.exp(torch.linspace(math.log(longest / 60), math.log(longest), pairs))
    angles = 2 * math.pi * numbers[:, None] / wavelengths
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[ids, : 2 * pairs] = 0.05 * torch.cat([angles.cos(), angles.sin()], dim=1)

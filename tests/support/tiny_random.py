"""Random-weight models of the real classes, a few ten thousand parameters each, built in memory for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from opengrit.core.boxes import Box, Size
from opengrit.core.types import Example
from opengrit.models.families import Loaded
from opengrit.models.loading import describe

WORDS = [
    "<think>",
    "</think>",
    "<rethink>",
    "</rethink>",
    "<answer>",
    "bbox_2d",
    "How",
    " many",
    " dogs",
    "yes",
    "no",
]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
INTERN = ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}PICTURE{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(extra: list[str], **named: str) -> PreTrainedTokenizerFast:
    """Single bytes and the format's tags; `</answer>` is several tokens, as in real vocabularies."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens=named,
    )
    made.add_special_tokens({"additional_special_tokens": SPECIALS + extra})
    made.add_tokens(WORDS)
    return made


def qwen(*, seed: int = 0, tied: bool = False) -> Loaded:
    """A Qwen2.5-VL whose end-of-sequence ids include the pad id, as the real one's do."""
    tok = tokenizer(QWEN)
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 16),
        tokenizer=tok,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_TURNS.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    text = dict(
        vocab_size=len(tok), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, rope_theta=10000.0,
        rope_scaling={"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2]},
        bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, tie_word_embeddings=tied,
    )  # fmt: skip
    vision = dict(
        depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=32, patch_size=14,
        spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[1],
    )  # fmt: skip
    ids = {
        key: tok.convert_tokens_to_ids(token)
        for key, token in {
            "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
        }.items()
    }  # fmt: skip
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **ids)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = [tok.eos_token_id, tok.pad_token_id]
    model.generation_config.pad_token_id = tok.pad_token_id
    return describe(_lively(model), processor, name="random-qwen")


# Qwen2-VL and Qwen2.5-VL open with a system turn of their own where the user gives none; Qwen3-VL does not.
_SYSTEM = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
_QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def qwen2(*, seed: int = 0) -> Loaded:
    """A Qwen2-VL: full attention in its tower, a default system turn."""
    tok = tokenizer([*QWEN, "<|vision_pad|>"])
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 16),
        tokenizer=tok,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_SYSTEM + _TURNS.replace("PICTURE", _QWEN_PICTURE),
    )
    text = dict(
        vocab_size=len(tok), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
    )  # fmt: skip
    vision = dict(
        depth=2, embed_dim=32, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=14, spatial_merge_size=2,
        temporal_patch_size=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=False, **_ids(tok, _QWEN_IDS)
    )
    return _finished(Qwen2VLForConditionalGeneration(config), processor, "random-qwen2")


def qwen3(*, seed: int = 0, thinking: bool = False) -> Loaded:
    """A Qwen3-VL: patches of 16 pixels, deeper features for the first layers; `thinking` opens a thought, as its template does."""
    processor = _qwen3_processor(thinking=thinking)
    torch.manual_seed(seed)
    config = Qwen3VLConfig(
        text_config=_qwen3_text(processor.tokenizer),
        vision_config=_qwen3_vision(),
        tie_word_embeddings=False,
        **_ids(processor.tokenizer, _QWEN_IDS),
    )
    return _finished(Qwen3VLForConditionalGeneration(config), processor, "random-qwen3")


def qwen3_moe(*, seed: int = 0) -> Loaded:
    """A Qwen3-VL with four experts, two to a token."""
    processor = _qwen3_processor()
    torch.manual_seed(seed)
    config = Qwen3VLMoeConfig(
        text_config=_qwen3_text(processor.tokenizer)
        | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1),
        vision_config=_qwen3_vision(),
        tie_word_embeddings=False,
        **_ids(processor.tokenizer, _QWEN_IDS),
    )
    return _finished(Qwen3VLMoeForConditionalGeneration(config), processor, "random-qwen3-moe")


def internvl35(*, seed: int = 0) -> Loaded:
    """An InternVL3.5: the same tower on a Qwen3 text model."""
    return internvl(seed=seed, text_model="qwen3", tied=False)


def _qwen3_processor(*, thinking: bool = False) -> Qwen3VLProcessor:
    template = _TURNS.replace("PICTURE", _QWEN_PICTURE)
    if thinking:
        template = template.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            min_pixels=32 * 32, max_pixels=32 * 32 * 16, patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer([*QWEN, "<|vision_pad|>"]),
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=template,
    )  # fmt: skip


def _qwen3_text(tok: PreTrainedTokenizerFast) -> dict:
    return dict(
        vocab_size=len(tok), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
        },
        eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
    )  # fmt: skip


def _qwen3_vision() -> dict:
    return dict(
        depth=3, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=32, patch_size=16,
        spatial_merge_size=2, temporal_patch_size=2, num_position_embeddings=16, deepstack_visual_indexes=[0, 1],
    )  # fmt: skip


def _ids(tok: PreTrainedTokenizerFast, names: dict[str, str]) -> dict[str, int]:
    return {key: tok.convert_tokens_to_ids(token) for key, token in names.items()}


def _finished(model: torch.nn.Module, processor: object, name: str) -> Loaded:
    tok = processor.tokenizer
    model = model.eval()
    model.generation_config.eos_token_id = [tok.eos_token_id, tok.pad_token_id]
    model.generation_config.pad_token_id = tok.pad_token_id
    return describe(_lively(model), processor, name=name)


def internvl3(*, seed: int = 0) -> Loaded:
    """An InternVL3 with a head of its own, as those of the hub have."""
    return internvl(seed=seed, tied=False)


def internvl(*, seed: int = 0, text_model: str = "qwen2", tied: bool = True) -> Loaded:
    """An InternVL whose pad id is no end-of-sequence id, as the real one's is not."""
    named = dict(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    tok = tokenizer(INTERN, **named)
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tok,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=_TURNS.replace("PICTURE", "<IMG_CONTEXT>\n"),
    )
    vision = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=[56, 56],
        patch_size=[14, 14],
    )
    text = dict(
        model_type=text_model, vocab_size=len(tok), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=tok.pad_token_id, eos_token_id=tok.eos_token_id,
    )  # fmt: skip
    if text_model == "qwen3":
        text["head_dim"] = 16
    torch.manual_seed(seed)
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=processor.image_token_id,
        image_seq_length=4,
        tie_word_embeddings=tied,
    )
    model = InternVLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = tok.eos_token_id
    model.generation_config.pad_token_id = tok.pad_token_id
    return describe(
        _lively(model),
        processor,
        name=f"random-internvl-{text_model}" if text_model != "qwen2" else "random-internvl",
    )


def talkative(loaded: Loaded) -> Loaded:
    """The same model, made to write tags now and then and to come to an end, so that its completions differ in reward.

    A random model hardly ever writes its one end token, and a truncated completion has no reward: here every sixth
    token ends it.
    """
    tokenizer = loaded.processor.tokenizer
    tags = tokenizer.convert_tokens_to_ids(WORDS[:5])
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight[tags] *= 4
    ends = [
        i
        for i in range(0, len(tokenizer), 6)
        if i not in {*tags, *tokenizer.all_special_ids, *loaded.forbidden_ids}
    ]
    loaded.model.generation_config.eos_token_id = [*loaded.end_ids, *ends]
    return describe(loaded.model, loaded.processor, name=loaded.name, path=loaded.path)


def save(loaded: Loaded, folder: Path) -> Path:
    """The model and processor as a folder that `opengrit.models.load` reads."""
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return folder


def picture(folder: Path, name: str, *, width: int, height: int, seed: int = 0) -> str:
    """A PNG of noise in a folder; its path."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(folder / name)
    return str(folder / name)


def examples(folder: Path, count: int) -> list[Example]:
    """Counting questions about pictures of two sizes, of different lengths."""
    made = []
    for i in range(count):
        width = 84 + 28 * (i % 2)
        made.append(
            Example(
                id=f"e{i}",
                question="How many dogs?" + " yes" * i,
                answer=str(i),
                image=picture(folder, f"{i}.png", width=width, height=84, seed=i),
                dataset="tally" if i % 2 else "vsr",
                picture_size=Size(width, 84),
                boxes=(Box(0.0, 0.0, 0.5, 0.5),),
            )
        )
    return made


def _lively(model: torch.nn.Module) -> torch.nn.Module:
    """Larger random weights, so that logits differ clearly and depend on the picture."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model

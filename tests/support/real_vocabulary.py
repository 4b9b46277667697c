"""Random-weight models of the real classes, small in width, with the real vocabulary of 151,936 rows.

The vocabulary is Qwen's own (`qwen.tiktoken`, Apache-2.0), a resource of a package that `scripts/engines.py vocabulary`
fetches: 151,643 tokens, as rank and bytes, to which each generation of models adds its special tokens.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from engines import OVERLAYS

RANKS = OVERLAYS / "vocabulary" / "dashscope" / "resources" / "qwen.tiktoken"
RANKS_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
ROWS = 151_936  # of the embedding: the tokens, padded to a multiple of 128
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
           "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>")  # fmt: skip
ADDED = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")  # fmt: skip
INTERN = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}  # fmt: skip
ADDED_3 = ("<tool_response>", "</tool_response>", "<think>", "</think>")

_SYSTEM = "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
_TURNS = (
    "{% for m in messages %}SYSTEM<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@lru_cache(maxsize=1)
def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and its merges, in the letters that stand for bytes."""
    raw = RANKS.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == RANKS_SHA256, f"{RANKS} is another vocabulary"
    ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in raw.splitlines() if line)}
    letters = _letters()
    spell = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _last_pair(token, rank, ranks)
            merges.append((spell[left], spell[right]))
    return {spell[token]: rank for token, rank in ranks.items()}, merges


def _last_pair(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that the merges before this one leave of it."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, rank), i) for i, (a, b) in enumerate(pairwise(parts))]
        best, i = min(pairs)
        assert best < rank, token
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def _letters() -> dict[int, str]:
    """GPT-2's letters for the 256 bytes: what prints stands for itself, the others follow behind Latin."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def tokenizer(*, generation: str) -> PreTrainedTokenizerFast:
    """Qwen2.5's (`generation` "2.5": `<think>` is three tokens), Qwen3's ("3": it is one) or InternVL3's ("internvl")."""
    vocabulary, merges = _byte_pairs()
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=False))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    added = ADDED + (ADDED_3 if generation == "3" else ())
    made.add_tokens([AddedToken(name, normalized=False, special=False) for name in added])
    pictures = INTERN if generation == "internvl" else {}
    made.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in pictures.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=[*SPECIAL[1:], *pictures.values()],
        extra_special_tokens=pictures,
    )


def build(generation: str, folder: Path, *, width: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """A model folder: Qwen2.5-VL ("2.5"), Qwen3-VL ("3") or InternVL3 ("internvl"), two heads, tied embeddings, fp32."""
    text = tokenizer(generation=generation)
    ids = {
        f"{name}_token_id": text.convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }
    torch.manual_seed(seed)
    make = {"2.5": _qwen25, "3": _qwen3, "internvl": _internvl}[generation]
    model, processor = make(text, ids, width, layers)
    model.generation_config.eos_token_id = [text.eos_token_id, text.pad_token_id]
    model.generation_config.pad_token_id = text.pad_token_id
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _text_config(tok: PreTrainedTokenizerFast, width: int, layers: int) -> dict:
    return dict(
        vocab_size=ROWS, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=tok.pad_token_id, eos_token_id=tok.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip


def _sections(width: int) -> list[int]:
    """Time, rows and columns of a head's rotary frequencies, in the real models' proportions (2 : 3 : 3)."""
    half = width // 4
    return [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]


def _qwen25(tok: PreTrainedTokenizerFast, ids: dict[str, int], width: int, layers: int) -> tuple:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": _sections(width)}
    vision = dict(
        depth=2, hidden_size=width, intermediate_size=2 * width, num_heads=2, out_hidden_size=width, patch_size=14,
        spatial_merge_size=2, temporal_patch_size=2, window_size=112, fullatt_block_indexes=[1],
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=_text_config(tok, width, layers) | {"rope_parameters": rope},
        vision_config=vision,
        tie_word_embeddings=True,
        **ids,
    )
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64}, patch_size=14, merge_size=2
        ),
        tokenizer=tok,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_TURNS.replace("SYSTEM", _SYSTEM),
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3(tok: PreTrainedTokenizerFast, ids: dict[str, int], width: int, layers: int) -> tuple:
    rope = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": _sections(width),
        "mrope_interleaved": True,
    }
    vision = dict(
        depth=3, hidden_size=width, intermediate_size=2 * width, num_heads=2, out_hidden_size=width, patch_size=16,
        spatial_merge_size=2, temporal_patch_size=2, deepstack_visual_indexes=[0, 1], num_position_embeddings=256,
    )  # fmt: skip
    config = Qwen3VLConfig(
        text_config=_text_config(tok, width, layers) | {"rope_parameters": rope, "head_dim": width // 2},
        vision_config=vision,
        tie_word_embeddings=True,
        **ids,
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 64}, patch_size=16, merge_size=2
        ),
        tokenizer=tok,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=_TURNS.replace("SYSTEM", ""),
    )
    return Qwen3VLForConditionalGeneration(config), processor


def _internvl(tok: PreTrainedTokenizerFast, ids: dict[str, int], width: int, layers: int) -> tuple:
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": 112, "width": 112}, crop_to_patches=True, min_patches=1, max_patches=1
        ),
        tokenizer=tok,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=16,
        chat_template=_TURNS.replace("SYSTEM", "").replace(
            "<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n"
        ),
    )
    vision = dict(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
        image_size=[112, 112], patch_size=[14, 14],
    )  # fmt: skip
    config = InternVLConfig(
        vision_config=vision,
        text_config=_text_config(tok, width, layers) | {"model_type": "qwen2"},
        image_token_id=processor.image_token_id,
        image_seq_length=16,
        tie_word_embeddings=True,
    )
    return InternVLForConditionalGeneration(config), processor

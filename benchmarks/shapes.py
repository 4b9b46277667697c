"""Random-weight models in the shapes of the real ones: nothing is downloaded, only sizes are theirs."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from opengrit.models.families import Loaded
from opengrit.models.loading import describe
from opengrit.models.processors import load_processor
from opengrit.models.resolve import resolve

# Sizes from the published configs. The tokenizer and the chat template are the packaged models', so prompts are short.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-vl-3b": {
        "base": "tiny-qwen2.5-vl",
        "text_config": {
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "layer_types": None,
            "rope_parameters": {"mrope_section": [16, 24, 24], "rope_theta": 1e6, "rope_type": "default"},
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
    "internvl3-2b": {
        "base": "tiny-internvl3",
        "image_seq_length": 256,
        "tie_word_embeddings": False,
        "text_config": {
            "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
            "num_key_value_heads": 2, "vocab_size": 151674, "max_position_embeddings": 32768, "layer_types": None,
            "tie_word_embeddings": False, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
        },
        "vision_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "image_size": [448, 448], "patch_size": [14, 14],
        },
    },
    # As wide as the packaged models, with as many rows of vocabulary as the real ones: what a CPU rehearses with.
    "small-qwen2.5-vl": {
        "base": "tiny-qwen2.5-vl", "side": 112, "vision_config": {},
        "text_config": {
            "vocab_size": 151936,
            "rope_parameters": {"mrope_section": [4, 6, 6], "rope_theta": 1e6, "rope_type": "default"},
        },
    },
    "small-internvl3": {
        "base": "tiny-internvl3", "side": 112, "image_seq_length": 16, "text_config": {"vocab_size": 151674},
        "vision_config": {},
    },
}  # fmt: skip
_SIDE = 448  # pixels of a picture's side, where a shape has none of its own


def build(shape: str, *, device: str | None = None, dtype: torch.dtype | None = None) -> Loaded:
    """A model of the shape with random weights, and a processor that shows it square pictures of one size.

    On the GPU if there is one; in bfloat16 there, and in 32 bits on a CPU.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if device == "cuda" else torch.float32)
    sizes = dict(SHAPES[shape])
    path, side = resolve(sizes.pop("base")), sizes.pop("side", _SIDE)
    config = AutoConfig.from_pretrained(path)
    values = config.to_dict()
    for section in ("text_config", "vision_config"):
        values[section] |= sizes.pop(section)
        values[section] = {k: v for k, v in values[section].items() if v is not None}
    config = type(config).from_dict(values | sizes)
    free = config.model_type != "internvl"
    bound = side * side if free else None
    processor = load_processor(path, min_pixels=bound, max_pixels=bound)
    if not free:
        processor.image_processor.size = {"height": side, "width": side}
        processor.image_processor.max_patches = 1
        processor.image_seq_length = sizes["image_seq_length"]
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    return describe(model, processor, name=f"{shape} (random weights)")

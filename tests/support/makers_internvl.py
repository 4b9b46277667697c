"""Random InternVL models written in their makers' layout: names, joined matrices, configs and tokenizer as theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import tiny_random
import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration

from opengrit.models.families import Loaded
from opengrit.models.loading import describe

# transformers' names -> the makers'.
_BACK = (
    ("vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
    ("vision_tower.embeddings.position_embeddings", "vision_model.embeddings.position_embedding"),
    ("vision_tower.embeddings.patch_embeddings.projection", "vision_model.embeddings.patch_embedding"),
    ("vision_tower.encoder.layer.", "vision_model.encoder.layers."),
    (".attention.projection_layer.", ".attn.proj."),
    (".lambda_", ".ls"),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    ("multi_modal_projector.layer_norm.", "mlp1.0."),
    ("multi_modal_projector.linear_1.", "mlp1.1."),
    ("multi_modal_projector.linear_2.", "mlp1.3."),
)
_BACK_INTERNLM2 = (
    ("language_model.model.embed_tokens.", "language_model.model.tok_embeddings."),
    ("language_model.lm_head.", "language_model.output."),
    (".self_attn.o_proj.", ".attention.wo."),
    (".mlp.gate_proj.", ".feed_forward.w1."),
    (".mlp.down_proj.", ".feed_forward.w2."),
    (".mlp.up_proj.", ".feed_forward.w3."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
)
_CODE = "raise SystemExit('code of the folder was run')\n"


def model(text_model: str, *, qk_norm: bool = False, tied: bool = False, seed: int = 0) -> Loaded:
    """A random InternVL on a text model with two query heads for each key-value head, with biases where the real ones have them."""
    plain = tiny_random.internvl(text_model="qwen2", tied=False)
    tok = plain.processor.tokenizer
    vision = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=[56, 56],
        patch_size=[14, 14], attention_bias=True, use_qk_norm=qk_norm, norm_type="rms_norm" if qk_norm else "layer_norm",
    )  # fmt: skip
    text = dict(
        model_type=text_model, vocab_size=len(tok), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        pad_token_id=tok.pad_token_id, eos_token_id=tok.eos_token_id,
    )  # fmt: skip
    if text_model == "qwen3":
        text["head_dim"] = 16
    torch.manual_seed(seed)
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=plain.processor.image_token_id,
        image_seq_length=4,
        tie_word_embeddings=tied,
    )
    made = InternVLForConditionalGeneration(config).eval()
    with torch.no_grad():  # biases, norms and scales are random too, so that none can be lost unseen
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    made.generation_config.eos_token_id = tok.eos_token_id
    made.generation_config.pad_token_id = tok.pad_token_id
    return describe(made, plain.processor, name=f"random-{text_model}")


def write(loaded: Loaded, folder: Path, *, shards: int = 1, internlm2: bool = False) -> Path:
    """The model in the makers' layout, with code beside it that ends the process that runs it."""
    tiny_random.save(loaded, folder.with_name(f"{folder.name}-hf"))
    theirs = _joined(
        load_file(folder.with_name(f"{folder.name}-hf") / "model.safetensors"), loaded, internlm2
    )
    folder.mkdir()
    names = sorted(theirs)
    if shards == 1:
        save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {
            name: f"model-{index % shards + 1:05d}-of-{shards:05d}.safetensors"
            for index, name in enumerate(names)
        }
        for shard in set(weight_map.values()):
            part = {name: theirs[name] for name in names if weight_map[name] == shard}
            save_file(part, folder / shard, metadata={"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map})
        )
    loaded.processor.tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config(loaded, internlm2=internlm2)), encoding="utf-8")
    for file in ("configuration_internvl_chat.py", "modeling_internvl_chat.py", "conversation.py"):
        (folder / file).write_text(_CODE)
    return folder


def config(loaded: Loaded, *, internlm2: bool = False) -> dict:
    """The makers' config of such a model."""
    ours, vision = loaded.model.config.text_config.to_dict(), loaded.model.config.vision_config
    text = {
        key: ours[key]
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                    "vocab_size", "rms_norm_eps", "hidden_act", "max_position_embeddings", "eos_token_id")
    }  # fmt: skip
    text |= {
        "rope_theta": 1000000.0,
        "rope_scaling": None,
        "torch_dtype": "float32",
        "use_cache": False,
        "top_k": 50,
        "tie_word_embeddings": False,
    }
    text["model_type"] = "internlm2" if internlm2 else ours["model_type"]
    text["architectures"] = ["SomeForCausalLM"]
    if internlm2:
        text |= {"bias": False, "attn_implementation": "eager"}
    if ours["model_type"] == "qwen3":
        text["head_dim"] = ours["head_dim"]
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        },
        "model_type": "internvl_chat",
        "llm_config": text,
        "vision_config": {
            "model_type": "intern_vit_6b", "hidden_size": vision.hidden_size, "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers, "num_attention_heads": vision.num_attention_heads,
            "image_size": 56, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": vision.layer_norm_eps,
            "norm_type": vision.norm_type, "qkv_bias": vision.attention_bias, "qk_normalization": vision.use_qk_norm,
            "dropout": 0.0, "attention_dropout": 0.0, "drop_path_rate": 0.1, "use_flash_attn": True,
        },
        "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": 56, "min_dynamic_patch": 1,
        "max_dynamic_patch": 4, "ps_version": "v2", "select_layer": -1, "template": "internvl2_5", "torch_dtype": "float32",
    }  # fmt: skip


def _joined(ours: dict[str, torch.Tensor], loaded: Loaded, internlm2: bool) -> dict[str, torch.Tensor]:
    text = loaded.model.config.text_config
    joined: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        part = re.search(r"\.(q|k|v)_proj\.", name)
        vision = name.startswith("vision_tower")
        if part is None or not (vision or internlm2):
            joined[_back(name, internlm2)] = tensor
            continue
        if part[1] != "q":
            continue
        q, k, v = (ours[name.replace(".q_proj.", f".{one}_proj.")] for one in "qkv")
        if vision:
            joined[_back(name.replace("attention.q_proj", "attn.qkv"), internlm2)] = torch.cat([q, k, v])
        else:
            heads, groups = text.num_key_value_heads, text.num_attention_heads // text.num_key_value_heads
            d = text.hidden_size // text.num_attention_heads
            rows = [
                torch.cat(
                    [q[h * groups * d : (h + 1) * groups * d], k[h * d : (h + 1) * d], v[h * d : (h + 1) * d]]
                )
                for h in range(heads)
            ]
            joined[_back(name.replace("self_attn.q_proj", "attention.wqkv"), internlm2)] = torch.cat(rows)
    return joined


def _back(name: str, internlm2: bool) -> str:
    for new, old in _BACK + (_BACK_INTERNLM2 if internlm2 else ()):
        name = name.replace(new, old)
    return name.replace(".attention.q_norm", ".attn.q_norm").replace(".attention.k_norm", ".attn.k_norm")

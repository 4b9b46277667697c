"""The memory estimate: exact where it can be, measured where it cannot, and what the recipes say of it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_random
import torch
from transformers import (
    DynamicCache,
    InternVLConfig,
    InternVLForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from opengrit.core.errors import ModelError, RecipeError
from opengrit.doctor.fit import Machine, facts_for, picture_tokens, plan_of
from opengrit.doctor.recipe_head import disk_bytes, memory_comment, training_seconds
from opengrit.models.memory_estimate import (
    FLOAT,
    NF4,
    Plan,
    Sharding,
    Trainable,
    estimate,
    trainable_parameters,
)
from opengrit.models.shapes import KNOWN, ModelFacts, Part, TextShape, VisionShape
from opengrit.recipes.register import FOLDER, packaged_recipe
from opengrit.recipes.training_recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
# Those of packaged models run on any computer.
RECIPES = sorted([*FOLDER.glob("grit20-*.yaml"), *FOLDER.glob("vllm-*.yaml")])
CLASSES = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
    "qwen3_vl_moe": (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration),
    "internvl": (InternVLConfig, InternVLForConditionalGeneration),
}
PLAN = Plan(
    Trainable.ALL, questions=1, rows=4, decoded_rows=16, prompt_tokens=100, picture_tokens=256, completion_tokens=500
)  # fmt: skip


def needed_by(recipe: Recipe, machine: Machine) -> int:
    """The bytes that each device of a machine needs for a recipe."""
    facts = facts_for(recipe.model.name)
    return estimate(facts, plan_of(recipe, facts, machine)).total


def config_of(facts: ModelFacts):
    """The transformers config with these numbers: the way back from `ModelFacts.from_config`."""
    t, v = facts.text, facts.vision
    text = dict(
        vocab_size=t.vocabulary, hidden_size=t.hidden, num_hidden_layers=t.layers, num_attention_heads=t.heads,
        num_key_value_heads=t.kv_heads, intermediate_size=t.intermediate, head_dim=t.head_dim,
    )  # fmt: skip
    if not t.is_qwen3:
        del text["head_dim"]
    if t.experts:
        text |= dict(
            num_experts=t.experts, num_experts_per_tok=t.experts_per_token, moe_intermediate_size=t.intermediate,
            decoder_sparse_step=1,
        )  # fmt: skip
    heads = dict(num_heads=16, patch_size=v.patch, spatial_merge_size=v.merge)
    match facts.model_type:
        case "internvl":
            text["model_type"] = "qwen3" if t.is_qwen3 else "qwen2"
            side = int(v.positions**0.5) * v.patch
            vision = dict(
                hidden_size=v.hidden, num_hidden_layers=v.layers, intermediate_size=v.intermediate,
                image_size=[side, side], patch_size=[v.patch, v.patch], attention_bias=True,
            )  # fmt: skip
        case "qwen2_vl":
            vision = heads | dict(
                embed_dim=v.hidden, depth=v.layers, mlp_ratio=v.intermediate // v.hidden, hidden_size=v.out
            )
        case "qwen2_5_vl":
            vision = heads | dict(
                hidden_size=v.hidden, depth=v.layers, intermediate_size=v.intermediate, out_hidden_size=v.out
            )
        case _:
            vision = heads | dict(
                hidden_size=v.hidden, depth=v.layers, intermediate_size=v.intermediate, out_hidden_size=v.out,
                num_position_embeddings=v.positions, deepstack_visual_indexes=list(range(v.deep)),
            )  # fmt: skip
    if facts.model_type.startswith("qwen2"):
        third = t.head_dim // 8
        text["rope_parameters"] = {
            "rope_type": "default", "rope_theta": 1e4, "mrope_section": [t.head_dim // 2 - 2 * third, third, third],
        }  # fmt: skip
    return CLASSES[facts.model_type][0](text_config=text, vision_config=vision, tie_word_embeddings=t.tied)


def built(facts: ModelFacts, device: str):
    with torch.device(device):
        return CLASSES[facts.model_type][1](config_of(facts))


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_of_the_real_class_part_by_part(name):
    facts = KNOWN[name]
    model = built(facts, "meta")
    counted = dict.fromkeys(Part, 0)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.startswith("model.language_model.embed") or parameter_name.startswith("lm_head"):
            counted[Part.EMBEDDINGS] += parameter.numel()
        elif parameter_name.startswith("model.language_model"):
            counted[Part.LAYERS] += parameter.numel()
        else:
            counted[Part.VISION] += parameter.numel()
    assert {part: facts.parameters(part) for part in Part} == counted
    again = ModelFacts.from_config(model.config.to_dict())
    assert again.parameters() == facts.parameters()
    assert again.text == facts.text


@pytest.mark.parametrize(
    ("name", "published"),
    [  # the parameter counts that the hub shows for the checkpoints' safetensors files
        ("Qwen/Qwen2-VL-2B-Instruct", 2_208_985_600),
        ("Qwen/Qwen2-VL-7B-Instruct", 8_291_375_616),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
    ],
)
def test_totals_are_those_of_the_published_checkpoints(name, published):
    assert KNOWN[name].parameters() == published


@pytest.mark.parametrize(
    "family",
    [
        tiny_random.qwen, tiny_random.qwen2, tiny_random.qwen3, tiny_random.qwen3_moe, tiny_random.internvl35,
    ],
)  # fmt: skip
def test_facts_are_read_from_any_config_of_a_known_family(family):
    model = family().model
    facts = ModelFacts.from_config(model.config.to_dict())
    counted = sum(p.numel() for p in model.parameters())
    # The tiny InternVL's attention in the tower has no biases (3 x 32), those of the hub have.
    assert facts.parameters() == counted + (3 * 32 if family is tiny_random.internvl35 else 0)
    unbounded = load_recipe("demo", ["model.min_pixels=null", "model.max_pixels=null"])
    assert picture_tokens(unbounded, facts.vision) > 0


def test_a_config_of_another_family_is_an_error():
    with pytest.raises(ModelError, match="'bert'"):
        ModelFacts.from_config({"model_type": "bert"})
    with pytest.raises(RecipeError, match="Qwen/Qwen2"):
        facts_for("someone/else")


def test_adapters_are_counted_as_peft_makes_them():
    from peft import LoraConfig, get_peft_model

    loaded = tiny_random.qwen3()
    facts = ModelFacts.from_config(loaded.model.config.to_dict())
    wrapped = get_peft_model(
        loaded.model,
        LoraConfig(r=4, target_modules="all-linear", exclude_modules=loaded.family.lora_exclude, task_type="CAUSAL_LM"),
    )  # fmt: skip
    learning = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    plan = replace(PLAN, trainable=Trainable.ADAPTERS, lora_rank=4)
    assert trainable_parameters(facts, plan) == learning


# Measured on a small model of the real class, in 32 bits on a CPU.

SMALL = {
    "Qwen2.5-VL": ModelFacts(
        "qwen2_5_vl",
        TextShape(256, 4, 8, 2, 32, 704, 1000, False, is_qwen3=False),
        VisionShape("qwen2_5_vl", 128, 4, 352, 256, 14, 2),
    ),
    "Qwen3-VL": ModelFacts(
        "qwen3_vl",
        TextShape(256, 4, 8, 2, 32, 704, 1000, False, is_qwen3=True),
        VisionShape("qwen3_vl", 128, 4, 352, 256, 16, 2, positions=64, deep=2),
    ),
    "InternVL3.5": ModelFacts(
        "internvl",
        TextShape(256, 4, 8, 2, 32, 704, 1000, False, is_qwen3=True),
        VisionShape("internvl", 128, 4, 352, 256, 14, 2, positions=64),
    ),
}
IN_32 = replace(PLAN, compute_bytes=FLOAT)


def kept_bytes(model, run) -> int:
    """Bytes of distinct tensors that autograd keeps for the backward pass, weights and inputs left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


@pytest.mark.parametrize("name", SMALL)
def test_activations_are_what_autograd_keeps_or_a_little_more(name):
    """Between what is kept and 1.3 times as much: attention kernels and norms differ in what they keep."""
    facts = SMALL[name]
    model = built(facts, "cpu").train()
    tokens = 512
    embedded = torch.randn(1, tokens, facts.text.hidden)
    measured = kept_bytes(
        model, lambda: model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    )
    plan = replace(IN_32, questions=1, rows=0, prompt_tokens=tokens, picture_tokens=0, checkpointing=False)
    expected = estimate(facts, plan).activations
    assert measured <= expected <= 1.3 * measured


@pytest.mark.parametrize("name", SMALL)
def test_the_towers_activations_are_what_autograd_keeps_or_a_little_more(name):
    facts = SMALL[name]
    model = built(facts, "cpu").train()
    patch = facts.vision.patch
    if facts.vision.is_internvl:
        pixels = torch.randn(4, 3, 8 * patch, 8 * patch)  # four tiles of 8 x 8 patches
        measured = kept_bytes(model, lambda: model.get_image_features(pixel_values=pixels))
        tokens = 4 * 16
    else:
        pixels, grid = torch.randn(256, 3 * 2 * patch**2), torch.tensor([[1, 16, 16]])
        measured = kept_bytes(
            model, lambda: model.get_image_features(pixel_values=pixels, image_grid_thw=grid)
        )
        tokens = 64
    plan = replace(IN_32, questions=1, picture_tokens=tokens, checkpointing=False)
    expected = estimate(facts, plan).vision
    assert measured <= expected <= 1.5 * measured


def test_gradients_and_optimizer_are_what_a_step_leaves():
    facts = SMALL["Qwen3-VL"]
    model = built(facts, "cpu")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    found = estimate(facts, IN_32)
    assert found.weights == sum(p.nbytes for p in model.parameters())
    assert found.gradients == sum(p.grad.nbytes for p in model.parameters())
    state = [v for values in optimizer.state.values() for k, v in values.items() if k != "step"]
    assert found.optimizer == sum(v.nbytes for v in state)


def test_keys_and_values_are_what_the_cache_holds():
    facts = SMALL["Qwen2.5-VL"]
    model = built(facts, "cpu").eval()
    cache = DynamicCache()
    with torch.no_grad():
        model.model.language_model(inputs_embeds=torch.randn(3, 50, 256), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    plan = replace(IN_32, decoded_rows=3, prompt_tokens=20, picture_tokens=10, completion_tokens=20)
    assert estimate(facts, plan).cache == held == 2 * 4 * 2 * 32 * 4 * 50 * 3


# What the plan changes.


@pytest.mark.parametrize(
    ("sharding", "bytes_a_parameter"),
    [  # with 64 devices, ZeRO section 5 and its figure 1: 4 + 12/64, 2 + 14/64, 16/64
        (Sharding.ZERO1, 4 + 12 / 64),
        (Sharding.ZERO2, 2 + 14 / 64),
        (Sharding.ZERO3, 2 / 64 + 14 / 64),
        (Sharding.NONE, 16),  # 32-bit weights and gradients, two means
    ],
)
def test_shards_are_those_of_the_zero_paper(sharding, bytes_a_parameter):
    facts = KNOWN["Qwen/Qwen2.5-VL-3B-Instruct"]
    found = estimate(facts, replace(PLAN, sharding=sharding, devices=64))
    assert found.steady == pytest.approx(facts.parameters() * bytes_a_parameter, rel=1e-6)
    if sharding is Sharding.ZERO3:
        return
    more = estimate(facts, replace(PLAN, sharding=sharding, devices=64, reference=True))
    assert more.reference > 0


def test_adapters_and_four_bits_each_take_less():
    facts = KNOWN["Qwen/Qwen2.5-VL-3B-Instruct"]
    lora = replace(PLAN, trainable=Trainable.ADAPTERS, reference=True)
    totals = [
        estimate(facts, plan).total
        for plan in (PLAN, lora, replace(lora, weight_bytes=2), replace(lora, weight_bytes=NF4))
    ]
    assert totals == sorted(totals, reverse=True)
    # 2,774,532,096 weights of linear layers in 4.127 bits, the other 980,090,880 in 16, and the adapters in 32.
    adapters = trainable_parameters(facts, lora) * 4
    four = estimate(facts, replace(lora, weight_bytes=NF4)).weights - adapters
    assert four == pytest.approx(2_774_532_096 * 4.127 / 8 + 980_090_880 * 2, rel=1e-4)
    assert estimate(facts, lora).reference == 0  # the model without its adapters


def test_checkpointing_shared_pictures_and_a_still_tower_take_less():
    facts = KNOWN["Qwen/Qwen3-VL-4B-Instruct"]
    plain = estimate(facts, replace(PLAN, checkpointing=False))
    assert estimate(facts, PLAN).activations < plain.activations / 5
    still = estimate(facts, replace(PLAN, train_vision=False))
    assert still.vision < estimate(facts, PLAN).vision
    assert still.gradients == (facts.parameters() - facts.parameters(Part.VISION)) * 4


# The recipes.


def recipe_machines():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import recipe_memory
    finally:
        sys.path.pop(0)
    return recipe_memory


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads_and_says_what_it_needs(path):
    recipe = load_recipe(path)
    module = recipe_machines()
    machine = module.MACHINES[path.name]
    assert memory_comment(recipe, machine) in path.read_text(encoding="utf-8"), (
        "the recipe's lines about memory are old; run scripts/recipe_memory.py"
    )
    assert module.with_memory(path.name) == path.read_text(encoding="utf-8")
    assert needed_by(recipe, machine) < machine.device_gb * 1e9
    # A step's passes divide over the devices.
    assert (
        recipe.train.completions_per_step % (recipe.train.per_device_train_batch_size * machine.devices) == 0
    )


def test_there_are_recipes_for_many_devices_one_large_one_middling_and_one_small():
    sizes = sorted((m.devices, m.device_gb) for m in recipe_machines().MACHINES.values())
    assert sizes == [(1, 16), (1, 16), (1, 24), (1, 80), (4, 80), (5, 80), (5, 80)]
    page = recipe_machines().PAGE.read_text(encoding="utf-8")
    assert recipe_machines().with_hardware(page) == page, (
        "docs/recipes.md is old; run scripts/recipe_memory.py"
    )


def documented():
    """Each command of several processes that pages and recipes show for a recipe of GPUs, on one line."""
    yield "opengrit train grit20-qwen2.5-vl-3b-24gb-lora --num-processes 4"  # README's own, on four such GPUs
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *FOLDER.rglob("*.yaml")]
    for page in sorted(pages):
        text = re.sub(r"\\\n#? *", "", page.read_text(encoding="utf-8"))
        for line in re.findall(r"[^\n]*opengrit train (?:grit20|vllm)-[^\n]*", text):
            if "--num-processes" in line or "launch" in line or "torchrun" in line:
                yield pytest.param(line, id=f"{page.name}: {line.strip(' #')[:40]}")


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_of_several_processes_fits_and_divides(line):
    """By the arithmetic of `opengrit doctor`, which warns where more than nine tenths of a device are taken."""
    packaged = packaged_recipe(re.search(r"opengrit train (\S+)", line)[1])
    recipe = load_recipe(packaged.name, re.findall(r"--set (\S+)", line))
    several = re.search(r"--num[-_]processes (\d+)", line)
    if machines := re.search(r"--nnodes (\d+) --nproc-per-node (\d+)", line):
        count = int(machines[1]) * int(machines[2])
    else:
        count = int(several[1]) if several else 8  # of accelerate's own files
    sharding = Sharding.ZERO2 if "zero2" in line else Sharding.FSDP if "fsdp" in line else Sharding.NONE
    needed = needed_by(recipe, Machine("", count, packaged.device_gb, sharding))
    assert needed <= 0.9 * packaged.device_gb * 1e9
    assert recipe.train.passes_per_step(count) >= 1


def test_the_documented_commands_are_found():
    assert len(list(documented())) >= 6


def test_hours_and_disk_are_the_arithmetic_they_say():
    recipe = load_recipe("grit20-qwen2.5-vl-3b-one-80gb")
    machine = Machine("", 1, 80)
    facts = facts_for(recipe.model.name)
    plan = plan_of(recipe, facts, machine)
    size = facts.parameters()
    # 1000 tokens at 0.03 s; 80 completions of 500 tokens and 20 prompts of 406, 6 + 2 operations a weight, at 0.3 x 312e12.
    step = 1000 * 0.03 + (80 * 500 + 20 * 406) * size * 8 / (0.3 * 312e12)
    assert training_seconds(recipe, facts, plan, machine) == pytest.approx(200 * step)
    # The hub's 16 bits; four checkpoints and the final model in 32; AdamW's two means of what learns.
    learning = trainable_parameters(facts, plan)
    assert disk_bytes(recipe, facts, plan) == pytest.approx(
        size * 2 + 4 * (size * 4 + learning * 8) + size * 4
    )

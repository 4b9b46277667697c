"""Weights that do not fit are refused, whole, in shards, as an adapter and as a checkpoint; those that do are not."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_random
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from opengrit.core.errors import ModelError
from opengrit.models import load
from opengrit.models.weights import require_finite_tensors
from opengrit.training.checkpoint import restore_weights

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], object]
SHARDS = 3

CHANGED = ".1.mlp.down_proj."  # of the last layer: it is in the last shard, and an adapter has it


def key_of(tensors: Tensors) -> str:
    return next(
        key for key in sorted(tensors) if CHANGED in key and key.endswith("weight") and "lora_A" not in key
    )


def put(tensors: Tensors, value: torch.Tensor) -> None:
    tensors[key_of(tensors)] = value


def with_value(value: float) -> Change:
    def change(tensors: Tensors) -> None:
        tensors[key_of(tensors)].view(-1)[7] = value

    return change


KINDS: dict[str, tuple[Change | None, str]] = {
    "a tensor is missing": (lambda t: t.pop(key_of(t)), rf"missing \d+: .*{CHANGED}"),
    "a tensor is left over": (
        lambda t: t.update({key_of(t).replace(".1.mlp", ".9.mlp"): torch.zeros(2, 2)}),
        r"left over 1: .*\.9\.mlp\.down_proj\.",
    ),
    "another shape": (lambda t: put(t, torch.zeros(5, 3)), rf"of another shape 1: .*{CHANGED}.* \[5, 3\] for "),
    "NaN": (with_value(float("nan")), rf"NaN or infinite in 1: .*{CHANGED}"),
    "infinite": (with_value(float("-inf")), rf"NaN or infinite in 1: .*{CHANGED}"),
    "whole numbers": (lambda t: put(t, t[key_of(t)].to(torch.int8)), rf"as I8 \(1: .*{CHANGED}"),
    "no name matches": (
        lambda t: [t.update({f"elsewhere.{key}": t.pop(key)}) for key in list(t)],
        r"missing \d+: .*left over \d+: elsewhere",
    ),
    "empty": (lambda t: t.clear(), r"missing \d+: |no tensor in its file"),
    "truncated": (None, r"safetensors of .* is not \("),
}  # fmt: skip


def spoil(file: Path, change: Change | None) -> None:
    """One weight file of a folder changed, or cut in half."""
    if change is None:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def adapted(seed: int = 0, **how: Any) -> Any:
    torch.manual_seed(seed)
    how = {"r": 2, "target_modules": ["q_proj", "down_proj"], "exclude_modules": r".*visual.*"} | how
    model = get_peft_model(tiny_random.qwen().model, LoraConfig(**how))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_()
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model whole, in shards, and an adapter on it."""
    folder = tmp_path_factory.mktemp("saved")
    loaded = tiny_random.qwen()
    tiny_random.save(loaded, folder / "whole")
    shutil.copytree(folder / "whole", folder / "shards")
    in_shards(folder / "shards")
    adapter = adapted()
    adapter.save_pretrained(folder / "adapter")
    facts = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    facts["base_model_name_or_path"] = str(folder / "whole")
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(facts))
    return folder


def in_shards(folder: Path) -> None:
    """`model.safetensors` as several files with an index, in the order of their names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(tensors)
    weight_map = {key: f"model-{i * SHARDS // len(keys) + 1:05}.safetensors" for i, key in enumerate(keys)}
    for shard in set(weight_map.values()):
        save_file(
            {k: tensors[k] for k in keys if weight_map[k] == shard}, folder / shard, metadata={"format": "pt"}
        )
    size = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))  # fmt: skip


def file_with(folder: Path) -> Path:
    """The weight file that holds what is changed."""
    return next(
        f for f in sorted(folder.glob("*.safetensors")) if any(CHANGED in key for key in load_file(f))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["whole", "shards", "adapter"])
def test_a_model_whose_weights_do_not_fit_is_refused(
    layout: str, kind: str, saved: Path, tmp_path: Path
) -> None:
    change, said = KINDS[kind]
    folder = shutil.copytree(saved / layout, tmp_path / "model")
    spoil(file_with(folder), change)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a warning of a library is not how it is reported
        with pytest.raises(ModelError, match=said):
            load(str(folder))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["whole", "shards", "adapter"])
def test_a_checkpoint_whose_weights_do_not_fit_restores_nothing(
    layout: str, kind: str, saved: Path, tmp_path: Path
) -> None:
    change, said = KINDS[kind]
    folder = shutil.copytree(saved / layout, tmp_path / "step-000001")
    spoil(file_with(folder), change)
    model = adapted(1) if layout == "adapter" else tiny_random.qwen(seed=1).model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=rf"{said}(.|\n)*or resume from another checkpoint"):
        restore_weights(model, folder)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("layout", ["whole", "shards", "adapter"])
def test_weights_that_fit_are_loaded_and_restored(layout: str, saved: Path) -> None:
    wanted = adapted() if layout == "adapter" else tiny_random.qwen().model
    fresh = adapted(1) if layout == "adapter" else tiny_random.qwen(seed=1).model
    restore_weights(fresh, saved / layout)
    for model in (load(str(saved / layout)).model, fresh):
        assert all(torch.equal(value, wanted.state_dict()[key]) for key, value in model.state_dict().items())


# What fits, in every layout that is about.

BUILDERS = {
    "Qwen2-VL": tiny_random.qwen2,
    "Qwen2.5-VL": tiny_random.qwen,
    "Qwen2.5-VL, tied": lambda: tiny_random.qwen(tied=True),
    "Qwen3-VL": tiny_random.qwen3,
    "Qwen3-VL-MoE": tiny_random.qwen3_moe,
    "InternVL3": tiny_random.internvl3,
    "InternVL, tied": tiny_random.internvl,
    "InternVL3.5": tiny_random.internvl35,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "shards"])
@pytest.mark.parametrize("layout", ["as saved", "as in memory", "with what older versions wrote"])
@pytest.mark.parametrize("family", BUILDERS)
def test_every_layout_of_a_family_loads(
    family: str, layout: str, sharded: bool, dtype: Any, tmp_path: Path
) -> None:
    """As transformers saves it (names of the first versions), with the names of today's modules, with older buffers."""
    made = BUILDERS[family]()
    made.model.to(dtype)
    folder = tiny_random.save(made, tmp_path / "model")
    if layout == "as in memory" and "MoE" not in family:  # its experts are stored transposed
        own = {
            k: v.clone()
            for k, v in made.model.state_dict().items()
            if "tied" not in family or "lm_head" not in k
        }
        save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    if layout == "with what older versions wrote":
        tensors = load_file(folder / "model.safetensors")
        prefix = next(key for key in tensors if "layers.0.self_attn" in key).partition("layers.0")[0]
        tensors[f"{prefix}layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        if "tied" in family:
            tensors["lm_head.weight"] = next(t for k, t in tensors.items() if "embed_tokens" in k).clone()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if sharded:
        in_shards(folder)
    read = load(str(folder), dtype="auto").model.state_dict()
    assert all(torch.equal(value, read[key]) for key, value in made.model.state_dict().items())  # fmt: skip


ADAPTERS: dict[str, dict[str, Any]] = {
    "some layers": {},
    "all linear layers": {"target_modules": "all-linear", "exclude_modules": None},
    "modules to save": {"modules_to_save": ["lm_head"]},
    "directions": {"use_dora": True},
    "biases": {"bias": "lora_only"},
    "one layer": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "tokens": {"trainable_token_indices": {"embed_tokens": [3, 5]}},
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_kind_of_adapter_loads(kind: str, saved: Path, tmp_path: Path) -> None:
    made = adapted(**ADAPTERS[kind])
    folder = on_base(made, saved / "whole", tmp_path / "adapter")
    read = load(str(folder)).model.state_dict()
    assert all(torch.equal(value, read[key]) for key, value in made.state_dict().items())
    fresh = adapted(1, **ADAPTERS[kind])
    restore_weights(fresh, folder)
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in fresh.state_dict().items())


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_part_of_any_adapter_is_refused(kind: str, saved: Path, tmp_path: Path) -> None:
    """Each of its kinds of tensors in turn is not there."""
    folder = on_base(adapted(**ADAPTERS[kind]), saved / "whole", tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for ending in sorted({".".join(key.split(".")[-2:]) for key in tensors}):
        lost = next(key for key in tensors if key.endswith(ending))
        save_file({k: t for k, t in tensors.items() if k != lost}, file, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=lost.split(".")[-2]):
            load(str(folder))


def on_base(made: Any, base: Path, folder: Path) -> Path:
    """An adapter saved by peft, with the folder of its base as peft records it."""
    made.save_pretrained(folder)
    facts = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(facts | {"base_model_name_or_path": str(base)}))
    return folder


def test_an_adapter_with_the_names_of_older_modules_loads_and_a_part_of_it_does_not(
    saved: Path, tmp_path: Path
) -> None:
    """Adapters of transformers 4 name `model.layers`, where today's modules are `model.language_model.layers`."""
    made = adapted()
    folder = on_base(made, saved / "whole", tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    older = {k.replace("model.language_model.", "model."): t for k, t in load_file(file).items()}
    save_file(older, file, metadata={"format": "pt"})
    read = load(str(folder)).model.state_dict()
    assert all(torch.equal(value, read[key]) for key, value in made.state_dict().items())
    older.pop(key_of(older))
    save_file(older, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"missing 1: .*{CHANGED}"):
        load(str(folder))


# Files elsewhere.


def test_a_shard_outside_the_folder_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "shards", tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    facts = json.loads(index.read_text())
    shard = facts["weight_map"]["lm_head.weight"]
    (tmp_path / "elsewhere").mkdir()
    (folder / shard).rename(tmp_path / "elsewhere" / shard)
    for named in (
        f"../elsewhere/{shard}",
        str(tmp_path / "elsewhere" / shard),
        "..",
        f"..\\elsewhere\\{shard}",
    ):
        changed = {k: named if v == shard else v for k, v in facts["weight_map"].items()}
        index.write_text(json.dumps(facts | {"weight_map": changed}))
        for way in (load, lambda path: restore_weights(tiny_random.qwen().model, Path(path))):
            with pytest.raises(
                ModelError, match=r"shards must be in its folder, model\.safetensors\.index\.json of .* names"
            ):
                way(str(folder))
    index.write_text(json.dumps(facts))
    (folder / shard).symlink_to(tmp_path / "elsewhere" / shard)
    with pytest.raises(ModelError, match=rf"{shard} of .* is a link to .*elsewhere.*; copy the file"):
        load(str(folder))
    (folder / shard).unlink()
    with pytest.raises(ModelError, match=rf"lacks {shard}"):
        load(str(folder))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}, "metadata": {}}',
                                     '{"weight_map": {"a": "b"}}', "[" * 100_000])  # fmt: skip
def test_an_index_that_is_none_is_refused(content: str, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "shards", tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match=r"an index of shards (needs|must map)"):
        load(str(folder))


def test_a_tensor_in_two_shards_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "shards", tmp_path / "model")
    first, *_, last = sorted(folder.glob("*.safetensors"))
    spoil(last, lambda tensors: tensors.update({"lm_head.weight": load_file(first)["lm_head.weight"] + 1}))
    with pytest.raises(ModelError, match=r"some twice \(1: lm_head\.weight\)"):
        load(str(folder))


def test_the_hubs_own_links_are_inside(saved: Path, tmp_path: Path) -> None:
    """The hub's cache: `snapshots/REVISION/FILE` is a link to `../../blobs/HASH`."""
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted((saved / "shards").iterdir())):
        shutil.copy(file, repository / "blobs" / str(number))
        os.symlink(f"../../blobs/{number}", snapshot / file.name)
    load(str(snapshot))


def test_a_base_outside_is_refused_and_one_given_explicitly_is_not(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved / "whole", tmp_path / "whole")
    folder = shutil.copytree(saved / "adapter", tmp_path / "adapter")
    file = folder / "adapter_config.json"
    facts = json.loads(file.read_text())

    def name_base(base: str) -> None:
        file.write_text(json.dumps(facts | {"base_model_name_or_path": base}))

    for base in ("../whole", "adapter/../whole", "..", f"{tmp_path}/adapter/../whole", "..\\whole"):
        name_base(base)
        with pytest.raises(ModelError, match=r'a hub id or a folder without ".."'):
            load(str(folder))
    name_base("base")
    (folder / "base").symlink_to(tmp_path / "whole")
    with pytest.raises(ModelError, match=r"base of .* is a link to"):
        load(str(folder))
    (folder / "base").unlink()
    with pytest.raises(
        ModelError, match=r"names 'base', which is not .*write its hub id or its present folder"
    ):
        load(str(folder))
    name_base(str(folder))
    with pytest.raises(ModelError, match="is itself an adapter"):
        load(str(folder))
    shutil.copytree(tmp_path / "whole", folder / "base")
    for base in ("base", "whole", str(tmp_path / "whole")):  # its own, below the working folder, a whole path
        name_base(base)
        assert load(str(folder)).family.model_type == "qwen2_5_vl"


# Configs.


@pytest.mark.parametrize(
    "change",
    [
        {"text_config": {"num_hidden_layers": 1_000_000, "layer_types": None}},
        {"text_config": {"num_hidden_layers": 9_000, "layer_types": None}},
        {"text_config": {"num_hidden_layers": 10**9, "layer_types": None}},
        {"vision_config": {"depth": 1_000_000}},
        {"text_config": {"hidden_size": 10**9}},
        {"text_config": {"vocab_size": 10**12}},
        {"text_config": {"intermediate_size": 10**10}},
        {"vision_config": {"hidden_size": 10**9}},
    ],
)
def test_a_config_of_another_size_is_refused_before_a_model_is_built(
    change: dict[str, Any], saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageTextToText

    folder = shutil.copytree(saved / "whole", tmp_path / "model")
    facts = json.loads((folder / "config.json").read_text())
    for section, values in change.items():
        facts[section] |= values
    (folder / "config.json").write_text(json.dumps(facts))
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(
        ModelError, match=r"a model's config and weights belong together, .* asks for \d+ (layers|numbers)"
    ):
        load(str(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"r": 10**9}, {"rank_pattern": {"q_proj": 10**9}}, {"r": 4}, {"r": 0}, {"r": "x"}, {"r": None},
        {"target_modules": []}, {"target_modules": ["nowhere"]}, {"target_modules": ["q_proj"]}, {"target_modules": 3},
        {"peft_type": "NOTHING"}, {"peft_type": None}, {"lora_alpha": "x"}, {"modules_to_save": ["lm_head"]},
        {"layers_to_transform": [0], "layers_pattern": "layers"}, {"task_type": 3}, {"use_dora": True},
    ],
)  # fmt: skip
def test_an_adapter_config_that_does_not_belong_to_its_weights_is_refused(
    change: dict[str, Any], saved: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved / "adapter", tmp_path / "adapter")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=r"an adapter"):
        load(str(folder))


def test_finite_is_told_from_not_for_every_kind_of_number() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        require_finite_tensors({"a": torch.ones(3, 5, dtype=dtype), "none": torch.ones(0, dtype=dtype)}, "m")
        with pytest.raises(ModelError, match=r"NaN or infinite in 1: b\)"):
            require_finite_tensors(
                {"a": torch.ones(3).to(dtype), "b": torch.tensor([1.0, float("nan")]).to(dtype)}, "m"
            )
    require_finite_tensors({"a": torch.arange(3), "b": torch.tensor(True)}, "m")


def test_half_precision_that_cannot_hold_the_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "whole", tmp_path / "model")
    spoil(folder / "model.safetensors", with_value(70_000.0))
    load(str(folder))
    with pytest.raises(ModelError, match=r"read as float16 .*half precision \(float16\) holds no more"):
        load(str(folder), dtype=torch.float16)


WRONG_VALUES = [0, -1, 10**9, 10**30, "x", None, [], {}, 1.5, True]


@pytest.mark.parametrize("section", ["", "text_config", "vision_config"])
def test_a_config_of_wrong_values_is_one_clear_error_or_none(
    section: str, saved: Path, tmp_path: Path
) -> None:
    """Whatever a number of a config is replaced with, loading ends in a moment and in an error of ours, or works."""
    folder = shutil.copytree(saved / "whole", tmp_path / "model")
    facts = json.loads((folder / "config.json").read_text())
    said = []
    part = facts[section] if section else facts
    for number, key in enumerate([key for key, value in part.items() if isinstance(value, int | float)][::2]):
        value = WRONG_VALUES[number % len(WRONG_VALUES)]
        changed = part | {key: value}
        (folder / "config.json").write_text(json.dumps(facts | {section: changed} if section else changed))
        try:
            load(str(folder))
        except ModelError as error:
            said.append(str(error))
    assert said
    assert all(len(message) < 1000 and "; " in message for message in said)

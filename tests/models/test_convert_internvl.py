"""InternVL from its makers' layout: the same logits, no code run, and refusals that lead on."""

from __future__ import annotations

import json
from pathlib import Path

import makers_internvl
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.errors import ModelError
from opengrit.models import load
from opengrit.models.convert_internvl import convert
from opengrit.models.families import Loaded


def logits(loaded: Loaded) -> torch.Tensor:
    """Of a question about a picture of two tiles and a thumbnail."""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many dogs?"}]}]
    noise = torch.randint(0, 256, (56, 112, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    text = loaded.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    inputs = loaded.processor(text=[text], images=[Image.fromarray(noise.numpy())], return_tensors="pt")
    with torch.no_grad():
        return loaded.model(**inputs).logits


@pytest.mark.parametrize(
    ("text_model", "how", "shards"),
    [
        ("qwen2", {}, 1),
        ("qwen2", {"qk_norm": True}, 3),
        ("qwen2", {"tied": True}, 1),
        ("qwen3", {}, 1),
        ("llama", {"internlm2": True}, 2),
    ],
)
def test_weights_to_the_makers_layout_and_back_give_the_same_logits(
    tmp_path: Path, text_model: str, how: dict[str, bool], shards: int
) -> None:
    before = makers_internvl.model(text_model, qk_norm=how.get("qk_norm", False), tied=how.get("tied", False))
    theirs = makers_internvl.write(
        before, tmp_path / "theirs", shards=shards, internlm2=how.get("internlm2", False)
    )
    out = convert(theirs, tmp_path / "ours")
    after = load(str(out), device="cpu")
    weights = before.model.state_dict()
    assert after.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(after.model.state_dict()[name], weights[name]) for name in weights)
    for bounds in (
        after.processor.image_processor,
    ):  # ImageNet's mean is the makers'; the tiny ones have CLIP's
        bounds.image_mean = before.processor.image_processor.image_mean
        bounds.image_std = before.processor.image_processor.image_std
    assert torch.equal(logits(after), logits(before))
    assert before.model.config.text_config.eos_token_id in after.end_ids
    assert len(list(out.glob("*.safetensors"))) == shards
    assert not list(out.glob("*.py"))


def test_joined_matrices_are_split_as_the_makers_code_reads_them() -> None:
    """Against their formulas, written out: qkv as (3, heads, d), wqkv as (key-value heads, queries and key and value, d)."""
    before = makers_internvl.model("llama")
    layout = makers_internvl_layout(before)
    x = torch.randn(5, 32)
    fused = torch.randn(3 * 32, 32)
    split = layout.converted("vision_model.encoder.layers.0.attn.qkv.weight", fused)
    q, k, v = (x @ fused.T).reshape(5, 3, 2, 16).unbind(1)
    for part, theirs in (("q", q), ("k", k), ("v", v)):
        ours = split[f"vision_tower.encoder.layer.0.attention.{part}_proj.weight"]
        torch.testing.assert_close((x @ ours.T).reshape(5, 2, 16), theirs)
    fused = torch.randn((4 + 2 * 2) * 8, 32)
    split = layout.converted("language_model.model.layers.1.attention.wqkv.weight", fused)
    grouped = (x @ fused.T).reshape(5, 2, 4, 8)  # two key-value heads: two queries, a key, a value
    for part, theirs in (
        ("q", grouped[:, :, :2].reshape(5, 4, 8)),
        ("k", grouped[:, :, 2]),
        ("v", grouped[:, :, 3]),
    ):
        ours = split[f"language_model.model.layers.1.self_attn.{part}_proj.weight"]
        torch.testing.assert_close((x @ ours.T).reshape(theirs.shape), theirs)


def makers_internvl_layout(loaded: Loaded):
    from opengrit.models.convert_internvl import MakersLayout

    config = makers_internvl.config(loaded, internlm2=True)
    return MakersLayout(config, "internlm2", num_heads=4, num_key_value_heads=2, head_dim=8)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return makers_internvl.write(makers_internvl.model("qwen2"), tmp_path_factory.mktemp("makers") / "theirs")


def copied(folder: Path, to: Path, **changes: object) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


def test_a_folder_in_the_makers_layout_is_refused_with_the_command_that_converts_it(
    theirs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="opengrit convert internvl") as caught:
        load(str(theirs))
    command = (
        str(caught.value)
        .partition("opengrit ")[2]
        .partition(",")[0]
        .replace("NEW", str(tmp_path / "new"))
        .split()
    )
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert load(str(tmp_path / "new"), device="cpu").family.model_type == "internvl"


def test_a_tokenizer_that_needs_code_is_asked_for(theirs: Path, tmp_path: Path) -> None:
    folder = copied(theirs, tmp_path / "theirs")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(ModelError, match="--tokenizer"):
        convert(folder, tmp_path / "out")
    assert load(str(convert(folder, tmp_path / "out", tokenizer=theirs)), device="cpu")


def test_a_tokenizer_of_vocabulary_and_merges_is_read(theirs: Path, tmp_path: Path) -> None:
    """As InternVL3 brings it: no tokenizer.json."""
    folder = copied(theirs, tmp_path / "theirs")
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    decoder = {str(token["id"]): {key: token[key] for key in ("content", "special", "lstrip", "rstrip", "normalized", "single_word")} for token in whole["added_tokens"]}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                    "additional_special_tokens": ["<img>", "</img>", "<IMG_CONTEXT>"]})
    )  # fmt: skip
    after, before = (
        load(str(convert(folder, tmp_path / "out")), device="cpu"),
        load(str(convert(theirs, tmp_path / "other")), device="cpu"),
    )
    text = "<img><IMG_CONTEXT></img> How many dogs? <think> 1, 2"
    assert after.processor.tokenizer(text).input_ids == before.processor.tokenizer(text).input_ids
    assert torch.equal(logits(after), logits(before))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ps_version": "v1"}, "ps_version 'v1'"),
        ({"select_layer": -4}, "select_layer -4"),
        ({"model_type": "internvl"}, "is 'internvl'"),
        ({"llm_config": {"model_type": "phi3", "hidden_size": 8, "num_attention_heads": 2}}, "'phi3'"),
        ({"llm_config": None}, "does not"),
        ({"vision_config": {"hidden_size": 64, "image_size": 56, "patch_size": 14}}, "after renaming"),
    ],
)
def test_what_cannot_be_converted_says_why_and_leaves_nothing(
    theirs: Path, tmp_path: Path, changes: dict, said: str
) -> None:
    folder = copied(theirs, tmp_path / "theirs", **changes)
    with pytest.raises(ModelError, match=said):
        convert(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_weight_too_few_or_too_many_is_named(theirs: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = copied(theirs, tmp_path / "theirs")
    with safe_open(folder / "model.safetensors", "pt") as reader:
        tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    save_file(
        {name: value for name, value in tensors.items() if "mlp1.3.bias" not in name},
        folder / "model.safetensors",
    )
    with pytest.raises(
        ModelError, match=r"are missing after renaming 1: model\.multi_modal_projector\.linear_2\.bias"
    ):
        convert(folder, tmp_path / "out")
    save_file(tensors | {"surprise": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="surprise does not"):
        convert(folder, tmp_path / "out")


def test_an_existing_folder_is_not_written_to(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="choose another name"):
        convert(theirs, tmp_path)
    assert not list(tmp_path.iterdir())

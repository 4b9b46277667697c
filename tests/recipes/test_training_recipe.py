"""Recipes: complete, strict, and clear about what is wrong before anything loads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from opengrit.cli import train as train_command
from opengrit.core.errors import RecipeError
from opengrit.experiments.recipe import TableRecipe, load_table_recipe
from opengrit.recipes.register import FOLDER
from opengrit.recipes.remedies import keys_of
from opengrit.recipes.sft_recipe import SftRecipe, load_sft_recipe
from opengrit.recipes.training_recipe import Recipe, load_recipe, parse_recipe
from opengrit.recipes.yaml import parse

ROOT = Path(__file__).parents[2]
SMALL = "model: tiny-qwen2.5-vl\ndata:\n  train: [stickers/train20]\n"


def error_of(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides, place="my.yaml")
    return str(caught.value)


def test_bare_names_stand_for_a_model_a_packaged_set_and_a_file() -> None:
    recipe = parse_recipe("model: tiny\ndata: {train: [stickers/train20], eval: [mine.jsonl]}\n")
    assert recipe.model.name == "tiny"
    assert (recipe.data.train[0].name, recipe.data.train[0].spec) == ("stickers/train20", "stickers/train20")
    assert (recipe.data.eval[0].file, recipe.data.eval[0].spec) == ("mine.jsonl", "mine.jsonl")


def test_the_resolved_recipe_loads_to_an_equal_one_with_the_same_hash() -> None:
    recipe = parse_recipe(
        SMALL + "rewards: {correct: 1, grounding_iou: 0.5}\nlora: {target_modules: [q_proj]}\n"
    )
    again = parse_recipe(recipe.resolved_yaml())
    assert again == recipe
    assert again.hash() == recipe.hash()
    assert "learning_rate" in recipe.resolved_yaml()


def test_the_hash_follows_what_is_done_and_not_how_it_is_written() -> None:
    assert (
        parse_recipe(SMALL).hash() == parse_recipe("# other words\n" + SMALL + "train: {seed: 42}\n").hash()
    )
    assert parse_recipe(SMALL).hash() != parse_recipe(SMALL, ["train.seed=43"]).hash()


def test_a_misspelt_key_is_an_error_with_its_line_and_the_key_meant() -> None:
    message = error_of(SMALL + "train:\n  num_generation: 8\n")
    assert (
        message == "my.yaml:5: train.num_generation is not a key of a recipe; did you mean num_generations?"
    )


def test_a_key_in_the_wrong_section_is_sent_to_the_right_one() -> None:
    assert error_of(SMALL + "num_generations: 8\n").endswith("did you mean train.num_generations?")
    assert error_of(SMALL + "train: {lora: null}\n").endswith("did you mean lora?")


def test_a_section_of_an_unknown_name_is_not_sent_to_a_number_of_that_name() -> None:
    assert "known here: model, data" in error_of(SMALL + "max_steps: {a: 1}\n")


@pytest.mark.parametrize(
    ("load", "text", "command"),
    [
        (load_recipe, SMALL + "sft: {max_steps: 3}\nzzz: 1\n", "sft"),
        (load_recipe, "ways: [grit]\ntrain: {}\nsft: {}\n", "table"),
        (load_sft_recipe, SMALL + "train: {}\n", "train"),
        (load_sft_recipe, "ways: [sft]\nsft: {}\n", "table"),
        (load_table_recipe, SMALL + "train: {}\n", "train"),
        (load_table_recipe, SMALL + "sft: {}\n", "sft"),
    ],
)
def test_a_recipe_of_another_command_is_sent_there_whatever_else_is_wrong_with_it(
    load: Callable[[Path], object], text: str, command: str, tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert (
        str(caught.value) == f"{path}: this is a recipe of opengrit {command}; run opengrit {command} {path}"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a: b\nc: [1\nd: 2\n",
            "my.yaml:3: a recipe is YAML, this is not (expected ',' or ']', but got ':')",
        ),
        (
            "a: b\nc: \x01\n",
            "my.yaml:2: a recipe is YAML, this is not (special characters are not allowed: #x0001)",
        ),
    ],
)
def test_what_is_not_yaml_is_named_with_the_line_it_stands_on(text: str, said: str) -> None:
    assert error_of(text) == f"{said}; fix that line"


def test_a_key_like_no_other_lists_those_there_are() -> None:
    assert "known here: name, frame, min_pixels" in error_of("model: {name: a, zzz: 1}\ndata: {train: [a]}\n")


def test_all_mistakes_are_reported_at_once() -> None:
    message = error_of(SMALL + "train:\n  learning_rate: fast\n  seeed: 1\n  max_steps: 0\n")
    assert [f"my.yaml:{line}:" in message for line in (5, 6, 7)] == [True, True, True]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (
            "train: {num_generations: 1}",
            "train.num_generations: input should be greater than or equal to 2, got 1",
        ),
        ("train: {temperature: 0}", "greater than 0"),
        ("train: {temperature: true}", "no true or false"),
        ("train: {learning_rate: .nan}", "train.learning_rate"),
        ("train: {learning_rate: .inf}", "train.learning_rate"),
        ("train: {top_p: 1.5}", "less than or equal to 1"),
        ("train: {per_device_train_batch_size: 3}", "(80) must be divisible"),
        ("train: {warmup_steps: 200}", "warmup_steps must be smaller than max_steps"),
        ("train: {save_steps: 0}", "train.save_steps"),
        ("train: {loss_type: gpro}", "train.loss_type"),
        ("train: null", "mapping of keys"),
        ("eval: {samples: 4}", "samples is 1 if temperature is 0"),
        ("strategy: grunded", "'grounded-icl'"),
        ("rewards: papr", "'paper', 'released', 'answer_only' or 'random'"),
        ("rewards: {corect: 1}", "did you mean 'correct'"),
        ("rewards: {correct: true}", "no true or false"),
        ("rewards: {correct: .nan}", "finite"),
        ("rewards: {correct: 0}", "at least one reward needs a weight other than 0"),
        ("rewards: {}", "at least one reward"),
        ("lora: {r: 0}", "lora.r"),
        ("lora: {target_modules: 3}", "lora.target_modules"),
        ("judge: gpt-4o", "judge.kind: input should be 'rule', 'endpoint', 'local' or 'own', got 'gpt-4o'"),
        ("judge: endpoint", "judge: a judge of kind endpoint has a model, this one has none; add it"),
        ("judge: {kind: rule, requests_per_minut: 3}", "did you mean requests_per_minute?"),
        ("judge: {min_judged_share: 2}", "judge.min_judged_share"),
        ("judge: {kind: rule, model: m}", "the rule takes no model"),
    ],
)
def test_an_impossible_value_is_one_error_that_names_its_key(extra: str, said: str) -> None:
    message = error_of(f"{SMALL}{extra}\n")
    assert said in message
    assert message.startswith("my.yaml:4: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {train: [a]}\n", "model is required"),
        ("model: a\n", "data is required"),
        ("model: a\ndata: {train: []}\n", "at least one data set"),
        ("model: a\ndata: {train: stickers/train20}\n", "must be a list"),
        ("model: a\ndata: {train: [{name: a, file: b}]}\n", "exactly one of name, file and hub"),
        ("model: a\ndata: {train: [{images: b}]}\n", "exactly one of name, file and hub"),
        ("model: a\ndata: {train: [{name: a, boxes: xywh}]}\n", "takes no columns or boxes"),
        (
            "model: a\ndata: {train: [{file: a.csv, columns: {picture: p, ask: q}}]}\n",
            "data.train.0.columns.ask is not a key",
        ),
        ("model: a\ndata: {train: [{name: a, images: b}]}\n", "has its own pictures"),
        (
            "model: {name: a, min_pixels: 9, max_pixels: 4}\ndata: {train: [a]}\n",
            "min_pixels must be at most max_pixels",
        ),
        ("model: {name: a, frame: thousands}\ndata: {train: [a]}\n", "'thousand'"),
        ("model: ''\ndata: {train: [a]}\n", "model.name"),
        ("model: a\nmodel: b\n", "model is on line 1 and on line 2"),
        ("a: [1\n", "is YAML"),
        ("[1]\n", "mapping of sections"),
        ("", "mapping of sections"),
        ("!!python/object:os.system {}\n", "is YAML"),
    ],
)
def test_a_text_that_is_no_recipe_says_why(text: str, said: str) -> None:
    assert said in error_of(text)


def test_overrides_are_yaml_and_may_open_a_section_or_a_bare_name() -> None:
    recipe = parse_recipe(
        SMALL,
        [
            "model=tiny-internvl3",
            "model.max_pixels=5",
            "lora.r=8",
            "train.learning_rate=3e-4",
            "data.eval=[stickers/count]",
        ],
    )
    assert (recipe.model.name, recipe.model.max_pixels) == ("tiny-internvl3", 5)
    assert recipe.lora is not None
    assert recipe.lora.r == 8
    assert recipe.train.learning_rate == 3e-4
    assert recipe.data.eval[0].spec == "stickers/count"
    assert parse_recipe(SMALL, ["data.train.0=b.jsonl", "data.train.0.images=b"]).data.train[0].images == "b"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.seeed=3", "--set train.seeed: train.seeed is not a key of a recipe; did you mean seed?"),
        ("train.seed=x", "--set train.seed: train.seed: input should be a valid integer"),
        ("train.seed", "key=value"),
        ("=3", "key=value"),
        ("train..seed=3", "key=value"),
        ("train.seed=[1", "takes a YAML value"),
        ("data.train.7=a", "indexed from 0"),
        ("strategy.a.b=1", "strategy"),
    ],
)
def test_a_wrong_override_is_named_as_such(override: str, said: str) -> None:
    assert said in error_of(SMALL, override)


def test_a_judge_is_a_bare_kind_or_a_section() -> None:
    assert parse_recipe(SMALL).judge.kind == "rule"
    assert parse_recipe(SMALL + "judge: rule\n") == parse_recipe(SMALL)
    served = {"judge.kind": "endpoint", "judge.url": "http://127.0.0.1:8000/v1", "judge.model": "big"}
    recipe = parse_recipe(SMALL + "judge: rule\n", [f"{key}={value}" for key, value in served.items()])
    assert (recipe.judge.kind, recipe.judge.model, recipe.judge.min_judged_share) == ("endpoint", "big", 0.5)
    assert parse_recipe(recipe.resolved_yaml()) == recipe


def test_weights_in_four_bits_learn_through_adapters_only() -> None:
    message = error_of("model: {name: a, quantization: nf4}\ndata: {train: [a]}\n")
    assert "weights in 4 bits cannot be trained" in message
    assert "add lora: {}" in message
    both = error_of("model: {name: a, quantization: nf4, dtype: bfloat16}\ndata: {train: [a]}\nlora: {}\n")
    assert "a quantized model has no dtype" in both
    recipe = parse_recipe("model: {name: a, quantization: nf4}\ndata: {train: [a]}\nlora: {}\n")
    assert recipe.model.quantization == "nf4"
    assert "'float32' or 'bfloat16'" in error_of("model: {name: a, dtype: float16}\ndata: {train: [a]}\n")


def test_a_recipe_file_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="readable YAML file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="readable YAML file"):
        load_recipe(tmp_path)


def test_every_key_is_described_in_one_line() -> None:
    keys = keys_of(Recipe)
    assert {
        "model.name",
        "data.eval.columns.picture",
        "judge.url",
        "advantage.objects.min_iou",
        "lora.r",
    } <= {".".join(key) for key in keys}
    for key, field in keys.items():
        assert field.description, key
        assert "\n" not in field.description, key


def test_named_and_weighted_rewards_give_a_rubric() -> None:
    assert parse_recipe(SMALL).rubric().weights["box_count"] == 0.5
    assert parse_recipe(SMALL + "rewards: {grounding_iou: 2}\n").rubric().weights == {"grounding_iou": 2.0}


# The recipes we ship.


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    loads = {"table": load_table_recipe, "sft": load_sft_recipe}.get(path.stem.split("-")[0], load_recipe)
    assert loads(path).resolved_yaml()


@pytest.mark.parametrize("name", ["grit20-qwen2.5-vl-3b", "grit20-internvl3-2b"])
def test_the_papers_recipes_hold_the_papers_values_and_say_where_each_is_from(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    train = load_recipe(name).train
    assert (train.learning_rate, train.lr_scheduler_type, train.warmup_steps) == (2e-6, "cosine", 0)
    assert (train.max_steps, train.num_generations, train.beta) == (200, 4, 0.01)
    assert (train.max_completion_length, train.temperature, train.loss_type) == (1000, 0.9, "grpo")
    written = yaml.safe_load(path.read_text(encoding="utf-8"))["train"]
    idle = {name for name in type(train).model_fields if name.startswith("vllm_") and name != "vllm_mode"}
    idle |= {"report_to", "project", "log_rollouts_steps"}  # where a run is watched, not what it does
    # Of objectives that the paper does not have: their defaults change nothing.
    idle |= {
        "epsilon_high",
        "importance_sampling_level",
        "mask_truncated_completions",
        "top_entropy_quantile",
        "resample_flat_groups",
    }
    assert set(written) | {"logging_steps", "keep_checkpoints", "keep_best"} | idle == set(
        type(train).model_fields
    )
    assert train.vllm_mode is None  # the paper's rollouts were not drawn by vLLM
    lines = path.read_text(encoding="utf-8").splitlines()
    for index, line in enumerate(lines):
        if line.strip().split(":")[0] in written:
            assert "#" in line or lines[index - 1].strip().startswith("#"), line


def test_the_demo_trains_on_every_row_in_every_step() -> None:
    recipe = load_recipe("demo")
    assert (recipe.model.name, [s.spec for s in recipe.data.train]) == (
        "tiny-qwen2.5-vl",
        ["stickers/train20"],
    )
    assert (recipe.train.questions_per_step, recipe.train.num_generations, recipe.train.max_steps) == (
        20,
        8,
        40,
    )
    assert [s.spec for s in recipe.data.eval] == ["stickers/count", "stickers/spatial"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.vllm_mode=local", "vllm_mode"),
        ("train.vllm_gpu_memory_utilization=1.5", "vllm_gpu_memory_utilization"),
        ("train.vllm_server_port=0", "vllm_server_port"),
        ("train.vllm=colocate", "vllm_mode"),  # a wrong key names the right one
    ],
)
def test_wrong_vllm_lines_are_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", [override])


def test_the_commands_for_two_processes_that_are_shown_divide_their_work() -> None:
    shown = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8") + str(train_command.train.__doc__)
    pattern = r"(train|sft) ((?:sft-)?demo)[ \\\n]+(.*)"
    found = re.findall(pattern, shown.replace("\\\n", " "))
    at_once = [(command, name, rest) for command, name, rest in found if "--num-processes 2" in rest]
    launched = re.findall(r"(?:torchrun --nproc-per-node|--num_processes) 2 -m opengrit " + pattern, shown)
    assert (len(at_once), len(launched)) == (3, 2)
    for command, name, rest in at_once + launched:
        changes = re.findall(r"--set (\S+)", rest)
        if command == "train":
            assert load_recipe(name, changes).train.passes_per_step(2) == 1
        else:
            assert load_sft_recipe(name, changes).sft.passes_per_step(2) == 1


def test_work_that_does_not_divide_over_the_processes_is_refused_with_a_batch_size_that_does() -> None:
    demo = load_recipe("demo").train  # 20 questions x 8 tries
    with pytest.raises(RecipeError, match=r"set train\.per_device_train_batch_size: 80$"):
        demo.passes_per_step(2)
    with pytest.raises(
        RecipeError, match=r"start 2 \(--num-processes 2\) and set train\.per_device_train_batch_size: 80$"
    ):
        demo.passes_per_step(3)
    with pytest.raises(RecipeError, match=r"set sft\.per_device_train_batch_size: 2$"):
        load_sft_recipe("sft-demo").sft.passes_per_step(2)


@pytest.mark.parametrize("rows", [1, 3, 12, 17, 20])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_the_sizes_named_for_few_rows_are_possible_over_the_processes(rows: int, processes: int) -> None:
    train = parse_recipe(SMALL, ["train.questions_per_step=40", "train.per_device_train_batch_size=16"]).train
    remedy = train.remedy_for(rows, num_processes=processes)
    changes = [f"{key}={value}" for key, value in re.findall(r"(train\.\w+): (\d+)", remedy)]
    if not changes:
        assert remedy == "add rows"
        assert not [q for q in range(1, rows + 1) if q * train.num_generations % processes == 0]
        return
    fitting = parse_recipe(
        SMALL, ["train.questions_per_step=40", "train.per_device_train_batch_size=16", *changes]
    ).train
    assert fitting.questions_per_step <= rows
    assert fitting.per_device_train_batch_size <= 16
    assert fitting.passes_per_step(processes) >= 1


def test_all_that_is_impossible_in_a_section_is_told_at_once() -> None:
    wrong = ["train.per_device_train_batch_size=7", "train.warmup_steps=300", "train.keep_best=accuracy"]
    message = error_of(SMALL, *wrong)
    changes = re.findall(r"set (\w+): (\d+)", message)
    assert [key for key, _ in changes] == ["per_device_train_batch_size", "warmup_steps", "keep_checkpoints"]
    changes = [f"train.{key}={value}" for key, value in changes]
    assert parse_recipe(SMALL, [*wrong, *changes, "data.eval=[stickers/count]"])


_ODD = [
    "null",
    "true",
    "[]",
    "{}",
    "x",
    "-1",
    "[[a]]",
    "{1: 2}",
    "{file: a.jsonl}",
    "[{images: b, file: 3}]",
    "{a: [1], b: {c: 1}}",
]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Recipe, SMALL),
        (SftRecipe, SMALL + "sft: {}\n"),
        (TableRecipe, "models: [a]\ndata: [b.jsonl]\nways: [direct]\n"),
    ],
)
def test_whatever_stands_at_a_key_is_a_recipe_or_told_in_a_sentence(kind: type[BaseModel], text: str) -> None:
    told = []
    unknown = {(*keys[:-1], "zzz") for keys in keys_of(kind)}
    for path in map(".".join, [*keys_of(kind), *unknown]):
        for odd in _ODD:
            try:
                parse(kind, text, [f"{path}={odd}"])
            except RecipeError as error:
                told.append(str(error))
    assert len(told) > 200
    assert not [message for message in told if not re.search(r"; |known here|did you mean", message)]


def test_fewer_rows_than_a_step_of_fine_tuning_are_told_every_size_at_once() -> None:
    wanted = ["sft.rows_per_step=8", "sft.per_device_train_batch_size=4"]
    remedy = load_sft_recipe("sft-demo", wanted).sft.remedy_for(7)
    assert remedy == "set sft.rows_per_step: 7 and sft.per_device_train_batch_size: 1, or add rows"
    changes = [f"{key}={value}" for key, value in re.findall(r"(sft\.\w+): (\d+)", remedy)]
    assert load_sft_recipe("sft-demo", [*wanted, *changes]).sft.passes_per_step(1) == 7


@pytest.mark.parametrize(
    ("train", "message", "remedy"),
    [
        ("loss_type: dapo, importance_sampling_level: sequence", "long completions would weigh more", "loss_type: grpo, num_iterations: 2"),
        ("loss_type: vespo, importance_sampling_level: sequence", "vespo makes a ratio", "importance_sampling_level: token"),
        ("loss_type: luspo", "luspo scales a ratio", "importance_sampling_level: sequence"),
        ("importance_sampling_level: sequence", "sequence changes nothing", "num_iterations: 2"),
        ("loss_type: sapo, importance_sampling_level: sequence", "sequence changes nothing", "importance_sampling_level: token"),
        ("importance_sampling_level: sequence, num_iterations: 2, top_entropy_quantile: 0.2", "single tokens", "top_entropy_quantile: 1"),
        ("loss_type: cispo", "the largest ratio, at least 1, got null", "epsilon_high: 5"),
        ("loss_type: cispo, epsilon_high: 0.28", "at least 1, got 0.28", "epsilon_high: 5"),
        ("loss_type: sapo, epsilon_high: 0.28", "sapo clips nothing", "epsilon_high: null"),
        ("epsilon_high: 0.28", "clips nothing with num_iterations 1", "num_iterations: 2"),
        ("epsilon_high: 0.28", "clips nothing with num_iterations 1", "epsilon_high: null"),
    ],
)  # fmt: skip
def test_an_objective_that_means_nothing_is_refused_with_a_remedy_that_works(
    train: str, message: str, remedy: str
) -> None:
    assert message in error_of(SMALL + f"train: {{{train}}}\n")
    changed = yaml.safe_load(f"{{{train}}}") | yaml.safe_load(f"{{{remedy}}}")
    parse_recipe(SMALL + yaml.safe_dump({"train": changed}))

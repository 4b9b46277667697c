"""Rollouts by vLLM: what it writes is trimmed and read as our own sampler's, with a stand-in for vLLM itself."""

from __future__ import annotations

import pytest
import tiny_random
import torch
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from opengrit.core.errors import RecipeError
from opengrit.core.types import Finish
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.recipes.training_recipe import load_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.sampling.vllm import VllmSampler
from opengrit.training.settings import grpo_config, vllm_settings
from opengrit.training.trainer import GritTrainer

ANSWERED = "<think>a</think><answer>2</answer>"


class FakeVllm:
    """Answers as TRL's `VLLMGeneration` does: a list of rows to say, one after the other, whatever is asked."""

    def __init__(self, rows):
        self._rows = rows
        self.asked = []
        self.synced = 0

    def sync_weights(self):
        self.synced += 1

    def generate(self, *, prompts, images, num_generations, profiler=None):
        self.asked.append((prompts, images, num_generations))
        ids = [self._rows[i % len(self._rows)] for i in range(len(prompts))]
        log_probs = [[[-0.5 - 0.25 * place] for place in range(len(row))] for row in ids]
        return prompts, [list(row) for row in ids], log_probs, None


@pytest.fixture
def loaded():
    return tiny_random.qwen()


def tokens(loaded, text):
    return loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def sampler(loaded, *rows):
    fake = FakeVllm(list(rows))
    return VllmSampler(TransformersSampler(loaded), fake.generate), fake


def ask(folder, name="a"):
    return Asked(name, tiny_random.picture(folder, f"{name}.png", width=84, height=84), "How many dogs?")


def test_a_stop_string_ends_a_completion_though_vllm_gives_no_end_token(loaded, tmp_path):
    said = tokens(loaded, ANSWERED)
    made, fake = sampler(loaded, said)
    [[result]] = made.sample([ask(tmp_path)], samples_per_question=1, settings=SamplingSettings())
    assert result.completion.finish is Finish.STOP
    assert result.completion.text == ANSWERED
    assert result.completion.token_ids == tuple(said)
    [(prompts, images, count)] = fake.asked
    assert prompts == [list(made.last_prompts[0].ids)]
    assert isinstance(images[0][0], Image.Image)
    assert count == 1


def test_what_stands_behind_the_stop_string_or_the_end_is_cut_with_its_log_probabilities(loaded, tmp_path):
    said = tokens(loaded, ANSWERED)
    end = loaded.end_ids[0]
    made, _ = sampler(loaded, [*said, *tokens(loaded, "yes no")], [*tokens(loaded, "yes"), end, end])
    [[stopped, ended]] = made.sample([ask(tmp_path)], samples_per_question=2, settings=SamplingSettings())
    assert stopped.completion.token_ids == tuple(said)
    assert ended.completion.token_ids == (*tokens(loaded, "yes"), end)
    assert ended.completion.finish is Finish.EOS
    assert ended.completion.text == "yes"
    assert [len(row) for row in made.last_log_probs] == [len(said), len(ended.completion.token_ids)]
    assert made.last_log_probs[1][:2] == [-0.5, -0.75]


def test_a_completion_without_an_end_is_truncated(loaded, tmp_path):
    made, _ = sampler(loaded, tokens(loaded, "<think>dogs"))
    [[result]] = made.sample([ask(tmp_path)], samples_per_question=1, settings=SamplingSettings())
    assert result.completion.finish is Finish.LENGTH


def test_a_written_picture_token_is_a_failed_row_and_not_a_broken_step(loaded, tmp_path):
    picture = loaded.processor.image_token_id
    made, _ = sampler(loaded, [*tokens(loaded, "yes"), picture, loaded.end_ids[0]])
    [[result]] = made.sample([ask(tmp_path)], samples_per_question=1, settings=SamplingSettings())
    assert isinstance(result, Unsampled)


def test_every_process_asks_for_all_its_rows_though_a_picture_is_gone(loaded, tmp_path):
    made, fake = sampler(loaded, tokens(loaded, ANSWERED))
    asked = [Asked("gone", str(tmp_path / "gone.png"), "?"), ask(tmp_path)]
    gone, there = made.sample(asked, samples_per_question=2, settings=SamplingSettings())
    assert [type(result) for result in gone + there] == [Unsampled, Unsampled, Sampled, Sampled]
    assert made.last_prompts[0] is None
    assert len(fake.asked[0][0]) == 4
    # Also where all of its own are gone: the others wait for it in vLLM.
    [gone] = made.sample(asked[:1], samples_per_question=2, settings=SamplingSettings())
    assert [type(result) for result in gone] == [Unsampled, Unsampled]
    assert made.last_prompts == (None,)
    assert len(fake.asked[1][0]) == 2


@pytest.mark.trains
def test_training_with_vllm_shares_prefixes_and_corrects_for_what_it_sampled_with(tmp_path):
    loaded = tiny_random.qwen()
    end = loaded.end_ids[0]
    rows = [tokens(loaded, ANSWERED), [*tokens(loaded, "yes no"), end], [*tokens(loaded, "<answer>2"), end]]
    (tmp_path / "pictures").mkdir()
    made = GritTrainer(
        loaded,
        tiny_random.examples(tmp_path / "pictures", 2),
        args=GRPOConfig(
            output_dir=str(tmp_path / "unused"), use_cpu=True, bf16=False, per_device_train_batch_size=8,
            num_generations=4, max_completion_length=40, max_steps=2, report_to="none", save_strategy="no",
            gradient_checkpointing=False, learning_rate=1e-2, disable_tqdm=True, loss_type="grpo", logging_steps=1,
        ),
        protocol=EvaluationProtocol("direct", loaded.frame, RuleJudge(), Rubric.from_weights({"tag_walk": 1.0, "answer_tag": 0.5})),
    )  # fmt: skip
    # vLLM itself is not here: what TRL would have made with use_vllm stands in for it.
    made.vllm_generation = FakeVllm(rows)
    made.use_vllm, made._last_loaded_step = True, -1
    made.vllm_importance_sampling_correction = True
    start = loaded.model.get_decoder().layers[0].mlp.up_proj.weight.detach().clone()
    made.train()
    assert made.vllm_generation.synced == 2
    assert made.shares_prefix
    assert made.sampler.counts.pictures_encoded == 2 * 2 * 2  # two steps: the correction's pass and the loss
    assert not torch.equal(start, loaded.model.get_decoder().layers[0].mlp.up_proj.weight)
    logged = made.state.log_history[0]
    assert logged["completions/clipped_ratio"] == 0.0  # a row that a stop string ended is not truncated
    # A ratio is exp(log-probability of the model - what vLLM said), here far from 1 for every row.
    assert logged["sampling/sampling_logp_difference/mean"] > 1
    assert logged["sampling/importance_sampling_ratio/min"] < 0.5


def test_a_recipe_asks_for_vllm_in_one_line():
    plain = load_recipe("recipes/demo.yaml")
    assert vllm_settings(plain.train) == {}
    server = load_recipe("recipes/demo.yaml", ["train.vllm_mode=server", "train.vllm_server_port=8001"])
    settings = vllm_settings(server.train)
    assert settings["generation_kwargs"] == {"stop": ["</answer>"], "include_stop_str_in_output": True}
    args = GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, **settings)
    assert (args.use_vllm, args.vllm_mode, args.vllm_server_port) == (True, "server", 8001)
    assert args.vllm_importance_sampling_correction


def test_vllm_that_is_not_installed_is_named_before_anything_loads(tmp_path):
    try:
        import vllm  # noqa: F401

        pytest.skip("vllm is installed")
    except ImportError:
        pass
    recipe = load_recipe("recipes/demo.yaml", ["train.vllm_mode=colocate"])
    with pytest.raises(RecipeError, match=r"vllm_mode colocate needs vllm.*opengrit\[vllm\]"):
        grpo_config(recipe.train, tmp_path)


def test_trl_still_generates_with_vllm_as_we_ask():
    import inspect

    from trl.generation.vllm_generation import VLLMGeneration

    parameters = list(inspect.signature(VLLMGeneration.generate).parameters)
    assert parameters == ["self", "prompts", "images", "num_generations", "profiler"]
    assert "sync_weights" in vars(VLLMGeneration)
    assert "self.rollout_func(prompts, self)" in inspect.getsource(GRPOTrainer._generate)

"""Rollouts by vLLM: what it writes is trimmed and read as our own sampler's, with a stand-in for vLLM itself."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny_random
import torch
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from opengrit.core.errors import ModelError, RecipeError
from opengrit.core.types import Finish
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.recipes.training_recipe import load_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.sampling.vllm import VllmSampler
from opengrit.training.sampler_check import Agreement, agreement
from opengrit.training.settings import grpo_config, vllm_settings
from opengrit.training.trainer import GritTrainer

ANSWERED = "<think>a</think><answer>2</answer>"


class FakeVllm:
    """Answers as TRL's `VLLMGeneration` does: a list of rows to say, one after the other, whatever is asked.

    As vLLM does, it puts the picture's tokens into the prompt, for each picture token that it finds there. With `true`
    the log-probabilities are the model's. What the real one does is tested in tests/engines.
    """

    def __init__(self, rows, loaded, *, expands=True, true=False):
        self._rows = rows
        self._loaded, self._expands, self._true = loaded, expands, true
        self.asked = []
        self.did = []  # in this order
        self.mode = "colocate"
        self.llm = SimpleNamespace(
            llm_engine=SimpleNamespace(reset_encoder_cache=lambda: self.did.append("forget"))
        )

    def sync_weights(self):
        self.did.append("sync")

    def generate(self, *, prompts, images, num_generations, profiler=None):
        self.asked.append((prompts, images, num_generations))
        self.did.append("generate")
        ids = [self._rows[i % len(self._rows)] for i in range(len(prompts))]
        read = [self.read(*row) for row in zip(prompts, images, strict=True)] if self._expands else prompts
        if self._true:
            log_probs = [
                self._scores(p, [image], row) for p, [image], row in zip(read, images, ids, strict=True)
            ]
        else:
            log_probs = [[[-0.5 - 0.25 * place] for place in range(len(row))] for row in ids]
        return read, [list(row) for row in ids], log_probs, None

    def read(self, prompt, images):
        processor = self._loaded.processor
        made = processor(images=[images], text=[processor.image_token], return_tensors="pt")["input_ids"]
        expanded = []
        for token in prompt:
            expanded += made[0].tolist() if token == processor.image_token_id else [token]
        return expanded

    @torch.no_grad()
    def _scores(self, prompt, images, ids):
        processor, model = self._loaded.processor, self._loaded.model
        made = processor(images=[images], text=[processor.image_token], return_tensors="pt")
        whole = torch.tensor([[*prompt, *ids]])
        inputs = {k: v for k, v in made.items() if k in processor.image_processor.model_input_names}
        types = (whole == processor.image_token_id).int()
        logits = model(input_ids=whole, mm_token_type_ids=types, **inputs).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).tolist()


@pytest.fixture
def loaded():
    return tiny_random.qwen()


def tokens(loaded, text):
    return loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def sampler(loaded, *rows):
    fake = FakeVllm(list(rows), loaded)
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
    # One token for the picture: vLLM puts the others in.
    assert prompts[0].count(loaded.processor.image_token_id) == 1
    assert fake.read(prompts[0], images[0]) == list(made.last_prompts[0].ids)
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


@pytest.mark.parametrize("family", [tiny_random.qwen, tiny_random.qwen3, tiny_random.internvl])
def test_each_family_is_handed_over_as_its_chat_template_writes_it(family, tmp_path):
    loaded = family()
    fake = FakeVllm([tokens(loaded, ANSWERED)], loaded)
    made = VllmSampler(TransformersSampler(loaded), fake.generate)
    made.sample([ask(tmp_path)], samples_per_question=1, settings=SamplingSettings())
    [([prompt], [[image]], _)] = fake.asked
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many dogs?"}]}]
    text = loaded.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    assert loaded.processor.tokenizer.decode(prompt) == text
    assert tuple(fake.read(prompt, [image])) == made.last_prompts[0].ids
    expanded = VllmSampler(
        TransformersSampler(loaded), FakeVllm([[1]], loaded).generate, expands_pictures=False
    )
    with pytest.raises(ModelError, match=r"vLLM must read the prompt that is trained on"):
        expanded.sample([ask(tmp_path)], samples_per_question=1, settings=SamplingSettings())


def test_a_server_is_handed_the_pictures_tokens(loaded, tmp_path):
    fake = FakeVllm([tokens(loaded, ANSWERED)], loaded, expands=False)
    made = VllmSampler(TransformersSampler(loaded), fake.generate, expands_pictures=False)
    made.sample([ask(tmp_path)], samples_per_question=1, settings=SamplingSettings())
    assert fake.asked[0][0] == [list(made.last_prompts[0].ids)]


def trainer(loaded, folder, **given):
    (folder / "pictures").mkdir()
    return GritTrainer(
        loaded,
        tiny_random.examples(folder / "pictures", 2),
        args=GRPOConfig(
            output_dir=str(folder / "unused"), use_cpu=True, bf16=False, per_device_train_batch_size=8,
            num_generations=4, max_completion_length=40, max_steps=2, report_to="none", save_strategy="no",
            gradient_checkpointing=False, learning_rate=1e-2, disable_tqdm=True, loss_type="grpo", logging_steps=1,
        ),
        protocol=EvaluationProtocol("direct", loaded.frame, RuleJudge(), Rubric.from_weights({"tag_walk": 1.0, "answer_tag": 0.5})),
    )  # fmt: skip


def with_vllm(made, fake, *, correction=True):
    """vLLM itself is not here: what TRL would have made with use_vllm is `fake`."""
    made.vllm_generation = fake
    made.use_vllm, made.vllm_mode, made._last_loaded_step = True, "colocate", -1
    made.vllm_importance_sampling_correction = correction
    return made


@pytest.mark.trains
@pytest.mark.parametrize("correction", [True, False])
def test_a_sampler_that_read_something_else_ends_the_run_in_its_first_step(tmp_path, correction):
    loaded = tiny_random.qwen()
    made = with_vllm(
        trainer(loaded, tmp_path), FakeVllm([tokens(loaded, ANSWERED), [1]], loaded), correction=correction
    )
    start = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    with pytest.raises(
        ModelError, match=r"agree on the sampled tokens within 0.3 nats a token, they differ by \d"
    ):
        made.train()
    assert all(torch.equal(start[name], value) for name, value in loaded.model.state_dict().items())


def test_agreement_is_of_the_sampled_tokens_of_all_processes():
    own = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]])
    said = [[-1.5, None, -9.0], [-1.0, -0.5, math.nan]]
    found = agreement(own, said, [2, 3])  # three pairs: +0.5, 0, -0.5
    assert found == Agreement(difference=pytest.approx(1 / 3), ratio=pytest.approx(1.0), tokens=3)
    both = agreement(own, said, [2, 3], lambda sums: torch.cat([sums, torch.tensor([[2.0, 2.0, 1.0]])]))
    assert both == Agreement(difference=pytest.approx(0.75), ratio=pytest.approx(math.exp(0.5)), tokens=4)
    assert agreement(own, [[], []], [0, 0]) == Agreement(0.0, 1.0, 0)


@pytest.mark.trains
def test_training_with_vllm_shares_prefixes_and_corrects_for_what_it_sampled_with(tmp_path):
    loaded = tiny_random.qwen()
    end = loaded.end_ids[0]
    rows = [tokens(loaded, ANSWERED), [*tokens(loaded, "yes no"), end], [*tokens(loaded, "<answer>2"), end]]
    made = with_vllm(trainer(loaded, tmp_path), FakeVllm(rows, loaded, true=True))
    start = loaded.model.get_decoder().layers[0].mlp.up_proj.weight.detach().clone()
    made.train()
    # Pictures that were encoded with earlier weights are forgotten, which TRL does not ask for.
    assert made.vllm_generation.did == ["sync", "forget", "generate"] * 2
    assert made.row_scorer.shares_prefix
    assert made.sampler.counts.pictures_encoded == 2 * 2 * 2  # two steps: the correction's pass and the loss
    assert not torch.equal(start, loaded.model.get_decoder().layers[0].mlp.up_proj.weight)
    logged = made.state.log_history[0]
    assert logged["completions/clipped_ratio"] == 0.0  # a row that a stop string ended is not truncated
    # A ratio is exp(log-probability of the model - what vLLM said).
    assert logged["sampling/sampling_logp_difference/mean"] < 1e-4
    assert logged["sampling/importance_sampling_ratio/min"] == pytest.approx(1.0, abs=1e-3)
    assert logged["sampling/logp_difference"] < 1e-4
    assert logged["sampling/ratio"] == pytest.approx(1.0, abs=1e-4)


def test_a_recipe_asks_for_vllm_in_one_line():
    plain = load_recipe("demo")
    assert vllm_settings(plain.train) == {}
    server = load_recipe("demo", ["train.vllm_mode=server", "train.vllm_server_port=8001"])
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
    recipe = load_recipe("demo", ["train.vllm_mode=colocate"])
    with pytest.raises(RecipeError, match=r"vllm_mode colocate needs vllm.*opengrit\[vllm\]"):
        grpo_config(recipe.train, tmp_path)


def test_trl_still_generates_with_vllm_as_we_ask():
    import inspect

    from trl.generation.vllm_generation import VLLMGeneration

    parameters = list(inspect.signature(VLLMGeneration.generate).parameters)
    assert parameters == ["self", "prompts", "images", "num_generations", "profiler"]
    assert "sync_weights" in vars(VLLMGeneration)
    assert "self.rollout_func(prompts, self)" in inspect.getsource(GRPOTrainer._generate)

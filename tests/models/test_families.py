"""Six model classes, random weights, real processor classes: each is asked, trained and read as the real ones are."""

# R rows, T completion tokens.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_random
import torch
from peft import LoraConfig
from PIL import Image
from trl import GRPOConfig

from opengrit.core.boxes import Box, Size
from opengrit.core.drawing import colour_of, draw_boxes
from opengrit.core.errors import ModelError
from opengrit.core.types import Completion, Finish
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.frames import Frame, Unit
from opengrit.inference.answer import read_answer
from opengrit.judges import RuleJudge
from opengrit.models import load
from opengrit.models.families import family_of
from opengrit.models.loading import describe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Asked, Sampled, SamplingSettings
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.training.trainer import GritTrainer

FAMILIES = {
    "Qwen2-VL": tiny_random.qwen2,
    "Qwen2.5-VL": tiny_random.qwen,
    "Qwen3-VL": tiny_random.qwen3,
    "Qwen3-VL-MoE": tiny_random.qwen3_moe,
    "InternVL3": tiny_random.internvl3,
    "InternVL3.5": tiny_random.internvl35,
}
CLASSES = {
    "Qwen2-VL": "Qwen2VLForConditionalGeneration",
    "Qwen2.5-VL": "Qwen2_5_VLForConditionalGeneration",
    "Qwen3-VL": "Qwen3VLForConditionalGeneration",
    "Qwen3-VL-MoE": "Qwen3VLMoeForConditionalGeneration",
    "InternVL3": "InternVLForConditionalGeneration",
    "InternVL3.5": "InternVLForConditionalGeneration",
}
RUBRIC = Rubric.from_weights({"tag_walk": 1.0, "answer_tag": 0.5, "repetition": 0.25})
EIGHT = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 10}
GREEDY = SamplingSettings(temperature=0, max_new_tokens=12, stop=())


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def trainer(loaded, folder, *, lora=None, **changes):
    (folder / "pictures").mkdir()
    settings = {
        "output_dir": str(folder / "unused"), "use_cpu": True, "bf16": False, "per_device_train_batch_size": 16,
        "num_generations": 8, "max_completion_length": 24, "max_steps": 3, "logging_steps": 1,
        "report_to": "none", "save_strategy": "no", "gradient_checkpointing": False, "learning_rate": 1e-2,
        "beta": 0.0, "loss_type": "grpo", "disable_tqdm": True, "seed": 3, "temperature": 1.0,
    }  # fmt: skip
    return GritTrainer(
        loaded,
        tiny_random.examples(folder / "pictures", 2),
        args=GRPOConfig(**{**settings, **changes}),
        protocol=EvaluationProtocol("direct", loaded.frame, RuleJudge(), RUBRIC),
        peft_config=lora,
    )  # fmt: skip


def talkative(family):
    """A model that writes tags and ends often: rewards differ within groups whatever the random numbers.

    Its head's rows get one length, so that every token has some chance (every sixth ends), and the tags' a larger one.
    """
    loaded = tiny_random.talkative(FAMILIES[family]())
    tags = loaded.processor.tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<rethink>", "<answer>"])
    head_VD = loaded.model.get_output_embeddings().weight
    with torch.no_grad():
        head_VD /= 2 * head_VD.norm(dim=1, keepdim=True).clamp(min=1e-3)
        head_VD[tags] *= 8
    return loaded


def state(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def learned(before, model):
    return {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}


def prepared(loaded, folder):
    """Two questions about pictures of different sizes, one across and one upright."""
    sampler = TransformersSampler(loaded)
    shapes = {"a": (100, 60), "b": (60, 130)}
    return sampler, [
        sampler.prepare(Asked(n, tiny_random.picture(folder, f"{n}.png", width=w, height=h), "yes" * (w // 60)))
        for n, (w, h) in shapes.items()
    ]  # fmt: skip


def plain_inputs(loaded, prompt, completion=()):
    """What the processor itself would hand to the model's forward for one row: pixels, no cache, no padding."""
    ids = torch.tensor([[*prompt.ids, *completion]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **prompt.picture.inputs}
    if loaded.family.has_grid:
        is_picture = torch.tensor(
            [[i == loaded.processor.image_token_id for i in prompt.ids] + [False] * len(completion)]
        )
        inputs["mm_token_type_ids"] = is_picture.int()
    return inputs  # fmt: skip


def test_the_class_is_the_real_one_and_the_family_comes_from_its_config(family, tmp_path):
    """Saved and loaded by `load`, which finds model and processor classes as it does for a model of the hub."""
    folder = tiny_random.save(FAMILIES[family](), tmp_path / "saved")
    loaded = load(str(folder))
    assert type(loaded.model).__name__ == CLASSES[family]
    assert type(loaded.processor).__name__ == type(FAMILIES[family]().processor).__name__
    assert loaded.family is family_of(loaded.model.config.model_type)
    unit = Frame.for_model_type(loaded.frame, seen_size=Size(10, 10)).unit
    assert unit is (Unit.PIXELS if family == "Qwen2.5-VL" else Unit.THOUSAND)


def test_vision_is_where_the_family_says_it_is(family):
    """What is frozen with `freeze_vision` and left without adapters: the tower and its projector, and nothing else."""
    loaded = FAMILIES[family]()
    vision = {n for n, _ in loaded.model.named_parameters() if loaded.family.is_vision(n)}
    others = {n for n, _ in loaded.model.named_parameters()} - vision
    assert vision
    assert all(n.startswith(("model.language_model.", "lm_head.")) for n in others)
    assert any("merg" in n or "projector" in n for n in vision)


def test_greedy_tokens_are_those_of_the_models_own_generate(family, tmp_path):
    loaded = FAMILIES[family]()
    sampler, prompts = prepared(loaded, tmp_path)
    asked = [
        Asked(p.picture.key[0], p.picture.key[0], "yes" * n) for p, n in zip(prompts, (1, 1), strict=True)
    ]
    for (ours,), prompt in zip(
        sampler.sample(asked, samples_per_question=1, settings=GREEDY), prompts, strict=True
    ):
        theirs = loaded.model.generate(
            **plain_inputs(loaded, prompt), max_new_tokens=12, do_sample=False,
            suppress_tokens=list(loaded.forbidden_ids), eos_token_id=list(loaded.end_ids),
        )  # fmt: skip
        assert list(ours.completion.token_ids) == theirs[0, len(prompt.ids) :].tolist()


@pytest.mark.parametrize("shares_prefix", [True, False])
def test_log_probabilities_and_gradients_are_those_of_plain_forward_passes(family, shares_prefix, tmp_path):
    """Each row alone, from pixels, without padding or cache, is what the shared passes must equal."""
    made = trainer(talkative(family), tmp_path, **EIGHT)
    made.row_scorer = replace(made.row_scorer, shares_prefix=shares_prefix)
    made.model.train()
    output = made._generate_and_score_completions([made.train_dataset[i // 4] for i in range(8)])
    mask_RT = output["completion_mask"].bool()
    weight_RT = mask_RT * torch.arange(1, 9)[:, None]

    def gradients(log_probs_RT):
        made.model.zero_grad()
        (log_probs_RT * weight_RT).sum().backward()
        return {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}

    ours_RT, _, _ = made._get_per_token_logps_and_entropies(
        made.model,
        torch.cat([output["prompt_ids"], output["completion_ids"]], 1),
        torch.cat([output["prompt_mask"], output["completion_mask"]], 1),
        output["completion_ids"].shape[1],
    )
    our_gradients = gradients(ours_RT)
    plain_RT = torch.stack(
        [row_alone(made, row, ids) for row, ids in enumerate(output["completion_ids"].tolist())]
    )
    plain_gradients = gradients(plain_RT)
    assert (ours_RT - plain_RT)[mask_RT].abs().max().item() < 1e-5
    assert our_gradients.keys() == plain_gradients.keys()
    for name, gradient in our_gradients.items():
        scale = plain_gradients[name].abs().max().item()
        assert (gradient - plain_gradients[name]).abs().max().item() <= 1e-3 * scale + 1e-4, name
    if "Qwen3" in family:  # the deeper features reach the loss, and the loss reaches them
        assert any("deepstack" in n and g.abs().max() > 0 for n, g in our_gradients.items())


def row_alone(made, row, completion):
    """The log-probabilities of one row's completion, by the model's own forward pass."""
    prompt = made.rollouts.prompts[row]
    logits = made.model(**plain_inputs(made.loaded, prompt, completion)).logits[0, len(prompt.ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


@pytest.mark.trains
def test_three_steps_of_training_move_language_and_vision(family, tmp_path):
    made = trainer(talkative(family), tmp_path)
    before = state(made.model)
    made.train()
    assert made.state.global_step == 3
    moved = learned(before, made.model)
    assert all(torch.isfinite(value).all() for value in made.model.parameters())
    assert {made.loaded.family.is_vision(name) for name in moved} == {True, False}


@pytest.mark.trains
def test_adapters_on_the_language_model_leave_the_vision_tower_alone(family, tmp_path):
    loaded = talkative(family)
    lora = LoraConfig(
        r=4, target_modules="all-linear", exclude_modules=loaded.family.lora_exclude, task_type="CAUSAL_LM"
    )
    made = trainer(loaded, tmp_path, lora=lora)
    before = state(made.model)
    made.train()
    moved = learned(before, made.model)
    assert moved
    assert all("lora_" in name for name in moved)
    assert not any(loaded.family.is_vision(name) for name in before if "lora_" in name)


@pytest.mark.parametrize("lora", [False, True])
def test_a_picture_token_in_a_completion_is_scored_and_crashes_nothing(family, lora, tmp_path):
    """No sampler of ours samples one, but a file or another server may hold one: it is a token like any other then."""
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    made = trainer(talkative(family), tmp_path, lora=config, **EIGHT)
    made.model.train()
    output = made._generate_and_score_completions([made.train_dataset[i // 4] for i in range(8)])
    ids_RT = output["completion_ids"].clone()
    forbidden = [i for i in made.loaded.forbidden_ids if i < len(made.loaded.processor.tokenizer)]
    mask_RT = output["completion_mask"]
    for row, length in enumerate(mask_RT.sum(1).tolist()):
        ids_RT[row, 0] = forbidden[row % len(forbidden)]
        ids_RT[row, length // 2 : length] = made.loaded.processor.image_token_id
    prompt = torch.cat([output["prompt_mask"], mask_RT], 1)
    found = []
    for shares_prefix in (True, False):
        made.row_scorer = replace(made.row_scorer, shares_prefix=shares_prefix)
        log_probs_RT, _, _ = made._get_per_token_logps_and_entropies(
            made.model, torch.cat([output["prompt_ids"], ids_RT], 1), prompt, ids_RT.shape[1]
        )
        (log_probs_RT * mask_RT).sum().backward()
        found.append(log_probs_RT.detach() * mask_RT)
    assert torch.isfinite(found[0]).all()
    assert (found[0] < 0).sum() == mask_RT.sum()
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)  # fmt: skip


def test_no_token_that_stands_for_pictures_is_ever_sampled(family):
    loaded = FAMILIES[family]()
    written = loaded.processor.tokenizer.get_vocab()
    present = {written[token] for token in loaded.family.picture_tokens if token in written}
    assert loaded.processor.image_token_id in present
    assert len(present) >= 4
    assert present <= set(loaded.forbidden_ids)
    assert not present & set(loaded.end_ids)


# A box, from the picture to the model's numbers and back.

SIZES = [
    (28, 28), (9, 31), (112, 168), (640, 480), (480, 640), (333, 500), (1000, 1000), (1080, 1920), (300, 40),
    (60, 900), (3000, 2000),
]  # fmt: skip
REAL_BUDGETS = {  # of the processors on the hub: pixels, or tiles
    "Qwen2-VL": {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 16384},
    "Qwen2.5-VL": {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 16384},
    "Qwen3-VL": {"min_pixels": 256 * 256, "max_pixels": 4096 * 4096},
    "Qwen3-VL-MoE": {"min_pixels": 256 * 256, "max_pixels": 4096 * 4096},
    "InternVL3": {"max_tiles": 12},
    "InternVL3.5": {"max_tiles": 12},
}
PAPER_BUDGETS = {  # GRIT's own, where it has one
    **{name: {"min_pixels": 3136, "max_pixels": 200704} for name in REAL_BUDGETS},
    "InternVL3": {"max_tiles": 2},
    "InternVL3.5": {"max_tiles": 2},
}


def whole_pixel_boxes(size):
    """A box in the middle, one of a single pixel, and the whole picture, on whole pixels."""
    w, h = size
    return [
        (w // 4, h // 3, max(w // 4 + 1, w * 3 // 4), max(h // 3 + 1, h * 2 // 3)),
        (w - 1, h - 1, w, h),
        (0, 0, w, h),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("budgets", [REAL_BUDGETS, PAPER_BUDGETS], ids=["hub", "paper"])
def test_a_box_comes_back_through_prompt_processor_parse_and_draw(family, budgets, tmp_path):
    """Within a pixel of the picture, or within one step of the numbers that the model writes where a step is larger.

    A step is a thousandth of the picture's side, or (Qwen2.5-VL) a pixel of the picture as its processor made it.
    """
    folder = tiny_random.save(FAMILIES[family](), tmp_path / "saved")
    loaded = load(str(folder), **budgets[family])
    sampler = TransformersSampler(loaded)
    for width, height in SIZES:
        path = tmp_path / f"{width}x{height}.png"
        Image.new("RGB", (width, height), "white").save(path)
        prompt = sampler.prepare(Asked("a", str(path), "Where is the dog?"))
        assert prompt.ids.count(loaded.processor.image_token_id) == picture_tokens(loaded, prompt)
        frame = Frame.for_model_type(loaded.frame, seen_size=prompt.picture.seen_size)
        for pixels in whole_pixel_boxes((width, height)):
            written = [int(n) for n in frame.from_box(Box.from_pixels(*pixels, size=Size(width, height)))]
            text = (
                f'<think> {{"bbox_2d": {written}, "label": "dog"}} </think><rethink> </rethink><answer> here'
            )
            answer = read_answer(
                Sampled(Completion(text, (), Finish.EOS), prompt.ids, prompt.picture.seen_size),
                question="Where is the dog?", picture_size=Size(width, height), strategy="grounded",
                frame_name=loaded.frame, seconds=0.0, model=loaded.name,
            )  # fmt: skip
            (found,) = answer.boxes
            steps = (width / frame.extent[0], height / frame.extent[1]) * 2
            for was, came_back, step in zip(pixels, found.pixels, steps, strict=True):
                assert abs(was - came_back) <= max(1.0, step), (width, height, pixels, found.pixels)
            if pixels[0] > 0 and pixels[2] < width and min(width, height) >= 100:
                assert_drawn(
                    draw_boxes(Image.open(path), answer.boxes), pixels, (width, height), max(1.0, *steps)
                )


def assert_drawn(drawn, pixels, size, slack):
    """The left and right line of a box stand where the box does, on the row through its middle."""
    scale = drawn.width / size[0]
    left, top, right, bottom = (n * scale for n in pixels)
    paper = tuple(int(colour_of(1)[0][i : i + 2], 16) for i in (1, 3, 5))
    row = np.asarray(drawn)[round((top + bottom) / 2)]
    columns = np.flatnonzero((row == paper).all(-1))
    for edge in (left, right):
        assert np.abs(columns - edge).min() <= slack * scale, (size, pixels, columns)


def picture_tokens(loaded, prompt):
    """How many tokens the model will be given for the picture, by the arithmetic of its family."""
    inputs = prompt.picture.inputs
    if loaded.family.has_grid:
        return int(inputs["image_grid_thw"].prod()) // loaded.processor.image_processor.merge_size**2
    return len(inputs["pixel_values"]) * loaded.processor.image_seq_length


# Chat templates.


def said_before_a_completion(loaded, folder):
    _, (prompt, _) = prepared(loaded, folder)
    return loaded.processor.tokenizer.decode(prompt.ids, clean_up_tokenization_spaces=False)


def test_a_familys_own_system_turn_is_kept_and_none_is_added(tmp_path):
    """Qwen2-VL and Qwen2.5-VL were trained with one; Qwen3-VL and InternVL were not."""
    for name, family in FAMILIES.items():
        folder = tmp_path / name
        folder.mkdir()
        said = said_before_a_completion(family(), folder)
        assert said.startswith("<|im_start|>system\nYou are a helpful assistant.") == (name == "Qwen2-VL")
        assert said.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_thinking_template_leaves_the_opening_of_the_thought_to_the_model(tmp_path):
    """GRIT's completions open with <think>; a prompt that did so already would leave them without."""
    loaded = tiny_random.qwen3(thinking=True)
    said = said_before_a_completion(loaded, tmp_path)
    assert said.endswith("<|im_start|>assistant\n")
    assert "<think>" not in said
    again = load(str(tiny_random.save(loaded, tmp_path / "saved")))
    assert said_before_a_completion(again, tmp_path) == said


def test_a_thinking_template_as_the_hub_writes_it_is_settled_too():
    """With the line end spelt as a backslash and an n inside a Jinja string."""
    loaded = tiny_random.qwen3()
    template = loaded.processor.chat_template
    loaded.processor.chat_template = template.replace(
        "<|im_start|>assistant\n", "{{- '<|im_start|>assistant\\n<think>\\n' }}"
    )
    turn = [{"role": "user", "content": [{"type": "image"}]}]
    opened = loaded.processor.apply_chat_template(turn, add_generation_prompt=True)
    assert opened.endswith("<|im_start|>assistant\n<think>\n")
    settled = describe(loaded.model, loaded.processor).processor
    assert settled.apply_chat_template(turn, add_generation_prompt=True).endswith("<|im_start|>assistant\n")


def test_a_thought_that_cannot_be_taken_out_of_a_template_is_an_error():
    loaded = tiny_random.qwen3()
    template = loaded.processor.chat_template
    loaded.processor.chat_template = template.replace(
        "<|im_start|>assistant\n", "<|im_start|>assistant\n{{ '<thi' }}nk>\n"
    )
    with pytest.raises(ModelError, match="generation prompt"):
        describe(loaded.model, loaded.processor)


def test_a_template_that_drops_the_picture_is_an_error():
    """Training without the picture is silent otherwise."""
    loaded = tiny_random.qwen3()
    loaded.processor.chat_template = loaded.processor.chat_template.replace("<|image_pad|>", "")
    with pytest.raises(ModelError, match="shows it 0 times"):
        describe(loaded.model, loaded.processor)


def test_a_processor_without_a_template_is_an_error():
    loaded = tiny_random.qwen3()
    loaded.processor.chat_template = None
    with pytest.raises(ModelError, match="chat template"):
        describe(loaded.model, loaded.processor)

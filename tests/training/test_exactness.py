"""Sharing pictures and prompts changes the work, never the result: log-probabilities and weights are stock TRL's."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import pytest
import tiny_random
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from stock_trl import stock_inputs
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

import opengrit.models
from opengrit.core.types import Completion, Finish
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.prompts import user_text
from opengrit.judges import RuleJudge
from opengrit.recipes.objective import Advantage, Objective
from opengrit.recipes.train_section import Train
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import RunDir
from opengrit.sampling import Sampled
from opengrit.training.rollouts import completion_row
from opengrit.training.shared_prefix import pack
from opengrit.training.trainable_weights import freeze_vision_weights
from opengrit.training.trainer import GritTrainer

FAMILIES = {"qwen": tiny_random.qwen, "internvl": tiny_random.internvl}
RUBRIC = Rubric.from_weights({"tag_walk": 1.0, "answer_tag": 0.5, "repetition": 0.25})
POINTED = '<think>{"bbox_2d": [1, 2, 30, 40]}</think><rethink>two</rethink><answer>2</answer>'
PLAIN = [
    "<think>no</think><rethink></rethink><answer>no</answer>",
    "yes",
    "<think>dogs",
    "<answer>1</answer>",
]


class Script:
    """A sampler that picks completions from a list of texts, each with an end of its own; question e0 never points."""

    def __init__(self, loaded, *, seed=0):
        self._loaded = loaded
        self._random = random.Random(seed)

    def sample(self, questions, *, samples_per_question, settings, listener=None):
        return [[self._one(q, settings) for _ in range(samples_per_question)] for q in questions]

    def _one(self, question, settings):
        texts = PLAIN if question.id == "e0" else [*PLAIN, POINTED]
        text = self._random.choice(texts) + " how" * self._random.randrange(4)
        ids = self._loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        finish = self._random.choice([Finish.EOS, Finish.EOS, Finish.STOP, Finish.LENGTH])
        if finish is Finish.EOS:
            ids = [*ids, self._loaded.end_ids[0]]
        size = Image.open(question.image).size
        return Sampled(Completion(text, tuple(ids), finish), (), tiny_random.Size(*size))


def config(folder, *, questions, group, **changes):
    settings = {
        "output_dir": str(folder / "unused"), "use_cpu": True, "bf16": False,
        "per_device_train_batch_size": questions * group, "num_generations": group, "max_completion_length": 100,
        "max_steps": 3, "logging_steps": 1, "report_to": "none", "save_strategy": "no", "gradient_checkpointing": False,
        "learning_rate": 1e-3, "beta": 0.0, "loss_type": "grpo", "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    return GRPOConfig(**{**settings, **changes})


def examples(folder, count):
    (folder / "pictures").mkdir(exist_ok=True)
    return tiny_random.examples(folder / "pictures", count)


def grit(folder, loaded, *, questions, group, lora=None, run=None, **changes):
    combine = changes.get("multi_objective_aggregation", "sum_then_normalize")
    return GritTrainer(
        loaded,
        examples(folder, questions),
        args=config(folder, questions=questions, group=group, **changes),
        protocol=EvaluationProtocol("direct", loaded.frame, RuleJudge(), RUBRIC),
        rollout_sampler=Script(loaded),
        peft_config=lora,
        run=run,
        advantage=Advantage(combine=combine),
    )


def spoken(made, *, times=1):
    """A generation batch of every example, `times` over."""
    made.model.train()
    group = made.num_generations
    rows = [made.train_dataset[i] for i in range(len(made.examples)) for _ in range(group)]
    for _ in range(times):
        output = made._generate_and_score_completions(rows)
    return output


def scores(made, output, method):
    """Log-probabilities and entropies of the sampled tokens by a trainer's method."""
    if method is GRPOTrainer:
        ids, mask, vision = stock_inputs(made, output)
    else:
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
        mask, vision = torch.cat([output["prompt_mask"], output["completion_mask"]], 1), {}
    width = output["completion_ids"].shape[1]
    with stock_head(made) if method is GRPOTrainer else nullcontext():
        log_probs, entropies, _ = method._get_per_token_logps_and_entropies(
            made, made.model, ids, mask, width, compute_entropy=True, **vision
        )
    sampled = output["completion_mask"] * output["tool_mask"]
    return log_probs * sampled, entropies * sampled


@contextmanager
def stock_head(made):
    """TRL's fused head in place of ours."""
    ours = made.model.forward
    del made.model.forward
    add_fused_lm_head(made.model, temperature=made.temperature, outputs=("log_probs", "entropy"))
    yield
    made.model.forward = ours


def gradients(made, log_probs):
    made.model.zero_grad()
    weights = torch.linspace(-1, 1, log_probs.numel()).view_as(log_probs)
    (log_probs * weights).sum().backward()
    return {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}


def close_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-6, name


@pytest.mark.parametrize("group", [2, 4, 8])
@pytest.mark.parametrize("questions", [1, 2, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_stock_trl(family, questions, group, tmp_path):
    made = grit(tmp_path, FAMILIES[family](), questions=questions, group=group)
    assert made.row_scorer.shares_prefix
    output = spoken(made)
    with torch.no_grad():
        ours, our_entropy = scores(made, output, GritTrainer)
        theirs, their_entropy = scores(made, output, GRPOTrainer)
    assert theirs.min() < -1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_entropy, their_entropy, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_stock_trl_and_are_recomputed_alike(
    family, attention, checkpointing, tmp_path
):
    loaded = FAMILIES[family]()
    loaded.model.set_attn_implementation(attention)
    made = grit(
        tmp_path, loaded, questions=2, group=4, gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
    )  # fmt: skip
    assert made.row_scorer.shares_prefix
    output = spoken(made)
    if checkpointing:
        made.model.gradient_checkpointing_enable(made.args.gradient_checkpointing_kwargs)
    layer_passes = Counter()
    made.model.get_decoder().layers[0].self_attn.register_forward_hook(
        lambda *_: layer_passes.update(["passed"])
    )
    log_probs, _ = scores(made, output, GritTrainer)
    ours = gradients(made, log_probs)
    assert layer_passes["passed"] == (2 if checkpointing else 1)  # the second is the recomputation
    theirs = gradients(made, scores(made, output, GRPOTrainer)[0])
    close_gradients(ours, theirs)
    assert any("vis" in name and gradient.abs().max() > 0 for name, gradient in ours.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_that_takes_no_packed_rows_reads_prompts_row_by_row_and_says_so(family, tmp_path, caplog):
    loaded = FAMILIES[family]()
    loaded.model.get_decoder().config._attn_implementation = "flex_attention"
    with caplog.at_level("WARNING", logger="opengrit"):
        made = grit(tmp_path, loaded, questions=2, group=2)
    assert not made.row_scorer.shares_prefix
    assert caplog.text.count("'flex_attention' cannot take packed rows") == 1
    loaded.model.get_decoder().config._attn_implementation = "sdpa"
    output = spoken(made)
    ours = gradients(made, scores(made, output, GritTrainer)[0])
    close_gradients(ours, gradients(made, scores(made, output, GRPOTrainer)[0]))


# Weights after three steps.


@dataclass(frozen=True)
class Said:
    """What a row of our run said, for the stock trainer to say again."""

    ids: list[int]
    mask: list[int]
    total: float | None
    parts: dict[str, float | None]


def said_in(run, made):
    """Of each generation: each example's rows, in order."""
    generations = []
    for record in run.records():
        while len(generations) < record.step:
            generations.append({})
        ids, mask = completion_row(
            record, end_ids=made.eos_token_ids, appended_id=made._tokenizer.eos_token_id
        )
        generations[record.step - 1].setdefault(record.example.id, []).append(
            Said(ids, mask, record.score.total, record.score.parts)
        )
    return [g for g in generations if g]  # with two steps a generation every second is empty


def stock(folder, loaded, made, generations, *, lora, **settings):
    """TRL's own trainer, which gets what our run sampled and what that was worth."""
    rows = made.examples
    by_text = {user_text("direct", e.question, family=loaded.frame): e.id for e in rows}
    given: dict[str, list] = {}
    turn = iter(generations)

    def say_again(prompts, trainer):
        generation = {name: iter(said) for name, said in next(turn).items()}
        names = [by_text[p[0]["content"][-1]["text"]] for p in prompts]
        given["rows"] = [next(generation[name]) for name in names]
        prompt_ids, _, _ = trainer._tokenize_prompts(prompts)
        return {
            "prompt_ids": prompt_ids, "completion_ids": [s.ids for s in given["rows"]], "logprobs": None,
            "env_mask": [s.mask for s in given["rows"]],
        }  # fmt: skip

    def worth(**_):
        return [s.total for s in given["rows"]]

    def part(name):
        def column(**_):
            return [None if s.total is None else s.parts[name] for s in given["rows"]]

        return column

    apart = settings.get("multi_objective_aggregation") == "normalize_then_sum"
    functions = [part(name) for name in RUBRIC.weights] if apart else [worth]
    settings |= {"reward_weights": list(RUBRIC.weights.values())} if apart else {}

    dataset = Dataset.from_dict(
        {
            "prompt": [
                [{"role": "user", "content": user_text("direct", e.question, family=loaded.frame)}]
                for e in rows
            ],
            "image": [Image.open(e.image).convert("RGB") for e in rows],
        }
    )
    return GRPOTrainer(
        model=loaded.model, reward_funcs=functions, train_dataset=dataset, processing_class=loaded.processor,
        args=config(folder, **settings), peft_config=lora, rollout_func=say_again,
    )  # fmt: skip


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


LORA = {"r": 4, "target_modules": "all-linear", "exclude_modules": r".*(visual|vision_tower|projector).*"}
CHECKPOINTING = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
COURSES = {
    "plain": {},
    "small passes, checkpointing": {
        **CHECKPOINTING, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
    },
    "KL": {"beta": 0.1},
    "two steps a generation": {"num_iterations": 2, "max_steps": 4, "loss_type": "dapo"},
    "GSPO": {
        "num_iterations": 2, "max_steps": 4, "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4,
    },
    "CISPO": {"loss_type": "cispo", "epsilon_high": 5.0},
    # First tokens of a group have one entropy: where the threshold is theirs, rounding decides which of them are in.
    "high entropy": {"top_entropy_quantile": 0.43},
    "truncated masked": {"mask_truncated_completions": True, "loss_type": "dapo", "num_iterations": 2, "max_steps": 4},
    "rewards apart": {"multi_objective_aggregation": "normalize_then_sum"},
    "LoRA": {"lora": LORA},
    "LoRA, KL, two steps a generation": {"lora": LORA, "beta": 0.1, "num_iterations": 2, "max_steps": 4},
}  # fmt: skip


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_after_some_steps_are_those_of_stock_trl(family, course, tmp_path):
    settings = dict(COURSES[course])
    lora = LoraConfig(**settings.pop("lora")) if "lora" in settings else None
    folder = str(tiny_random.save(FAMILIES[family](), tmp_path / "base"))
    shape = {"questions": 2, "group": 4, **settings}
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    torch.manual_seed(0)  # an adapter starts at random
    ours = grit(tmp_path, opengrit.models.load(folder), lora=lora, run=run, **shape)
    before = weights(ours.model)
    ours.train()
    torch.manual_seed(0)
    loaded = opengrit.models.load(folder)
    theirs = stock(tmp_path, loaded, ours, said_in(run, ours), lora=lora, **shape)
    assert all(torch.equal(value, before[name]) for name, value in weights(theirs.model).items())
    theirs.train()
    assert ours.state.global_step == theirs.state.global_step == shape.get("max_steps", 3)
    apart = {n: ours.model.get_parameter(n) - value for n, value in weights(theirs.model).items()}
    moved = {n: value - before[n] for n, value in weights(theirs.model).items()}
    assert sum(bool(way.any()) for way in moved.values()) >= 10
    for name, way in moved.items():
        # A bias that began at zero is nothing but its way, and Adam makes ways of rounding.
        assert apart[name].norm() <= 1e-5 * before[name].norm() + 1e-3 * way.norm(), name
    assert norm(apart) <= 1e-5 * norm(before)
    assert norm(apart) <= 1e-3 * norm(moved)


def norm(tensors):
    return torch.stack([value.detach().norm() for value in tensors.values()]).norm()


# Work.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_without_an_advantage_costs_no_gradient_and_changes_none(family, tmp_path):
    made = grit(tmp_path, FAMILIES[family](), questions=3, group=4)
    output = spoken(made)
    output["advantages"] = torch.tensor([0.0] * 4 + [1.0, -1.0, 0.0, 0.5] + [0.0] * 4)
    learned = Counter()
    made.model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: learned.update({torch.is_grad_enabled(): kwargs["inputs_embeds"].shape[1]}),
        with_kwargs=True,
    )

    def step(compute):
        made._metrics["train"].clear()
        made.model.zero_grad()
        loss = compute(made.model, output)
        loss.backward()
        return loss.item(), {
            n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None
        }

    made.current_gradient_accumulation_steps = 1
    loss, ours = step(made._compute_loss)
    entropy = made.metric_sums.values()["entropy"]  # moved there, weighted by tokens
    assert 0 < learned[True] < learned[False]  # one group of three is learned from
    whole, theirs = step(lambda model, inputs: GRPOTrainer._compute_loss(made, model, inputs))
    assert loss == pytest.approx(whole, abs=1e-6)
    assert [entropy] == pytest.approx(made._metrics["train"]["entropy"], rel=1e-5)
    close_gradients(ours, theirs)


def test_a_step_without_any_advantage_still_has_a_gradient_of_zero(tmp_path):
    made = grit(tmp_path, tiny_random.qwen(), questions=2, group=2)
    output = spoken(made)
    output["advantages"] = torch.zeros(4)
    made.current_gradient_accumulation_steps = 1
    made._compute_loss(made.model, output).backward()
    assert all(not p.grad.any() for p in made.model.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in made.model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_reads_each_prompt_once_and_pads_little(family, tmp_path):
    made = grit(tmp_path, FAMILIES[family](), questions=5, group=8)
    output = spoken(made)
    tokens = Counter()
    made.model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: tokens.update(read=kwargs["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    scores(made, output, GritTrainer)
    prompts = {id(p): len(p.ids) for p in made.rollouts.prompts}
    assert len(prompts) == 5
    least = sum(prompts.values()) + sum(made.rollouts.lengths)  # U (P + G C)
    assert 0.95 * least <= tokens["read"] <= 1.05 * least
    assert (output["completion_mask"].sum(1) != output["completion_mask"].shape[1]).any()


@pytest.mark.parametrize(("frozen", "encoded"), [(False, 3 * 3 * 4), (True, 4)])
def test_pictures_are_encoded_once_a_pass_and_once_a_run_where_the_tower_is_frozen(frozen, encoded, tmp_path):
    folder = str(tiny_random.save(tiny_random.talkative(tiny_random.qwen()), tmp_path / "base"))
    loaded = opengrit.models.load(folder)
    if frozen:
        freeze_vision_weights(loaded)
    made = grit(tmp_path, loaded, questions=4, group=8, beta=0.1, max_completion_length=8)
    made.rollout_sampler = None  # the model samples
    made.train()
    # Three steps of four questions: generation, reference and loss; stock TRL encodes 3 x 3 x 32.
    assert made.sampler.counts.pictures_encoded == encoded
    assert made.sampler.counts.pictures_prepared == 4  # stock TRL: 3 x 2 x 32


def test_without_a_kl_term_there_is_no_reference(tmp_path):
    made = grit(tmp_path, tiny_random.qwen(), questions=2, group=2, max_steps=1)
    made.train()
    assert made.ref_model is None
    assert made.sampler.counts.pictures_encoded == 2  # the script samples: only the loss looks


@pytest.mark.parametrize(
    ("prompts", "rows"),
    [([5], [1]), ([40, 41, 30], [7] * 24), ([10, 300], list(range(1, 17))), ([6, 6], [1, 100, 1, 100])],
)
def test_a_packing_holds_every_row_once_and_pads_little(prompts, rows):
    group = len(rows) // len(prompts)
    packing = pack(prompts, [r // group for r in range(len(rows))], rows)
    assert sorted(u for s in packing.sections for u in s.prompts) == list(range(len(prompts)))
    held = [r for s in packing.sections for rectangle in s.rectangles for r in rectangle.rows]
    assert sorted(held) == list(range(len(rows)))
    least = sum(prompts) + sum(rows)
    assert least <= packing.num_tokens <= 1.1 * least
    for section in packing.sections:
        for rectangle in section.rectangles:
            for row, place, seen in zip(
                rectangle.rows, rectangle.prompt_B.tolist(), rectangle.seen, strict=True
            ):
                assert section.prompts[place] == row // group
                first, last = seen[0, 0], seen[0, rows[row] - 1]
                assert first.sum() == prompts[row // group] + 1
                assert last.sum() == prompts[row // group] + rows[row]


# Objectives.

OBJECTIVES = {
    "clip higher": {"epsilon": 0.1, "epsilon_high": 0.4},
    "GSPO": {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 0.2},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.2},
    "sapo": {"loss_type": "sapo"},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "vespo": {"loss_type": "vespo"},
    "truncated masked": {"mask_truncated_completions": True, "beta": 0.1},
    "high entropy": {"top_entropy_quantile": 0.3},
    "tokens": {"beta": 0.1},  # an advantage for each token
    "tokens, GSPO": {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 0.2},
    "tokens, dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
}


def loss_and_gradients(made, method, inputs):
    made.model.zero_grad()
    loss = method._compute_loss(made, made.model, inputs)
    loss.backward()
    found = {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}
    return loss.item(), found


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_of_an_objective_is_that_of_stock_trl_on_the_same_rollouts(objective, tmp_path, monkeypatch):
    section = Train.model_validate({"num_iterations": 2, "beta": 0.0, **OBJECTIVES[objective]})
    passed = section.model_dump(include=set(Objective.model_fields))
    loaded = opengrit.models.load(str(tiny_random.save(FAMILIES["qwen"](), tmp_path / "base")))
    made = grit(tmp_path, loaded, questions=2, group=8, max_steps=4, **passed)
    output = spoken(made)
    assert (output["completion_mask"].sum(1) == 0).any() == (objective == "truncated masked")
    # Weights that have moved since the rollouts: ratios on both sides of every clip range.
    noise = torch.Generator().manual_seed(0)
    apart = torch.rand(output["old_per_token_logps"].shape, generator=noise) - 0.5
    output["old_per_token_logps"] = output["old_per_token_logps"] + apart
    output["advantages"] = output["advantages"] + torch.linspace(-1, 1, len(output["advantages"]))
    if objective.startswith("tokens"):
        of_tokens = torch.rand(output["completion_ids"].shape, generator=noise) - 0.5
        output["advantages"] = output["advantages"][:, None] + of_tokens
    made.current_gradient_accumulation_steps = 1
    ours = loss_and_gradients(made, GritTrainer, output)
    ids, mask, vision = stock_inputs(made, output)
    width = output["completion_ids"].shape[1]
    rows = {"prompt_ids": ids[:, :-width], "prompt_mask": mask[:, :-width]}
    monkeypatch.setattr(
        made,
        "_get_per_token_logps_and_entropies",
        GRPOTrainer._get_per_token_logps_and_entropies.__get__(made),
    )
    with stock_head(made):
        theirs = loss_and_gradients(made, GRPOTrainer, output | rows | vision)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5, rel=1e-5)
    close_gradients(ours[1], theirs[1])
    assert norm(theirs[1]) > 1e-3

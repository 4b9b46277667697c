"""The part `attention` of `benchmarks/gpu.sh`: log-probabilities and seconds by each kind of attention and of numbers."""

# N rows, T completion tokens, L prompt and completion tokens, V entries of the vocabulary.
from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from typing import Any

import torch

import generate
import step
from gpu_memory import as_run
from gpu_setting import Canned, Setting, has, questions_of, say
from opengrit.core.types import Completion, Finish
from opengrit.data import load_examples
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.models.families import Loaded
from opengrit.recipes.training_recipe import load_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Asked, Sampled
from opengrit.sampling.model_inputs import PreparedPrompt
from opengrit.training.settings import grpo_config
from opengrit.training.trainer import GritTrainer
from shapes import build


def attention(setting: Setting) -> None:
    """Log-probabilities of the same random completions by each path, against float32; and what a pass takes."""
    loaded = build(setting.scale.qwen, dtype=torch.float32)
    canned = Canned(loaded, setting.scale.tokens)
    prompt = canned.prompts.prepare(questions_of(loaded, 1)[0])
    ids_NT = torch.tensor(
        [canned.one(questions_of(loaded, 1)[0]).completion.token_ids for _ in range(setting.scale.rows)]
    )
    say(
        f"{setting.scale.rows} completions of {setting.scale.tokens} random tokens after one prompt of {len(prompt.ids)}, random "
        "weights: differences in log-probability, nats a token, from float32 with SDPA; seconds of a forward and backward pass "
        "(median of three).",
        "",
        "| numbers | attention | mean difference | largest | likeliest token the same | seconds |",
        "|---|---|---|---|---|---|",
    )
    known = log_probabilities(loaded, prompt, ids_NT)
    say(f"| float32 | sdpa | - | - | - | {pass_seconds(loaded, prompt, ids_NT):.3f} |")
    # Built in bfloat16, not cast to it: a cast would round the frequencies of the positions as well.
    half = build(setting.scale.qwen, dtype=torch.bfloat16)
    half.model.load_state_dict(loaded.model.state_dict())
    for kind in ("sdpa", "eager", "flash_attention_2"):
        if kind == "flash_attention_2" and not (has("flash_attn") and torch.cuda.is_available()):
            say(f"| bfloat16 | {kind} | not measured: flash-attn is not installed, or no GPU | | | |")
            continue
        half.model.set_attn_implementation(kind)
        found = log_probabilities(half, prompt, ids_NT)
        say(compared(f"bfloat16 | {kind}", *found, known, f"{pass_seconds(half, prompt, ids_NT):.3f}"))
    del half
    numbers = "bfloat16 over float32 weights" if torch.cuda.is_available() else "float32"
    say(compared(f"{numbers} | opengrit, packed rows", scores_of_trainer(loaded, ids_NT), None, known, "-"))


def compared(
    name: str,
    log_probs_NT: torch.Tensor,
    likeliest_NT: torch.Tensor | None,
    known: tuple[torch.Tensor, torch.Tensor],
    seconds: str,
) -> str:
    """A row of the table."""
    difference = (log_probs_NT.float().cpu() - known[0]).abs()
    same = "-" if likeliest_NT is None else f"{(likeliest_NT == known[1]).float().mean():.1%}"
    return f"| {name} | {difference.mean():.5f} | {difference.max():.5f} | {same} | {seconds} |"


def completion_logits(loaded: Loaded, prompt: PreparedPrompt, ids_NT: torch.Tensor) -> torch.Tensor:
    """What transformers' own forward pass says of each completion token (N x T x V, float32)."""
    model, rows = loaded.model, len(ids_NT)
    prompt_NP = torch.tensor(prompt.ids)[None].expand(rows, -1)
    ids_NL = torch.cat([prompt_NP, ids_NT], 1).to(model.device)
    inputs = {
        key: torch.cat([value] * rows).to(model.device, model.dtype if value.is_floating_point() else None)
        for key, value in prompt.picture.inputs.items()
        if key in ("pixel_values", "image_grid_thw")
    }
    if loaded.family.has_grid:
        inputs["mm_token_type_ids"] = (ids_NL == loaded.processor.image_token_id).int()
    logits = model(input_ids=ids_NL, attention_mask=torch.ones_like(ids_NL), use_cache=False, **inputs).logits
    return logits[:, -ids_NT.shape[1] - 1 : -1].float()


def log_probabilities(
    loaded: Loaded, prompt: PreparedPrompt, ids_NT: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The completions' log-probabilities and the likeliest token in each place, both N x T on the CPU."""
    with torch.no_grad():
        logits_NTV = completion_logits(loaded, prompt, ids_NT)
        targets_NT1 = ids_NT.to(logits_NTV.device)[..., None]
        return logits_NTV.log_softmax(-1).gather(-1, targets_NT1)[..., 0].cpu(), logits_NTV.argmax(-1).cpu()


def pass_seconds(loaded: Loaded, prompt: PreparedPrompt, ids_NT: torch.Tensor) -> float:
    """Seconds of a forward and backward pass, the median of three after one that warms up."""

    def learned() -> list[int]:
        logits_NTV = completion_logits(loaded, prompt, ids_NT)
        targets_NT = ids_NT.to(logits_NTV.device)
        torch.nn.functional.cross_entropy(logits_NTV.flatten(0, 1), targets_NT.flatten()).backward()
        loaded.model.zero_grad()
        return [1]

    learned()
    return statistics.median(generate.clock(learned).seconds for _ in range(3))


def scores_of_trainer(loaded: Loaded, ids_NT: torch.Tensor) -> torch.Tensor:
    """The log-probabilities of a training's first pass over the same completions: packed rows, bfloat16 where it has a GPU."""
    rows, width = ids_NT.shape

    class Given(Canned):
        written = iter(ids_NT.tolist())

        def one(self, question: Asked) -> Sampled:
            return replace(
                super().one(question), completion=Completion("-", tuple(next(self.written)), Finish.LENGTH)
            )

    recipe = load_recipe("demo")
    changes = {
        "per_device_train_batch_size": rows,
        "num_generations": rows,
        "bf16": torch.cuda.is_available(),
    }
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
    recipe = as_run(recipe, width)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"max_steps": 1})})
    seen: list[torch.Tensor] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = GritTrainer(
            loaded,
            load_examples("stickers/train20")[:1],
            args=grpo_config(recipe.train, folder),
            protocol=EvaluationProtocol("grounded", loaded.frame, RuleJudge(), Rubric.named("paper")),
            rollout_sampler=Given(loaded, width),
        )
        step.let_every_row_learn(trainer)
        score = trainer._get_per_token_logps_and_entropies

        def watched(*args: Any, **kwargs: Any) -> Any:
            made = score(*args, **kwargs)
            seen.append(made[0].detach())
            return made

        trainer._get_per_token_logps_and_entropies = watched
        trainer.train()
    trainer.scorer.close()
    return seen[0]

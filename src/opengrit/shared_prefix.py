"""Log-probabilities of completions with each picture encoded once and each prompt read once, gradients included."""

# U distinct prompts, R rows, P prompt tokens, T completion tokens, A position axes.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from opengrit.samplers.transformers import (
    PreparedPrompt,
    Speaker,
    VisualTokens,
    next_positions,
    prompt_batch,
    widen,
)


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Per-token log-probabilities and entropies, R x T; zero where the completion is padding."""

    log_probs_RT: torch.Tensor
    entropies_RT: torch.Tensor | None


def distinct_rows(prompts: Sequence[PreparedPrompt]) -> tuple[list[PreparedPrompt], list[int]]:
    """The distinct prompts in order of first use, and for each row the place of its prompt among them."""
    places: dict[int, int] = {}
    for prompt in prompts:
        places.setdefault(id(prompt), len(places))
    distinct = list({id(p): p for p in prompts}.values())
    return distinct, [places[id(p)] for p in prompts]


def completion_scores(
    model: Any,
    backbone: Any,
    speaker: Speaker,
    prompts: Sequence[PreparedPrompt],
    visual: Mapping[tuple[str, int, int], VisualTokens],
    *,
    completion_ids_RT: torch.Tensor,
    completion_mask_RT: torch.Tensor,
) -> TokenScores:
    """Log-probabilities (at the trainer's temperature) and entropies of completions, row r continuing `prompts[r]`.

    All prompt tokens but the last go through `backbone` once for each distinct prompt; their keys and values are
    repeated for the rows, which go through `model`, TRL's patched forward with the fused head. The values and the
    gradients are those of separate rows up to rounding: U x P + R x T tokens instead of R x (P + T).
    """
    distinct, row_prompt = distinct_rows(prompts)
    device = completion_ids_RT.device
    batch = prompt_batch(distinct, device=device, drop_last=1)
    cache = DynamicCache()
    backbone(
        **batch,
        mm_encoder_outputs=speaker.show([visual[p.picture.key] for p in distinct]),
        past_key_values=cache,
        use_cache=True,
    )
    rows_R = torch.tensor(row_prompt, device=device)
    _spread(cache, row_prompt, rows_R)
    longest = max(1, int(completion_mask_RT.sum(1).max()))
    ids_RT, mask_RT = completion_ids_RT[:, :longest], completion_mask_RT[:, :longest]
    last_R1 = torch.tensor([p.ids[-1] for p in prompts], device=device)[:, None]
    first_R1 = next_positions(distinct, device=device)[rows_R][:, None] - 1
    prompt_mask_RP = batch["attention_mask"][rows_R]
    ones_R1 = torch.ones_like(last_R1)
    scored = model(
        input_ids=torch.cat([last_R1, ids_RT[:, :-1]], 1),
        # Padding behind a completion needs no mask, nothing looks back at it that counts.
        attention_mask=None
        if bool(batch["attention_mask"].all())
        else torch.cat([prompt_mask_RP, ones_R1, torch.ones_like(ids_RT[:, :-1])], 1),
        position_ids=widen(first_R1 + torch.arange(longest, device=device), axes=speaker.position_axes),
        past_key_values=cache,
        shift_labels=ids_RT.masked_fill(mask_RT == 0, -100),
        fused_lm_head=True,
    )
    width = completion_ids_RT.shape[1] - longest
    entropies = None if scored.entropy is None else torch.nn.functional.pad(scored.entropy, (0, width))
    return TokenScores(torch.nn.functional.pad(scored.log_probs, (0, width)), entropies)


def _spread(cache: DynamicCache, row_prompt: Sequence[int], rows_R: torch.Tensor) -> None:
    """Let row r hold the keys and values of prompt `row_prompt[r]`; whole groups of one size take the cheap way."""
    prompts = max(row_prompt) + 1
    group = len(row_prompt) // prompts
    if list(row_prompt) == [p for p in range(prompts) for _ in range(group)]:
        cache.batch_repeat_interleave(group)
    else:
        cache.batch_select_indices(rows_R)


def row_scores(
    model: Any,
    speaker: Speaker,
    prompts: Sequence[PreparedPrompt],
    visual: Mapping[tuple[str, int, int], VisualTokens],
    *,
    completion_ids_RT: torch.Tensor,
    completion_mask_RT: torch.Tensor,
) -> TokenScores:
    """As `completion_scores`, but every row reads its prompt itself: what gradient checkpointing can recompute.

    Pictures are still encoded once each: rows refer to the same encodings.
    """
    device = completion_ids_RT.device
    batch = prompt_batch(prompts, device=device)
    width = completion_ids_RT.shape[1]
    first_R1 = next_positions(prompts, device=device)[:, None]
    positions = widen(first_R1 + torch.arange(width, device=device), axes=speaker.position_axes)
    unscored = torch.full_like(batch["input_ids"], -100)
    scored = model(
        input_ids=torch.cat([batch["input_ids"], completion_ids_RT], 1),
        attention_mask=torch.cat([batch["attention_mask"], completion_mask_RT], 1),
        position_ids=torch.cat([batch["position_ids"], positions], -1),
        mm_encoder_outputs=speaker.show([visual[p.picture.key] for p in prompts]),
        labels=torch.cat([unscored, completion_ids_RT.masked_fill(completion_mask_RT == 0, -100)], 1),
        fused_lm_head=True,
    )
    entropies = None if scored.entropy is None else scored.entropy[:, -width:]
    return TokenScores(scored.log_probs[:, -width:], entropies)

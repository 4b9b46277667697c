"""Log-probabilities of completions with each picture encoded once and each prompt read once, gradients included.

`packed_scores` lays prompts and completions side by side in one row and lets attention keep them apart:

    [ prompt prompt .. | completion completion .. | completion .. ]

A prompt's tokens see that prompt, a completion's tokens see its prompt and itself. Everything but attention works on
single tokens, so each is computed once. Within the row, completions of about the same length form a rectangle,
which is what attention is called with: no mask over the whole row is ever built, and little is padding. Nothing is
kept between two forward passes, so gradient checkpointing may compute any layer again.

Why not keys and values kept from a pass over the prompts: they cannot be recomputed, and rows of different length are
padded to the longest. Forward and backward of 20 questions x 8 completions on the packaged Qwen2.5-VL, one CPU thread
(medians of 4, peak memory over the loaded model): 60 tokens each 1.7 s and 1.4 GiB either way; 20 to 157 tokens
(11,448 in all) 3.2 s and 1.7 GiB packed, 5.4 s and 2.7 GiB with kept keys, 5.9 s and 3.2 GiB with separate rows.
"""

# U distinct prompts, R rows, P prompt tokens, T completion tokens, A position axes, H heads, D width of a head,
# N tokens of the packed row, B rows of one rectangle.
from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from opengrit.sampling.model_inputs import (
    PreparedPrompt,
    VisionLanguageModel,
    VisualTokens,
    next_positions,
    prompt_batch,
    widen,
)

ATTENTION = "opengrit_sdpa"  # transformers' own SDPA, and the packed row's
_REPLACED = ("sdpa", "eager", ATTENTION)  # attention that SDPA computes as well
_PADDING = 1 / 300  # of all tokens, that one rectangle may add before the next one starts
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Per-token log-probabilities and entropies, R x T; zero where the completion is padding."""

    log_probs_RT: torch.Tensor
    entropies_RT: torch.Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Rectangle:
    """Completions of about one length: which rows, the place of each row's prompt in its section, and what is seen."""

    start: int  # in the packed row
    rows: tuple[int, ...]
    width: int
    prompt_B: torch.Tensor
    seen: torch.Tensor  # bool, B x 1 x width x (P + width)


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Prompts of about one length, all tokens but the last, padded on the right to `width`; and their completions."""

    start: int  # in the packed row
    prompts: tuple[int, ...]
    width: int
    rectangles: tuple[Rectangle, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """How the packed row is laid out: section by section, each its prompts and then its rectangles."""

    sections: tuple[Section, ...]
    num_tokens: int  # padding included


def share_prefix(model: Any) -> bool:
    """Let the language model of `model` take packed rows; False, and a warning by name, where its attention cannot."""
    text_config = model.get_decoder().config
    wanted = text_config._attn_implementation
    if wanted not in _REPLACED:
        _log.warning(
            "prompts are computed once per completion, not once per group: attention %r cannot take packed rows (sdpa "
            "can)",
            wanted,
        )
        return False
    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    text_config._attn_implementation = ATTENTION
    return True


def packed_scores(
    model: Any,
    vlm: VisionLanguageModel,
    prompts: Sequence[PreparedPrompt],
    visual: Mapping[tuple[str, int, int], VisualTokens],
    *,
    completion_ids_RT: torch.Tensor,
    lengths: Sequence[int],
    entropy: bool,
) -> TokenScores:
    """Log-probabilities (at the trainer's temperature) and entropies of completions, row r continuing `prompts[r]`.

    Of row r the first `lengths[r]` tokens are scored. `model` is one that `share_prefix` has prepared, with a fused
    head. A completion's first input is its prompt's last token, so that U x (P - 1) + R x T tokens are computed instead
    of R x (P + T); values and gradients are those of separate rows up to rounding.
    """
    device = completion_ids_RT.device
    distinct = list({id(p): p for p in prompts}.values())
    places = {id(p): place for place, p in enumerate(distinct)}
    row_prompt = [places[id(p)] for p in prompts]
    lengths = [max(1, length) for length in lengths]
    packing = pack([len(p.ids) - 1 for p in distinct], row_prompt, lengths, device=device)
    labels_RT = completion_ids_RT.cpu()
    inputs_RT = _as_input(labels_RT, vlm)
    ids, labels, positions = _lay_out(packing, distinct, row_prompt, labels_RT, lengths, inputs_RT=inputs_RT)
    shown = [visual[distinct[u].picture.key] for section in packing.sections for u in section.prompts]
    scored = model(
        input_ids=ids[None].to(device),
        position_ids=widen(positions[0][None], axes=1).to(device)
        if vlm.position_axes == 1
        else positions[:, None].to(device),
        mm_encoder_outputs=vlm.encoder_outputs(shown),
        # Our attention looks at the packing alone; four dimensions keep transformers from making a mask of its own.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        packing=packing,
        shift_labels=labels[None].to(device),
        fused_lm_head=True,
        with_entropy=entropy,
    )
    width = completion_ids_RT.shape[1]
    log_probs_RT = _unpack(scored.log_probs[0], packing, width)
    entropies_RT = None if scored.entropy is None else _unpack(scored.entropy[0], packing, width)
    return TokenScores(log_probs_RT, entropies_RT)


def pack(
    prompt_lengths: Sequence[int],
    row_prompt: Sequence[int],
    lengths: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Packing:
    """The layout of prompts of these lengths and of rows, row r with `lengths[r]` tokens after `row_prompt[r]`."""
    allowed = _PADDING * (sum(prompt_lengths) + sum(lengths))
    sections, at = [], 0
    for chosen in _of_about_one_length(range(len(prompt_lengths)), prompt_lengths, allowed):
        place = {u: i for i, u in enumerate(chosen)}
        width = max(prompt_lengths[u] for u in chosen)
        kept = torch.tensor([prompt_lengths[u] for u in chosen], device=device)
        seen_UP = torch.arange(width, device=device) < kept[:, None]
        rows = [r for r, u in enumerate(row_prompt) if u in place]
        start, rectangles = at, []
        at += len(chosen) * width
        for members in _of_about_one_length(rows, lengths, allowed):
            widest = max(lengths[r] for r in members)
            prompt_B = torch.tensor([place[row_prompt[r]] for r in members], device=device)
            own = torch.ones(widest, widest, dtype=torch.bool, device=device).tril()
            before = seen_UP[prompt_B][:, None, None].expand(-1, 1, widest, -1)
            seen = torch.cat([before, own.expand(len(members), 1, widest, widest)], -1)
            rectangles.append(Rectangle(at, tuple(members), widest, prompt_B, seen))
            at += len(members) * widest
        sections.append(Section(start, tuple(chosen), width, tuple(rectangles)))
    return Packing(tuple(sections), num_tokens=at)


def _of_about_one_length(
    members: Sequence[int] | range, lengths: Sequence[int], allowed: float
) -> list[list[int]]:
    """The members in runs, longest first, so that filling up each run to its longest adds at most `allowed` tokens."""
    runs: list[list[int]] = []
    added = 0
    for member in sorted(members, key=lambda m: (-lengths[m], m)):
        added += lengths[runs[-1][0]] - lengths[member] if runs else 0
        if not runs or added > allowed:
            runs.append([])
            added = 0
        runs[-1].append(member)
    return runs


def _as_input(ids_RT: torch.Tensor, vlm: VisionLanguageModel) -> torch.Tensor:
    """Completions as the model reads them: a picture's placeholder, for which there is no picture, as padding."""
    is_picture_RT = ids_RT == vlm.processor.image_token_id
    return ids_RT.masked_fill(is_picture_RT, vlm.processor.tokenizer.pad_token_id)


def _lay_out(
    packing: Packing,
    prompts: Sequence[PreparedPrompt],
    row_prompt: Sequence[int],
    completion_ids_RT: torch.Tensor,
    lengths: Sequence[int],
    *,
    inputs_RT: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The packed row's token ids (N), next-token labels (N, -100 where none is scored) and positions (A x N), on the CPU."""
    axes = prompts[0].positions_AP.shape[0]
    ids = torch.zeros(packing.num_tokens, dtype=torch.long)
    labels = torch.full((packing.num_tokens,), -100, dtype=torch.long)
    positions_AN = torch.zeros(axes, packing.num_tokens, dtype=torch.long)
    for section in packing.sections:
        for place, u in enumerate(section.prompts):
            at, length = section.start + place * section.width, len(prompts[u].ids) - 1
            ids[at : at + length] = torch.tensor(prompts[u].ids[:-1])
            positions_AN[:, at : at + length] = prompts[u].positions_AP[:, :-1]
        for rectangle in section.rectangles:
            for place, r in enumerate(rectangle.rows):
                at, length = rectangle.start + place * rectangle.width, lengths[r]
                prompt = prompts[row_prompt[r]]
                ids[at] = prompt.ids[-1]
                ids[at + 1 : at + length] = inputs_RT[r, : length - 1]
                labels[at : at + length] = completion_ids_RT[r, :length]
                following = prompt.next_position - 1 + torch.arange(rectangle.width)
                positions_AN[:, at : at + rectangle.width] = following
    return ids, labels, positions_AN


def _unpack(values_N: torch.Tensor, packing: Packing, width: int) -> torch.Tensor:
    """The rows' values, R x `width`, in the order of the rows."""
    rectangles = [rectangle for section in packing.sections for rectangle in section.rectangles]
    parts = []
    for rectangle in rectangles:
        end = rectangle.start + len(rectangle.rows) * rectangle.width
        part = values_N[rectangle.start : end].view(len(rectangle.rows), rectangle.width)
        parts.append(torch.nn.functional.pad(part, (0, width - rectangle.width)))
    rows = [row for rectangle in rectangles for row in rectangle.rows]
    return torch.cat(parts)[torch.tensor(rows, device=values_N.device).argsort()]


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA as transformers calls it; for a packed row (1 x H x N x D), prompt by prompt and rectangle by rectangle."""
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kwargs.pop("position_ids", None)  # the row's, of no rectangle
    blocks = zip(*(_blocks(states, packing) for states in (query, key, value)), strict=True)
    outputs = []
    for section in packing.sections:
        queries, prompt_keys, prompt_values = next(blocks)
        # Padding is on the right, where nothing that counts looks: causality is all the mask there is.
        outputs.append(sdpa_attention_forward(module, queries, prompt_keys, prompt_values, None, **kwargs)[0])
        for rectangle in section.rectangles:
            queries, own_keys, own_values = next(blocks)
            keys = torch.cat([prompt_keys.index_select(0, rectangle.prompt_B), own_keys], 2)
            values = torch.cat([prompt_values.index_select(0, rectangle.prompt_B), own_values], 2)
            outputs.append(sdpa_attention_forward(module, queries, keys, values, rectangle.seen, **kwargs)[0])
    return torch.cat([out.flatten(0, 1) for out in outputs])[None], None


def _blocks(states: torch.Tensor, packing: Packing) -> list[torch.Tensor]:
    """The sections' prompts and rectangles out of a packed row's 1 x H x N x D, in its order, each rows x H x width x D.

    Split at once: backward then joins their gradients, where a slice of its own for each would fill a whole row with zeros.
    """
    shapes = []
    for section in packing.sections:
        shapes.append((len(section.prompts), section.width))
        shapes += [(len(rectangle.rows), rectangle.width) for rectangle in section.rectangles]
    parts = states[0].split([rows * width for rows, width in shapes], 1)
    return [part.unflatten(1, shape).transpose(0, 1) for part, shape in zip(parts, shapes, strict=True)]


def row_scores(
    model: Any,
    vlm: VisionLanguageModel,
    prompts: Sequence[PreparedPrompt],
    visual: Mapping[tuple[str, int, int], VisualTokens],
    *,
    completion_ids_RT: torch.Tensor,
    completion_mask_RT: torch.Tensor,
    entropy: bool,
) -> TokenScores:
    """As `packed_scores`, but every row reads its prompt itself: for attention that cannot take packed rows.

    Pictures are still encoded once each: rows refer to the same encodings.
    """
    device = completion_ids_RT.device
    batch = prompt_batch(prompts, device=device)
    width = completion_ids_RT.shape[1]
    first_R1 = next_positions(prompts, device=device)[:, None]
    positions = widen(first_R1 + torch.arange(width, device=device), axes=vlm.position_axes)
    unscored = torch.full_like(batch["input_ids"], -100)
    scored = model(
        input_ids=torch.cat([batch["input_ids"], _as_input(completion_ids_RT, vlm)], 1),
        attention_mask=torch.cat([batch["attention_mask"], completion_mask_RT], 1),
        position_ids=torch.cat([batch["position_ids"], positions], -1),
        mm_encoder_outputs=vlm.encoder_outputs([visual[p.picture.key] for p in prompts]),
        labels=torch.cat([unscored, completion_ids_RT.masked_fill(completion_mask_RT == 0, -100)], 1),
        fused_lm_head=True,
        with_entropy=entropy,
    )
    entropies = None if scored.entropy is None else scored.entropy[:, -width:]
    return TokenScores(scored.log_probs[:, -width:], entropies)

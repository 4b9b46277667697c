"""Model inputs: prepared pictures and prompts, and batches of them."""

# U distinct prompts, R rows, P prompt tokens, T completion tokens, A position axes (3 for Qwen's rotary positions,
# 1 otherwise), N picture tokens, D width.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jinja2 import TemplateError

from opengrit.core.boxes import Size

# What a chat template raises: it is a program that came with the model.
TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

# Path, modification time (ns), bytes; or a digest of the pixels, width, height.
PictureKey = tuple[str, int, int]


class VisionLanguageModel(Protocol):
    """What the sampler needs of a loaded model; `opengrit.models.families.Loaded` is one."""

    @property
    def model(self) -> Any: ...

    @property
    def base(self) -> Any: ...  # the model without an adapter's wrapper

    @property
    def processor(self) -> Any: ...

    @property
    def end_ids(self) -> tuple[int, ...]: ...

    @property
    def forbidden_ids(self) -> tuple[int, ...]: ...

    @property
    def position_axes(self) -> int: ...

    def seen_size(self, picture_inputs: Mapping[str, torch.Tensor], picture_size: Size) -> Size: ...

    def positions(self, ids: list[int], picture_inputs: Mapping[str, torch.Tensor]) -> torch.Tensor: ...

    def encode(self, model: Any, pictures: Sequence[PreparedPicture]) -> list[VisualTokens]: ...

    def encoder_outputs(self, visual: Sequence[VisualTokens]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPicture:
    """A picture as the vision tower takes it, and the token ids that stand for it in a prompt."""

    key: PictureKey
    inputs: Mapping[str, torch.Tensor]
    placeholder_ids: tuple[int, ...]
    seen_size: Size


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPrompt:
    """A prompt ready for the model: token ids, their positions (A x P), and its picture."""

    ids: tuple[int, ...]
    positions_AP: torch.Tensor
    picture: PreparedPicture

    @property
    def next_position(self) -> int:
        """The position of the first completion token."""
        return int(self.positions_AP.max()) + 1


@dataclass(frozen=True, slots=True, eq=False)
class VisualTokens:
    """A picture's tokens (N x D) for the language model, and those that deeper layers add, if the family has them."""

    tokens_ND: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()


def pad_left(rows: Sequence[Sequence[int]], *, value: int, device: torch.device) -> torch.Tensor:
    """The rows as one tensor, padded on the left with `value`."""
    width = max(len(row) for row in rows)
    return torch.tensor(
        [[value] * (width - len(row)) + list(row) for row in rows], dtype=torch.long, device=device
    )


def prompt_batch(
    prompts: Sequence[PreparedPrompt], *, device: torch.device, drop_last: int = 0
) -> dict[str, Any]:
    """`input_ids`, `attention_mask` (U x P) and `position_ids` (U x P, or 3 x U x P) of prompts padded on the left.

    `drop_last` leaves that many tokens off the end of every prompt.
    """
    kept = [p.ids[: len(p.ids) - drop_last] for p in prompts]
    width = max(len(ids) for ids in kept)
    axes = prompts[0].positions_AP.shape[0]
    positions_AUP = torch.zeros(axes, len(prompts), width, dtype=torch.long)
    for row, (prompt, ids) in enumerate(zip(prompts, kept, strict=True)):
        positions_AUP[:, row, width - len(ids) :] = prompt.positions_AP[:, : len(ids)]
    return {
        "input_ids": pad_left(kept, value=0, device=device),
        "attention_mask": pad_left([[1] * len(ids) for ids in kept], value=0, device=device),
        "position_ids": (positions_AUP if axes > 1 else positions_AUP[0]).to(device),
    }


def next_positions(prompts: Sequence[PreparedPrompt], *, device: torch.device) -> torch.Tensor:
    """The position of the first completion token of each prompt (U)."""
    return torch.tensor([p.next_position for p in prompts], device=device)


def widen(positions_RT: torch.Tensor, *, axes: int) -> torch.Tensor:
    """Text positions for a family with `axes` position axes: R x T, or A x R x T."""
    return positions_RT if axes == 1 else positions_RT[None].expand(axes, *positions_RT.shape)


def distinct_pictures(prompts: Sequence[PreparedPrompt]) -> list[PreparedPicture]:
    """The prompts' pictures, each once, in order of first use."""
    return list({p.picture.key: p.picture for p in prompts}.values())

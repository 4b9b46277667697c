"""Token sampling: every completion from its own random stream, exactly by the model's probabilities."""

# R rows, V vocabulary, B blocks of W tokens.
from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch

from opengrit.sampling.protocol import SamplingSettings

_BATCH = 64


class RandomStream:
    """The random numbers of one completion, uniform in [0, 1): one a token, from a counter-based generator (Philox).

    They depend on the arguments alone. `repeat` counts earlier questions of the same id in the same call.
    """

    def __init__(self, seed: int, question_id: str, sample: int, *, repeat: int = 0) -> None:
        named = f"{seed}\0{sample}\0{repeat}\0{question_id}".encode("utf-8", "surrogatepass")
        key = np.frombuffer(hashlib.blake2b(named, digest_size=16).digest(), dtype="<u8")
        self._generator = np.random.Generator(np.random.Philox(key=key))
        self._buffer: list[float] = []

    def next(self) -> float:
        """The number for the next token."""
        if not self._buffer:
            self._buffer = self._generator.random(_BATCH)[::-1].tolist()
        return self._buffer.pop()


def sample_tokens(
    logits_RV: torch.Tensor, settings: Sequence[SamplingSettings], uniforms_R: Sequence[float]
) -> torch.Tensor:
    """One token id for each row (R): the argmax, or a sample by inverse cumulative distribution, under its own settings.

    `uniforms_R` are in [0, 1); a row at temperature 0 does not use its own. No token of probability 0 is sampled.
    """
    rows_by_settings: dict[tuple[float, float, int], list[int]] = {}
    for row, own in enumerate(settings):
        rows_by_settings.setdefault((own.temperature, own.top_p, own.top_k), []).append(row)
    if len(rows_by_settings) == 1:
        return _sample(logits_RV, settings[0], uniforms_R)
    tokens_R = torch.empty(len(logits_RV), dtype=torch.long, device=logits_RV.device)
    for rows in rows_by_settings.values():
        places = torch.tensor(rows, device=logits_RV.device)
        tokens_R[places] = _sample(logits_RV[places], settings[rows[0]], [uniforms_R[row] for row in rows])
    return tokens_R


def _sample(logits_RV: torch.Tensor, settings: SamplingSettings, uniforms_R: Sequence[float]) -> torch.Tensor:
    if settings.temperature == 0:
        return logits_RV.argmax(-1)
    logits_RV = _mask_tail(logits_RV.float() / settings.temperature, settings)
    uniforms = torch.tensor(uniforms_R, dtype=torch.double, device=logits_RV.device)
    return _invert((logits_RV - logits_RV.amax(-1, keepdim=True)).exp_(), uniforms)


def _mask_tail(logits_RV: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Logits with -inf outside `top_k` and `top_p`; the token that crosses the bound of `top_p` stays in."""
    if 0 < settings.top_k < logits_RV.shape[-1]:
        kept = logits_RV.topk(settings.top_k).values[:, -1:]
        logits_RV = logits_RV.masked_fill(logits_RV < kept, -torch.inf)
    if settings.top_p < 1:
        sorted_RV, order_RV = logits_RV.sort(descending=True)
        mass_RV = sorted_RV.softmax(-1)
        before_RV = mass_RV.cumsum(-1) - mass_RV  # mass of the more likely tokens
        outside_RV = torch.zeros_like(logits_RV, dtype=torch.bool).scatter(
            1, order_RV, before_RV >= settings.top_p
        )
        logits_RV = logits_RV.masked_fill(outside_RV, -torch.inf)
    return logits_RV


def _invert(weights_RV: torch.Tensor, uniforms_R: torch.Tensor) -> torch.Tensor:
    """The token in which each row's uniform share of its total weight falls.

    Two levels, block and token within it, so that only sums of blocks are held in double precision.
    """
    rows, vocabulary = weights_RV.shape
    width = math.isqrt(vocabulary - 1) + 1
    blocks = -(-vocabulary // width)
    weights_RBW = torch.nn.functional.pad(weights_RV, (0, blocks * width - vocabulary)).view(
        rows, blocks, width
    )
    upto_RB = weights_RBW.sum(-1).double().cumsum(-1)
    target_R1 = _below(uniforms_R[:, None] * upto_RB[:, -1:], upto_RB[:, -1:])
    block_R1 = torch.searchsorted(upto_RB, target_R1, right=True)
    start_R1 = torch.nn.functional.pad(upto_RB, (1, 0)).gather(1, block_R1)
    own_RW = weights_RBW[torch.arange(rows, device=block_R1.device), block_R1[:, 0]]
    within_RW = own_RW.double().cumsum(-1)
    rest_R1 = _below(target_R1 - start_R1, within_RW[:, -1:])
    return (block_R1 * width + torch.searchsorted(within_RW, rest_R1, right=True))[:, 0]


def _below(target: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    """The target, or the largest number below the bound where rounding has carried it there."""
    return torch.minimum(target, torch.nextafter(bound, torch.zeros_like(bound)))

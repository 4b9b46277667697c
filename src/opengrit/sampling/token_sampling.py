"""Token sampling: every completion from its own random stream, exactly by the model's probabilities."""

# R rows, V vocabulary, B blocks of W tokens, or B bins of weights.
from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch

from opengrit.sampling.protocol import SamplingSettings

_BATCH = 64
_LOGITS_AT_ONCE = 262_144  # of some rows: what is made of them stays in a core's cache (1 MiB)
_BITS = ((20, 11), (10, 10), (0, 10))  # of a 32-bit float without its sign: from which one, how many


class RandomStream:
    """The random numbers of one completion, uniform in [0, 1): one a token, from a counter-based generator (Philox).

    They depend on the arguments alone. `repeat` counts earlier times that the same question was asked in the same call.
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
    uniforms = torch.tensor(uniforms_R, dtype=torch.double, device=logits_RV.device)
    rows = len(logits_RV)
    if logits_RV.device.type == "cpu":
        rows = max(1, _LOGITS_AT_ONCE // logits_RV.shape[1])
    pieces = zip(logits_RV.split(rows), uniforms.split(rows), strict=True)
    return torch.cat([_draw(piece_RV, settings, own_R) for piece_RV, own_R in pieces])


def _draw(logits_RV: torch.Tensor, settings: SamplingSettings, uniforms_R: torch.Tensor) -> torch.Tensor:
    logits_RV = logits_RV.float() / settings.temperature
    if 0 < settings.top_k < logits_RV.shape[-1]:
        kept_R1 = logits_RV.topk(settings.top_k).values[:, -1:]
        logits_RV.masked_fill_(logits_RV < kept_R1, -torch.inf)
    weights_RV = logits_RV.sub_(logits_RV.amax(-1, keepdim=True)).exp_()
    if settings.top_p < 1:
        weights_RV.masked_fill_(weights_RV < _least_weight(weights_RV, settings.top_p), 0.0)
    return _invert(weights_RV, uniforms_R)


def _least_weight(weights_RV: torch.Tensor, top_p: float) -> torch.Tensor:
    """The weight (R x 1) of each row's last token, from the likeliest down, that is within `top_p` of the row's mass.

    The token that crosses the bound is within. On a CPU nothing is sorted: weights are found bits by bits, the highest
    first, in histograms of mass (the bits of positive numbers are ordered as they are).
    """
    if weights_RV.device.type != "cpu":
        likeliest_RV = weights_RV.sort(descending=True).values
        upto_RV = likeliest_RV.double().cumsum(-1)
        within_RV = upto_RV - likeliest_RV < top_p * upto_RV[:, -1:]
        return likeliest_RV.gather(1, within_RV.sum(-1, keepdim=True) - 1)
    bits_RV, mass_RV = weights_RV.view(torch.int32), weights_RV.double()
    known_R1 = torch.zeros(len(weights_RV), 1, dtype=torch.int32)  # of the least weight's bits, those so far
    above_R1 = torch.zeros(
        len(weights_RV), 1, dtype=torch.double
    )  # mass of the weights whose bits are higher
    bound_R1 = top_p * mass_RV.sum(-1, keepdim=True)
    for low, count in _BITS:
        next_RV = bits_RV >> low
        own_RV = torch.where(next_RV >> count == known_R1, mass_RV, 0.0)
        place_RV = (next_RV & (2**count - 1)).long()
        upto_RB = torch.zeros(len(weights_RV), 2**count, dtype=torch.double)
        upto_RB = upto_RB.scatter_add_(1, place_RV, own_RV).flip(-1).cumsum(-1)  # from the highest down
        whole_R1 = above_R1 + upto_RB[:, -1:]
        found_R1 = torch.searchsorted(above_R1 + upto_RB, torch.minimum(bound_R1, whole_R1))
        above_R1 = above_R1 + torch.nn.functional.pad(upto_RB, (1, 0)).gather(1, found_R1)
        known_R1 = (known_R1 << count) + (2**count - 1 - found_R1).int()
    return known_R1.view(torch.float32)


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

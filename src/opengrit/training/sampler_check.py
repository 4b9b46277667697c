"""Whether the sampler of the rollouts and the model that learns from them agree on what was sampled."""

# R rows, T completion tokens.
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from opengrit.core.errors import ModelError

# Nats a token. Engines differ by about 0.001 in 32 bits and 0.01 to 0.05 in bfloat16; another prompt, picture or set
# of weights by 1 and more, where importance ratios are about 0 and nothing is learned.
LIMIT = 0.3


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far apart two scores of the same sampled tokens are, over `tokens` of them.

    `difference` is the mean of |model - sampler| in nats, `ratio` the geometric mean of the importance ratio: the
    exponential of the mean of model - sampler. 0 and 1 where they agree.
    """

    difference: float
    ratio: float
    tokens: int


def agreement(
    log_probs_RT: torch.Tensor,
    reported: Sequence[Sequence[float | None]],
    lengths: Sequence[int],
    gather: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums,
) -> Agreement:
    """Over the first `lengths[r]` tokens of each row of all processes; `gather` joins their three sums.

    Tokens for which the sampler reported nothing (None or NaN) count for nothing.
    """
    pairs = [
        (own, said)
        for row, given, length in zip(log_probs_RT.detach().tolist(), reported, lengths, strict=True)
        for own, said in zip(row[:length], given, strict=False)
        if said is not None and not math.isnan(said)
    ]
    own, said = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).unbind(1)
    sums = torch.stack(
        [(own - said).abs().sum(), (own - said).sum(), torch.tensor(float(len(pairs))).double()]
    )
    apart, signed, count = gather(sums.to(log_probs_RT.device, torch.float32)[None]).sum(0).tolist()
    tokens = max(1.0, count)
    return Agreement(apart / tokens, math.exp(signed / tokens), int(count))


class SamplerCheck:
    """Checks each generation once, while the weights are still those it was sampled with.

    Raises ModelError where a process's first generation is further than LIMIT from the model. Of each generation `add`
    gets the two numbers for metrics.jsonl, which an alarm reads.
    """

    def __init__(self, add: Callable[[str, float], Any]) -> None:
        self._add = add
        self._is_first = True
        self.is_due = False

    def take(self, found: Agreement) -> None:
        """One generation's agreement."""
        self.is_due = False
        self._add("sampling/logp_difference", found.difference)
        self._add("sampling/ratio", found.ratio)
        is_first, self._is_first = self._is_first, False
        if is_first and not found.difference <= LIMIT:
            raise ModelError(
                f"vLLM and the model must agree on the sampled tokens within {LIMIT} nats a token, they differ by "
                f"{found.difference:.3g} (mean importance ratio {found.ratio:.3g}, {found.tokens} tokens): vLLM reads "
                "another prompt, picture or set of weights, and its completions would teach nothing; compare the "
                "versions of vllm, transformers and trl with docs/scaling.md, check the model folder and picture "
                "limits of vLLM, or set train.vllm_mode: null"
            )

"""Scores of a pass's rows: in chunks, rows that teach nothing without a gradient, each picture and prompt read once."""

# R rows (completions) of a pass, T completion tokens.
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from opengrit.models.families import base_model
from opengrit.sampling.model_inputs import distinct_pictures
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.training.rollouts import Rollouts
from opengrit.training.shared_prefix import TokenScores, packed_scores, row_scores


@dataclass(frozen=True, slots=True, eq=False)
class RowScorer:
    """Scores rows of rollouts; `shares_prefix` where the language model takes packed rows."""

    sampler: TransformersSampler
    accelerator: Accelerator
    shares_prefix: bool

    def score(
        self,
        model: Any,
        rollouts: Rollouts,
        rows: Sequence[int],
        ids_RT: torch.Tensor,
        mask_RT: torch.Tensor,
        *,
        idle: Collection[int],
        at_once: int,
        entropy: bool,
    ) -> TokenScores:
        """Scores of `rows`, whose completions `ids_RT` and `mask_RT` hold, `at_once` at most in a pass of the model."""
        places = range(len(rows))
        chunks: list[tuple[list[int], bool]] = []  # places of rows, and whether they are learned from
        for start in range(0, len(places), at_once):
            chunk = places[start : start + at_once]
            chunks.append(([i for i in chunk if rows[i] in idle], False))
            chunks.append(([i for i in chunk if rows[i] not in idle], True))
        chunks = [(chunk, learn) for chunk, learn in chunks if chunk]
        scores = [
            self._pass(
                model, rollouts, [rows[i] for i in chunk], ids_RT[chunk], mask_RT[chunk],
                learn=learn, entropy=entropy,
            )
            for chunk, learn in chunks
        ]  # fmt: skip
        back = torch.tensor([i for chunk, _ in chunks for i in chunk], device=ids_RT.device).argsort()
        entropies = [s.entropies_RT for s in scores if s.entropies_RT is not None]
        return TokenScores(
            torch.cat([s.log_probs_RT for s in scores])[back],
            torch.cat(entropies)[back] if entropies else None,
        )

    def _pass(
        self,
        model: Any,
        rollouts: Rollouts,
        rows: Sequence[int],
        ids_RT: torch.Tensor,
        mask_RT: torch.Tensor,
        *,
        learn: bool,
        entropy: bool,
    ) -> TokenScores:
        prompts = [rollouts.prompts[row] for row in rows]
        whole = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast(), torch.set_grad_enabled(torch.is_grad_enabled() and learn):
            # A wrapper that holds processes together makes as many passes on each: those that learn.
            scorer = model if learn else whole
            visual = self.sampler.encode(base_model(whole), distinct_pictures(prompts))
            if not self.shares_prefix:
                return row_scores(
                    scorer, self.sampler.vlm, prompts, visual,
                    completion_ids_RT=ids_RT, completion_mask_RT=mask_RT, entropy=entropy,
                )  # fmt: skip
            lengths = rollouts.lengths
            return packed_scores(
                scorer, self.sampler.vlm, prompts, visual,
                completion_ids_RT=ids_RT, lengths=[lengths[row] for row in rows], entropy=entropy,
            )  # fmt: skip

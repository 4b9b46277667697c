"""Log-probabilities of labels over a large vocabulary without logits: the head in tiles that stay in a CPU's cache.

A real vocabulary has 150,000 rows, so that the logits of a batch take gigabytes and every pass over them goes to main
memory. `score_labels` goes through rows and vocabulary tile by tile: a tile's logits are made, added up as exponentials,
and overwritten by the next. Memory does not grow with the vocabulary beyond the head's own gradient.

Backward needs a second look at the tiles for the head's gradient alone. The gradient of a log-probability by its hidden
state is the label's row of the head less the mean row under the model's probabilities, and that mean is folded in the
forward pass: a head that is not trained (an adapter's) costs no second look.

`add_tiled_head` puts this in place of TRL's fused head where the head lies on a CPU. Elsewhere TRL's stays: its Triton
kernel folds a tile in one pass, which torch's operators cannot. `benchmarks/head.py` compares both, torch's own
`linear_cross_entropy` and tiles of other sizes.
"""

# N rows (tokens), V vocabulary, D width; n rows and v words of a tile.
from __future__ import annotations

import functools
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer.utils import FusedCausalLMOutput

IGNORED = -100  # a label that is not scored
# Of `python benchmarks/head.py`: logits of a tile, and words of it where the vocabulary has as many. A tile and its
# exponentials take 8 MiB each, which lie in the last-level cache; smaller ones lose more by their number of calls than they save.
TILE_LOGITS = 2_097_152
TILE_WORDS = 4_096
# Scaled or capped logits; none of the families that are trained here has them.
_CHANGED_LOGITS = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling", "output_router_logits",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LabelScores:
    """Of each of N rows the label's log-probability; entropy (nats) and whether the label is likeliest, where asked for."""

    log_probs_N: torch.Tensor
    entropies_N: torch.Tensor | None
    is_top1_N: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Tiling:
    """How many rows and words a tile has at most."""

    rows: int
    words: int

    @classmethod
    def of(cls, vocabulary: int, *, logits: int = TILE_LOGITS, words: int = TILE_WORDS) -> Tiling:
        """Tiles of about `logits` logits over a vocabulary, `words` wide where it has as many."""
        words = min(vocabulary, words)
        return cls(max(1, logits // words), words)


def score_labels(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    bias_V: torch.Tensor | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    top1: bool = False,
    tiling: Tiling | None = None,
) -> LabelScores:
    """Log-probabilities of the labels under `softmax((hidden @ weight.T + bias) / temperature)`, in float32.

    Under autocast states and weights are rounded to its type first; logits and sums are in float32 either way. Gradients
    reach states, weight and bias from the log-probabilities alone. `labels_N` are in [0, V).
    """
    kind = hidden_ND.device.type
    if torch.is_autocast_enabled(kind):
        rounded = torch.get_autocast_dtype(kind)
        hidden_ND, weight_VD = hidden_ND.to(rounded), weight_VD.to(rounded)
    tiling = tiling or Tiling.of(len(weight_VD))
    with torch.autocast(kind, enabled=False):
        made = _TiledHead.apply(
            hidden_ND, weight_VD, bias_V, labels_N, _Wanted(tiling, temperature, entropy, top1)
        )
    return LabelScores(*made)


@dataclass(frozen=True, slots=True)
class _Wanted:
    tiling: Tiling
    temperature: float
    entropy: bool
    top1: bool


class _TiledHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        wanted: _Wanted,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        ctx.set_materialize_grads(False)
        scaled_ND = hidden_ND.float() / wanted.temperature
        sums = _sums(scaled_ND, weight_VD, bias_V, labels_N, wanted, mean_rows=ctx.needs_input_grad[0])
        log_sum_N = sums.shift_N + sums.total_N.log()
        label_N = sums.label_N
        if label_N is None:
            label_N = _label_logits(scaled_ND, weight_VD, bias_V, labels_N, wanted)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, labels_N, log_sum_N, sums.mean_rows_ND())
        ctx.wanted = wanted
        entropies_N = sums.entropies_N()
        is_top1_N = label_N >= sums.maximum_N if sums.maximum_N is not None else None
        ctx.mark_non_differentiable(*(values for values in (entropies_N, is_top1_N) if values is not None))
        return label_N - log_sum_N, entropies_N, is_top1_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: torch.Tensor | None, *_: Any) -> tuple[torch.Tensor | None, ...]:
        if slope_N is None:
            return (None,) * 5
        hidden_ND, weight_VD, bias_V, labels_N, log_sum_N, mean_rows_ND = ctx.saved_tensors
        wanted: _Wanted = ctx.wanted
        by_hidden_ND: torch.Tensor | None = None
        by_weight_VD: torch.Tensor | None = None
        by_bias_V: torch.Tensor | None = None
        if ctx.needs_input_grad[0]:
            by_hidden_ND = weight_VD[labels_N].float().sub_(mean_rows_ND)
            by_hidden_ND = by_hidden_ND.mul_(slope_N[:, None] / wanted.temperature).to(hidden_ND.dtype)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            scaled_ND = hidden_ND.float() / wanted.temperature
            sloped_ND = scaled_ND * slope_N[:, None]
            by_weight_VD = torch.zeros(weight_VD.shape, device=weight_VD.device)
            by_bias_V = None if bias_V is None else torch.zeros(bias_V.shape, device=bias_V.device)
            for words, rows, _weight_vD, logits_nv in _tiles(scaled_ND, weight_VD, bias_V, wanted):
                shares_nv = logits_nv.sub_(log_sum_N[rows, None]).exp_()
                by_weight_VD[words].addmm_(shares_nv.T, sloped_ND[rows], alpha=-1)
                if by_bias_V is not None:
                    by_bias_V[words].sub_(slope_N[rows] @ shares_nv)
            by_weight_VD.index_add_(0, labels_N, sloped_ND)
            if by_bias_V is not None:
                by_bias_V.index_add_(0, labels_N, slope_N).div_(wanted.temperature)
            by_weight_VD = by_weight_VD.to(weight_VD.dtype)
        return by_hidden_ND, by_weight_VD, by_bias_V, None, None


def _tiles(
    scaled_ND: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, wanted: _Wanted
) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor]]:
    """Words, rows, the words' weights and the logits of each tile; the logits are overwritten by the next tile's."""
    tiling = wanted.tiling
    buffer = torch.empty(min(tiling.rows, len(scaled_ND)) * tiling.words, device=scaled_ND.device)
    for first_word in range(0, len(weight_VD), tiling.words):
        words = slice(first_word, min(first_word + tiling.words, len(weight_VD)))
        weight_vD = weight_VD[words].float()
        bias_v = None if bias_V is None else bias_V[words].float() / wanted.temperature
        for first_row in range(0, len(scaled_ND), tiling.rows):
            rows = slice(first_row, min(first_row + tiling.rows, len(scaled_ND)))
            shape = rows.stop - rows.start, words.stop - words.start
            logits_nv = buffer[: math.prod(shape)].view(shape)
            torch.mm(scaled_ND[rows], weight_vD.T, out=logits_nv)
            yield words, rows, weight_vD, logits_nv if bias_v is None else logits_nv.add_(bias_v)


def _label_logits(
    scaled_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_N: torch.Tensor,
    wanted: _Wanted,
) -> torch.Tensor:
    found_N = torch.linalg.vecdot(scaled_ND, weight_VD[labels_N].float())
    return found_N if bias_V is None else found_N.add_(bias_V[labels_N].float() / wanted.temperature)


def _sums(
    scaled_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_N: torch.Tensor,
    wanted: _Wanted,
    *,
    mean_rows: bool,
) -> _Sums:
    """All tiles, added up.

    Exponentials are of logits less a shift of their row, the largest logit of its first tile: with any shift near the
    largest logit the sums are as exact, and one that stays needs no rescaling. Logits more than 80 above it overflow; the sums
    then are not finite, and are made again with the largest of all.
    """

    def folded(shift_N: torch.Tensor | None) -> _Sums:
        sums = _Sums(scaled_ND, labels_N, mean_rows=mean_rows, wanted=wanted, shift_N=shift_N)
        for words, rows, weight_vD, logits_nv in _tiles(scaled_ND, weight_VD, bias_V, wanted):
            sums.fold(rows, words, weight_vD, logits_nv)
        return sums

    sums = folded(None)
    if sums.are_finite() or not scaled_ND.isfinite().all():
        return sums
    largest_N = scaled_ND.new_full((len(scaled_ND),), -torch.inf)
    for _words, rows, _weight_vD, logits_nv in _tiles(scaled_ND, weight_VD, bias_V, wanted):
        largest_N[rows] = torch.maximum(largest_N[rows], logits_nv.amax(-1))
    return folded(largest_N)


class _Sums:
    """What the tiles add up to. A tile takes few calls, because each costs as much as a pass over thousands of logits."""

    def __init__(
        self,
        scaled_ND: torch.Tensor,
        labels_N: torch.Tensor,
        *,
        mean_rows: bool,
        wanted: _Wanted,
        shift_N: torch.Tensor | None,
    ) -> None:
        self._labels_N = labels_N
        self._shift_is_known = shift_N is not None
        self.shift_N = torch.zeros(len(scaled_ND), device=scaled_ND.device) if shift_N is None else shift_N
        self.total_N = torch.zeros_like(self.shift_N)  # of exponentials
        # The label's logit, taken from the tiles where it is compared with the largest: it must be the same to the bit.
        self.label_N = torch.zeros_like(self.shift_N) if wanted.top1 else None
        self.maximum_N = torch.full_like(self.shift_N, -torch.inf) if wanted.top1 else None
        self._weighted_N = (
            torch.zeros_like(self.shift_N) if wanted.entropy else None
        )  # of (logit - shift) x exponential
        self._rows_ND = torch.zeros_like(scaled_ND) if mean_rows else None  # of weight row x exponential
        tile = min(wanted.tiling.rows, len(scaled_ND)) * wanted.tiling.words
        self._exponentials = torch.empty(tile, device=scaled_ND.device) if wanted.entropy else None

    def fold(self, rows: slice, words: slice, weight_vD: torch.Tensor, logits_nv: torch.Tensor) -> None:
        """Add a tile, whose logits are used up."""
        if self.label_N is not None and self.maximum_N is not None:
            place_n1 = (self._labels_N[rows] - words.start)[:, None]
            inside_n = ((place_n1 >= 0) & (place_n1 < logits_nv.shape[1]))[:, 0]
            met_n = logits_nv.gather(1, place_n1.clamp(0, logits_nv.shape[1] - 1))[:, 0]
            self.label_N[rows] = torch.where(inside_n, met_n, self.label_N[rows])
            self.maximum_N[rows] = torch.maximum(self.maximum_N[rows], logits_nv.amax(-1))
        if words.start == 0 and not self._shift_is_known:
            self.shift_N[rows] = logits_nv.amax(-1)
        relative_nv = logits_nv.sub_(self.shift_N[rows, None])
        if self._weighted_N is None or self._exponentials is None:
            exponentials_nv = relative_nv.exp_()
        else:
            exponentials_nv = self._exponentials[: relative_nv.numel()].view_as(relative_nv)
            torch.exp(relative_nv, out=exponentials_nv)
            self._weighted_N[rows].add_(relative_nv.mul_(exponentials_nv).sum(-1))
        self.total_N[rows].add_(exponentials_nv.sum(-1))
        if self._rows_ND is not None:
            self._rows_ND[rows].addmm_(exponentials_nv, weight_vD)

    def are_finite(self) -> bool:
        sums = (self.total_N, self._weighted_N, self._rows_ND)
        return all(bool(found.isfinite().all()) for found in sums if found is not None)

    def entropies_N(self) -> torch.Tensor | None:
        """Each row's entropy in nats."""
        return None if self._weighted_N is None else self.total_N.log() - self._weighted_N / self.total_N

    def mean_rows_ND(self) -> torch.Tensor | None:
        """Each row's mean of the head's rows under its probabilities."""
        return None if self._rows_ND is None else self._rows_ND.div_(self.total_N[:, None])


def add_tiled_head(
    model: Any, *, temperature: float = 1.0, entropy: bool = False, top1: bool = False, tiled: bool = True
) -> None:
    """Let `model(..., fused_lm_head=True)` of a model with TRL's fused head score labels in tiles, on a CPU.

    Entropies are without gradient, and left out of a pass with `with_entropy=False`. Where the head is on another device,
    its logits are scaled or capped, DeepSpeed has sharded it, or `tiled` is off, TRL's fused head computes all that it was
    made for.
    """
    fused = model.forward
    text_config = model.config.get_text_config()
    changed = any(getattr(text_config, name, None) not in (None, False) for name in _CHANGED_LOGITS)
    tiled = tiled and not changed

    @functools.wraps(type(model).forward)  # generate() looks at the signature
    def forward(self: Any, *args: Any, with_entropy: bool = True, **kwargs: Any) -> Any:
        head = self.get_output_embeddings()
        if (
            not kwargs.get("fused_lm_head")
            or not tiled
            or head.weight.device.type != "cpu"
            or is_deepspeed_zero3_enabled()
        ):
            return fused(*args, **kwargs)
        return _forward(
            self, *args, temperature=temperature, entropy=entropy and with_entropy, top1=top1, **kwargs
        )

    model.forward = types.MethodType(forward, model)


def _forward(
    model: Any,
    *args: Any,
    temperature: float,
    entropy: bool,
    top1: bool,
    fused_lm_head: bool,
    labels: torch.Tensor | None = None,
    shift_labels: torch.Tensor | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
    **kwargs: Any,
) -> FusedCausalLMOutput:
    """As TRL's fused forward pass: zero where the label is -100, and nothing is computed there."""
    hidden = model.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state
    if shift_labels is None:
        assert labels is not None
        hidden, shift_labels = hidden[:, :-1], labels[:, 1:]
    mask = shift_labels != IGNORED
    head = model.get_output_embeddings()
    weight, bias = (
        part.full_tensor() if isinstance(part, DTensor) else part for part in (head.weight, head.bias)
    )
    scores = score_labels(
        hidden[mask],
        weight,
        shift_labels[mask],
        bias_V=bias,
        temperature=temperature,
        entropy=entropy,
        top1=top1,
    )

    def placed(values_N: torch.Tensor) -> torch.Tensor:
        # Keeps the model in the graph where no label is scored, so that backward gives zeros.
        return values_N.new_zeros(mask.shape).masked_scatter(mask, values_N)

    log_probs = placed(scores.log_probs_N)
    count = mask.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / count,
        log_probs=log_probs,
        entropy=None if scores.entropies_N is None else placed(scores.entropies_N),
        is_top1=None if scores.is_top1_N is None else placed(scores.is_top1_N),
        label_mask=mask,
    )

"""Pretrains a tiny model on sticker world, on CPU or GPU: `python pretraining/train.py tiny-qwen2.5-vl --out FOLDER`.

The language-model loss alone does not teach a small model to localise, so four helper heads, thrown away afterwards, say what
stands where: on the vision tower's output, on the image tokens of a middle layer, on the nouns of a question, and where a
box is about to be written.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from build import LARGEST_NUMBER, MERGE, PATCH, build_model, build_processor, build_tokenizer
from mixture import Lesson, Teacher
from opengrit.core.boxes import Size
from opengrit.data.stickers.world import KINDS, PLURALS, Placed, draw

CELL = PATCH * MERGE
LONGEST = 168.0  # pixels; the unit of the helper heads' absolute boxes for Qwen
THOUSAND_STEP = 10  # InternVL's 0-1000 numbers are written in tens


# Legend: B scenes, N image tokens of a scene, L tokens of a packed row, C hidden channels.
@dataclass
class Batch:
    pixels: torch.Tensor  # family's own layout
    grid: tuple[int, int]  # rows, columns of image tokens
    input_ids: torch.Tensor  # B L
    mask: torch.Tensor  # B 1 L L, True = may attend
    positions: torch.Tensor  # 3 B L
    image_slice: slice
    target_rows: torch.Tensor  # which (row, position) predicts
    target_ids: torch.Tensor
    target_weights: torch.Tensor
    target_is_number: torch.Tensor
    target_kinds: list[str]
    noun_rows: torch.Tensor
    noun_counts: torch.Tensor
    noun_boxes: torch.Tensor
    pen_rows: torch.Tensor  # where a box is about to be written
    pen_boxes: torch.Tensor  # the four numbers to come, as shares of the largest
    cell_classes: torch.Tensor  # B N, len(KINDS) = nothing
    cell_offsets: torch.Tensor  # B N 4 relative to the cell
    cell_boxes: torch.Tensor  # B N 4 absolute


class Family:
    """What differs between the two families while pretraining."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.qwen = name == "tiny-qwen2.5-vl"
        self.step = 1 if self.qwen else THOUSAND_STEP

    def write_box(self, placed: Placed, size: Size) -> list[int]:
        edges = (placed.left, placed.top, placed.right, placed.bottom)
        if self.qwen:
            return list(edges)
        sides = (size.width, size.height) * 2
        return [
            round(e / s * 1000 / THOUSAND_STEP) * THOUSAND_STEP for e, s in zip(edges, sides, strict=True)
        ]

    def grid(self, size: Size) -> tuple[int, int]:
        return (size.height // CELL, size.width // CELL) if self.qwen else (4, 4)

    def absolute(self, placed: Placed, size: Size) -> tuple[float, float, float, float]:
        width, height = (LONGEST, LONGEST) if self.qwen else (size.width, size.height)
        cx, cy = placed.centre
        return (
            cx / width,
            cy / height,
            (placed.right - placed.left) / width,
            (placed.bottom - placed.top) / height,
        )


class Collator:
    """Lessons to tensors: [prefix with picture | turn 1 | turn 2 ...], each turn blind to the others."""

    def __init__(self, family: Family, tokenizer, processor) -> None:
        self.family, self.tokenizer, self.processor = family, tokenizer, processor
        self.numbers = {tokenizer.convert_tokens_to_ids(str(n)): n for n in range(LARGEST_NUMBER + 1)}
        self.box_open = tokenizer.convert_tokens_to_ids('{"bbox_2d": [')
        self.box_close = tokenizer.convert_tokens_to_ids('], "label": "')
        self.nouns = {}
        for kind in KINDS:
            for word in {kind, PLURALS[kind]}:
                for form in (word, " " + word):
                    ids = tokenizer(form, add_special_tokens=False)["input_ids"]
                    assert len(ids) == 1, form
                    self.nouns[ids[0]] = kind

    def __call__(self, lessons: list[Lesson]) -> Batch:
        size = lessons[0].scene.size
        rows, columns = self.family.grid(size)
        prefix, image_slice = self._prefix(rows * columns)
        start = len(prefix)
        first_position = (
            image_slice.start + max(rows, columns) + (start - image_slice.stop) if self.family.qwen else start
        )
        packed = [self._pack(lesson, start, first_position) for lesson in lessons]
        length = max(len(p["ids"]) for p in packed) + start
        B = len(lessons)
        input_ids = torch.full((B, length), self.tokenizer.pad_token_id)
        turn_of = torch.full((B, length), -2)
        positions = torch.zeros(3, B, length, dtype=torch.long)
        input_ids[:, :start] = torch.tensor(prefix)
        turn_of[:, :start] = -1
        positions[:, :, :start] = self._prefix_positions(start, image_slice, (rows, columns))[:, None]
        for row, p in enumerate(packed):
            end = start + len(p["ids"])
            input_ids[row, start:end] = torch.tensor(p["ids"])
            turn_of[row, start:end] = torch.tensor(p["turns"])
            positions[:, row, start:end] = torch.tensor(p["positions"])
        causal = torch.tril(torch.ones(length, length, dtype=torch.bool))
        visible = (turn_of[:, None, :] == -1) | (turn_of[:, None, :] == turn_of[:, :, None])
        flat = lambda key: [(row, *t) for row, p in enumerate(packed) for t in p[key]]  # noqa: E731
        targets, nouns, pens = flat("targets"), flat("nouns"), flat("pens")
        cells = [self._cells(lesson, rows, columns) for lesson in lessons]
        return Batch(
            pixels=self._pixels(lessons), grid=(rows, columns), input_ids=input_ids,
            mask=(visible & causal)[:, None], positions=positions, image_slice=image_slice,
            target_rows=torch.tensor([t[:2] for t in targets]), target_ids=torch.tensor([t[2] for t in targets]),
            target_weights=torch.tensor([t[3] for t in targets]), target_is_number=torch.tensor([t[4] for t in targets]),
            target_kinds=[t[5] for t in targets],
            noun_rows=torch.tensor([n[:2] for n in nouns]), noun_counts=torch.tensor([n[2] for n in nouns]),
            noun_boxes=torch.tensor([n[3] for n in nouns]),
            pen_rows=torch.tensor([p[:2] for p in pens]), pen_boxes=torch.tensor([p[2] for p in pens]),
            cell_classes=torch.tensor([c[0] for c in cells]), cell_offsets=torch.tensor([c[1] for c in cells]),
            cell_boxes=torch.tensor([c[2] for c in cells]),
        )  # fmt: skip

    def _prefix(self, image_tokens: int) -> tuple[list[int], slice]:
        if self.family.qwen:
            before, pad, after = "<|im_start|>user\n<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
        else:
            before, pad, after = "<|im_start|>user\n<img>", "<IMG_CONTEXT>", "</img>\n"
        ids = self.tokenizer(before)["input_ids"]
        start = len(ids)
        ids = (
            ids
            + [self.tokenizer.convert_tokens_to_ids(pad)] * image_tokens
            + self.tokenizer(after)["input_ids"]
        )
        return ids, slice(start, start + image_tokens)

    def _prefix_positions(self, length: int, image: slice, grid: tuple[int, int]) -> torch.Tensor:
        if not self.family.qwen:
            return torch.arange(length).expand(3, -1)
        rows, columns = grid
        text = torch.arange(image.start).expand(3, -1)
        r = torch.arange(rows).repeat_interleave(columns) + image.start
        c = torch.arange(columns).repeat(rows) + image.start
        picture = torch.stack([torch.full_like(r, image.start), r, c])
        after = (image.start + max(rows, columns) + torch.arange(length - image.stop)).expand(3, -1)
        return torch.cat([text, picture, after], dim=1)

    def _pack(self, lesson: Lesson, start: int, first_position: int) -> dict[str, list]:
        out: dict[str, list] = {
            "ids": [],
            "turns": [],
            "positions": [],
            "targets": [],
            "nouns": [],
            "pens": [],
        }
        users = [t.user + "<|im_end|>\n<|im_start|>assistant\n" for t in lesson.turns]
        replies = [t.reply + "<|im_end|>" for t in lesson.turns]
        encoded = self.tokenizer(users + replies)["input_ids"]
        for index, turn in enumerate(lesson.turns):
            user, reply = encoded[index], encoded[index + len(lesson.turns)]
            begin = start + len(out["ids"])
            for offset, token in enumerate(user):
                kind = self.nouns.get(token)
                if kind is not None:
                    out["nouns"].append(self._noun(lesson, kind, begin + offset))
            out["targets"] += self._targets(reply, begin + len(user) - 1, turn.kind)
            out["pens"] += self._pens(reply, begin + len(user))
            tokens = user + reply[:-1]  # the end-of-turn token is predicted, never read
            out["ids"] += tokens
            out["turns"] += [index] * len(tokens)
            out["positions"] += range(first_position, first_position + len(tokens))
        return out

    def _noun(self, lesson: Lesson, kind: str, place: int) -> tuple:
        found = lesson.scene.of_kind(kind)
        box = self.family.absolute(found[0], lesson.scene.size) if found else (-1.0,) * 4
        return place, len(found), box

    def _pens(self, reply: list[int], place: int) -> list[tuple]:
        largest = LONGEST if self.family.qwen else float(LARGEST_NUMBER)
        found = []
        for offset, token in enumerate(reply):
            if token == self.box_open:  # x1, a comma, y1, a comma, x2, a comma, y2
                found.append(
                    (place + offset, [self.numbers[reply[offset + i]] / largest for i in (1, 3, 5, 7)])
                )
        return found

    def _targets(self, reply: list[int], place: int, kind: str) -> list[tuple]:
        out, in_box, in_rethink, previous = [], False, False, None
        answer_open, *rethink = self.tokenizer.convert_tokens_to_ids(["<answer>", "<rethink>", "</rethink>"])
        relations = {ids[0] for ids in self.tokenizer([" more", " fewer", " not"])["input_ids"]}
        for offset, token in enumerate(reply):
            number = in_box and token in self.numbers
            is_answer = previous == answer_open or (kind.startswith("direct") and offset == 0)
            verdict = token in self.nouns or token in self.numbers or is_answer or kind.endswith("yesno")
            # What the rethinking says is the decision, and so is what a box shows; the answer after it is a copy.
            decided = in_rethink and (token in self.numbers or token in relations)
            decided |= previous == self.box_close
            weight = (
                1.0 if number else 3.0 if is_answer or decided else 1.0 if verdict and not in_box else 0.4
            )
            name = kind if is_answer else "box" if number else f"decided_{kind}" if decided else "text"
            out.append((place + offset, token, weight, number, name))
            in_rethink = token == rethink[0] or (in_rethink and token != rethink[1])
            in_box = token == self.box_open or (in_box and token != self.box_close)
            previous = token
        return out

    def _cells(self, lesson: Lesson, rows: int, columns: int) -> tuple[list, list, list]:
        size = lesson.scene.size
        classes = [len(KINDS)] * (rows * columns)
        offsets, boxes = [[0.0] * 4 for _ in classes], [[0.0] * 4 for _ in classes]
        for placed in lesson.scene.objects:
            x, y = placed.centre[0] / size.width * columns, placed.centre[1] / size.height * rows
            cell = min(int(y), rows - 1) * columns + min(int(x), columns - 1)
            classes[cell] = KINDS.index(placed.kind)
            offsets[cell] = [
                x % 1,
                y % 1,
                (placed.right - placed.left) / size.width * columns,
                (placed.bottom - placed.top) / size.height * rows,
            ]
            boxes[cell] = list(self.family.absolute(placed, size))
        return classes, offsets, boxes

    def _pixels(self, lessons: list[Lesson]) -> torch.Tensor:
        pictures = [draw(lesson.scene) for lesson in lessons]
        return self.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]


class Helpers(nn.Module):
    """The heads that are thrown away."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.vision = nn.Linear(hidden, len(KINDS) + 1 + 4)
        self.middle = nn.Linear(hidden, len(KINDS) + 1 + 4 + 6 + 6)
        self.noun = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 8 + 4))
        self.pen = nn.Linear(hidden, 4)


def encode_qwen(visual: nn.Module, pixels: torch.Tensor, grid: tuple[int, int], B: int) -> torch.Tensor:
    """Image tokens, B N C: the stock tower's arithmetic for pictures of one size, without its loop over pictures."""
    rows, columns = grid
    N = rows * columns * MERGE**2
    hidden = visual.patch_embed(pixels).view(B, N, -1)
    r = torch.arange(rows * MERGE).view(rows, 1, MERGE, 1).expand(rows, columns, MERGE, MERGE).reshape(-1)
    c = (
        torch.arange(columns * MERGE)
        .view(1, columns, 1, MERGE)
        .expand(rows, columns, MERGE, MERGE)
        .reshape(-1)
    )
    cos, sin = visual.rotary_pos_emb(hidden, torch.stack([r, c], dim=1).to(pixels.device))
    for block in visual.blocks:
        x, attention = block.norm1(hidden), block.attn
        q, k, v = attention.qkv(x).view(B, N, 3, attention.num_heads, -1).unbind(2)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        x = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        hidden = hidden + attention.proj(x.transpose(1, 2).reshape(B, N, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    return visual.merger(hidden.reshape(B * N, -1)).view(B, rows * columns, -1)


def losses(
    model: nn.Module, helpers: Helpers, batch: Batch, family: Family, sigma: float, number_ids: torch.Tensor
):
    """The weighted sum of all losses and what to log."""
    B = len(batch.input_ids)
    core = model.model
    if family.qwen:
        image_BNC = encode_qwen(core.visual, batch.pixels, batch.grid, B)
    else:
        image_BNC = core.get_image_features(batch.pixels, return_dict=True).pooler_output
    embedded = core.get_input_embeddings()(batch.input_ids)
    embedded = torch.cat(
        [embedded[:, : batch.image_slice.start], image_BNC, embedded[:, batch.image_slice.stop :]], dim=1
    )
    positions = torch.cat([batch.positions[:1], batch.positions]) if family.qwen else batch.positions[0]
    caught: dict[int, torch.Tensor] = {}
    layers = core.language_model.layers
    hooks = [
        layers[i].register_forward_hook(
            lambda m, a, out, i=i: caught.__setitem__(i, out[0] if isinstance(out, tuple) else out)
        )
        for i in (1, 2, 3)
    ]
    hidden_BLC = core.language_model(
        inputs_embeds=embedded, attention_mask=batch.mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    for hook in hooks:
        hook.remove()

    chosen = hidden_BLC[batch.target_rows[:, 0], batch.target_rows[:, 1]]
    log_p = F.log_softmax(model.lm_head(chosen), dim=-1)
    nll = -log_p.gather(1, batch.target_ids[:, None])[:, 0]
    text_loss = (nll * batch.target_weights)[~batch.target_is_number].sum()
    number_loss = soft_number_loss(log_p, batch, number_ids, sigma, family.step)
    language = (text_loss + 2.0 * number_loss) / batch.target_weights.sum()

    classes, here = batch.cell_classes, batch.cell_classes < len(KINDS)

    def cell_loss(out: torch.Tensor, boxes: torch.Tensor, scale: float) -> torch.Tensor:
        # Objects twice: alone, and among the empty cells that would otherwise drown them.
        what = out[..., : len(KINDS) + 1]
        where = F.cross_entropy(what.flatten(0, 1), classes.flatten()) + F.cross_entropy(
            what[here], classes[here]
        )
        return where + scale * F.l1_loss(out[..., len(KINDS) + 1 : len(KINDS) + 5][here], boxes[here])

    vision = cell_loss(helpers.vision(image_BNC), batch.cell_offsets, 1.5)
    middle_out = helpers.middle(caught[1][:, batch.image_slice])
    rows, columns = batch.grid
    r = torch.arange(rows).repeat_interleave(columns).expand(B, -1)
    c = torch.arange(columns).repeat(rows).expand(B, -1)
    middle = cell_loss(middle_out, batch.cell_boxes, 6.0)
    middle = middle + F.cross_entropy(middle_out[..., -12:-6].flatten(0, 1), r.flatten())
    middle = middle + F.cross_entropy(middle_out[..., -6:].flatten(0, 1), c.flatten())
    noun_out = helpers.noun(caught[2][batch.noun_rows[:, 0], batch.noun_rows[:, 1]])
    known = batch.noun_boxes[:, 0] >= 0
    noun = F.cross_entropy(noun_out[:, :8], batch.noun_counts) + 6.0 * F.l1_loss(
        noun_out[:, 8:][known], batch.noun_boxes[known]
    )

    pen = F.l1_loss(helpers.pen(caught[3][batch.pen_rows[:, 0], batch.pen_rows[:, 1]]), batch.pen_boxes)

    hits = (log_p.argmax(-1) == batch.target_ids).float().tolist()
    with torch.no_grad():
        log = {
            "language": language.item(), "vision": vision.item(), "middle": middle.item(), "noun": noun.item(),
            "cell_class": (helpers.vision(image_BNC)[..., : len(KINDS) + 1].argmax(-1) == classes)[here].float().mean().item(),
            "noun_count": (noun_out[:, :8].argmax(-1) == batch.noun_counts).float().mean().item(),
            "noun_box_l1": F.l1_loss(noun_out[:, 8:][known], batch.noun_boxes[known]).item(),
            "pen_l1": pen.item(),
            "box_nll": nll[batch.target_is_number].mean().item(),
        }  # fmt: skip
    return language, vision + middle + noun + 8.0 * pen, log, list(zip(batch.target_kinds, hits, strict=True))


def soft_number_loss(
    log_p: torch.Tensor, batch: Batch, number_ids: torch.Tensor, sigma: float, step: int
) -> torch.Tensor:
    """Cross-entropy of coordinates against a narrow bell around the true number, so that near misses cost less."""
    is_number = batch.target_is_number
    lookup = torch.full((log_p.shape[1],), -1)
    lookup[number_ids] = torch.arange(len(number_ids))
    true = lookup[batch.target_ids[is_number]]
    spread = torch.arange(-3, 4)
    near = true[:, None] + spread * step
    weight = torch.exp(-0.5 * (spread / sigma) ** 2) * ((near >= 0) & (near <= LARGEST_NUMBER))
    weight = weight / weight.sum(1, keepdim=True)
    picked = log_p[is_number].gather(1, number_ids[near.clamp(0, LARGEST_NUMBER)])
    return -(weight * picked).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["tiny-qwen2.5-vl", "tiny-internvl3"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=100.0, help="wall-clock budget; the schedule follows it"
    )
    parser.add_argument("--batch", type=int, default=32, help="scenes a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--faulty", type=float, default=0.2, help="last share of the run that shows faulty grounded replies"
    )
    parser.add_argument(
        "--retouch",
        type=int,
        default=0,
        metavar="STEPS",
        help="instead of a whole run: continue from a copy of a finished run's state.pt in --out, on the last phase's lessons",
    )
    parser.add_argument("--retouch-lr", type=float, default=3e-4)
    parser.add_argument(
        "--start", type=Path, metavar="FOLDER", help="begin with the weights of a model of the same shape"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    family = Family(args.name)
    tokenizer = build_tokenizer(args.name)
    processor = build_processor(args.name, tokenizer)
    model = build_model(args.name, tokenizer, args.seed).train()
    if args.start:
        take_weights(model, tokenizer, args.start)
    helpers = Helpers(model.config.text_config.hidden_size)
    parameters = [*model.parameters(), *helpers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    teacher = Teacher(random.Random(args.seed + 1), family.write_box)
    collate = Collator(family, tokenizer, processor)
    number_ids = torch.tensor([tokenizer.convert_tokens_to_ids(str(n)) for n in range(LARGEST_NUMBER + 1)])

    step, spent = 0, 0.0
    state_file = args.out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=False)
        model.load_state_dict(state["model"]), helpers.load_state_dict(state["helpers"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
        teacher.rng.seed(args.seed + 1 + step)
    elif args.retouch:
        parser.error(f"--retouch continues from a finished run, there is no {state_file}; copy one there")
    began, last_save = time.monotonic() - spent, time.monotonic()
    first_step, tally = step, defaultdict[str, list[float]](list)
    while True:
        spent = time.monotonic() - began
        if args.retouch:
            done = (step - first_step) / args.retouch
            progress, lr = 1.0, args.retouch_lr * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-5
        else:
            done = progress = spent / (args.minutes * 60)
            cosine = 0.5 + 0.5 * math.cos(math.pi * max(0.0, progress - 0.3) / 0.7)
            lr = args.lr * min(1.0, (step + 1) / 150) * cosine + 1e-5
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = collate(teacher.batch(args.batch, faulty=progress > 1 - args.faulty))
        sigma = 1.5 - 0.9 * min(1.0, progress / 0.8)
        language, helping, log, hits = losses(model, helpers, batch, family, sigma, number_ids)
        (language + (1.0 - 0.7 * progress) * helping).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        for key, value in log.items():
            tally[key].append(value)
        for kind, hit in hits:
            tally["acc/" + kind].append(hit)
        if step % 50 == 0:
            line = {k: round(sum(v) / len(v), 3) for k, v in sorted(tally.items())}
            line = {
                "step": step,
                "scenes": step * args.batch,
                "minutes": round(spent / 60, 1),
                "lr": round(lr, 6),
            } | line
            with (args.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            tally.clear()
        if time.monotonic() - last_save > 240:
            save(state_file, model, helpers, optimizer, step, time.monotonic() - began)
            last_save = time.monotonic()
    save(state_file, model, helpers, optimizer, step, spent)
    model.half().eval().save_pretrained(args.out / "model")
    processor.save_pretrained(args.out / "model")


def take_weights(model: nn.Module, tokenizer, folder: Path) -> None:
    """Copies a model's weights; a token's row goes to the same token, and tokens that the other lacks keep theirs."""
    other = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    ids, known = tokenizer.get_vocab(), AutoTokenizer.from_pretrained(folder).get_vocab()
    rows = torch.tensor([(ids[token], known[token]) for token in ids if token in known])
    weights = other.state_dict()
    for name, value in model.state_dict().items():
        given = weights[name]
        if given.shape == value.shape:
            value.copy_(given)
        else:  # the embeddings, which the head shares
            value[rows[:, 0]] = given[rows[:, 1]]


def save(path: Path, model: nn.Module, helpers: nn.Module, optimizer, step: int, spent: float) -> None:
    staged = path.with_suffix(".tmp")
    torch.save(
        {
            "model": model.state_dict(),
            "helpers": helpers.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "spent": spent,
        },
        staged,
    )
    os.replace(staged, path)


if __name__ == "__main__":
    main()

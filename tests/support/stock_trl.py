"""What TRL's own trainer is given where ours is compared with it."""

from __future__ import annotations

import torch
from PIL import Image

from opengrit.grounding.prompts import user_text


def stock_inputs(made, output):
    """What the processor makes of the batch's pictures and prompts, as TRL hands it to its own method."""
    processor = made.loaded.processor
    prompts, pictures = [], []
    for row in range(len(output["row"])):
        example = made._batch_examples[row]
        text = user_text("direct", example.question, family=made.loaded.frame)
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        prompts.append(processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
        pictures.append([Image.open(example.image)])
    inputs = processor(images=pictures, text=prompts, padding=True, return_tensors="pt")
    vision = {"pixel_values": inputs["pixel_values"], "num_images": [1] * len(prompts)}
    if "image_grid_thw" in inputs:
        vision["image_grid_thw"] = inputs["image_grid_thw"]
        empty = torch.zeros_like(output["completion_ids"])
        vision["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], empty], 1)
    else:
        counted = processor.image_processor(images=pictures, crop_to_patches=True, return_tensors="pt")
        vision["num_tiles"] = counted["num_patches"].tolist()
    ids = torch.cat([inputs["input_ids"], output["completion_ids"]], 1)
    mask = torch.cat([inputs["attention_mask"], output["completion_mask"]], 1)
    return ids, mask, vision

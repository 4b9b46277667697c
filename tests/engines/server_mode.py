"""Asks TRL's vLLM server as a training in server mode does: `python server_mode.py MODEL URL`; prints what both samplers wrote.

Everything is TRL's own but for the one call that opens the line for pushing weights, which takes CUDA devices only.
"""

import json
import sys

from accelerate import Accelerator
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

import opengrit.models
from opengrit.data.stickers.sets import examples
from opengrit.grounding.prompts import Strategy, user_text
from opengrit.sampling import Asked, SamplingSettings
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.sampling.vllm import VllmSampler, forgetting_pictures

TOKENS = 120


def main(model: str, url: str) -> None:
    loaded = opengrit.models.load(model)
    VLLMClient.init_communicator = lambda self, device: None
    generation = VLLMGeneration(
        model=loaded.model,
        accelerator=Accelerator(cpu=True),
        processing_class=loaded.processor,
        mode="server",
        server_base_url=url,
        temperature=0.0,
        max_completion_length=TOKENS,
        logprobs=0,
        generation_kwargs={"stop": ["</answer>"], "include_stop_str_in_output": True},
    )
    here = TransformersSampler(loaded)
    server = VllmSampler(
        here, generation.generate, expands_pictures=False, forget_pictures=forgetting_pictures(generation)
    )
    asked = [Asked(e.id, e.image, user_text(Strategy.GROUNDED, e.question)) for e in examples("count")[:12]]
    settings = SamplingSettings(temperature=0.0, max_new_tokens=TOKENS, stop=("</answer>",))
    texts = {
        name: [
            own.completion.text for [own] in sampler.sample(asked, samples_per_question=1, settings=settings)
        ]
        for name, sampler in (("server", server), ("here", here))
    }
    texts["log_probs"] = [list(row) for row in server.last_log_probs]
    print(json.dumps(texts))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Questions about pictures in, completions out: the sampler protocol and its engines.

May import `recipes` and the floors below it. Begin with `protocol.py`. `transformers_engine.py` runs a model in this
process (it needs torch), `endpoint.py` asks a server, `vllm.py` uses TRL's vLLM, `replay.py` returns recorded completions.
"""

from opengrit.sampling.protocol import (
    Asked,
    Listener,
    Sampled,
    Sampler,
    SamplingSettings,
    Unsampled,
    settings_of_each,
)

__all__ = ["Asked", "Listener", "Sampled", "Sampler", "SamplingSettings", "Unsampled", "settings_of_each"]

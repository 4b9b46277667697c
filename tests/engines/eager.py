"""OpenGRIT's command line with the vLLM of a training as a CPU can have it.

Nothing is compiled, on which a CPU would spend minutes. And the weights stay where they were loaded: on CPUs whose instructions
oneDNN uses for 16 bits (AVX512-FP16), vLLM packs them and drops the originals, and has then nothing to load new ones into.
"""

import functools
import sys

import trl.generation.vllm_generation as generation
import vllm._custom_ops

from opengrit.cli.app import main

generation.LLM = functools.partial(generation.LLM, enforce_eager=True)
vllm._custom_ops._supports_onednn = False
sys.exit(main())

"""OpenGRIT's command line with the vLLM of a training made without compiling, which a CPU would spend minutes on."""

import functools
import sys

import trl.generation.vllm_generation as generation

from opengrit.cli.app import main

generation.LLM = functools.partial(generation.LLM, enforce_eager=True)
sys.exit(main())

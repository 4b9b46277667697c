"""OpenGRIT: vision-language models that show their evidence, trained from a handful of questions."""

__version__ = "0.1.0"

__all__ = ["__version__"]

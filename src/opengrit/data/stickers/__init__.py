"""Sticker world: the packaged pictures and questions that need no download."""

from opengrit.data.stickers.sets import SET_NAMES, examples, write

__all__ = ["SET_NAMES", "examples", "write"]

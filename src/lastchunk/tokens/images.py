"""Tokens of an image, by its size in pixels and the published rules of each model."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from lastchunk.tokens.encodings import base_model

TILE = 512
SHORT_SIDE = 768
LONG_SIDE = 2048
PATCH = 32
MOST_PATCHES = 1536


@dataclass(frozen=True, slots=True)
class TileRule:
    """A base, and so much for each tile of 512 pixels (published)."""

    base: int
    tile: int


@dataclass(frozen=True, slots=True)
class PatchRule:
    """Patches of 32 pixels, at most 1,536, times a factor (published), and one token a picture.

    The factors of gpt-5-mini and gpt-5-nano, and the one token, are measured on recordings.
    """

    factor: float


ImageRule = TileRule | PatchRule

_RULES: tuple[tuple[str, ImageRule], ...] = (
    ("gpt-4o-mini", TileRule(2833, 5667)),
    ("gpt-4.1-mini", PatchRule(1.62)),
    ("gpt-4.1-nano", PatchRule(2.46)),
    ("gpt-5-mini", PatchRule(1.2)),
    ("gpt-5-nano", PatchRule(1.5)),
    ("o4-mini", PatchRule(1.72)),
    ("gpt-5", TileRule(70, 140)),
    ("o1", TileRule(75, 150)),
    ("o3", TileRule(75, 150)),
    ("gpt-4", TileRule(85, 170)),
)
_DEFAULT: ImageRule = TileRule(85, 170)


def image_rule(model: str) -> ImageRule:
    """The rule of a model, by name prefix; an unknown model is taken for gpt-4o."""
    name = base_model(model)
    return next((rule for prefix, rule in _RULES if name.startswith(prefix)), _DEFAULT)


def image_tokens(rule: ImageRule, width: int, height: int, detail: str) -> int:
    """Tokens of an image of `width × height` pixels."""
    if isinstance(rule, PatchRule):
        return _patch_tokens(rule, width, height)
    if detail == "low":
        return rule.base
    return rule.base + rule.tile * _tiles(width, height)


def image_range(rule: ImageRule, detail: str) -> tuple[int, int, int]:
    """The least, likely (1024 × 1024 pixels) and most tokens of an image of unknown size."""
    if isinstance(rule, PatchRule):
        most = ceil(MOST_PATCHES * rule.factor) + 1
        return _patch_tokens(rule, 1, 1), _patch_tokens(rule, 1024, 1024), most
    if detail == "low":
        return rule.base, rule.base, rule.base
    # 768 × 2048 pixels, the largest that scaling leaves, are two by four tiles.
    return rule.base, rule.base + 4 * rule.tile, rule.base + 8 * rule.tile


def _tiles(width: int, height: int) -> int:
    """Tiles after fitting into 2048 × 2048 and then the short side to 768; never enlarged."""
    scale = min(1.0, LONG_SIDE / max(width, height))
    wide, high = width * scale, height * scale
    scale = min(1.0, SHORT_SIDE / min(wide, high))
    return ceil(int(wide * scale) / TILE) * ceil(int(high * scale) / TILE) or 1


def _patch_tokens(rule: PatchRule, width: int, height: int) -> int:
    wide, high = ceil(width / PATCH), ceil(height / PATCH)
    if wide * high > MOST_PATCHES:
        scale = (PATCH * PATCH * MOST_PATCHES / (width * height)) ** 0.5
        across, down = width * scale / PATCH, height * scale / PATCH
        fit = min(int(across) / across, int(down) / down) if int(across) and int(down) else 1.0
        wide = ceil(width * scale * fit / PATCH)
        high = ceil(height * scale * fit / PATCH)
    return ceil(min(wide * high, MOST_PATCHES) * rule.factor) + 1

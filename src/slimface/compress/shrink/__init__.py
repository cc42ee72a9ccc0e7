"""Shrinking: masked models become physically smaller with the same outputs."""

from slimface.compress.shrink.report import KeptFilters, ShrinkReport, ShrunkGroup
from slimface.compress.shrink.shrinking import Shrunk, shrink

__all__ = ["KeptFilters", "ShrinkReport", "Shrunk", "ShrunkGroup", "shrink"]

"""Deterministic transforms of a request: our own implementations of what attack suites ship."""

from safehold.detect.redteam.transforms.chain import apply, chains, instruction, survives
from safehold.detect.redteam.transforms.interface import Family, Transform
from safehold.detect.redteam.transforms.table import TRANSFORMS, transform

__all__ = [
    "TRANSFORMS",
    "Family",
    "Transform",
    "apply",
    "chains",
    "instruction",
    "survives",
    "transform",
]

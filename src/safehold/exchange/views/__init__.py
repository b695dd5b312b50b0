"""Decoded views: what an obfuscated text means, for scorers that read plain text."""

from safehold.exchange.views.interface import View, ViewLimits
from safehold.exchange.views.normalise import normalise
from safehold.exchange.views.search import views

__all__ = ["View", "ViewLimits", "normalise", "views"]

"""Decoded views: what an obfuscated text means, for scorers that read plain text."""

from safehold.exchange.views.interface import View, ViewLimits
from safehold.exchange.views.normalise import normalise
from safehold.exchange.views.reader import Reader, readable
from safehold.exchange.views.search import views
from safehold.exchange.views.slots import slotted, spread_over
from safehold.exchange.views.streaming import StreamingSettings, StreamingViews

__all__ = [
    "Reader",
    "StreamingSettings",
    "StreamingViews",
    "View",
    "ViewLimits",
    "normalise",
    "readable",
    "slotted",
    "spread_over",
    "views",
]

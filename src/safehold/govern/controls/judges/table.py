"""The table of judges: every automatic control has exactly one."""

from collections.abc import Mapping
from types import MappingProxyType

from safehold.govern.controls.interface import Judge
from safehold.govern.controls.judges import binary, change, egress, host, watching, weights

JUDGES: Mapping[str, Judge] = MappingProxyType(
    {
        **egress.JUDGES,
        **weights.JUDGES,
        **change.JUDGES,
        **binary.JUDGES,
        **host.JUDGES,
        **watching.JUDGES,
    }
)

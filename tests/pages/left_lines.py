"""The one list of lines that no session plays, by page: a line's beginning, and why.

Each names what plays it instead, or says that nothing here does.
"""

import os

LEFT: dict[str, dict[str, str]] = {
    "gateway": {
        "safehold serve --upstream https://api": "nothing is asked of a vendor by a test: no test "
        "plays it; tests/guard/gateway/test_gateway_sdks.py speaks the vendors' protocols",
    },
    "endpoint": {
        "safehold endpoint guard --policy endpoint.toml": "it guards the whole machine: scripts/vm "
        "plays it over a boot",
    },
    "console": {
        "safehold console --demo": "tests/soak/test_soak_console_demo.py plays it whole",
    },
}

AS_ROOT = {
    "safehold serve --bundle": "two users need root",
    "safehold weights load": "two users need root",
}
"""Lines of weights.md that are left where the reader is not root."""

if os.geteuid():
    LEFT["weights"] = AS_ROOT

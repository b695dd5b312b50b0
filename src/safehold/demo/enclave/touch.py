"""Open a file and read from it: what somebody does who found a decoy.

python -m safehold.demo.enclave.touch PATH
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        file.read(16)

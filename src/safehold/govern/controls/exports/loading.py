"""Load a library: what a probe of the execution guard does.

python -m safehold.govern.controls.exports.loading LIBRARY
"""

import ctypes
import sys

if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])

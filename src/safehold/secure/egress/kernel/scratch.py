"""Apply a transaction in an empty network namespace, and list what it means, in nft's own words.

`unshare --net -- python -P -m safehold.secure.egress.kernel.scratch DEVICE…`, with the transaction
on standard input. It is a program of its own, for a host that allowlists code refuses `sh -c`.
"""

import subprocess
import sys


def main(devices: list[str]) -> int:
    """Print the listing; a command that fails has said why, and its status is returned."""
    commands = [
        ["ip", "link", "add", name, "type", "veth", "peer", "name", f"p{number}"]
        for number, name in enumerate(devices, 1)
    ]
    for command in (*commands, ["nft", "-j", "-f", "-"], ["nft", "-n", "-s", "list", "ruleset"]):
        fed = None if command[0] == "nft" and "-f" in command else subprocess.DEVNULL
        status = subprocess.run(command, stdin=fed, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Scanners for `scout scan`: our re-scan's value, and a word in the messages."""

from inspect_scout import Result, Scanner, Transcript, grep_scanner, scanner


@scanner(messages="all")
def rescan() -> Scanner[Transcript]:
    """Give back what our own scanner said."""

    async def scan(transcript: Transcript) -> Result:
        about = transcript.metadata
        return Result(value=float(about["rescan_decoded"]), explanation=str(about["ledger_seq"]))

    return scan


@scanner(messages="all")
def needle() -> Scanner[Transcript]:
    """Count a planted phrase."""
    return grep_scanner(["needle of the hay"])

"""Every error that Safehold raises on purpose, in one tree.

    SafeholdError
    ├── UsageError              the command was typed wrongly
    ├── ConfigError             a configuration file or option must be corrected
    ├── ConstitutionError       a constitution must be corrected
    ├── DataError               an input data file must be corrected
    │   └── BusyError           another process writes it
    ├── BundleError             a bundle can't be used
    │   └── TamperError         signed or digested content differs from its record
    ├── ScorerError             a scorer could not give a score
    ├── BlockedError            the guard stopped an exchange
    ├── WireError               a client's request can't be read
    ├── UpstreamError           the model server failed or answered nonsense
    ├── LedgerError             the ledger can't take or give a row
    ├── TrustError              an authorization is missing, spent or false
    ├── WeightsError            sealed weights can't be made or opened
    ├── EgressError             a flow, budget or kernel rule can't be used
    ├── EndpointError           what may run on this host can't be controlled
    ├── DiskError               the operating system refused a file
    └── DependencyError         an optional package is not installed

A message says what was expected and what came; never content, keys or prompts.
`exit_status` is what the command line exits with.
An `OSError` that no command foresaw is one line too, with the status of a `DiskError`.
"""

import os


class SafeholdError(Exception):
    """Something the reader can act on; the message is one line."""

    exit_status = 1


class UsageError(SafeholdError):
    """Type the command differently; `--help` shows how."""

    exit_status = 2


class ConfigError(SafeholdError):
    """Correct the configuration named in the message."""

    exit_status = 2


class ConstitutionError(SafeholdError):
    """Correct the constitution at the place named in the message."""

    exit_status = 2


class DataError(SafeholdError):
    """Correct the data file at the line named in the message."""

    exit_status = 2


class BusyError(DataError):
    """Wait for the process that writes this record, or choose another place."""


class BundleError(SafeholdError):
    """Use another bundle, or make this one again."""

    exit_status = 3


class TamperError(BundleError):
    """Content differs from its recorded digest or signature: find out who changed it."""


class ScorerError(SafeholdError):
    """A scorer broke or answered nonsense; the fail mode of its stage decides."""


class BlockedError(SafeholdError):
    """Tell the client of a refusal; nothing more of this exchange may leave.

    `clause` is the constitution's clause; empty where no clause is to blame.
    """

    def __init__(self, clause: str) -> None:
        super().__init__(f"the guard stopped this exchange: {clause or 'it can not be read'}")
        self.clause = clause


class WireError(SafeholdError):
    """Correct the request: it does not follow its protocol."""


class UpstreamError(SafeholdError):
    """Look at the model server: it failed, hung or broke its protocol."""

    exit_status = 4


class LedgerError(SafeholdError):
    """Look at the ledger's storage: a row could not be kept or read."""

    exit_status = 4


class TrustError(SafeholdError):
    """Obtain the authorization that the message names."""

    exit_status = 5


class WeightsError(SafeholdError):
    """Look at the sealed files, the key provider or the grant named in the message."""

    exit_status = 5


class EgressError(SafeholdError):
    """Correct the flow register, the budget or the host named in the message."""

    exit_status = 6


class EndpointError(SafeholdError):
    """Correct the software policy, the inventory or the host named in the message."""

    exit_status = 6


class DiskError(SafeholdError):
    """Look at the file or folder named in the message: the system can't read or write it."""

    exit_status = 9


class DependencyError(SafeholdError):
    """Install the extra named in the message."""

    exit_status = 7


def shown(name: object) -> str:
    """Return the name of a file in one line of text, whatever bytes and breaks it has."""
    text = os.fsdecode(name) if isinstance(name, bytes) else str(name)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def told_by_system(error: OSError, place: object = "") -> str:
    """Say in one line what the system refused: the file, or else `place`, and the reason."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, OSError):  # of a request: it has the reason within
        error = reason
    names = [shown(one) for one in (error.filename, error.filename2) if one is not None]
    where = " to ".join(names) or shown(place)
    why = " ".join((error.strerror or str(error) or "the system refused it").split())
    return f"{where}: {why}" if where else why

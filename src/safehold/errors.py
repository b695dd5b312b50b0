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
    └── DependencyError         an optional package is not installed

A message says what was expected and what came; never content, keys or prompts.
`exit_status` is what the command line exits with.
"""


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


class DependencyError(SafeholdError):
    """Install the extra named in the message."""

    exit_status = 7

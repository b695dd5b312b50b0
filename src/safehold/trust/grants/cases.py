"""What has happened to each request so far, and all of them together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from safehold.trust.exemptions.interface import ExemptionTerms
from safehold.trust.grants.interface import Approval, SignedRequest
from safehold.trust.release.interface import PublishRelease


@dataclass(slots=True)
class Case:
    """What has happened to one request so far."""

    signed: SignedRequest
    requested_at: int
    approvals: list[Approval] = field(default_factory=list)
    approvers: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    denied: bool = False
    revoked: bool = False
    ended: bool = False
    uses: int = 0
    releases: int = 0
    carried_by: tuple[str, ...] = ()
    """Who carried the latest use."""
    broken_at: int | None = None
    reviews_due: int = 0
    reviews_until: int = 0
    reviewers: list[str] = field(default_factory=list)
    exemption: ExemptionTerms | None = None
    used_at: int | None = None
    """When it was used first."""

    @property
    def closed(self) -> bool:
        """Tell whether nobody can use it any more, whatever comes."""
        return self.denied or self.revoked or self.ended

    def settled(self, time: int) -> bool:
        """Tell whether it is over at `time`, and no list of what counts now has it."""
        request = self.signed.request
        counts = (
            self.exemption is not None
            or self.broken_at is not None
            or isinstance(request.details, PublishRelease)
        )
        return not counts and (self.closed or request.expires <= time)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Case)


class Cases(Mapping[str, Case]):
    """Every case by its request's SHA-256, in the order of the log.

    Settled ones lie packed until somebody asks for them, so that a long history costs little.
    """

    def __init__(self, packed: Mapping[str, bytes] | None = None) -> None:
        self._cases: dict[str, Case | bytes] = dict(packed or {})

    def __getitem__(self, digest: str) -> Case:
        found = self._cases[digest]
        if isinstance(found, bytes):
            found = self._cases[digest] = _DECODER.decode(found)
        return found

    def __contains__(self, digest: object) -> bool:
        return digest in self._cases

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._cases))

    def __len__(self) -> int:
        return len(self._cases)

    def add(self, digest: str, case: Case) -> None:
        """Take in a new case."""
        self._cases[digest] = case

    def live(self) -> list[tuple[str, Case]]:
        """Return the cases that were not settled when they were packed, oldest first."""
        return [(one, case) for one, case in self._cases.items() if isinstance(case, Case)]

    def pack(self, time: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Pack what is settled as of `time`; return the live and the settled cases, packed."""
        live: dict[str, bytes] = {}
        settled: dict[str, bytes] = {}
        for digest, case in self._cases.items():
            if isinstance(case, bytes):
                settled[digest] = case
            elif case.settled(time):
                settled[digest] = _ENCODER.encode(case)
            else:
                live[digest] = _ENCODER.encode(case)
        self._cases.update(settled)
        return live, settled

    def unpack(self) -> None:
        """Unpack all: the time was set back, so what was over by the clock may not be."""
        for digest in self:
            _ = self[digest]

    @classmethod
    def unpacked(cls, live: Mapping[str, bytes], settled: Mapping[str, bytes]) -> "Cases":
        """Return the cases that `pack` gave; the settled ones stay packed."""
        cases = cls(settled)
        for digest, data in live.items():
            cases.add(digest, _DECODER.decode(data))
        return cases

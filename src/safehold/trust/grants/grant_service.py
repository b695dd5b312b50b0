"""The desk: where acts come in, are judged against the log, and become leaves of it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from safehold.errors import TrustError
from safehold.trust.grants.events import (
    Alarm,
    Approved,
    BrokeGlass,
    DecisionNote,
    Denied,
    Ended,
    Founded,
    Founding,
    GrantIssued,
    RefusedUse,
    Released,
    Requested,
    Reviewed,
    Revoked,
    Used,
)
from safehold.trust.grants.interface import (
    Granted,
    GrantError,
    Reason,
    Refused,
    RefusedError,
    SignedRequest,
    short,
)
from safehold.trust.grants.leaf_reader import take_entry
from safehold.trust.grants.operations import AT_ONCE
from safehold.trust.grants.snapshot import Snapshots
from safehold.trust.grants.state import TrustState
from safehold.trust.log.book import LogBook
from safehold.trust.log.dsse import open_envelope, sign_envelope
from safehold.trust.log.interface import LogError, UnpublishedError
from safehold.trust.log.log_entries import Leaf, Record, read_leaf, statement_of
from safehold.trust.log.merkle import hash_leaf
from safehold.trust.log.note import SigningKey
from safehold.trust.log.tiles import Frontier
from safehold.trust.people.interface import Proof

Clock = Callable[[], int]
"""Returns POSIX seconds."""


class Pager(Protocol):
    """Tells people at once that the glass is broken."""

    def page(self, subject: str, detail: str) -> str:
        """Tell them, and return whom, in words for the log.

        Raises:
            TrustError: nobody could be told; then the glass stays whole.
        """
        ...


class Desk:
    """Appends judged acts to a log, each published in a signed tree before it takes effect.

    Any number of desks, in any number of processes, may work on one log: each act is judged while
    the log is locked, against everything that is in it.
    """

    def __init__(
        self,
        store: LogBook,
        emitter: SigningKey,
        clock: Clock,
        pager: Pager | None = None,
        *,
        memory: Path | None = None,
    ) -> None:
        """Begin on a log.

        Args:
            store: The log.
            emitter: The key that signs this desk's leaves.
            clock: POSIX seconds.
            pager: Tells people of a broken glass; None: none can be broken here.
            memory: A file in this desk's own folder that saves it from replaying a long log.

        Raises:
            LogError: `log.json` does not name the emitter.
        """
        self.store = store
        self._emitter = emitter
        self._clock = clock
        self._pager = pager
        self._snapshots = None if memory is None else Snapshots(memory, emitter)
        self._state = TrustState(store.keys.origin, store.keys.founding)
        self._taken = Frontier()
        self._reading = threading.RLock()
        self._begun = False
        self._emitters = store.keys.emitter_keys()
        if emitter.verifier.label not in self._emitters:
            raise LogError("expected an emitter that log.json names, got another")

    def now(self) -> int:
        """Return the desk's clock, POSIX seconds."""
        return self._clock()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the state as it is: another thread of this process takes no leaf into it."""
        with self._reading:
            yield

    @property
    def state(self) -> TrustState:
        """The state as of the newest leaf, whoever appended it. It waits for no writer."""
        with self._reading:
            kept = self._snapshots
            if kept is not None and not self._begun:
                self._state, self._taken = kept.load(self.store) or (self._state, self._taken)
            self._begun = True
            since = self._taken.size
            for index, entry in self.store.entries(since):
                take_entry(self._state, index, entry, self._emitters)
                self._taken.add(hash_leaf(entry))
                if kept is not None and kept.is_due(self._taken.size, since):
                    kept.keep(self._state, self._taken, self.store)
                    since = self._taken.size
            if kept is not None and kept.is_due(self._taken.size, since, done=True):
                kept.keep(self._state, self._taken, self.store)
        return self._state

    def record(self, leaf: Leaf) -> int:
        """Judge a leaf, append it, publish the tree, and return its index.

        A record that an earlier call stored and could not publish is published, not stored again.

        Raises:
            UnpublishedError: the leaf is stored, and the tree with it could not be written.
            TrustError: the leaf would be void, or the disk refused; nothing was appended.
        """
        statement = statement_of(leaf)
        # What every reader would void is not written: typed members are checked as they will be.
        read_leaf(statement)
        # What is there already is replayed before the log is held: nobody waits for that.
        _ = self.state
        with self.store.exclusive():
            state = self.state
            if not isinstance(leaf, Record):
                state.plan(leaf)
            # What was stored before goes first: a disk that is still full is given nothing more.
            index = self._unpublished(leaf)
            if index is None:
                self.store.publish()
                index = self.store.append([sign_envelope(statement, self._emitter)])[0]
            try:
                self.store.publish()
            except LogError as error:
                raise UnpublishedError(
                    f"leaf {index} is stored, but not in the signed tree yet ({error}): put that "
                    "right and do not repeat the command; the next one publishes the leaf, and so "
                    "does `safehold log checkpoint`"
                ) from error
            return index

    def _unpublished(self, leaf: Leaf) -> int | None:
        """Return the index of this very record, but for its time, among what is unpublished."""
        if not isinstance(leaf, Record):
            return None
        for index, entry in self.store.entries(self.store.checkpoint().size):
            try:
                statement, emitter = open_envelope(entry, self._emitters)
                there = read_leaf(statement)
            except TrustError:
                continue
            mine = emitter == self._emitter.verifier.label and isinstance(there, Record)
            if mine and msgspec.structs.replace(there, time=leaf.time) == leaf:
                return index
        return None

    # ---- acts of persons -----------------------------------------------------------------

    def found(self, founding: Founding, proofs: tuple[Proof, ...]) -> int:
        """Record the founding, signed by every founder."""
        return self.record(Founded(time=self.now(), founding=founding, proofs=proofs))

    def request(self, signed: SignedRequest) -> str:
        """Record a request and return its SHA-256."""
        self.record(Requested(time=self.now(), signed=signed))
        return signed.request.sha256

    def approve(self, request: str, proof: Proof) -> Granted | Refused:
        """Record an approval; with the quorum, issue the grant.

        A request that changes people, policy or exemptions takes effect here and now.
        """
        _ = self.state
        with self.store.exclusive():
            now = self.now()
            self.record(Approved(time=now, request=request, proof=proof))
            asked = self.state.case(request).signed.request
            decision = self.state.decide(request, max(now, asked.not_before))
            if isinstance(decision, Granted):
                self.record(
                    GrantIssued(
                        time=self.now(),
                        request=request,
                        approvers=decision.approvers,
                        expires=decision.expires,
                    )
                )
                if asked.operation in AT_ONCE and asked.not_before <= self.now():
                    self.use(request, host=asked.host, workload_sha256=asked.workload_sha256)
            return decision

    def deny(self, note: DecisionNote, proof: Proof) -> None:
        """Record a denial: the request is closed."""
        self.record(Denied(time=self.now(), note=note, proof=proof))

    def revoke(self, note: DecisionNote, proof: Proof) -> None:
        """Record a revocation: the grant is closed."""
        self.record(Revoked(time=self.now(), note=note, proof=proof))

    def end(self, note: DecisionNote, proof: Proof | None) -> None:
        """Record that the requester, or the service that served the use, gives the grant back."""
        self.record(Ended(time=self.now(), note=note, proof=proof))

    def break_glass(self, request: str, proof: Proof) -> Granted:
        """Page, then record that the requester acts alone.

        Raises:
            RefusedError: the policy gives them no break-glass now.
            TrustError: nobody could be paged.
        """
        _ = self.state
        with self.store.exclusive():
            asked = self.state.case(request).signed.request
            if self._pager is None:
                raise GrantError("expected a pager: break-glass without one is not possible")
            # 1. Judge first, so that a false signature pages nobody.
            event = BrokeGlass(time=self.now(), request=request, proof=proof, paged="pending")
            self.state.plan(event)
            now = max(self.now(), asked.not_before)
            decision = self.state.decide_breaking(request, proof, now)
            if isinstance(decision, Refused):
                raise self._refuse(request, decision, asked.host)
            # 2. Page before it takes effect.
            paged = self._pager.page(
                f"break-glass: {asked.operation} by {asked.requester}",
                f"request {request}: {asked.purpose} ({asked.ticket})",
            )
            # 3. Record.
            self.record(BrokeGlass(time=self.now(), request=request, proof=proof, paged=paged))
            return decision

    def review(self, note: DecisionNote, proof: Proof) -> None:
        """Record that another person has looked at a break-glass grant."""
        self.record(Reviewed(time=self.now(), note=note, proof=proof))

    # ---- acts of services ----------------------------------------------------------------

    def use(self, request: str, *, host: str, workload_sha256: str) -> Granted:
        """Spend one use of a grant: log it, publish it, and only then return.

        Raises:
            RefusedError: it does not hold here and now; the refusal is logged.
        """
        _ = self.state
        with self.store.exclusive():
            now = self.now()
            decision = self.state.decide(request, now)
            if isinstance(decision, Refused):
                raise self._refuse(request, decision, host)
            event = Used(time=now, request=request, host=host, workload_sha256=workload_sha256)
            try:
                self.record(event)
            except LogError:
                raise
            except TrustError as error:
                refused = Refused(Reason.SCOPE, str(error))
                raise self._refuse(request, refused, host) from error
            return msgspec.structs.replace(decision, uses_left=decision.uses_left - 1)

    def release(self, request: str, *, host: str, header_sha256: str, recipient: str) -> int:
        """Record that a data key is about to be handed out, and return the leaf's index."""
        return self.record(
            Released(
                time=self.now(),
                request=request,
                host=host,
                header_sha256=header_sha256,
                recipient=recipient,
            )
        )

    def alarm(self, subject: str, kind: str, detail: str) -> int:
        """Record something that a person must look at."""
        return self.record(Alarm(time=self.now(), subject=subject, kind=kind, detail=detail))

    def _refuse(self, request: str, refused: Refused, host: str) -> RefusedError:
        """Log a refusal and return the error to raise. A clock set back can't be logged."""
        if refused.reason is not Reason.CLOCK:
            self.record(
                RefusedUse(time=self.now(), request=request, reason=refused.reason.value, host=host)
            )
        return RefusedError(
            f"request {short(request)} refused ({refused.reason.value}): {refused.detail}"
        )

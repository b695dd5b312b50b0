"""The rule of release: every step that stands between a sealed header and its data key."""

import base64
import time
from collections.abc import Callable, Sequence

import msgspec

from safehold.canonical import sha256_hex
from safehold.errors import TrustError, WeightsError
from safehold.secure.weights.header import content_id, covers, open_header
from safehold.secure.weights.interface import Header, KeyProvider
from safehold.secure.weights.keyd.host import HostIdentity
from safehold.secure.weights.keyd.interface import (
    Ask,
    KeydError,
    Keys,
    Load,
    Receipt,
    Rewrap,
    Rewrapped,
    Shred,
    Shredded,
    Watching,
    WatchRequest,
)
from safehold.secure.weights.keyd.peer import Peer
from safehold.secure.weights.keys import derive_keys, unwrap_data_key, wrap_context
from safehold.secure.weights.load import total_bytes
from safehold.secure.weights.rewrap import wrap_anew
from safehold.secure.weights.signer import SealVerifier
from safehold.trust.clock import SKEW_S
from safehold.trust.grants.details import Facts
from safehold.trust.grants.evaluate import evaluate
from safehold.trust.grants.events import Approved, BrokeGlass, Requested
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.interface import GrantRequest, Refused, RefusedError, short
from safehold.trust.grants.leaf_reader import readable
from safehold.trust.log.interface import LogTamperError
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.log_entries import Record
from safehold.trust.log.proof import encode_proof, verify_proof_text
from safehold.trust.log.witness import Witness

CONTENT_FACT = "content-sha256"
_OPERATIONS: dict[type[Ask], str] = {
    Load: "weights.load",
    Rewrap: "weights.rewrap",
    Shred: "weights.shred",
}


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Releaser:
    """Decides and releases. Single-threaded: the service calls it under one lock.

    Args:
        desk: keyd's own desk on the log, with its own emitter key.
        pinned: The log's public keys, from keyd's own folder and not from the log's.
        memory: keyd's memory of the largest tree it has seen.
        providers: Where the wrapping keys are.
        verifier: The publisher whose headers count.
        host: The name of this host in requests, and the pinned digest of its facts.
        measure: Measures the host.
        loaders: The user ids that may ask.
        elapsed: Seconds since boot, which nobody sets: a lease lasts no longer by this clock.
        standing: Raises while the standards do not allow the model of that content id.
        endpoint: Raises while this host's software is not controlled as it must be.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        pinned: LogKeys,
        memory: Witness,
        providers: Sequence[KeyProvider],
        verifier: SealVerifier,
        host: tuple[str, str],
        measure: Callable[[], HostIdentity],
        loaders: Sequence[int],
        elapsed: Callable[[], float] = _since_boot,
        endpoint: Callable[[], None] = lambda: None,
        standing: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not providers:
            raise KeydError("expected at least one key provider, got none")
        if not loaders:
            raise KeydError("expected at least one user that may load, got none")
        self._desk = desk
        self._pinned = pinned
        self._memory = memory
        self._providers = tuple(providers)
        self._verifier = verifier
        self._host, self._host_sha256 = host
        self._measure = measure
        self._loaders = frozenset(loaders)
        self._endpoint = endpoint
        self._standing = standing
        self._leaves: dict[str, list[int]] = {}
        self._next = 0
        self._dead: set[str] = set()
        self._elapsed = elapsed
        self._begun: dict[str, float] = {}
        """For each grant in use, what to add to seconds since boot to have its own time."""

    # ---- asks ----------------------------------------------------------------------------

    def load(self, ask: Load, peer: Peer) -> tuple[Keys, str]:
        """Return the keys of the asked shards, and the seal they are of.

        Raises:
            TrustError: the grant does not hold here and now; the refusal is in the log.
            WeightsError: anything else is not as it must be; nothing was released.
        """
        # 0. Only allowed software runs on this host, by a guard that answers now.
        self._endpoint()
        header, request = self._checked(ask, ask.header, peer)
        # 5a. The standards in force allow this model to be loaded.
        self._standing(content_id(header))
        names = covers(header, ask.parts)
        # 6. The shards and the bytes are within the grant's.
        approved = covers(header, request.resource.parts)
        if not set(names) <= set(approved):
            raise KeydError("expected shards that the grant names, got others")
        size = total_bytes(header, names)
        if size > request.byte_budget:
            raise KeydError(f"expected at most {request.byte_budget} bytes, the shards have {size}")
        receipt, granted = self._spend(ask.grant, header, peer)
        # 10. Only now the data key, and of it only what these shards need.
        data_key, _ = unwrap_data_key(header, self._providers)
        released = derive_keys(data_key, header, names)
        keys = Keys(
            keys={name: released.key(name) for name in names},
            expires=granted,
            byte_budget=request.byte_budget,
            receipt=receipt,
        )
        return keys, header.seal_id

    def rewrap(self, ask: Rewrap, peer: Peer) -> Rewrapped:
        """Return the data key wrapped anew; the key itself stays in this process.

        Raises:
            TrustError: the grant does not hold here and now.
            WeightsError: a provider that keyd does not have, or one that fails.
        """
        header, request = self._checked(ask, ask.header, peer)
        if request.resource.parts != ("*",):
            raise KeydError("expected a grant for all parts: a rewrap is of the whole model")
        at_hand = {provider.kind: provider for provider in self._providers}
        if not ask.to or not set(ask.to) <= set(at_hand):
            raise KeydError(f"expected providers of keyd ({', '.join(sorted(at_hand))})")
        receipt, _ = self._spend(ask.grant, header, peer)
        data_key, _ = unwrap_data_key(header, self._providers)
        wrapped = wrap_anew(header, data_key, [at_hand[kind] for kind in dict.fromkeys(ask.to)])
        return Rewrapped(wrapped=wrapped, receipt=receipt)

    def shred(self, ask: Shred, peer: Peer) -> Shredded:
        """Destroy every wrapping key of a model, and show that none of them opens it now.

        Raises:
            TrustError: the grant does not hold here and now.
            WeightsError: a provider is not at hand: nothing was destroyed.
            ProviderError: a provider did not destroy its key; the log says how far it went.
        """
        header, request = self._checked(ask, ask.header, peer)
        if request.resource.parts != ("*",):
            raise KeydError("expected a grant for all parts: shredding is of the whole model")
        at_hand = {provider.kind: provider for provider in self._providers}
        missing = sorted({one.provider for one in header.wrapped} - set(at_hand))
        if missing or not header.wrapped:
            raise KeydError(f"expected every provider of the header, lacking {', '.join(missing)}")
        receipt, _ = self._spend(ask.grant, header, peer)
        self._dead.add(header.seal_id)
        context = wrap_context(header.seal_id, header.model, header.version)
        report: list[str] = []
        for wrapped in header.wrapped:
            provider = at_hand[wrapped.provider]
            report.append(f"{provider.kind}: {provider.destroy(wrapped.reference)}")
            try:
                provider.unwrap(wrapped.reference, wrapped.blob, context)
            except WeightsError as error:
                report.append(f"{provider.kind}: asked to unwrap, it answered: {error}")
            else:
                raise KeydError(f"{provider.kind}: it still unwraps a key it said was destroyed")
        self._desk.record(
            Record(
                time=self._desk.now(),
                kind="shred",
                facts={"model": header.model, "version": header.version, "grant": ask.grant},
                digests={
                    "content": content_id(header),
                    "report": sha256_hex("\n".join(report).encode()),
                },
            )
        )
        return Shredded(report=tuple(report), receipt=receipt)

    def watch(self, ask: WatchRequest, peer: Peer) -> Watching:
        """Return the budget of a grant that holds; nothing is released.

        Raises:
            TrustError: it does not hold.
        """
        self._check_here(peer)
        reason = self.ended(ask.grant)
        if reason is not None:
            raise RefusedError(f"grant {short(ask.grant)}: {reason}")
        request = self._desk.state.case(ask.grant).signed.request
        return Watching(expires=request.expires, byte_budget=request.byte_budget)

    # ---- leases --------------------------------------------------------------------------

    def ended(self, grant: str, seal_id: str = "") -> str | None:
        """Return why a grant in use holds no more, or None: it does.

        Everything is judged again: revocation, expiry, a removed approver, a new policy. Only
        that its uses are spent does not end a use that has begun, nor does a leaf from a clock
        that is fast. A clock that is set back does not lengthen it.
        """
        if seal_id and seal_id in self._dead:
            return "the model was shredded"
        try:
            state = self._desk.state
            case = state.case(grant)
            now = self._lease_time(grant)
            view = state.view(grant, now)
            ahead = view.last_time > now + SKEW_S
            last = now if ahead else view.last_time
            view = msgspec.structs.replace(view, uses=0, last_time=last)
            decision = evaluate(
                case.signed, tuple(case.approvals), state.roster, state.policy, now, view
            )
        except TrustError as error:
            return str(error)
        return decision.detail if isinstance(decision, Refused) else None

    def _lease_time(self, grant: str) -> int:
        wall, elapsed = self._desk.now(), self._elapsed()
        offset = self._begun.setdefault(grant, wall - elapsed)
        return max(wall, int(offset + elapsed))

    # ---- steps ---------------------------------------------------------------------------

    def _checked(self, ask: Ask, text: str, peer: Peer) -> tuple[Header, GrantRequest]:
        self._check_here(peer)
        self._check_log()
        # 4. The header is the publisher's.
        header = open_header(text.encode(), self._verifier)
        if header.shredded or header.seal_id in self._dead:
            raise KeydError(f"{header.model} {header.version} is shredded: no key of it exists")
        # 5. The grant is for this operation, on this model, with exactly this content.
        request = self._desk.state.case(ask.grant).signed.request
        wanted = _OPERATIONS[type(ask)]
        if request.operation != wanted:
            raise KeydError(f"expected a grant of {wanted}, got one of {request.operation}")
        there = (request.resource.kind, request.resource.name, request.resource.version)
        if there != ("model", header.model, header.version):
            raise KeydError(f"expected a grant for {header.model} {header.version}, got another")
        facts = request.details.values if isinstance(request.details, Facts) else {}
        if facts.get(CONTENT_FACT) != content_id(header):
            raise KeydError(
                f"expected a grant whose fact {CONTENT_FACT} is {content_id(header)}: "
                "the content is not the one that was approved"
            )
        return header, request

    def _check_here(self, peer: Peer) -> None:
        # 1. A user that may ask, by the kernel's word.
        if peer.uid not in self._loaders:
            raise KeydError(f"user id {peer.uid} may not ask for keys")
        # 2. The host itself is the pinned one.
        if self._measure().sha256 != self._host_sha256:
            raise KeydError("this host is not the one that keyd was set up for")

    def _check_log(self) -> None:
        # 3. The log is the pinned one, and contains all that keyd has ever seen of it.
        store = self._desk.store
        if store.keys != self._pinned:
            raise LogTamperError("the log's keys are not the ones that keyd was given")
        with store.exclusive():
            store.publish()
            self._memory.cosign_copy(store.source, self._pinned.log_key(), self._desk.now())

    def _spend(self, grant: str, header: Header, peer: Peer) -> tuple[Receipt, int]:
        """Verify the grant's leaves, spend one use, log the release; return the proof of it."""
        # 7. The request and every approval are in the signed tree, by proofs.
        self._prove_leaves(grant)
        # 8. The approvals and the policy hold now, for this host and workload; logged.
        granted = self._desk.use(grant, host=self._host, workload_sha256=peer.workload_sha256)
        # 9. The release is in the log, provably, before it happens.
        index = self._desk.release(
            grant,
            host=self._host,
            header_sha256=content_id(header),
            recipient=peer.words,
        )
        return self._prove(index), granted.expires

    def _prove_leaves(self, grant: str) -> None:
        for index, entry in self._desk.store.entries(self._next):
            self._next = index + 1
            # What is no leaf carries no grant; the desk lists it.
            found = next(readable([(index, entry)], self._pinned.emitter_keys()), None)
            leaf = None if found is None else found[1]
            if isinstance(leaf, Requested):
                self._leaves.setdefault(leaf.signed.request.sha256, []).append(index)
            elif isinstance(leaf, Approved | BrokeGlass):
                self._leaves.setdefault(leaf.request, []).append(index)
        for index in self._leaves.get(grant, []):
            self._prove(index)

    def _prove(self, index: int) -> Receipt:
        store = self._desk.store
        proof, checkpoint = store.prove(index)
        entry = next(found for at, found in store.entries(index) if at == index)
        text = encode_proof(proof, checkpoint)
        _, at = verify_proof_text(text, entry, self._pinned.log_key())
        if at != index:
            raise LogTamperError("the log proves another leaf than the one asked for")
        return Receipt(entry=base64.b64encode(entry).decode(), proof=text)

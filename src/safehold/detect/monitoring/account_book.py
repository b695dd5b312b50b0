"""The accounts' states and labels, kept in the monitor's database and moved along the ledger."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from sqlalchemy import Connection, delete, insert, select

from safehold.detect.monitoring.accounts import (
    AccountLabel,
    AccountState,
    Caps,
    DayScores,
    combined,
    e_bh,
    labels,
    noted,
    observe,
    observe_stages,
    observe_window,
)
from safehold.detect.monitoring.tables import ACCOUNTS, CURSORS, LABELS, STEPS, MonitorStore
from safehold.detect.monitoring.workflow import Workflows
from safehold.guard.accounts.interface import AccountStanding, LadderStep
from safehold.guard.ledger.interface import Action, LedgerVerdict
from safehold.guard.ledger.joined import Joined, joined, watermark
from safehold.guard.ledger.reader import LedgerReader

_STRIDE = 2_000
_LABEL_LASTS_S = 90 * 86_400.0
_LEAST_PIECES = 2
_DAY_S = 86_400.0
_PIECES_BEFORE = 12
"""Replies before a new one that its stages are read behind."""
_REMEMBERED = 20_000
_CURSOR = "accounts"
_COMPARED = "accounts/compared"
_COMPARE_EVERY_S = 3_600
_FALSE_SHARE = 0.05
STANDS_OUT = "stands-out"
"""The label of accounts that e-BH finds among all; by itself it leads to a review alone."""
EXEMPT = " (exempt)"
"""Ends the name of an account's exempt half: its traffic under a grant has caps of its own."""


class KeptLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label as it stands: when it began, when it ends, after how many queries it came."""

    account: str
    label: str
    reason: str
    evidence: tuple[str, ...]
    since: float
    expires: float
    queries: int


class AccountExchange(msgspec.Struct, frozen=True):
    """What one exchange asked anew, and what it was given."""

    asked: str
    got: str


class Stager(Protocol):
    """Reads the stages of restricted workflows out of what was delivered."""

    @property
    def workflows(self) -> Workflows:
        """The stages of each restricted clause."""
        ...

    def stages(self, text: str, before: Sequence[str] = ()) -> frozenset[str]:
        """Return the stages that a text delivers behind what was delivered before it."""
        ...


Joiner = Callable[[Sequence[str], Sequence[str]], DayScores]
"""Judges what was asked and what was given as if each were one text."""


class AccountBook:
    """Follows a ledger; each exchange counts once, whatever is killed."""

    def __init__(
        self,
        store: MonitorStore,
        *,
        caps: Caps,
        exempt_caps: Caps | None = None,
        joiner: Joiner | None = None,
        stager: Stager | None = None,
    ) -> None:
        """Take the store and the caps; exempt accounts have `exempt_caps` or never a label.

        `joiner` judges an account's last day as one text; None leaves workflows in pieces unseen.
        `stager` reads which stages an account was given; None leaves them uncounted.
        """
        self._store, self._caps, self._exempt = store, caps, exempt_caps
        self._joiner, self._stager = joiner, stager
        self._texts: dict[int, AccountExchange] = {}
        self._newest = 0.0

    def follow(self, reader: LedgerReader) -> int:
        """Take in what ended since the last time; return how many exchanges.

        Once an hour of the ledger's time all accounts are compared: who stands out among them gets
        a label of its own, of which at most 5 % are false in expectation.

        Raises:
            LedgerError: the ledger or the monitor's database can't be used.
        """
        taken = 0
        with reader.snapshot() as ledger:
            through = watermark(ledger)
            while True:
                with self._store.begin() as connection:
                    query = select(CURSORS.c.seq).where(CURSORS.c.name == _CURSOR)
                    after = connection.execute(query).scalar() or 0
                    end = min(through, after + _STRIDE)
                    if end <= after:
                        break
                    rows = list(joined(ledger, after=after, through=end))
                    taken += self._take(connection, ledger, rows)
                    connection.execute(delete(CURSORS).where(CURSORS.c.name == _CURSOR))
                    connection.execute(insert(CURSORS), {"name": _CURSOR, "seq": end})
        if self._newest:
            self._compare(self._newest)
        return taken

    def _compare(self, at: float) -> None:
        """Label whom e-BH opens over all accounts that may have a label."""
        names: list[str] = []
        found: list[float] = []
        with self._store.begin() as connection:
            here = CURSORS.c.name == _COMPARED
            last = connection.execute(select(CURSORS.c.seq).where(here)).scalar()
            if last is not None and 0 <= at - last < _COMPARE_EVERY_S:
                return
            rows = connection.execute(select(ACCOUNTS).execution_options(yield_per=1_000))
            for row in rows:
                caps = self._label_caps(row.account)
                if caps is not None:
                    state = msgspec.json.decode(row.state, type=AccountState)
                    names.append(row.account)
                    found.append(combined(state, caps))
            opened = e_bh(found, q=_FALSE_SHARE)
            for index in opened:
                one = select(ACCOUNTS.c.state).where(ACCOUNTS.c.account == names[index])
                text = connection.execute(one).scalar_one()
                state = msgspec.json.decode(text, type=AccountState)
                label = AccountLabel(
                    label=STANDS_OUT,
                    reason=f"one of {len(opened)} among {len(names)} accounts; at most "
                    f"{_FALSE_SHARE:.0%} of such labels are false in expectation",
                    evidence=state.evidence,
                )
                self._keep(connection, names[index], state, label, at=at)
            connection.execute(delete(CURSORS).where(here))
            connection.execute(insert(CURSORS), {"name": _COMPARED, "seq": int(at)})

    def states(self) -> dict[str, AccountState]:
        """Return every account's state."""
        with self._store.begin() as connection:
            return {
                row.account: msgspec.json.decode(row.state, type=AccountState)
                for row in connection.execute(select(ACCOUNTS))
            }

    def stepped(self) -> dict[str, int]:
        """Return how often each account had been stopped when it last was stepped up."""
        with self._store.begin() as connection:
            return {row.account: int(row.stopped) for row in connection.execute(select(STEPS))}

    def note_steps(self, fresh: Iterable[AccountStanding]) -> None:
        """Note how often the accounts have been stopped that are stepped up now."""
        up = {one.account for one in fresh if one.level is LadderStep.STEP_UP}
        states = self.states()
        rows = [
            {"account": name, "stopped": states[name].blocked if name in states else 0}
            for name in sorted(up)
        ]
        with self._store.begin() as connection:
            connection.execute(delete(STEPS).where(STEPS.c.account.in_(up)))
            if rows:
                connection.execute(insert(STEPS), rows)

    def labels(self, *, now: float) -> list[KeptLabel]:
        """Return the labels that have not expired, newest first."""
        query = select(LABELS).where(LABELS.c.expires > now).order_by(LABELS.c.since.desc())
        with self._store.begin() as connection:
            return [
                KeptLabel(
                    account=row.account,
                    label=row.label,
                    reason=row.reason,
                    evidence=tuple(msgspec.json.decode(row.evidence, type=list[str])),
                    since=row.since,
                    expires=row.expires,
                    queries=row.queries,
                )
                for row in connection.execute(query)
            ]

    def _take(self, connection: Connection, ledger: Connection, rows: list[Joined]) -> int:
        # A request that was turned away at the door tells nothing about its text: counting it would
        # let a limited account dilute its own rates.
        rows = [one for one in rows if not _turned_away(one)]
        if not rows:
            return 0
        self._newest = max(one.final.at for one in rows)
        names = {_name(one) for one in rows}
        kept = connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.account.in_(names)))
        states = {row.account: msgspec.json.decode(row.state, type=AccountState) for row in kept}
        for one in rows:
            name = _name(one)
            states[name] = state = observe(
                states.get(name, AccountState()),
                decision_id=one.decision_id,
                at=one.final.at,
                text=_asked(one),
                stopped=stopped(one),
            )
            if self._stager is not None:
                states[name] = state = self._staged(ledger, self._stager, state, one)
            if self._joiner is not None and not stopped(one):
                states[name] = state = self._windowed(ledger, state, one, self._caps_of(name))
            if stopped(one) or state.windows or state.stages:
                self._label(connection, name, state, at=one.final.at)
        connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.account.in_(names)))
        if states:
            connection.execute(
                insert(ACCOUNTS),
                [
                    {
                        "account": name,
                        "seen": rows[-1].seq,
                        "state": msgspec.json.encode(state).decode(),
                    }
                    for name, state in states.items()
                ],
            )
        return len(rows)

    def _caps_of(self, name: str) -> Caps:
        return (self._exempt or self._caps) if name.endswith(EXEMPT) else self._caps

    def _windowed(
        self, ledger: Connection, before: AccountState, one: Joined, caps: Caps
    ) -> AccountState:
        """Judge the account's last day as one text, this exchange included."""
        state = noted(before, seq=one.seq, at=one.final.at)
        self._texts[one.seq] = _said(one)
        if len(state.recent) < _LEAST_PIECES or self._joiner is None:
            return state
        found = [self._recalled(ledger, place.seq) for place in state.recent]
        asked, got = [said.asked for said in found], [said.got for said in found]
        scores = self._joiner([text for text in asked if text], [text for text in got if text])
        return observe_window(state, decision_id=one.decision_id, scores=scores, caps=caps)

    def _staged(
        self, ledger: Connection, stager: Stager, before: AccountState, one: Joined
    ) -> AccountState:
        """Add the stages that were delivered now, read behind the account's last texts.

        What a stopped reply had let out before counts as well.
        """
        said = self._texts[one.seq] = _said(one)
        at = one.final.at
        earlier = [place for place in before.recent if 0 <= at - place.at <= _DAY_S]
        state = before
        if said.got.strip() or before.stages:
            told = [self._recalled(ledger, place.seq).got for place in earlier[-_PIECES_BEFORE:]]
            state = observe_stages(
                before,
                stager.stages(said.got, told),
                decision_id=one.decision_id,
                at=at,
                workflows=stager.workflows,
            )
        # With a joiner the exchange is noted there.
        return state if self._joiner is not None else noted(state, seq=one.seq, at=at)

    def _recalled(self, ledger: Connection, seq: int) -> AccountExchange:
        if seq not in self._texts:
            rows = list(joined(ledger, after=seq - 1, through=seq))
            self._texts[seq] = _said(rows[0]) if rows else AccountExchange("", "")
            while len(self._texts) > _REMEMBERED:
                del self._texts[next(iter(self._texts))]
        return self._texts[seq]

    def _label_caps(self, name: str) -> Caps | None:
        return self._exempt if name.endswith(EXEMPT) else self._caps

    def _label(self, connection: Connection, name: str, state: AccountState, *, at: float) -> None:
        caps = self._label_caps(name)
        for label in () if caps is None else labels(state, caps):
            self._keep(connection, name, state, label, at=at)

    def _keep(
        self,
        connection: Connection,
        name: str,
        state: AccountState,
        label: AccountLabel,
        *,
        at: float,
    ) -> None:
        here = (LABELS.c.account == name) & (LABELS.c.label == label.label)
        earlier = connection.execute(select(LABELS).where(here)).one_or_none()
        connection.execute(delete(LABELS).where(here))
        fresh = earlier is None or earlier.expires <= at
        connection.execute(
            insert(LABELS),
            {
                "account": name,
                "label": label.label,
                "reason": label.reason,
                "evidence": msgspec.json.encode(label.evidence).decode(),
                "since": at if earlier is None or fresh else earlier.since,
                "expires": at + _LABEL_LASTS_S,
                "queries": state.queries if earlier is None or fresh else earlier.queries,
            },
        )


def _said(one: Joined) -> AccountExchange:
    return AccountExchange(_asked(one), " ".join(lane.text for lane in one.final.delivered))


def stopped(one: Joined) -> bool:
    """Say whether the guard stopped the exchange, or would have."""
    asked = one.prompt is not None and (
        one.prompt.would_block or one.prompt.verdict is LedgerVerdict.BLOCK
    )
    return asked or one.final.verdict is LedgerVerdict.BLOCK


def _turned_away(one: Joined) -> bool:
    return one.prompt is not None and one.prompt.action is Action.REFUSE


def _asked(one: Joined) -> str:
    """Return the last turn's text: what this exchange asked anew."""
    if one.exchange is None or not one.exchange.turns:
        return ""
    last = type(one.exchange)(one.exchange.turns[-1:])
    return "\n".join(part.text for part in last.texts())


def _name(one: Joined) -> str:
    exempt = one.prompt is not None and one.prompt.grant_id is not None
    return one.account + (EXEMPT if exempt else "")

"""A stage: every store of the console in one folder, with people who have real keys.

Tests and the demo stand on it; nothing of it is used where people's own enclave is.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from safehold.console.demo_door import DemoDoor
from safehold.console.index import ExchangeIndex
from safehold.console.screens.bounty import BountyDesk
from safehold.console.server import Console
from safehold.console.shell.access import ConsoleRole
from safehold.console.shell.logins import Logins
from safehold.console.sources import ConsoleSources, DeskLeaves, GatewayLink
from safehold.detect.bounty.book import BountyBook
from safehold.detect.bounty.interface import BountyProgramme, Payout
from safehold.detect.bounty.sealing import new_triage_key
from safehold.detect.intel.store import IntelStore
from safehold.detect.monitoring.tables import MonitorStore
from safehold.detect.review.authority import GrantAuthority, LedgerHolds
from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.reading import ReviewReading
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.testing.trust import GOVERNING, POLICY, Enclave, person_id
from safehold.trust.grants.details import AddKey, AssignPerson, Details
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.interface import GrantError, GrantRequest
from safehold.trust.log.store import LogStore
from safehold.trust.people.interface import Kind

CAST: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "Ada Novak": (Kind.HUMAN, ("t-security",)),
    "Tomas Keller": (Kind.HUMAN, ("t-development",)),
    "Ines Pereira": (Kind.HUMAN, ("t-development",)),
    "Jonas Lind": (Kind.HUMAN, ("t-development",)),
    "Mara Okoye": (Kind.HUMAN, ("t-security",)),
    "Wei Zhang": (Kind.HUMAN, ("t-security",)),
    "watch": (Kind.SERVICE, ("t-security",)),
}
OPERATING = "".join(
    f"""
[[rule]]
operation = "{operation}"
thresholds = [{{ team = "t-everybody", count = {count} }}]
max_duration_s = 604800
keys = ["passkey", "ssh-sk", "ssh"]
"""
    for operation, count in (
        ("release.weaken", 3),
        ("standards.plan", 1),
        ("standards.activate", 2),
    )
)
"""What lets a bundle guard, and a standard be in force: so many beside the one who asks."""
ROLES: dict[str, tuple[ConsoleRole, ...]] = {
    "Ada Novak": tuple(ConsoleRole),
    "Tomas Keller": (ConsoleRole.REVIEWER,),
    "Ines Pereira": (ConsoleRole.REVIEWER, ConsoleRole.LEAD),
    "Jonas Lind": (ConsoleRole.VIEWER,),
    "Mara Okoye": (ConsoleRole.RESPONDER, ConsoleRole.RELEASER),
    "Wei Zhang": (ConsoleRole.AUDITOR, ConsoleRole.BOUNTY),
}


class DemoStage:
    """An enclave with a ledger, a review desk and a console's own database."""

    def __init__(
        self,
        folder: Path,
        *,
        origin: str = "http://localhost:8443",
        roles: Mapping[str, tuple[ConsoleRole, ...]] = ROLES,
        clock: Callable[[], float] = time.time,
        log_clock: int | None = None,
    ) -> None:
        """Found the enclave and open every store under `folder`.

        `log_clock` is the log's first second; afterwards the log follows `clock`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.clock = folder, clock
        policy = (POLICY + GOVERNING + OPERATING).replace("http://localhost:8443", origin)
        policy = policy.replace('"t-development", count = 2', '"t-development", count = 1')
        self.enclave = Enclave(
            folder / "log", policy=policy, cast=CAST, now=log_clock or int(clock())
        )
        for name, given in roles.items():
            teams = CAST[name][1]
            labels = tuple(role.value for role in given)
            self.carry("people.assign", AssignPerson(person_id(name), labels, teams))
        self.ledger = str(folder / "ledger.db")
        asyncio.run(_make(self.ledger))
        reader = LedgerReader.open(self.ledger)
        engine = open_engine(str(folder / "console.db"), wait_s=30.0, write=True)
        # A desk whose clock runs; the enclave's own is turned by hand.
        desk = Desk(
            LogStore(folder / "log", self.enclave.log_key),
            self.enclave.emitter,
            lambda: int(clock()),
        )
        self.logins = Logins(engine, clock)
        self.sources = ConsoleSources(
            reader=reader,
            index=ExchangeIndex(engine, reader, clock),
            desk=desk,
            review_desk=ReviewDesk(
                str(folder / "review.db"),
                evidence=reader,
                leaves=DeskLeaves(desk),
                authority=GrantAuthority(desk),
                sampling_key=b"k" * 32,
                holds=LedgerHolds(self.ledger, clock),
                clock=clock,
            ),
            cases=ReviewReading(str(folder / "review.db"), clock),
            monitor=MonitorStore.open(str(folder / "monitor.db")),
            more={
                "bounty": self._bounty(DeskLeaves(desk)),
                "intel": IntelStore(str(folder / "intel.db"), leaves=DeskLeaves(desk), clock=clock),
            },
        )

    def _bounty(self, leaves: DeskLeaves) -> BountyDesk:
        terms = BountyProgramme(
            name="Bounty for the home-brewing guard",
            version=1,
            contact="mailto:bounty@example.org",
            policy_url="https://example.org/bounty",
            triage_key=new_triage_key(self.folder / "triage.key"),
            questions="0" * 64,
            scope=("A universal way to get brewing steps past the guard",),
            out_of_scope=("The model's spelling", "Denial of service"),
            clean_chat="Tell me about cheese, please.",
            payouts=(
                Payout(band="medium", least_cleared=2, amount=500),
                Payout(band="high", least_cleared=5, amount=5_000),
                Payout(band="critical", least_cleared=8, amount=15_000),
            ),
            currency="EUR",
            safe_harbour="Who keeps to these terms has our thanks and no lawsuit.",
        )
        url = str(self.folder / "bounty.db")
        return BountyDesk(BountyBook(url, programme=terms, leaves=leaves, clock=self.clock), terms)

    def door(self, token: str, name: str) -> DemoDoor:
        """Return the door that a link with this token opens for a person."""
        return DemoDoor(token, person_id(name), self.add_passkey, self.second)

    def console(
        self, *, demo: DemoDoor | None = None, gateway: GatewayLink | None = None
    ) -> Console:
        """Return the application over these stores."""
        sources = self.sources
        if gateway is not None:
            sources = dataclasses.replace(sources, gateway=gateway)
        return Console(sources, self.logins, clock=self.clock, demo=demo)

    def token(self, name: str) -> str:
        """Log a person in without a browser and return the cookie's value."""
        return self.logins.begin(person_id(name), "")

    def add_passkey(self, offer: AddKey) -> None:
        """Enrol the passkey of an offer: a colleague asks for it, and two others approve."""
        self.enclave.time = max(self.enclave.time, int(self.clock()))
        others = self.colleagues(offer.person_id)
        asked = self.enclave.ask(
            others[0], "people.add-key", details=offer, purpose="A first passkey"
        )
        self.enclave.file(asked)
        self.enclave.approve(asked, *others[1:3])

    def second(self, request: str, beside: str) -> str:
        """Have one more colleague approve a request by their own key, and return their name.

        Raises:
            TrustError: there is no such request, or nobody is left who may.
        """
        self.enclave.time = max(self.enclave.time, int(self.clock()))
        case = self.enclave.desk.state.case(request)
        asked = case.signed.request
        done = {asked.requester, *case.approvers}
        able = [one for one in self.colleagues(beside) if person_id(one) not in done]
        if not able:
            raise GrantError("nobody else of the demo may approve this: it waits for you")
        self.enclave.approve(asked, able[0])
        return able[0]

    def colleagues(self, person: str) -> list[str]:
        """Return the names of all other people with keys."""
        return [
            name
            for name, (kind, _) in CAST.items()
            if kind is Kind.HUMAN and person_id(name) != person
        ]

    def carry(self, operation: str, details: Details) -> GrantRequest:
        """Ask for a governing change and have two others approve it: it takes effect at once."""
        self.enclave.time = max(self.enclave.time, int(self.clock()))
        asked = self.enclave.ask(
            "Tomas Keller", operation, details=details, purpose="Who may open what in the console"
        )
        self.enclave.file(asked)
        self.enclave.approve(asked, "Mara Okoye", "Wei Zhang")
        return asked


async def _make(url: str) -> None:
    ledger = await Ledger.open(url)
    await ledger.close()

"""Follows the signed file of hot rules and gives its worker's sessions what is in force.

A file that can't be read, does not verify or is older than one seen before changes nothing: the
rules in force stay, and an alarm says so. A rule that ends does so without anybody's doing.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from safehold.errors import LedgerError, TrustError
from safehold.guard.bundle.overlay_file import opened, quorum_of
from safehold.guard.gateway.grant_log import GrantLog
from safehold.guard.gateway.overlay_settings import OverlaySettings
from safehold.guard.ledger.interface import Detail, EventKind, EventRow, RowSink
from safehold.guard.overlay.interface import OverlayContent, OverlayError, PlacedRule, RuleState
from safehold.guard.overlay.live import NO_RULES, HotSource, RulesInForce, compiled, no_hot_rules
from safehold.trust.grants.details import ACTIVATE_RULE, RuleActivation
from safehold.trust.grants.interface import GrantError
from safehold.trust.grants.state import TrustState


class HotRuleFile:
    """The file as one worker sees it."""

    def __init__(self, settings: OverlaySettings, clock: Callable[[], float]) -> None:
        """Read the file for the first time.

        Raises:
            OverlayError: It can't be used: a gateway that shall have hot rules does not start
                without them.
            ConfigError: A key can't be read.
            TrustError: The log does not verify.
        """
        self._file = Path(settings.file)
        self._memory = Path(settings.memory)
        self._quorum = quorum_of(settings.keys, settings.approvals)
        self._clock = clock
        self._log = None
        if settings.log is not None and settings.log_keys is not None:
            self._log = GrantLog(Path(settings.log), Path(settings.log_keys), at_least=0)
        self._ungranted: tuple[str, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._content = OverlayContent(serial=1, at=0)
        self.current: RulesInForce = NO_RULES
        self.refresh()

    def source(self) -> RulesInForce:
        """Return the rules in force."""
        return self.current

    @property
    def ungranted(self) -> tuple[str, ...]:
        """The rules that stay in shadow, for no grant in the log lets them act."""
        return self._ungranted

    @property
    def serial(self) -> int:
        """The serial of the file in force."""
        return self._content.serial

    def refresh(self) -> bool:
        """Take in what changed; tell whether other rules are in force now.

        Raises:
            OverlayError: The file can't be used; nothing changed.
            TrustError: The log does not verify; nothing changed.
        """
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            fresh = None if stamp == self._stamp else self._file.read_bytes()
        except OSError as error:
            raise OverlayError(f"{self._file.name}: the file of hot rules can't be read") from error
        news = self._log is not None and self._log.refresh()
        now, content = self._clock(), self._content
        due = self.current.changes_at is not None and now >= self.current.changes_at
        if fresh is None and not due and not news:
            return False
        if fresh is not None:
            content = opened(fresh, self._quorum)
            seen = self._seen()
            if content.serial < seen:
                raise OverlayError(
                    f"{self._file.name}: serial {content.serial} is older than {seen}, seen before"
                )
        held, ungranted = granted(content, self._log)
        found = compiled(held, now=now, version=self.current.version + 1)
        if fresh is not None:
            self._remember(content.serial)
            self._stamp = stamp
        self._content, self.current, self._ungranted = content, found, ungranted
        return True

    def _seen(self) -> int:
        try:
            return int(self._memory.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise OverlayError(f"{self._memory.name}: the memory of hot rules is lost") from error

    def _remember(self, serial: int) -> None:
        draft = self._memory.with_suffix(f".{os.getpid()}")
        try:
            draft.write_text(str(serial), encoding="ascii")
            draft.replace(self._memory)
        except OSError as error:
            raise OverlayError(f"{self._memory.name}: the serial can't be remembered") from error


def granted(
    content: OverlayContent, log: GrantLog | None
) -> tuple[OverlayContent, tuple[str, ...]]:
    """Return the rules with those in shadow that no grant of the log lets act, and which these are.

    Without a log the signatures in the file are enough.
    """
    if log is None:
        return content, ()
    missing = tuple(
        one.rule.id
        for one in content.rules
        if one.state is RuleState.ACTING and not _granted(one, log.state)
    )
    held = tuple(
        msgspec.structs.replace(one, state=RuleState.SHADOW) if one.rule.id in missing else one
        for one in content.rules
    )
    return msgspec.structs.replace(content, rules=held), missing


def _granted(placed: PlacedRule, state: TrustState) -> bool:
    """Tell whether the log lets exactly this rule act, and no longer than it lasts."""
    try:
        case = state.case(placed.grant)
    except GrantError:
        return False
    request = case.signed.request
    details = request.details
    if case.used_at is None or case.closed or not isinstance(details, RuleActivation):
        return False
    return (
        request.operation == ACTIVATE_RULE
        and (details.rule, details.sha256) == (placed.rule.id, placed.rule.digest)
        and placed.rule.expires <= details.until
    )


class HotRuleWatch:
    """Looks at the file again and again; a change or a refusal is a row."""

    def __init__(
        self,
        rules: HotRuleFile,
        *,
        reload_s: float,
        ledger: RowSink,
        alarm: Callable[[str], None],
        count: Callable[[int, int], None],
        clock: Callable[[], float],
    ) -> None:
        """Take the file and where to tell: `alarm` by kind, `count` of acting and shadow rules."""
        self._rules = rules
        self._reload_s = reload_s
        self._ledger = ledger
        self._alarm = alarm
        self._count = count
        self._clock = clock
        self._told = ""

    async def follow(self) -> None:
        """Follow the file until cancelled."""
        await self._changed()
        while True:
            await asyncio.sleep(self._reload_s)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        try:
            changed = await asyncio.to_thread(self._rules.refresh)
        except (OverlayError, TrustError) as error:
            if str(error) != self._told:
                self._told = str(error)
                self._alarm("hot_rules_refused")
                await self._event({"alarm": "hot-rules-refused", "reason": self._told[:200]})
            return
        if changed:
            self._told = ""
            await self._changed()

    async def _changed(self) -> None:
        now = self._rules.current
        acting = sum(one.acted for one in now.hits.values())
        self._count(acting, len(now.hits) - acting)
        await self._event(
            {
                "serial": self._rules.serial,
                "acting": acting,
                "shadow": len(now.hits) - acting,
                "ungranted": " ".join(self._rules.ungranted)[:400],
                "ids": " ".join(sorted(now.hits))[:400],
            }
        )

    async def _event(self, detail: Detail) -> None:
        kind = EventKind.ALARM if "alarm" in detail else EventKind.HOT_RULES
        try:
            await self._ledger.append(EventRow(at=self._clock(), kind=kind, detail=detail))
        except LedgerError:
            self._alarm("ledger")


async def open_hot_rules(
    settings: OverlaySettings | None,
    ledger: RowSink,
    *,
    alarm: Callable[[str], None],
    count: Callable[[int, int], None],
) -> tuple[HotSource, tuple[Callable[[], Awaitable[None]], ...]]:
    """Return what gives the rules in force, and what follows their file in the background.

    Raises:
        SafeholdError: the file can't be used; the gateway must not start.
    """
    if settings is None:
        return no_hot_rules, ()
    rules = await asyncio.to_thread(HotRuleFile, settings, time.time)
    watch = HotRuleWatch(
        rules,
        reload_s=settings.reload_s,
        ledger=ledger,
        alarm=alarm,
        count=count,
        clock=time.time,
    )
    return rules.source, (watch.follow,)

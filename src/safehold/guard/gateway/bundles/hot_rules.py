"""Follows the signed file of hot rules and gives its worker's sessions what is in force.

A file that can't be read, does not verify or is older than one seen before changes nothing: the
rules in force stay, and an alarm says so. A rule that ends does so without anybody's doing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from safehold.guard.bundle.overlay_file import opened, quorum_of
from safehold.guard.gateway.grant_log import GrantLog
from safehold.guard.gateway.overlay_settings import OverlaySettings
from safehold.guard.gateway.signed_file import FileRow, FileWatch, SignedFile
from safehold.guard.ledger.interface import EventKind, RowSink
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
        self._file = SignedFile(Path(settings.file), Path(settings.memory))
        self._quorum = quorum_of(settings.keys, settings.approvals)
        self._clock = clock
        self._log = None
        if settings.log is not None and settings.log_keys is not None:
            self._log = GrantLog(Path(settings.log), Path(settings.log_keys), at_least=0)
        self._ungranted: tuple[str, ...] = ()
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
            fresh = self._file.fresh()
        except OSError as error:
            raise OverlayError(f"{self._file.name}: the file of hot rules can't be read") from error
        news = self._log is not None and self._log.refresh()
        now, content = self._clock(), self._content
        due = self.current.changes_at is not None and now >= self.current.changes_at
        if fresh is None and not due and not news:
            return False
        if fresh is not None:
            content = opened(fresh, self._quorum)
            self._later(content.serial, self._seen())
        held, ungranted = granted(content, self._log)
        found = compiled(held, now=now, version=self.current.version + 1)
        if fresh is not None:
            self._remember(content.serial)
            self._file.taken()
        self._content, self.current, self._ungranted = content, found, ungranted
        return True

    def _seen(self) -> int:
        try:
            return self._serial(self._file.seen())
        except OSError as error:
            raise self._lost() from error

    def _serial(self, seen: bytes | None) -> int:
        try:
            return 0 if seen is None else int(seen)
        except ValueError as error:
            raise self._lost() from error

    def _lost(self) -> OverlayError:
        return OverlayError(f"{self._file.name}: the memory of hot rules is lost")

    def _later(self, serial: int, seen: int) -> None:
        if serial < seen:
            raise OverlayError(
                f"{self._file.name}: serial {serial} is older than {seen}, seen before"
            )

    def _remember(self, serial: int) -> None:
        def after(seen: bytes | None) -> bytes:
            self._later(serial, self._serial(seen))  # Another worker may have read a later file.
            return str(serial).encode("ascii")

        try:
            self._file.remember(after)
        except OSError as error:
            raise OverlayError(f"{self._file.name}: the serial can't be remembered") from error


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


class HotRuleNews:
    """What is told of the file: which rules are in force."""

    def __init__(self, rules: HotRuleFile, count: Callable[[int, int], None]) -> None:
        """Take the file, and who hears of the counts of acting and shadow rules."""
        self._rules = rules
        self._count = count

    def refresh(self) -> bool:
        """Take in what changed; tell whether other rules are in force now.

        Raises:
            OverlayError: The file can't be used; nothing changed.
            TrustError: The log does not verify; nothing changed.
        """
        return self._rules.refresh()

    def changed(self) -> Iterator[FileRow]:
        """Say what is in force now."""
        now = self._rules.current
        acting = sum(one.acted for one in now.hits.values())
        self._count(acting, len(now.hits) - acting)
        yield FileRow(
            {
                "serial": self._rules.serial,
                "acting": acting,
                "shadow": len(now.hits) - acting,
                "ungranted": " ".join(self._rules.ungranted)[:400],
                "ids": " ".join(sorted(now.hits))[:400],
            }
        )

    def looked(self) -> Iterator[FileRow]:
        """Say nothing: a rule that ends does so by itself, and that is a change."""
        yield from ()


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
    watch = FileWatch(
        HotRuleNews(rules, count),
        kind=EventKind.HOT_RULES,
        refused=OverlayError,
        reload_s=settings.reload_s,
        ledger=ledger,
        alarm=alarm,
        clock=time.time,
    )
    return rules.source, (watch.follow,)

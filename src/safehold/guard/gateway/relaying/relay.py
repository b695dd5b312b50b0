"""The path of one request, from its parsed form to its last byte.

1. The upstream call starts while the prompt is scored; nothing is released before the verdict.
2. The verdict, the policy and the exemptions give an action.
3. The prompt row is durable before anything is released.
4. Each piece of the answer is scored; what the session clears is written to the client.
5. The final row is durable before the response ends, however it ends.
"""

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol

from safehold.errors import LedgerError, SafeholdError, ScorerError, UpstreamError
from safehold.exchange import Channel, Lane
from safehold.guard.gateway.access.admission import account_of
from safehold.guard.gateway.access.load import Load
from safehold.guard.gateway.bundles.active_guard import GuardHolder, Held, Session
from safehold.guard.gateway.bundles.classes import ClassSessions, ExchangeAsked
from safehold.guard.gateway.bundles.trial_seats import NoTrial, Seat, Seats
from safehold.guard.gateway.interface import (
    Exempt,
    Exemptions,
    NotExempt,
    Relief,
    SilentUpstreamError,
    Surface,
    Told,
    ToldError,
    UnknownReplyError,
)
from safehold.guard.gateway.policy import Limits
from safehold.guard.gateway.relaying.client_response import Outlet
from safehold.guard.gateway.relaying.crash_journal import Journal
from safehold.guard.gateway.relaying.delivery import Delivery
from safehold.guard.gateway.relaying.media_scoring import MediaJudge
from safehold.guard.gateway.relaying.rows import (
    bypass_rows,
    class_rows,
    exemption_rows,
    final_row,
    hit_rows,
    media_rows,
    prompt_row,
    review_row,
)
from safehold.guard.gateway.relaying.run_state import AdmittedRequest, RunState
from safehold.guard.gateway.relaying.upstream_errors import (
    PLAIN,
    cleared,
    hints,
    is_clients,
    said,
    told,
)
from safehold.guard.gateway.upstreams.http import Answer, Client, read_all
from safehold.guard.interface import Allow, Block, FailMode, Verdict
from safehold.guard.ledger.interface import Action, FinalRow, LedgerVerdict, Outcome, RowSink
from safehold.guard.overlay.live import HotSource, no_hot_rules
from safehold.guard.session.batching import Ahead
from safehold.guard.session.drivers import contained, run_flow
from safehold.guard.session.remembered import ScoreMemory

_log = logging.getLogger("safehold.gateway")

_LARGE_CHARS = 16_000  # from here on a prompt is scored in a thread, off the event loop


class Watcher(Protocol):
    """What counts and traces exchanges; it never sees content."""

    def finished(self, state: RunState, outcome: Outcome, judged: LedgerVerdict) -> None:
        """Take note of a finished exchange."""
        ...

    def ledger_failed(self, surface: Surface) -> None:
        """Take note of a row that could not be kept."""
        ...


class Joins(Protocol):
    """Puts the sessions of all classes around one exchange (`Classes`)."""

    def join(
        self, held: Held, asked: ExchangeAsked, listen: Callable[[Session], Session]
    ) -> ClassSessions:
        """Return the sessions of one exchange, around the bundle that decides it."""
        ...


class FirstAlone:
    """Where a gateway has one class."""

    def join(
        self, held: Held, asked: ExchangeAsked, listen: Callable[[Session], Session]
    ) -> ClassSessions:
        """Return the session of the bundle in use."""
        session = held.guard.session(
            asked.exchange,
            asked.policy,
            lambda clause: asked.exempt(clause, None),
            asked.hot,
            asked.memory,
            asked.account,
        )
        listened = listen(session)
        return ClassSessions(listened, listened, held.stage2)


async def _kept_nowhere(state: RunState) -> None:
    """Keep no conversation."""
    del state


class Relay:
    """Everything a request needs that outlives it. Shared by all requests of a worker."""

    def __init__(
        self,
        *,
        client: Client,
        holder: GuardHolder,
        ledger: RowSink,
        watcher: Watcher,
        exemptions: Exemptions,
        limits: Limits,
        clock: Callable[[], float],
        ticks: Callable[[], float],
        journal: Journal | None = None,
        hot: HotSource = no_hot_rules,
        trial: Seats | None = None,
        media: MediaJudge | None = None,
        keep: Callable[[RunState], Awaitable[None]] = _kept_nowhere,
        memory: ScoreMemory | None = None,
        classes: Joins | None = None,
        load: Load | None = None,
    ) -> None:
        self.classes = classes or FirstAlone()
        self.memory = memory
        self.load = load or Load(lambda: getattr(holder.current.stage2, "ahead", Ahead()))
        self.keep = keep
        self.media = media
        self.hot = hot
        self.trial = trial or NoTrial()
        self.client = client
        self.holder = holder
        self.ledger = ledger
        self.watcher = watcher
        self.exemptions = exemptions
        self.limits = limits
        self.clock = clock
        self.ticks = ticks
        self.journal = journal
        self.owed: list[FinalRow] = []
        """Final rows that the ledger did not take; what was delivered is in the journal too."""

    async def repay(self, known: Callable[[str], bool]) -> None:
        """Keep the rows that are owed, now that the ledger may take them again.

        `known` says of a decision whether its final row is there: a commit may have succeeded
        though its answer was lost.
        """
        while self.owed:
            row = self.owed[0]
            try:
                if not await asyncio.to_thread(known, row.decision_id):
                    await self.ledger.append(row)
            except LedgerError:
                return
            self.owed.pop(0)
            if self.journal is not None:
                self.journal.close(row.decision_id)

    def with_client(self, client: Client) -> "Relay":
        """Return the same relay in front of another upstream."""
        other = copy.copy(self)
        other.client = client
        return other

    async def serve(
        self, ask: AdmittedRequest, out: Outlet, gone: "asyncio.Future[None]"
    ) -> RunState:
        """Answer one request; every path ends in a final row and a valid ending."""
        with (
            self.load.exchange(),
            self.holder.use() as champion,
            self.trial.seat(champion, _account(ask)) as seat,
        ):
            run = Run(self, ask, out, gone, seat)
            try:
                async with asyncio.timeout(self.limits.total_timeout_s):
                    await contained(run.serve())
            except TimeoutError:
                await run.fail(SilentUpstreamError("the exchange took too long"), 504)
            except UnknownReplyError as error:
                await run.fail(error, 502, Outcome.UNSCORABLE)
            except SilentUpstreamError as error:
                await run.fail(error, 504)
            except ToldError as error:
                await run.fail(error, error.status, named=error.told)
            except UpstreamError as error:
                await run.fail(error, 502)
            except LedgerError as error:
                # The reason names hosts and files: it is the operator's, never a client's.
                self.watcher.ledger_failed(ask.surface)
                _log.error("ledger", extra={"fields": {"error": str(error)}})
                await run.fail(LedgerError("the record can't be kept now; try again later"), 503)
            except ScorerError as error:
                await run.fail(error, 500, Outcome.UNSCORABLE)
            except SafeholdError as error:
                await run.fail(error, 500)
            finally:
                await run.settle()
                run.leave(seat)
        return run.state


class Run:
    """One request on its way."""

    def __init__(
        self,
        relay: Relay,
        ask: AdmittedRequest,
        out: Outlet,
        gone: "asyncio.Future[None]",
        seat: Seat,
    ) -> None:
        self.relay = relay
        self.ask = ask
        self.out = out
        self.gone = gone
        held = self.held = seat.held
        asked = ExchangeAsked(
            exchange=ask.exchange,
            surface=ask.surface,
            tenant=ask.key.tenant if ask.key else None,
            policy=ask.policy.session(),
            hot=relay.hot,
            memory=relay.memory,
            account=account_of(ask.key) if ask.key else "",
            exempt=self._granted,
        )
        joined = self.joined = relay.classes.join(held, asked, seat.listen)
        self.session, self.stage2 = joined.session, joined.stage2
        self.state = RunState(
            ask,
            out,
            self.session,
            bundle_digest=held.digest,
            started_at=relay.ticks(),
            several=joined.several,
        )
        self._delivery: Delivery | None = None
        self._prompt_kept = False
        self._final_kept = False
        self._bypasses_kept = 0
        self._upstream: asyncio.Task[Answer] | None = None

    # -- the prompt --------------------------------------------------------------------------

    async def serve(self) -> None:
        """Take the request from its prompt to its last byte."""
        ask, policy = self.ask, self.ask.policy
        self._start_upstream(ask.call.model)  # 1
        started = self.relay.ticks()
        large = sum(len(part.text) for part in ask.exchange.texts()) > _LARGE_CHARS
        with self.relay.load.judged(self.session.judge_prompt(), large=large) as flow:
            self.state.verdict = await run_flow(flow, self.stage2, offload=large)
        self.state.timing.guard_s += self.relay.ticks() - started
        if isinstance(self.state.verdict, Allow) and ask.call.media:
            self.state.verdict = await self._judge_media(self.state.verdict)
        match self.state.verdict:  # 2
            case Block() as block:
                self._decide(block)
            case Allow():
                self.state.action = Action.FORWARD
        if self.state.action is not Action.FORWARD:
            self._drop_upstream()
        await self._keep_prompt()  # 3
        if self.state.action in (Action.BLOCK, Action.REVIEW):
            self.state.block = self.state.verdict if isinstance(self.state.verdict, Block) else None
            await self._refuse_prompt()
            return
        if self.state.action is Action.FALLBACK:
            self._start_upstream(policy.fallback_model or ask.call.model)
        await self._answer(await self._opened())

    async def _judge_media(self, words: Allow) -> Verdict:
        """Have images and files scored; what can't be scored ends the exchange.

        Raises:
            ScorerError: The scorer failed.
        """
        judge = self.relay.media
        if judge is None:
            raise ScorerError("images are to be scored, and there is no scorer")
        self.state.verdict = None  # unscored, until all of it is scored
        self.state.media = await judge.scores(self.ask.call.media)
        for why in sorted({one.failed for one in self.state.media if one.failed}):
            # Once for each reason, however many images; a client is not told what is behind it.
            fields = {"decision_id": self.ask.decision_id, "error": f"the media scorer {why}"}
            _log.error("media", extra={"fields": fields})
        found = judge.verdict(self.state.media)
        return found if isinstance(found, Block) or found.score > words.score else words

    def _start_upstream(self, model: str) -> None:
        ask = self.ask
        headers = {**ask.headers, **self.held.asks}
        post = self.relay.client.post(ask.codec.upstream_path, ask.call.body(model), headers)
        self._upstream = asyncio.ensure_future(post)

    def _drop_upstream(self) -> None:
        """Abandon the upstream call, whether or not its headers have come."""
        task, self._upstream = self._upstream, None
        if task is None:
            return
        task.add_done_callback(_discard)
        task.cancel()

    async def _opened(self) -> Answer:
        task, self._upstream = self._upstream, None
        if task is None:
            raise UpstreamError("upstream: no call was started")
        try:
            answer = await task
        except asyncio.CancelledError:
            task.add_done_callback(_discard)
            raise
        self.state.timing.upstream_first_byte_at = self.relay.ticks()
        return answer

    def _decide(self, block: Block) -> None:
        """Say what a blocked prompt means here, where several classes block it the strictest."""
        several = self.joined.several
        found = several.prompt_blocks if several is not None else ()
        for one in found or (block,):
            action = self._action(one)
            if one is block or _STRICTNESS.index(action) > _STRICTNESS.index(self.state.action):
                self.state.action, self.state.verdict = action, one

    def _action(self, block: Block) -> Action:
        """Say what one class's block means; scoring and logging are done already."""
        if self.ask.policy.shadow:
            return Action.FORWARD
        match self._relief(block.full_clause) or self.ask.policy.on_block:
            case Relief.DELIVER:
                return Action.FORWARD
            case "fallback" if self.ask.policy.fallback_model:
                return Action.FALLBACK
            case "review":
                return Action.REVIEW
            case _:  # "block", or a grant's fallback where no weaker model is configured
                return Action.BLOCK

    def _granted(self, clause: str, guard_class: str | None = None) -> bool:
        """Whether a grant lets this subject receive what a clause would stop."""
        full = f"{guard_class}.{clause}" if guard_class and clause else clause
        return self._relief(full) is Relief.DELIVER

    def _relief(self, clause: str) -> Relief | None:
        """Return what a grant gives instead of a block; asked, and counted, once for a clause."""
        if not clause:
            return None
        if clause not in self.state.rulings:
            key = self.ask.key
            self.state.rulings[clause] = self.relay.exemptions.action_for(
                key.id if key else None,
                self.ask.use_case,
                clause,
                self.ask.surface,
                self.relay.clock(),
            )
        match self.state.rulings[clause]:
            case Exempt() as exempt:
                self.state.grant_id = exempt.grant_id
                return exempt.relief
            case NotExempt():
                return None

    async def _keep_prompt(self) -> None:
        started = self.relay.ticks()
        bypasses, now = self.session.report().bypasses, self.relay.clock()
        rows = [prompt_row(self.state, now), *bypass_rows(self.state, now, bypasses)]
        rows += media_rows(self.state, now)
        if self.state.action is Action.REVIEW and not self.ask.canary:
            rows.append(review_row(self.state, now))
        try:
            await self.relay.ledger.append(rows[0], *rows[1:])
        except LedgerError:
            if self.ask.policy.ledger_fail_mode is not FailMode.BYPASS:
                raise
            self.relay.watcher.ledger_failed(self.ask.surface)
        self._prompt_kept = True
        self._bypasses_kept = len(bypasses)
        self.state.timing.ledger_s += self.relay.ticks() - started
        if self.ask.policy.expose_overhead:
            spent = (self.state.timing.guard_s + self.state.timing.ledger_s) * 1000
            self.out.add_header(b"x-safehold-overhead-ms", f"{spent:.1f}".encode())

    async def _refuse_prompt(self) -> None:
        await self.keep_final(Outcome.BLOCKED_BY_GUARD, LedgerVerdict.BLOCK)
        if self.ask.call.streamed:
            await self.out.end(self.ask.call.stream().block(self.state.notice))
        else:
            status: int = getattr(self.ask.codec, "refused_status", 200)
            await self.out.whole(status, self.ask.call.blocked(self.state.notice))

    # -- the answer --------------------------------------------------------------------------

    async def _answer(self, answer: Answer) -> None:
        try:
            if answer.status != HTTPStatus.OK:
                await self._pass_error(answer)
                return
            delivery = self._delivery = Delivery(
                self.state,
                answer,
                gone=self.gone,
                stage2=self.stage2,
                limits=self.relay.limits,
                journal=self.relay.journal,
                ticks=self.relay.ticks,
                keep_final=self.keep_final,
            )
            if self.ask.call.streamed:
                await delivery.stream()
            else:
                await delivery.whole()
        finally:
            answer.abort()

    async def _pass_error(self, answer: Answer) -> None:
        """Answer with the upstream's error; its message is text like any other, so it is scored."""
        status = answer.status
        if not is_clients(status, self.ask.headers):
            raise UpstreamError(f"upstream: expected status 200, came {status}")
        message, named = told(await read_all(answer, self.relay.limits))
        lane = Lane(channel=Channel.TEXT)
        scored = said(message, named)
        self.state.bytes_fed += len(scored.encode())
        text = message
        if not await cleared(self.session, self.stage2, lane, scored):
            text, named = PLAIN, Told()
        self.state.error = f"Upstream{status}"
        self.out.promise(len(text.encode()) if text == message else 0)
        self.state.texts = {lane: [text]} if text == message else {}
        await self.keep_final(Outcome.ERROR, LedgerVerdict.ALLOW)
        headers = [(name.encode(), value.encode()) for name, value in hints(answer.headers).items()]
        body = self.ask.codec.error(status, text, self.ask.decision_id, named)
        await self.out.whole(status, body, headers=headers)

    # -- endings -----------------------------------------------------------------------------

    async def keep_final(self, outcome: Outcome, judged: LedgerVerdict) -> None:
        """Make the final row durable, once.

        Raises:
            LedgerError: It can't be kept and the policy does not allow going on without.
        """
        if self._final_kept:
            return
        self.state.timing.ended_at = self.relay.ticks()
        self._final_kept = True
        report = self.state.reported = self.session.report()
        self.relay.watcher.finished(self.state, outcome, judged)
        bypasses, now = report.bypasses[self._bypasses_kept :], self.relay.clock()
        try:
            await self.relay.ledger.append(
                final_row(self.state, now, outcome, judged),
                *bypass_rows(self.state, now, bypasses),
                *exemption_rows(self.state, now),
                *hit_rows(self.state, now),
                *class_rows(self.state, now),
            )
        except LedgerError:
            if self.ask.policy.ledger_fail_mode is not FailMode.BYPASS:
                self._final_kept = False
                raise
            self.relay.watcher.ledger_failed(self.ask.surface)
        if self.relay.journal is not None:
            self.relay.journal.close(self.ask.decision_id)
        try:  # before the client has the end: it may ask for what comes next at once
            await self.relay.keep(self.state)
        except LedgerError:
            self.relay.watcher.ledger_failed(self.ask.surface)

    async def fail(
        self,
        error: SafeholdError,
        status: int,
        outcome: Outcome = Outcome.ERROR,
        named: Told | None = None,
    ) -> None:
        """End with a protocol error; what was withheld stays withheld."""
        self.state.error = type(error).__name__
        self._drop_upstream()
        if self.out.finished:
            return
        kept = await self._keep_failure(outcome)
        if not kept:
            status = 503
        message = str(error)
        if self.out.started:
            stream = self._delivery.events if self._delivery else None
            stream = stream or self.ask.call.stream()
            await self.out.end(stream.fail(message, self.ask.decision_id, named))
        else:
            body = self.ask.codec.error(status, message, self.ask.decision_id, named)
            headers = [(b"retry-after", b"1")] if status == HTTPStatus.SERVICE_UNAVAILABLE else []
            await self.out.whole(status, body, headers=headers)

    async def _keep_failure(self, outcome: Outcome) -> bool:
        judged = LedgerVerdict.UNSCORED if outcome is Outcome.UNSCORABLE else LedgerVerdict.ALLOW
        if self.state.block is not None:
            judged = LedgerVerdict.BLOCK
        try:
            if not self._prompt_kept:
                await self._keep_prompt()
            await self.keep_final(outcome, judged)
        except LedgerError:
            return False
        return True

    def leave(self, seat: Seat) -> None:
        """Offer the exchange to a trial, once it has ended and if its prompt was judged."""
        state = self.state
        several = state.several
        if several is not None and several.stopped_by is not None:
            return  # what the first class would have said of the rest, nobody knows
        verdict = state.verdict
        if verdict is None or (isinstance(verdict, Block) and verdict.guard_class is not None):
            return
        delivered = (
            clause
            for clause, one in state.rulings.items()
            if isinstance(one, Exempt) and one.relief is Relief.DELIVER
        )
        seat.ended(
            decision_id=self.ask.decision_id,
            exchange=self.ask.exchange,
            policy=self.ask.policy.session(),
            exempt=frozenset(delivered),
            blocked=isinstance(verdict, Block) or state.block is not None,
        )

    async def settle(self) -> None:
        """Leave no exchange without a final row, even when the task is cancelled."""
        self._drop_upstream()
        if self._final_kept or not self._prompt_kept:
            return
        self.state.error = self.state.error or "Cancelled"
        kept = await asyncio.shield(asyncio.ensure_future(self._keep_failure(Outcome.ERROR)))
        if not kept:
            judged = LedgerVerdict.ALLOW if self.state.block is None else LedgerVerdict.BLOCK
            self.relay.owed.append(final_row(self.state, self.relay.clock(), Outcome.ERROR, judged))


_STRICTNESS = (Action.FORWARD, Action.FALLBACK, Action.REVIEW, Action.BLOCK)
"""The actions on a blocked prompt, the strictest last."""


def _account(ask: AdmittedRequest) -> str | None:
    """Return by what a trial draws an exchange; a canary is never drawn."""
    if ask.canary:
        return None
    return f"{ask.key.tenant}/{ask.key.id}" if ask.key else ask.decision_id


def _discard(task: "asyncio.Future[Answer]") -> None:
    """Drop an answer that nobody waits for any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()

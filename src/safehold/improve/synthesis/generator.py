"""The generator that asks a model: cell by cell, messages first, then an answer to each.

What it answers badly is asked for once more, then left out and counted in its cell; a run whose
first cells give nothing usable stops before it costs more.
"""

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from safehold.constitution import ClauseRole, Constitution
from safehold.errors import UpstreamError
from safehold.exchange import user_says
from safehold.improve.synthesis.answers import AnswerFault, read_list, read_reply
from safehold.improve.synthesis.calls import CallStore, GeneratorAnswer, GeneratorCall
from safehold.improve.synthesis.cells import Cell, Form, cells_of
from safehold.improve.synthesis.chat import Chat, ChatSettings, session_for
from safehold.improve.synthesis.http_reply import ReplyRejects
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.synthesis.nonsense import Cells, told_apart, unrelated
from safehold.improve.synthesis.pace import Pace
from safehold.improve.synthesis.prompts import LEADS, Messages, Prompter
from safehold.improve.synthesis.steps import AnsweredSteps
from safehold.improve.synthesis.subject import SubjectWords
from safehold.progress import Progress

_HOPELESS = 8
"""So many cells in a row without anything usable end a run."""
_LISTED_TOKENS = 60
"""Tokens for one message of a list."""
_CLEAR = 0.5
"""A group with less than this share of what was asked for is thin."""


class CellYield(msgspec.Struct, frozen=True, kw_only=True):
    """What one cell gave: messages with their answers (empty: none was usable), and the faults."""

    cell: Cell
    wanted: int
    pairs: tuple[tuple[str, str], ...]
    faults: dict[str, int]
    spare: frozenset[str] = frozenset()
    """Messages that are the constitution's own, since the model wrote too few."""
    filled: bool = False
    """Whether it belongs to a pass that fills thin groups."""
    told: tuple[float, ...] = ()
    """How well each answer tells where it belongs, before any was left out: 0.5 is chance."""

    @property
    def answered(self) -> int:
        """How many messages have a usable answer."""
        return sum(bool(reply) for _, reply in self.pairs)


class CellWorkers(Protocol):
    """Workers that a run is spread over (`spread.Spread`)."""

    def ask(self, cells: Sequence[tuple[Cell, tuple[str, ...]]], seed: int) -> None:
        """Have every call of cells answered; each stands beside its twin's messages."""
        ...

    def marks(self, cells: Cells, seed: int, anything: frozenset[str]) -> dict[str, list[float]]:
        """Return how well each answer of each cell tells where it belongs (`told_apart`)."""
        ...


class ModelGenerator:
    """Asks a model for exchanges on both sides of a constitution."""

    def __init__(
        self,
        name: str,
        constitution: Constitution,
        settings: ChatSettings,
        book: CallStore,
        progress: Progress | None = None,
        workers: CellWorkers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the name for the lineage, the constitution, the model, and the book of its calls.

        `workers` answer cells into the book beforehand, and score, where a run is spread. `clock`
        says how long a call has been waited for, in seconds.
        """
        self._workers = workers
        self.name = name
        self._constitution = constitution
        self._settings = settings
        self._book = book
        progress = progress or Progress()
        self._pace = Pace(settings.concurrency, settings.timeout_s, progress.say, clock)
        self._steps = AnsweredSteps(progress, self._pace, each=1 + settings.batch)
        self._subject = SubjectWords(constitution)
        self._prompter = Prompter(constitution, self._subject)
        self._said: dict[str, str] = {}
        self._rejection = ""
        self.yields: list[CellYield] = []
        """What each cell gave, once `generate` has run."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that are asked for."""
        return self._settings.languages or self._subject.languages()

    def cells(self) -> list[Cell]:
        """Return the cells of the first pass."""
        return cells_of(self._constitution, languages=self.languages, rounds=self._settings.rounds)

    def generate(self, *, seed: int) -> Iterator[Example]:
        """Yield the examples of all cells, thin groups filled as often as the settings say.

        Raises:
            UpstreamError: The model can't be reached, or its first cells gave nothing usable.
        """
        self.yields = []
        self._said = {}
        self._ask_for(self.cells(), seed)
        for again in range(1, self._settings.fill + 1):
            thin = thin_groups(self.yields)
            if not thin:
                break
            rounds = self._settings.rounds
            more = cells_of(
                self._constitution,
                languages=self.languages,
                rounds=rounds,
                start=again * rounds,
                groups=thin,
            )
            self._ask_for(more, seed)
        for one in self.yields:
            yield from self._examples(one, seed)

    def first_calls(self, seed: int) -> list[tuple[Cell, GeneratorCall]]:
        """Return each cell's first call as far as it is known beforehand, for a plan."""
        return [(cell, self._list_call(cell, seed, (), 0)) for cell in self.cells()]

    def answer_messages(self, cell: Cell, ask: str) -> Messages:
        """Return what is sent for the answer to a message, for a plan."""
        return self._prompter.answer(cell, ask)

    def _ask_for(self, cells: Sequence[Cell], seed: int) -> None:
        self._steps.start(len(cells))
        asyncio.run(self._collect(cells, seed, filling=bool(self.yields)))
        general = frozenset(
            one.id for one in self._constitution.permitted if one.role is ClauseRole.GENERAL
        )
        marks = _marks if self._workers is None else self._workers.marks
        self.yields = without_unrelated(self.yields, seed, general, marks)

    async def _collect(self, cells: Sequence[Cell], seed: int, *, filling: bool) -> None:
        async with session_for(self._settings) as session, self._steps.telling():
            chat = Chat(session, self._settings, self._book, pace=self._pace)
            asked: dict[str, tuple[str, ...]] = {
                one.cell.name: tuple(ask for ask, _ in one.pairs) for one in self.yields
            }
            # Twins look at what their others asked, so restricted cells come first.
            for side in (Side.RESTRICTED, Side.PERMITTED):
                own = [cell for cell in cells if cell.side is side]
                for wave in self._waves(own):
                    beside = [asked.get(one.twin or "", ()) for one in wave]
                    if self._workers is not None:
                        self._workers.ask(list(zip(wave, beside, strict=True)), seed)
                    found = await self._all(
                        chat,
                        [
                            asyncio.create_task(self.run_cell(chat, one, seed, other))
                            for one, other in zip(wave, beside, strict=True)
                        ],
                    )
                    for one in found:
                        fresh = self._without_repeats(one)  # in the plan's order, so stable
                        asked.setdefault(one.cell.name, tuple(ask for ask, _ in fresh.pairs))
                        self.yields.append(msgspec.structs.replace(fresh, filled=filling))
                    self._stop_if_hopeless()

    async def _all(self, chat: Chat, asking: Sequence[asyncio.Task[CellYield]]) -> list[CellYield]:
        """Return what all cells gave; an error is raised once the calls under way are kept.

        They are waited for as long as the time-out, and no new one begins (`Chat`).
        """
        try:
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
            if any(one.exception() is not None for one in done):
                with suppress(TimeoutError):
                    await asyncio.wait_for(chat.settled(), self._settings.timeout_s)
            return [one.result() for one in asking if one.done()]
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    def _waves(self, cells: Sequence[Cell]) -> Iterator[Sequence[Cell]]:
        """Yield what is asked at a time; spread, all that follows the first look."""
        width = max(1, self._settings.concurrency)
        if self._workers is None:
            yield from (cells[at : at + width] for at in range(0, len(cells), width))
            return
        yield from (wave for wave in (cells[:_HOPELESS], cells[_HOPELESS:]) if wave)

    async def run_cell(
        self, chat: Chat, cell: Cell, seed: int, beside: tuple[str, ...]
    ) -> CellYield:
        """Ask for one cell: its messages, which differ from those `beside`, and their answers.

        Raises:
            UpstreamError: The model can't be reached.
        """
        faults: Counter[str] = Counter()
        wanted = self._settings.batch
        asks: list[str] = []
        for attempt in range(self._settings.repairs + 1):
            answer = await chat.ask(self._list_call(cell, seed, beside, attempt))
            if isinstance(answer, ReplyRejects):
                self._note_rejected(answer, faults)
                break
            found, fault = self._read_list(cell, answer, beside)
            asks += [ask for ask in found if ask not in asks]
            if fault is not None:
                faults[fault.value] += 1
            if 2 * len(asks) >= wanted:
                break
        self._steps.step(cell.name)
        spare: list[str] = []
        if 2 * len(asks) < wanted:
            own = self._prompter.spare(cell, wanted, seed)
            spare = [ask for ask in own if ask not in asks][: wanted - len(asks)]
        pairs = []
        for ask in (*asks, *spare)[:wanted]:
            pairs.append((ask, await self._answer(chat, cell, ask, seed, faults)))
            self._steps.step(cell.name)
        self._steps.end(cell.name)
        return CellYield(
            cell=cell,
            wanted=wanted,
            pairs=tuple(pairs),
            faults=dict(faults),
            spare=frozenset(spare),
        )

    async def _answer(
        self, chat: Chat, cell: Cell, ask: str, seed: int, faults: Counter[str]
    ) -> str:
        def on_subject(text: str) -> bool:
            if cell.side is Side.PERMITTED:
                return True
            return self._subject.holds(text, cell.clause, None, cell.language)

        for attempt in range(self._settings.repairs + 1):
            answer = await chat.ask(self._reply_call(cell, ask, seed, attempt))
            if isinstance(answer, ReplyRejects):
                self._note_rejected(answer, faults)
                return ""
            if answer.refused:
                faults[AnswerFault.REFUSED.value] += 1
                return ""
            reading = read_reply(
                answer.text,
                ask,
                cut=answer.finish == "length",
                language=cell.language,
                on_subject=on_subject,
            )
            if reading.fault is None:
                return reading.text
            faults[reading.fault.value] += 1
        return ""

    def _note_rejected(self, told: ReplyRejects, faults: Counter[str]) -> None:
        """Count a request that is not accepted; the same one would fare no better."""
        faults[AnswerFault.NOT_ACCEPTED.value] += 1
        self._rejection = told.said

    def _read_list(
        self, cell: Cell, answer: GeneratorAnswer, beside: Sequence[str]
    ) -> tuple[list[str], AnswerFault | None]:
        if answer.refused:
            return [], AnswerFault.REFUSED
        taken = {ask.casefold() for ask in beside}

        def usable(ask: str) -> bool:
            if cell.side is Side.RESTRICTED:
                return self._subject.holds(ask, cell.clause, cell.stage, cell.language, least=1)
            return ask.casefold() not in taken and not self._subject.crosses(ask)

        return read_list(answer.text, usable)

    def _without_repeats(self, one: CellYield) -> CellYield:
        """Leave out what the model said word for word before, in another cell."""
        faults = Counter(one.faults)
        pairs = []
        for ask, reply in one.pairs:
            texts = []
            for text in (ask, reply):
                key = "" if text in one.spare else " ".join(text.casefold().split())
                again = bool(key) and self._said.setdefault(key, one.cell.name) != one.cell.name
                faults[AnswerFault.SAID_BEFORE.value] += again
                texts.append("" if again else text)
            if texts[0] and (texts[1] or texts[0] not in one.spare):
                pairs.append((texts[0], texts[1]))
        counted = {name: count for name, count in faults.items() if count}
        return msgspec.structs.replace(one, pairs=tuple(pairs), faults=counted)

    def _stop_if_hopeless(self) -> None:
        last = self.yields[-_HOPELESS:]
        if len(last) < min(_HOPELESS, len(self.cells())) or any(
            one.answered or set(dict(one.pairs)) - one.spare for one in last
        ):
            return
        total: Counter[str] = Counter()
        for one in last:
            total.update(one.faults)
        why = total.most_common(1)[0][0] if total else "nothing"
        raise UpstreamError(
            f"{self._settings.model}: {len(last)} cells one after the other gave nothing usable "
            f"(mostly: {why}); {self._advice(why)}"
        )

    def _advice(self, why: str) -> str:
        if why == AnswerFault.NOT_ACCEPTED:
            return f"the server said: {self._rejection}; such requests are asked anew"
        advice = "look at calls.jsonl, then try another model or wording"
        if why == AnswerFault.REASONING:
            advice = "switch its reasoning off, or try a model without; look at calls.jsonl"
        return f"{advice}; without that file the same model is asked anew"

    def _list_call(
        self, cell: Cell, seed: int, beside: tuple[str, ...], attempt: int
    ) -> GeneratorCall:
        count = self._settings.batch
        return self._call(
            cell,
            "asks",
            self._prompter.asks(cell, count, seed, beside),
            min(self._settings.max_tokens, _LISTED_TOKENS * count),
            _seed_of(seed, cell, "asks", attempt),
        )

    def _reply_call(self, cell: Cell, ask: str, seed: int, attempt: int) -> GeneratorCall:
        return self._call(
            cell,
            "answer",
            self._prompter.answer(cell, ask),
            self._settings.max_tokens,
            _seed_of(seed, cell, ask, attempt),
        )

    def _call(
        self, cell: Cell, kind: str, messages: Messages, max_tokens: int, seed: int
    ) -> GeneratorCall:
        return GeneratorCall(
            cell=cell.name,
            kind=kind,
            model=self._settings.model,
            messages=messages,
            temperature=self._settings.temperature,
            max_tokens=max_tokens,
            seed=seed,
        )

    def _examples(self, one: CellYield, seed: int) -> Iterator[Example]:
        cell = one.cell
        for number, (ask, reply) in enumerate(one.pairs):
            # A page of a handbook follows an innocent lead, and is no answer to a request. A
            # message of the constitution's own is an example already.
            borrowed = ask in one.spare
            led = (borrowed or cell.form in {Form.PASSAGE, Form.NOTES}) and bool(reply)
            restricted = cell.side is Side.RESTRICTED
            base = Example(
                id=f"{self.name}/{cell.name}-{number:02}",
                family=f"{self.name}/{cell.family}",
                split=Split.TRAIN,
                side=cell.side,
                clause=cell.clause,
                exchange=user_says(ask),
                reply="" if led else reply,
                ask=restricted,
                lineage=Lineage(
                    constitution=self._constitution.digest, generator=self.name, seed=seed
                ),
                stage=cell.stage,
                language=cell.language,
            )
            if not borrowed:
                yield base
            if led:
                lead = LEADS[number % len(LEADS)]
                yield msgspec.structs.replace(
                    base, id=f"{base.id}-led", exchange=user_says(lead), reply=reply, ask=False
                )


def _marks(cells: Cells, seed: int, anything: frozenset[str]) -> dict[str, list[float]]:
    return told_apart(cells, seed=seed, anything=anything)


def without_unrelated(
    yields: Sequence[CellYield],
    seed: int,
    general: frozenset[str] = frozenset(),
    mark: Callable[[Cells, int, frozenset[str]], dict[str, list[float]]] = _marks,
) -> list[CellYield]:
    """Return the cells without answers that might as well answer another cell, counted as faults.

    `general` are the clauses that stand for everything else: their texts share no subject.
    What was looked at before (a fill comes after it) is a measure for what is new, and stays.
    `mark` scores as `told_apart` does.
    """
    cells = {
        one.cell.name: (one.cell.group, [pair for pair in one.pairs if pair[1]]) for one in yields
    }
    anything = frozenset(one.cell.group for one in yields if one.cell.clause in general)
    marks = mark(cells, seed, anything)
    lost = unrelated(marks)
    found = []
    for one in yields:
        if one.told or not marks[one.cell.name]:
            found.append(one)
            continue
        gone = iter(lost[one.cell.name])
        pairs = [(ask, "" if reply and next(gone) else reply) for ask, reply in one.pairs]
        count = sum(lost[one.cell.name])
        faults = {**one.faults, **({AnswerFault.UNRELATED.value: count} if count else {})}
        found.append(
            msgspec.structs.replace(
                one,
                pairs=tuple((ask, reply) for ask, reply in pairs if reply or ask not in one.spare),
                faults=faults,
                told=tuple(round(mark, 3) for mark in marks[one.cell.name]),
            )
        )
    return found


def wanted_of(yields: Sequence[CellYield]) -> dict[str, int]:
    """Return the answers wanted of each group: what its first pass asked for."""
    wanted: Counter[str] = Counter()
    for one in yields:
        if not one.filled:
            wanted[one.cell.group] += one.wanted
    return dict(wanted)


def thin_groups(yields: Sequence[CellYield]) -> frozenset[str]:
    """Return the groups with fewer usable answers than half of those wanted."""
    kept: Counter[str] = Counter()
    for one in yields:
        kept[one.cell.group] += one.answered
    wanted = wanted_of(yields)
    return frozenset(group for group, count in wanted.items() if kept[group] < _CLEAR * count)


def _seed_of(seed: int, cell: Cell, what: str, attempt: int) -> int:
    return (seed + zlib.crc32(f"{cell.side}/{cell.name}/{what}".encode()) + attempt) % 2**31

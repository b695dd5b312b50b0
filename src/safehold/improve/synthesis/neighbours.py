"""Permitted neighbours that a model proposes, and the sheet in which the operator decides.

The sheet is a CSV to fill in and an HTML page to read. What was accepted is put into a copy of the
constitution as text, so that comments and layout stay; the copy is read back and must say what was
meant, or nothing is written.
"""

import asyncio
import csv
import html
import io
import re
import unicodedata
from collections.abc import Sequence

import msgspec

from safehold.constitution import Constitution, Document, parse
from safehold.errors import DataError, UpstreamError
from safehold.improve.synthesis.answers import read_list
from safehold.improve.synthesis.calls import CallBook, GeneratorCall
from safehold.improve.synthesis.chat import Chat, ChatSettings, session_for
from safehold.improve.synthesis.pace import Pace
from safehold.improve.synthesis.steps import AnsweredSteps
from safehold.progress import Progress

COLUMNS = ("decision", "to", "id", "beside", "title", "policy", "ask")
DECISIONS = ("accept", "reject", "relabel")
_ACTIVE = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would run at the start of a cell."""
_PARTS = re.compile(
    r"^\**(?P<title>[^:|\u2013\u2014]{3,80}?)\**\s*[:|\u2013\u2014]\s*(?P<rest>.{20,})$"
)
_ASK = re.compile(r"\bfor example:?\s*(?P<ask>.{8,300})$", re.IGNORECASE)


class NeighbourProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A permitted clause that might be near a restricted one."""

    id: str
    beside: str
    title: str
    policy: str
    ask: str


class ProposalDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says of a proposal; `to` names the clause it is relabelled to."""

    proposal: NeighbourProposal
    decision: str
    to: str = ""


def propose(
    constitution: Constitution,
    settings: ChatSettings,
    book: CallBook,
    *,
    seed: int,
    progress: Progress | None = None,
) -> list[NeighbourProposal]:
    """Ask a model for neighbours of each restricted clause; known ones are left out.

    Raises:
        UpstreamError: The model can't be reached, or proposed nothing usable.
    """
    answers = asyncio.run(_asked(constitution, settings, book, seed, progress or Progress()))
    taken = _ids(constitution)
    titles = {clause.title.casefold() for clause in constitution.permitted}
    found: list[NeighbourProposal] = []
    for beside, answer in answers:
        items, _ = read_list(answer, lambda item: bool(_PARTS.match(item)))
        for item in items:
            one = _proposal(item, beside)
            if one is None or one.id in taken or one.title.casefold() in titles:
                continue
            taken.add(one.id)
            found.append(one)
    if not found:
        raise UpstreamError(
            f"{settings.model} proposed no neighbour in the form that was asked for; "
            "try a stronger model, or write them yourself"
        )
    return found


async def _asked(
    constitution: Constitution,
    settings: ChatSettings,
    book: CallBook,
    seed: int,
    progress: Progress,
) -> list[tuple[str, str]]:
    pace = Pace(settings.concurrency, settings.timeout_s, progress.say)
    steps = AnsweredSteps(progress, pace, each=1)
    steps.start(len(constitution.restricted))
    async with session_for(settings) as session, steps.telling():
        chat = Chat(session, settings, book, pace=pace)
        found = []
        for clause in constitution.restricted:
            known = "; ".join(one.title for one in constitution.permitted)
            said = (
                f"Subject: {clause.title}. {' '.join(clause.policy.split())}\n\n"
                "Help with this is not given. Which other kinds of help name the same things, "
                f"tools or places and are harmless? Known already: {known}.\n\n"
                f"Write a numbered list of {settings.batch} new kinds, one a line, in the form\n"
                "Title: one sentence that says what is asked for. For example: a message of a user"
            )
            call = GeneratorCall(
                cell=clause.id,
                kind="neighbours",
                model=settings.model,
                messages=({"role": "user", "content": said},),
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
                seed=seed,
            )
            found.append((clause.id, (await chat.ask(call)).text))
            steps.step(clause.id)
        return found


def _proposal(item: str, beside: str) -> NeighbourProposal | None:
    match = _PARTS.match(item)
    if match is None:
        return None
    rest = match["rest"].strip()
    ask = _ASK.search(rest)
    policy = rest[: ask.start()].strip() if ask else rest
    title = match["title"].strip(" *\"'")
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().casefold()
    name = "-".join(re.findall(r"[a-z0-9]+", plain))[:60].strip("-")
    if not name or not policy:
        return None
    told = ask["ask"].strip(" \"'\u201c\u201d") if ask else ""
    return NeighbourProposal(id=name, beside=beside, title=title, policy=policy, ask=told)


def sheet_csv(proposals: Sequence[NeighbourProposal]) -> str:
    """Return the sheet to fill in: `decision` and `to` are empty."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for one in proposals:
        cells = ("", "", one.id, one.beside, one.title, one.policy, one.ask)
        writer.writerow([f"'{cell}" if cell.startswith(_ACTIVE) else cell for cell in cells])
    return out.getvalue()


def sheet_html(constitution: Constitution, proposals: Sequence[NeighbourProposal]) -> str:
    """Return the same to read, beside the clause that each is near."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>\n"
        for cells in (
            (one.id, one.title, one.policy, one.ask, _title(constitution, one.beside))
            for one in proposals
        )
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Neighbours of {html.escape(constitution.title)}</title>"
        "<style>body{font:16px sans-serif;margin:2em}td,th{padding:.4em;text-align:left;"
        "vertical-align:top;border-bottom:1px solid #ccc}</style>"
        f"<h1>Neighbours of {html.escape(constitution.title)}</h1>"
        "<p>Decide in <code>neighbours.csv</code>: accept, reject, or relabel with a clause's id "
        "in the column <code>to</code>.</p><table><tr><th>id</th><th>title</th><th>policy</th>"
        f"<th>a message</th><th>near</th></tr>\n{rows}</table></html>\n"
    )


def _ids(constitution: Constitution) -> set[str]:
    restricted = {clause.id for clause in constitution.restricted}
    return restricted | {clause.id for clause in constitution.permitted}


def _title(constitution: Constitution, clause: str) -> str:
    return next((one.title for one in constitution.restricted if one.id == clause), clause)


def read_sheet(text: str, constitution: Constitution, *, name: str) -> list[ProposalDecision]:
    """Return the decisions of a sheet; rows without one are left for another time.

    Raises:
        DataError: A line is broken, or names a decision or clause that does not exist.
    """
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise DataError(f"{name} line 1: expected the columns {', '.join(COLUMNS)}")
    clauses = _ids(constitution)
    beside = {one.id for one in constitution.restricted}
    found = []
    for row in reader:
        where = f"{name} line {reader.line_num}"
        if None in row or None in row.values():
            raise DataError(f"{where}: expected {len(COLUMNS)} columns")
        cells = {key: value.strip().removeprefix("'") for key, value in row.items()}
        decision = cells["decision"].casefold()
        if not decision:
            continue
        if decision not in DECISIONS:
            raise DataError(f"{where}: expected accept, reject or relabel, got {decision!r}")
        if decision == "relabel" and cells["to"] not in clauses:
            raise DataError(f"{where}: relabel needs a clause's id in `to`, got {cells['to']!r}")
        if cells["beside"] not in beside:
            raise DataError(f"{where}: {cells['beside']!r} is no restricted clause")
        fields = {key: cells[key] for key in ("id", "beside", "title", "policy", "ask")}
        found.append(
            ProposalDecision(
                proposal=NeighbourProposal(**fields), decision=decision, to=cells["to"]
            )
        )
    return found


def reviewed(document: Document, source: str, decisions: Sequence[ProposalDecision]) -> str:
    """Return the constitution's text with what was accepted or relabelled put in.

    Raises:
        DataError: The file's layout does not let it be put in; it must be done by hand.
        SchemaError: What was accepted breaks the schema.
    """
    accepted = [one.proposal for one in decisions if one.decision == "accept"]
    relabelled = [one for one in decisions if one.decision == "relabel" and one.proposal.ask]
    lines = source.split("\n")
    constitution = document.constitution
    edits: list[tuple[int, int, str]] = []
    for number, clause in enumerate(constitution.restricted):
        new = [one.id for one in accepted if one.beside == clause.id]
        if new:
            edits.append(_into_list(document, lines, ("restricted", number, "neighbours"), new))
    for side in ("restricted", "permitted"):
        for number, clause in enumerate(getattr(constitution, side)):
            asks = [_quoted(one.proposal.ask) for one in relabelled if one.to == clause.id]
            if asks:
                edits.append(_into_list(document, lines, (side, number, "asks"), asks))
    if accepted:
        edits.append(_clauses(document, lines, accepted))
    for line, column, text in sorted(edits, reverse=True):
        lines[line] = lines[line][:column] + text + lines[line][column:]
    result = "\n".join(lines)
    again = parse(result.encode(), source="the reviewed constitution").constitution
    have = {clause.id for clause in again.permitted}
    asked = {ask for one in again.restricted for ask in one.asks}
    asked |= {ask for one in again.permitted for ask in one.asks}
    wanted = {one.proposal.ask for one in relabelled}
    if not have >= {one.id for one in accepted} or not asked >= wanted:
        raise DataError("the file's layout does not let the clauses be put in; add them by hand")
    return result


def _into_list(
    document: Document, lines: Sequence[str], path: tuple[str | int, ...], new: Sequence[str]
) -> tuple[int, int, str]:
    """Return where and what to insert before the first item of a list that has one."""
    place = document.positions.get((*path, 0))
    if place is None:
        raise DataError(
            f"{path[0]}[{path[1]}] has no {path[2]} yet: give it one, then the sheet adds to it"
        )
    line, column = place.line - 1, place.column - 1
    before = lines[line][:column]
    if before.rstrip().endswith("-"):
        indent = before.rstrip()[:-1]
        return line, 0, "".join(f"{indent}- {item}\n" for item in new)
    return line, column, "".join(f"{item}, " for item in new)


def _clauses(
    document: Document, lines: Sequence[str], accepted: Sequence[NeighbourProposal]
) -> tuple[int, int, str]:
    """Return where and what to insert before the first permitted clause."""
    place = document.positions[("permitted", 0)]
    line = place.line - 1
    before = lines[line][: place.column - 1]
    if not before.rstrip().endswith("-"):
        raise DataError("expected `permitted` as a list of one clause a block; add them by hand")
    indent = before.rstrip()[:-1]
    text = ""
    for one in accepted:
        text += f"{indent}- id: {one.id}\n{indent}  title: {_quoted(one.title)}\n"
        text += f"{indent}  policy: {_quoted(one.policy)}\n"
        text += f"{indent}  asks: [{_quoted(one.ask)}]\n" if one.ask else ""
    return line, 0, text


def _quoted(text: str) -> str:
    """Return a text as a double-quoted YAML scalar."""
    return msgspec.json.encode(text).decode()

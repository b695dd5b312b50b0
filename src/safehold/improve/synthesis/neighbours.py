"""Permitted neighbours that a model proposes, and the sheet in which the operator decides.

The sheet is a CSV to fill in and an HTML page to read. What was accepted is put into a copy of the
constitution as text, so that comments and layout stay; the copy is read back and must say what was
meant, or nothing is written.
"""

import asyncio
import codecs
import csv
import html
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from safehold.constitution import (
    Constitution,
    Document,
    PermittedClause,
    SchemaError,
    is_id,
    parse,
)
from safehold.constitution.lint import Severity, lint
from safehold.errors import DataError, UpstreamError
from safehold.improve.synthesis.answers import read_list
from safehold.improve.synthesis.calls import CallBook, GeneratorAnswer, GeneratorCall
from safehold.improve.synthesis.chat import Chat, ChatSettings, session_for
from safehold.improve.synthesis.pace import Pace
from safehold.improve.synthesis.steps import AnsweredSteps
from safehold.progress import Progress

COLUMNS = ("decision", "to", "id", "beside", "title", "policy", "ask")
DECISIONS = ("accept", "reject", "relabel")
_ACTIVE = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would run at the start of a cell."""
_SEPARATORS = (",", ";", "\t")
"""What spreadsheets write between cells, by the country and the form that they save in."""
_NUMBER = re.compile(r"\[\d+\]")
_BARE = re.compile("[a-z]+(-[a-z0-9]+)+")
"""An id that no reader of YAML takes for a number, a date or a word such as `no`."""
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
    """What the operator says of a proposal, and the sheet's line that says so.

    `to` names the clause it is relabelled to.
    """

    proposal: NeighbourProposal
    decision: str
    where: str
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
            answer = await chat.ask(call)
            if isinstance(answer, GeneratorAnswer):
                found.append((clause.id, answer.text))
            steps.step(clause.id)
        return found


def _proposal(item: str, beside: str) -> NeighbourProposal | None:
    match = _PARTS.match(" ".join(item.split()))
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
        writer.writerow([f"'{cell}" if _runs(cell) else cell for cell in cells])
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


def _runs(cell: str) -> bool:
    """Whether a spreadsheet would run a cell, or take the mark off that says that it must not."""
    return cell.lstrip("'").startswith(_ACTIVE)


def read_sheet(data: bytes, constitution: Constitution, *, name: str) -> list[ProposalDecision]:
    """Return the decisions of a sheet; rows without one are left for another time.

    Read as spreadsheets save it: UTF-8 or UTF-16 with its mark, cells between commas, semicolons or
    tabs, the columns in any order.

    Raises:
        DataError: A line is broken, or its decision can't be carried out as it stands.
    """
    clauses = _ids(constitution)
    beside = {one.id for one in constitution.restricted}
    accepted: dict[str, str] = {}
    found = []
    for where, cells in _rows(_text(data, name), name):
        decision, to = cells.pop("decision").casefold(), cells.pop("to")
        one = NeighbourProposal(**cells)
        if to and decision != "relabel":
            raise DataError(f"{where}: `to` is for relabel alone, got {to!r} beside {decision!r}")
        if not decision:
            continue
        if decision not in DECISIONS:
            raise DataError(f"{where}: expected accept, reject or relabel, got {decision!r}")
        if one.beside not in beside:
            raise DataError(f"{where}: {one.beside!r} is no restricted clause")
        if decision == "relabel" and to not in clauses:
            raise DataError(f"{where}: relabel needs a clause's id in `to`, got {to!r}")
        if decision == "relabel" and not one.ask:
            raise DataError(f"{where}: relabel moves the ask, got none: write one, or reject")
        if decision == "accept":
            _refuse_id(one.id, clauses, accepted, where)
            accepted[one.id] = where
        found.append(ProposalDecision(proposal=one, decision=decision, where=where, to=to))
    return found


def _refuse_id(new: str, clauses: set[str], accepted: dict[str, str], where: str) -> None:
    if not is_id(new):
        raise DataError(f"{where}: expected an id of a-z, 0-9 and single hyphens, got {new!r}")
    if new in clauses:
        raise DataError(f"{where}: the constitution has a clause {new} already: give another id")
    if new in accepted:
        raise DataError(f"{where}: {accepted[new]} accepts {new} already: give another id")


def _text(data: bytes, name: str) -> str:
    """Return a sheet's text, its lines ended by line feeds."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "replace").count("\n") + 1
        raise DataError(
            f"{name} line {line}: expected UTF-8, got other bytes: save the sheet as CSV in UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rows(text: str, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place and the cells of each row that has any."""
    header = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    columns: list[str] = []
    while True:
        where = f"{name} line {reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{where}: expected a row of cells, got a broken one ({error}): "
                "is a quotation mark left open?"
            ) from error
        if row is None:
            break
        if any("\n" in cell for cell in row):
            raise DataError(
                f"{where}: expected each row in one line, got a cell that goes on over its end: "
                "is a quotation mark left open?"
            )
        if not columns:
            columns = [cell.strip().casefold() for cell in row]
            if sorted(columns) != sorted(COLUMNS):
                raise DataError(f"{where}: expected the columns {', '.join(COLUMNS)}")
        elif any(cell.strip() for cell in row):
            if len(row) != len(columns):
                raise DataError(f"{where}: expected {len(columns)} cells, got {len(row)}")
            yield where, dict(zip(columns, (_cell(cell, where) for cell in row), strict=True))
    if not columns:
        raise DataError(f"{name} line 1: expected the columns {', '.join(COLUMNS)}")


def _cell(raw: str, where: str) -> str:
    text = " ".join(raw.split())
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise DataError(f"{where}: expected text, got a control character")
    return text[1:] if text.startswith("'") and _runs(text) else text


def reviewed(document: Document, source: str, decisions: Sequence[ProposalDecision]) -> str:
    """Return the constitution's text with what was accepted or relabelled put in.

    Raises:
        DataError: A decision would be an error of the constitution, or the file's layout does not
            let it be put in; it must be done by hand.
    """
    constitution = document.constitution
    _refuse_new_errors(constitution, decisions)
    accepted = [one.proposal for one in decisions if one.decision == "accept"]
    lines = source.split("\n")
    edits: list[tuple[int, int, str]] = []
    for number, clause in enumerate(constitution.restricted):
        new = [_name(one.id) for one in accepted if one.beside == clause.id]
        if new:
            edits.append(_into_list(document, lines, ("restricted", number, "neighbours"), new))
    for side in ("restricted", "permitted"):
        for number, clause in enumerate(getattr(constitution, side)):
            asks = [_quoted(ask) for ask in _moved(decisions, clause.id)]
            if asks:
                edits.append(_into_list(document, lines, (side, number, "asks"), asks))
    if accepted:
        edits.append(_clauses(document, lines, accepted))
    for line, column, text in sorted(edits, reverse=True):
        lines[line] = lines[line][:column] + text + lines[line][column:]
    result = "\n".join(lines)
    try:
        again = parse(result.encode(), source=document.source).constitution
    except SchemaError as error:
        raise DataError(
            f"{document.source}: with the sheet's decisions: {error.problem}; add them by hand"
        ) from error
    if again != _meant(constitution, decisions):
        raise DataError(
            f"{document.source}: its layout does not let the decisions be put in; add them by hand"
        )
    return result


def _refuse_new_errors(constitution: Constitution, decisions: Sequence[ProposalDecision]) -> None:
    """Raise for the first decision after which lint finds an error that it did not find before."""
    before = _errors(constitution)
    for number, one in enumerate(decisions, 1):
        new = _errors(_meant(constitution, decisions[:number])) - before
        if new:
            raise DataError(f"{one.where}: {one.decision} would break the constitution: {min(new)}")


def _errors(constitution: Constitution) -> Counter[str]:
    """Count the errors by the field and the message: what is put in moves what stands behind it."""
    return Counter(
        f"{_NUMBER.sub('', one.path)}: {one.message}"
        for one in lint(constitution)
        if one.severity is Severity.ERROR
    )


def _meant(constitution: Constitution, decisions: Sequence[ProposalDecision]) -> Constitution:
    """Return the constitution as the decisions mean it; what is new stands first."""
    accepted = [one.proposal for one in decisions if one.decision == "accept"]
    return msgspec.structs.replace(
        constitution,
        restricted=tuple(
            msgspec.structs.replace(
                clause,
                neighbours=(
                    *(one.id for one in accepted if one.beside == clause.id),
                    *clause.neighbours,
                ),
                asks=(*_moved(decisions, clause.id), *clause.asks),
            )
            for clause in constitution.restricted
        ),
        permitted=(
            *(
                PermittedClause(
                    id=one.id,
                    title=one.title,
                    policy=one.policy,
                    asks=(one.ask,) if one.ask else (),
                )
                for one in accepted
            ),
            *(
                msgspec.structs.replace(clause, asks=(*_moved(decisions, clause.id), *clause.asks))
                for clause in constitution.permitted
            ),
        ),
    )


def _moved(decisions: Sequence[ProposalDecision], clause: str) -> list[str]:
    """Return the asks that are relabelled to a clause."""
    return [one.proposal.ask for one in decisions if one.decision == "relabel" and one.to == clause]


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
    place = document.position(("permitted", 0))
    line = place.line - 1
    before = lines[line][: place.column - 1]
    if not before.rstrip().endswith("-"):
        raise DataError("expected `permitted` as a list of one clause a block; add them by hand")
    indent = before.rstrip()[:-1]
    text = ""
    for one in accepted:
        text += f"{indent}- id: {_name(one.id)}\n{indent}  title: {_quoted(one.title)}\n"
        text += f"{indent}  policy: {_quoted(one.policy)}\n"
        text += f"{indent}  asks: [{_quoted(one.ask)}]\n" if one.ask else ""
    return line, 0, text


def _name(new: str) -> str:
    """Return an id as YAML that every reader takes for a text."""
    return new if _BARE.fullmatch(new) else _quoted(new)


def _quoted(text: str) -> str:
    """Return a text as a double-quoted YAML scalar; what nobody sees is written as its number."""
    marked = (f"\\{char}" if char in '"\\' else char for char in text)
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in marked) + '"'

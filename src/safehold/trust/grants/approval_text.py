"""A request in words: every member of it, so that nobody approves what they were not shown."""

import datetime as dt
import unicodedata
from typing import assert_never

from safehold.canonical import canonical, sha256_hex
from safehold.trust.exemptions.interface import ExemptionTerms, Vetting
from safehold.trust.exemptions.vetting import CHECKLIST
from safehold.trust.grants.details import (
    AccountStep,
    AddKey,
    AddTeam,
    AssignPerson,
    ChangePolicy,
    ClassOff,
    CorrectClock,
    Details,
    EnrolPerson,
    Facts,
    NoDetails,
    RemoveKey,
    RemovePerson,
    RuleActivation,
    StandingAct,
)
from safehold.trust.grants.events import Founding
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.people.interface import Key, Person, Proof, Roster, SshKey
from safehold.trust.release.interface import PublishRelease
from safehold.trust.text import shown

_NARROWEST = 12
"""Cells that a text has at least; a terminal narrower than that shows nothing in order."""
_LAST_SECOND = 253_402_300_799
"""The last second that a date can name."""

Words = tuple[tuple[str, str], ...]


def in_words(request: GrantRequest, roster: Roster) -> Words:
    """Return label and text of every member of the request, in reading order."""
    resource = request.resource
    parts = "all parts" if resource.parts == ("*",) else ", ".join(resource.parts)
    return tuple((label, shown(text)) for label, text in _words(request, roster, resource, parts))


def _words(request: GrantRequest, roster: Roster, resource: Resource, parts: str) -> Words:
    return (
        ("For enclave", request.enclave),
        ("Asked by", _person(request.requester, roster)),
        ("To do", request.operation),
        ("With", f"{resource.kind} {resource.name}, version {resource.version}, {parts}"),
        ("Why", request.purpose),
        ("Ticket", request.ticket),
        ("On host", request.host),
        ("Program (SHA-256)", request.workload_sha256),
        ("Bytes that may be read", f"{request.byte_budget:,}"),
        ("Times it may be used", str(request.uses)),
        ("From", utc(request.not_before)),
        ("Until", f"{utc(request.expires)} ({_span(request.expires - request.not_before)})"),
        *_details(request.details, roster),
        ("Break-glass", "YES: one person alone" if request.break_glass else "no"),
        ("Under policy", f"version {request.policy_version}, {request.policy_sha256}"),
        ("Nonce", request.nonce),
        ("Request (SHA-256)", request.sha256),
    )


def laid_out(label: str, text: str, *, indent: int, columns: int) -> str:
    """Return label and text as lines of a terminal, each line after the first indented.

    A terminal goes on in its first column when a line is full: a text that is long enough would
    draw a line there that looks like one of ours. So no line is longer than the terminal is wide.

    Args:
        label: Ours, without the colon.
        text: Somebody else's.
        indent: The column where texts begin.
        columns: How wide the terminal is, in cells.
    """
    width = max(columns - indent - 1, _NARROWEST)
    lines: list[str] = []
    for line in text.split("\n"):
        piece, used = "", 0
        for one in line.expandtabs(4):
            cells = 2 if unicodedata.east_asian_width(one) in "WFA" else 1
            if used + cells > width:
                lines.append(piece)
                piece, used = "", 0
            piece, used = piece + one, used + cells
        lines.append(piece)
    head = f"{label + ':':<{indent - 1}} "
    if len(head) > indent:
        return "\n".join([head.rstrip(), *(" " * indent + one for one in lines)])
    return head + ("\n" + " " * indent).join(lines)


def _person(person_id: str, roster: Roster) -> str:
    person = roster.person(person_id)
    return f"{person_id} (not enrolled)" if person is None else f"{person.name} ({person_id})"


def utc(seconds: int) -> str:
    """Return POSIX seconds as a date and time in UTC."""
    if seconds > _LAST_SECOND:
        return f"second {seconds}"
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: int) -> str:
    days, rest = divmod(max(0, seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    pieces = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    return " ".join(f"{count} {unit}" for count, unit in pieces if count) or "no time"


def _key(key: Key) -> str:
    """Return kind, computed fingerprint and the key itself."""
    public = key.public if isinstance(key, SshKey) else key.public_key
    return f"{key.kind.value} {key.key_id} ({public})"


def founding_words(founding: Founding) -> Words:
    """Return label and text of everything that a founder signs, in reading order."""
    words: list[tuple[str, str]] = [("Enclave", founding.origin)]
    for team in founding.roster.teams:
        inside = ", ".join(team.parents) or "no other team"
        words.append(("Team", f"{team.name} ({team.id}) inside {inside}"))
    for person in founding.roster.persons:
        words.extend(_identity(person))
    words.append(("Retired ids", ", ".join(founding.roster.retired_ids) or "none"))
    words.append(("Retired keys", ", ".join(founding.roster.retired_keys) or "none"))
    words.append(("Policy (SHA-256)", sha256_hex(founding.policy_text.encode())))
    words.append(("Policy", founding.policy_text))
    words.append(("Founding (SHA-256)", sha256_hex(canonical(founding))))
    return tuple((label, shown(text)) for label, text in words)


def _held(proofs: tuple[Proof, ...]) -> Words:
    """Return whose key has signed its own enrolment: without that, the log has no such request."""
    return tuple(
        ("Signed by the new key", f"{one.key_id} ({sha256_hex(canonical(one))})") for one in proofs
    )


def _identity(person: Person) -> Words:
    return (
        ("Person", f"{person.name} ({person.id}), a {person.kind.value}"),
        ("Teams", ", ".join(person.teams) or "none"),
        ("Roles", ", ".join(person.roles) or "none"),
        *(("Key", _key(key)) for key in person.keys),
    )


def _vetting(vetting: Vetting, roster: Roster) -> Words:
    stakes = ", ".join(_person(one, roster) for one in vetting.conflicts) or "nobody"
    words = [
        ("Vetted as", vetting.tier.value),
        ("Application (SHA-256)", vetting.application_sha256),
        *((f"Evidence: {one.kind}", one.sha256) for one in vetting.evidence),
        *((f"Checked: {item}", CHECKLIST[vetting.tier].get(item, "?")) for item in vetting.checks),
        ("With a stake in it", stakes),
    ]
    renewal = vetting.renewal
    if renewal is not None:
        words.append(("Renews", renewal.of))
        words.append(("Use counted", f"{utc(renewal.since)} to {utc(renewal.until)}"))
        words += [
            (f"Use: {one.clause}", f"{one.action}, {one.exchanges:,} exchanges")
            for one in renewal.use
        ] or [("Use", "none at all")]
    return tuple(words)


def _details(details: Details, roster: Roster) -> Words:
    match details:
        case NoDetails():
            return ()
        case Facts():
            return tuple((f"Fact: {name}", text) for name, text in sorted(details.values.items()))
        case EnrolPerson():
            return (
                ("Change", "enrol an identity"),
                *_identity(details.person),
                *_held(details.held),
            )
        case RemovePerson():
            return (("Change", f"remove {_person(details.person_id, roster)} for ever"),)
        case AddKey():
            who = _person(details.person_id, roster)
            return (
                ("Change", f"add to {who} the key {_key(details.key)}"),
                *_held(details.held),
            )
        case RemoveKey():
            who = _person(details.person_id, roster)
            return (("Change", f"take from {who} the key {details.key_id}"),)
        case AssignPerson():
            teams, roles = ", ".join(details.teams) or "none", ", ".join(details.roles) or "none"
            who = _person(details.person_id, roster)
            return (("Change", f"give {who} exactly the teams {teams} and the roles {roles}"),)
        case AddTeam():
            team = details.team
            inside = ", ".join(team.parents) or "no other team"
            return (("Change", f"create the team {team.name} ({team.id}) inside {inside}"),)
        case ChangePolicy():
            return (
                ("Change", f"replace the whole policy; new digest {details.sha256}"),
                ("New policy text", details.text),
            )
        case ExemptionTerms():
            actions = ", ".join(
                f"{one.clause}: {one.action.value} instead of block" for one in details.relaxations
            )
            return (
                ("Exempt", f"{details.subject.kind.value} {details.subject.id}"),
                ("Clauses", actions),
                ("Surfaces", ", ".join(details.surfaces)),
                ("Use case", details.use_case),
                ("Seats", str(details.seats)),
                ("Exempted exchanges an hour", str(details.rate_per_hour)),
                ("One use case in a session", _span(details.session_s)),
                *_vetting(details.vetting, roster),
            )
        case CorrectClock():
            back = f"from {utc(details.wrong)} to {utc(details.right)}"
            return (("Change", f"set the log's time back {back}"),)
        case PublishRelease():
            return (
                ("Release", f"version {details.version} of channel {details.channel}"),
                ("Release (SHA-256)", details.release_sha256),
                ("After", details.previous or "nothing: the first release"),
            )
        case AccountStep():
            rate = details.requests_per_hour
            return (
                ("Account", details.account),
                ("Until", utc(details.until)),
                *((("At least, requests an hour", str(rate)),) if rate else ()),
            )
        case RuleActivation():
            return (
                ("Hot rule", details.rule),
                ("Rule (SHA-256)", details.sha256),
                ("Until", utc(details.until)),
            )
        case ClassOff():
            return (
                ("Class that is off", details.guard_class),
                ("Until", utc(details.until)),
                ("Reason", details.reason),
            )
        case StandingAct():
            return (
                ("Standards (SHA-256)", details.document),
                ("Act", details.record),
            )
        case _:
            assert_never(details)

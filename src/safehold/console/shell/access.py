"""Who may see and do what: roles from the roster, screens and acts that name them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from safehold.trust.people.interface import Person

SourcesT = TypeVar("SourcesT")


class ConsoleRole(StrEnum):
    """A label of a person in the roster that opens a part of the console."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    LEAD = "lead"
    RESPONDER = "responder"
    RELEASER = "releaser"
    BOUNTY = "bounty"
    AUDITOR = "auditor"


EVERYONE = frozenset(ConsoleRole)
"""Whoever has any role of the console."""


def roles_of(person: Person) -> frozenset[ConsoleRole]:
    """Return the console's roles of a person; labels of other programs are passed over."""
    return frozenset(role for role in ConsoleRole if role.value in person.roles)


@dataclass(frozen=True, slots=True)
class PageVisit(Generic[SourcesT]):
    """One request of a person who is logged in, without anything of HTTP.

    `params` come from the path, `query` from the part after `?`; both are text that its sender
    chose.
    """

    person: Person
    roles: frozenset[ConsoleRole]
    sources: SourcesT
    now: float
    params: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


class Done(msgspec.Struct, frozen=True):
    """What an act tells: a sentence, and the page to go to."""

    said: str
    then: str


@dataclass(frozen=True, slots=True)
class Screen(Generic[SourcesT]):
    """A page: its path, who may open it, the value it shows and the template that shows it.

    `hostile` pages show text that an attacker wrote: they load no library, and the browser takes
    no text for markup (Trusted Types). `live` pages are told of news.
    """

    path: str
    title: str
    roles: frozenset[ConsoleRole]
    read: Callable[[PageVisit[SourcesT]], msgspec.Struct]
    template: str
    group: str = ""
    hostile: bool = False
    live: bool = False
    csv: bool = False
    answer: type[msgspec.Struct] = msgspec.Struct


@dataclass(frozen=True, slots=True)
class PageAct(Generic[SourcesT]):
    """Something a person does: a posted form or JSON body of a type, and what comes of it."""

    path: str
    title: str
    roles: frozenset[ConsoleRole]
    form: type[msgspec.Struct]
    do: Callable[[PageVisit[SourcesT], Any], msgspec.Struct]
    """Returns `Done`, or a screen's value that `template` shows at once and nobody can link to."""
    template: str = ""
    hostile: bool = False
    answer: type[msgspec.Struct] = Done

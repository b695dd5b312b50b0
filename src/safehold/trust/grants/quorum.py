"""Thresholds across teams: each person fills one place, however many teams they are in."""

from collections.abc import Mapping, Sequence

from safehold.trust.grants.interface import Quorum


def assign(
    thresholds: Sequence[Quorum], persons: Mapping[str, frozenset[str]]
) -> tuple[str, ...] | None:
    """Return persons that fill every place of every threshold, or None if they don't reach.

    "2 of development and 1 of security" has three places; a person of both teams fills one of
    them. Persons in none of the teams never count (bipartite matching by augmenting paths).

    Args:
        thresholds: Teams and counts; an empty sequence is never reached.
        persons: For each person id the ids of all their teams.
    """
    places = [threshold.team for threshold in thresholds for _ in range(threshold.count)]
    if not places:
        return None
    taken: dict[int, str] = {}
    for person in sorted(persons):
        _seat(person, persons, places, taken, set())
    if len(taken) < len(places):
        return None
    return tuple(sorted(taken.values()))


def _seat(
    person: str,
    persons: Mapping[str, frozenset[str]],
    places: Sequence[str],
    taken: dict[int, str],
    tried: set[int],
) -> bool:
    for place, team in enumerate(places):
        if place in tried or team not in persons[person]:
            continue
        tried.add(place)
        if place not in taken or _seat(taken[place], persons, places, taken, tried):
            taken[place] = person
            return True
    return False

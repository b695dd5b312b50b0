"""OSCAL 1.1.3 documents of the catalogue and of a run, and the constraints that a schema misses.

Identifiers are UUIDs of the content (version 5), so that two runs can be compared. The model is
that of NIST, https://pages.nist.gov/OSCAL/.
"""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from safehold.govern.controls.interface import Control, ControlError, ControlResult, what_broke
from safehold.govern.controls.library import ControlCatalogue

VERSION = "1.1.3"
NAMESPACE = uuid.UUID("5f7b1a52-93c4-5d3e-9d1c-0a6f2f1f6f10")
"""The project's own; every identifier is derived from it."""
PROPS = "https://safehold.invalid/ns/oscal"
METHODS = frozenset({"EXAMINE", "INTERVIEW", "TEST"})
_DATE = "2026-11-29T00:00:00Z"

Json = dict[str, Any]


def _id(*words: str) -> str:
    return str(uuid.uuid5(NAMESPACE, "\0".join(words)))


def _metadata(title: str, stamp: str = _DATE) -> Json:
    return {"title": title, "last-modified": stamp, "version": "1", "oscal-version": VERSION}


def _prop(name: str, value: str) -> Json:
    return {"name": name, "ns": PROPS, "value": value}


def catalog(catalogue: ControlCatalogue) -> Json:
    """Return the catalogue: a group for each family, a control for each row."""
    groups = [
        {
            "id": family.id,
            "title": family.title,
            "controls": [_control(one) for one in family.control],
        }
        for family in catalogue.families
    ]
    return {
        "catalog": {
            "uuid": _id("catalog", catalogue.sha256),
            "metadata": _metadata("Safehold controls"),
            "groups": groups,
        }
    }


def _control(one: Control) -> Json:
    props = [_prop(name, getattr(one, name).value) for name in ("kind", "stage", "way")]
    for name in ("nist", "attack", "atlas", "safeguards"):
        props += [_prop(name, value) for value in getattr(one, name)]
    return {
        "id": one.id,
        "title": one.title,
        "props": [*props, _prop("sl5", one.sl5)],
        "parts": [{"id": f"{one.id}_smt", "name": "statement", "prose": one.how}],
    }


def profile(catalogue: ControlCatalogue, href: str) -> Json:
    """Return a profile that takes every row of the catalogue at `href`."""
    ids = [one.id for one in catalogue.controls]
    return {
        "profile": {
            "uuid": _id("profile", catalogue.sha256, href),
            "metadata": _metadata("Safehold controls, all of them"),
            "imports": [{"href": href, "include-controls": [{"with-ids": ids}]}],
            "merge": {"as-is": True},
        }
    }


def assessment(
    catalogue: ControlCatalogue, results: Sequence[ControlResult], *, host: str, at: int
) -> Json:
    """Return the results of a run: one observation and one finding for each control."""
    stamp = dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run = f"{host}\0{at}"
    ways = {one.id: one.way.value for one in catalogue.controls}
    observations = [
        {
            "uuid": _id("observation", run, one.control),
            "description": "; ".join(one.reasons) or "The check found no fault.",
            "methods": ["TEST" if ways[one.control] == "automatic" else "EXAMINE"],
            "props": [_prop("status", one.status.value)],
            "relevant-evidence": [{"description": f"facts {one.facts_sha256 or 'none'}"}],
            "collected": stamp,
        }
        for one in results
    ]
    findings = [_finding(one, run) for one in results]
    return {
        "assessment-results": {
            "uuid": _id("assessment", run),
            "metadata": _metadata(f"Safehold controls of {host}", stamp),
            "import-ap": {"href": "#none"},
            "results": [
                {
                    "uuid": _id("result", run),
                    "title": f"Run on {host}",
                    "description": "Every control of the catalogue, judged once.",
                    "start": stamp,
                    "reviewed-controls": {"control-selections": [{"include-all": {}}]},
                    "observations": observations,
                    "findings": findings,
                }
            ],
        }
    }


def _finding(one: ControlResult, run: str) -> Json:
    state = "satisfied" if one.satisfied else "not-satisfied"
    reason = {"pass": "pass", "fail": "fail"}.get(one.status.value, "other")
    return {
        "uuid": _id("finding", run, one.control),
        "title": one.control,
        "description": "; ".join(one.reasons) or "No fault.",
        "target": {
            "type": "objective-id",
            "target-id": one.control,
            "status": {"state": state, "reason": reason},
        },
        "related-observations": [{"observation-uuid": _id("observation", run, one.control)}],
    }


def oscal_faults(catalog_doc: Json, profile_doc: Json, results_doc: Json) -> tuple[str, ...]:
    """Return what contradicts itself across the three documents; a schema accepts all of this."""
    try:
        return tuple(_faults(catalog_doc, profile_doc, results_doc))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ControlError(f"OSCAL: expected another shape ({what_broke(error):.80})") from error


def _faults(catalog_doc: Json, profile_doc: Json, results_doc: Json) -> Iterator[str]:
    groups = catalog_doc["catalog"]["groups"]
    ids = [one["id"] for group in groups for one in group["controls"]]
    yield from (f"control {one} is there twice" for one in _twice(ids))
    yield from (f"group {one} is there twice" for one in _twice([one["id"] for one in groups]))
    taken = [
        one
        for part in profile_doc["profile"]["imports"]
        for chosen in part["include-controls"]
        for one in chosen["with-ids"]
    ]
    yield from (f"the profile takes {one} twice" for one in _twice(taken))
    yield from (f"the profile takes {one}, an unknown one" for one in sorted(set(taken) - set(ids)))
    for result in results_doc["assessment-results"]["results"]:
        seen = {one["uuid"]: one for one in result["observations"]}
        uuids = [one["uuid"] for one in (*result["observations"], *result["findings"])]
        yield from (f"uuid {one} is there twice" for one in _twice(uuids))
        for one in result["observations"]:
            for method in sorted(set(one["methods"]) - METHODS):
                yield f"method {method} is unknown"
            if not one["methods"] or not one.get("relevant-evidence"):
                yield f"observation {one['uuid']} names no method or evidence"
        targets = [one["target"]["target-id"] for one in result["findings"]]
        yield from (f"{one} has two findings" for one in _twice(targets))
        yield from (f"{one} has no finding" for one in sorted(set(taken) - set(targets)))
        yield from (f"{one} is found and unknown" for one in sorted(set(targets) - set(taken)))
        for one in result["findings"]:
            yield from _finding_faults(one, seen)


def _finding_faults(one: Json, seen: dict[str, Json]) -> Iterator[str]:
    name = one["target"]["target-id"]
    related = one.get("related-observations", [])
    if not related or any(each["observation-uuid"] not in seen for each in related):
        yield f"{name}: its observation is not there"
    status = one["target"]["status"]
    if status["state"] not in {"satisfied", "not-satisfied"}:
        yield f"{name}: state {status['state']} is unknown"
    if status["reason"] == "fail" and status["state"] == "satisfied":
        yield f"{name}: failed and satisfied"


def _twice(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)

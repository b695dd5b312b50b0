"""The judges of `cti.py` that live in an environment of their own."""

import json
import sys
from pathlib import Path

from pymisp import MISPEvent
from stix2validator import ValidationOptions, validate_file
from taxii2client.v21 import Collection, Server, as_pages

ATTACK = {
    "type": "attack-pattern",
    "spec_version": "2.1",
    "id": "attack-pattern--00000000-0000-4000-8000-000000000007",
    "created": "2026-11-01T00:00:00.000Z",
    "modified": "2026-11-01T00:00:00.000Z",
    "name": "from another lab",
}


def main(place: str) -> None:
    """Validate the bundle, read and write our server, load the event."""
    folder = Path(place)
    asked = json.loads((folder / "asked.json").read_text())
    found = validate_file(
        str(folder / "bundle.json"), ValidationOptions(version="2.1", strict=True)
    )
    wrong = [str(one) for result in found.object_results for one in result.errors or ()]
    assert found.is_valid, wrong
    warnings = [str(one) for result in found.object_results for one in result.warnings or ()]
    print(f"stix2-validator --strict: valid, {len(warnings)} warnings")

    login = {"user": "judge", "password": asked["password"]}
    root = Server(asked["url"], **login).api_roots[0]
    names = {one.id: one for one in root.collections}
    shared = names[asked["shared"]]
    got = shared.get_objects()["objects"]
    assert len(got) == asked["objects"], (len(got), asked["objects"])
    paged = [one for page in as_pages(shared.get_objects, per_request=4) for one in page["objects"]]
    assert [one["id"] for one in paged] == [one["id"] for one in got]
    kinds = shared.get_objects(type="attack-pattern")["objects"]
    assert len(kinds) == 4
    assert len(shared.get_manifest()["objects"]) == asked["objects"]
    assert shared.get_object(kinds[0]["id"])["objects"] == [kinds[0]]
    inbox = Collection(f"{root.url}collections/{asked['inbox']}/", **login)
    status = inbox.add_objects({"objects": [ATTACK]})
    assert (status.status, status.success_count) == ("complete", 1)
    print(f"taxii2-client: {len(got)} objects, paged, filtered, one sent")

    event = MISPEvent()
    event.load_file(folder / "event.json")
    assert len(event.attributes) == asked["attributes"]
    assert all(one.value for one in event.attributes)
    assert {tag.name for tag in event.tags} >= {"tlp:amber+strict"}
    print(f"pymisp: {len(event.attributes)} attributes, {len(event.tags)} tags")


if __name__ == "__main__":
    main(*sys.argv[1:])

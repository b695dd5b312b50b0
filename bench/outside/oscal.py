"""compliance-trestle reads our OSCAL: import, validate, resolve the profile.

    python bench/outside/oscal.py PLACE

What it accepts and should not (a control id twice, an unknown method) must be refused by ours.
"""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.controls.oscal import Json, assessment, catalog, oscal_faults, profile
from safehold.testing.hosts import NOW, SITE, healthy

HREF = "trestle://catalogs/cat/catalog.json"


def main(place: Path) -> int:
    """Run every check; return the exit status."""
    trestle = place / "trestle" / "bin" / "trestle"
    work = place / "oscal"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    catalogue = stock_catalogue()
    results = run_controls(catalogue, healthy(), SITE).results
    documents = {
        "catalog": catalog(catalogue),
        "profile": profile(catalogue, HREF),
        "assessment-results": assessment(catalogue, results, host="recorded", at=NOW),
    }
    if oscal_faults(*documents.values()):
        print("our own constraints refuse the documents")
        return 1
    doubled = copy.deepcopy(documents["catalog"])
    rows = doubled["catalog"]["groups"][0]["controls"]
    rows.append(rows[0])
    unknown = copy.deepcopy(documents["assessment-results"])
    unknown["assessment-results"]["results"][0]["observations"][0]["methods"] = ["X"]

    def run(*words: str) -> bool:
        done = subprocess.run(
            [trestle, *words], cwd=work, check=False, timeout=300, capture_output=True, text=True
        )
        if done.returncode:
            print(f"trestle {' '.join(words)}: {(done.stdout + done.stderr)[-400:]}")
        return done.returncode == 0

    def write(name: str, document: Json) -> str:
        path = work.parent / f"{name}.json"
        path.write_text(json.dumps(document))
        return str(path)

    held = run("init", "--local")
    for name, document, into in (
        ("catalog", documents["catalog"], "cat"),
        ("profile", documents["profile"], "prof"),
        ("assessment-results", documents["assessment-results"], "run"),
    ):
        held &= run("import", "-f", write(name, document), "-o", into)
    held &= run("validate", "-a")
    held &= run("author", "profile-resolve", "-n", "prof", "-o", "resolved")
    resolved = json.loads((work / "catalogs" / "resolved" / "catalog.json").read_text())
    groups = [resolved["catalog"], *resolved["catalog"].get("groups", [])]
    count = sum(len(group.get("controls", [])) for group in groups)
    held &= count == len(catalogue.controls)
    print(f"trestle resolved {count} controls of {len(catalogue.controls)}")
    for name, document in (("doubled", doubled), ("unknown-method", unknown)):
        taken = run("import", "-f", write(name, document), "-o", name)
        given = {**documents, next(iter(document)): document}
        ours = oscal_faults(*given.values())
        print(f"{name}: trestle {'accepts' if taken else 'refuses'}, ours says {ours[:1]}")
        held &= bool(ours)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

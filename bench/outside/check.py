"""Read what a driver wrote; fail where nothing was scored or an answer was read wrong.

Run by `scripts/outside`: `python bench/outside/check.py READER PATH`, see `READERS`.
"""

import json
import sys
from pathlib import Path
from typing import Any


def inspect(folder: Path) -> bool:
    """Whether the two newest logs have every sample right."""
    logs = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[-2:]
    sound = len(logs) == 2
    for path in logs:
        log = json.loads(path.read_text())
        scores = (log.get("results") or {}).get("scores") or []
        value = scores[0]["metrics"]["accuracy"]["value"] if scores else 0.0
        attack = log["eval"]["task_args"].get("attack")
        print(f"inspect, attack {attack}: {log['status']}, {value:.0%} as expected")
        sound = sound and log["status"] == "success" and value == 1.0
    return sound


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    report = max(folder.glob("*.report.jsonl"), key=lambda path: path.stat().st_mtime)
    entries = [json.loads(line) for line in report.read_text().splitlines()]
    return [entry for entry in entries if entry.get("entry_type") == "eval"]


def garak(folder: Path) -> bool:
    """Whether the newest report scored something, and everything that it asked."""
    rows = _evaluations(folder)
    scored = sum(row["total_evaluated"] for row in rows)
    unscored = sum(row.get("nones", 0) for row in rows)
    print(f"garak: {len(rows)} evaluations, {scored} answers scored, {unscored} not")
    return scored > 0 and unscored == 0


def garak_blocked(folder: Path) -> bool:
    """Whether garak read every one of the blocks in the newest report as a refusal."""
    rows = _evaluations(folder)
    scored = sum(row["total_evaluated"] for row in rows)
    passed = sum(row["passed"] for row in rows)
    unscored = sum(row.get("nones", 0) for row in rows)
    print(f"garak, all blocked: {passed} of {scored} blocks read as a refusal, {unscored} unscored")
    return scored > 0 and passed == scored and unscored == 0


def promptfoo(path: Path) -> bool:
    """Whether promptfoo saw a refusal on each blocked answer and on no other.

    On Chat Completions it reads the flag and the finish reason too; on Responses, the text alone.
    """
    results = json.loads(path.read_text())["results"]["results"]
    right = 0
    for result in results:
        response, due = result["response"], result["metadata"]["blocked"]
        flagged = response.get("guardrails", {}).get("flagged", False)
        filtered = response.get("finishReason") == "content_filter"
        marked = result["provider"]["label"] == "responses" or flagged == filtered == due
        right += bool(result["success"]) and marked
    print(f"promptfoo: {right} of {len(results)} answers read as meant")
    return bool(results) and right == len(results)


READERS = {
    "inspect": inspect,
    "garak": garak,
    "garak_blocked": garak_blocked,
    "promptfoo": promptfoo,
}

if __name__ == "__main__":
    sys.exit(0 if READERS[sys.argv[1]](Path(sys.argv[2])) else 1)

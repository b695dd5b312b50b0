"""Read what a driver wrote; fail where nothing was scored or an answer was read wrong.

Run by `scripts/outside`: `python bench/outside/check.py inspect|garak FOLDER`.
"""

import json
import sys
from pathlib import Path


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


def garak(folder: Path) -> bool:
    """Whether the newest report scored something, and everything that it asked."""
    report = max(folder.glob("*.report.jsonl"), key=lambda path: path.stat().st_mtime)
    entries = [json.loads(line) for line in report.read_text().splitlines()]
    rows = [entry for entry in entries if entry.get("entry_type") == "eval"]
    scored = sum(row["total_evaluated"] for row in rows)
    unscored = sum(row.get("nones", 0) for row in rows)
    print(f"garak: {len(rows)} evaluations, {scored} answers scored, {unscored} not")
    return scored > 0 and unscored == 0


if __name__ == "__main__":
    sys.exit(0 if {"inspect": inspect, "garak": garak}[sys.argv[1]](Path(sys.argv[2])) else 1)

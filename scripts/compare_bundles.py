"""Compare two bundles: the scores of the first one's golden set must agree to 1e-3."""

import sys
from pathlib import Path

from safehold.exchange import Lane, user_says
from safehold.guard.bundle.load import Bundle, UnsafeUnsigned, load_bundle
from safehold.guard.interface import DeliveryMode
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import drive
from safehold.guard.session.session import Guard, SessionPolicy

TOLERANCE = 1e-3


def scores(bundle: Bundle, prompt: str, reply: str) -> tuple[float, float]:
    """Return the scores in [0, 1] of a prompt and its reply."""
    if bundle.stage2 is None:
        raise SystemExit("comparing needs bundles with a stage 2")
    session = Guard(bundle.cascade, ViewDecoder()).session(
        user_says(prompt), SessionPolicy(mode=DeliveryMode.AUDIT)
    )
    stage2 = InlineStage2(bundle.stage2)
    drive(session.judge_prompt(), stage2)
    drive(session.feed(Lane(), reply), stage2)
    drive(session.finish(), stage2)
    report = session.report()
    return report.prompt_score, report.reply_score


def main(first: Path, second: Path) -> int:
    """Print the largest difference; return 1 if it exceeds the tolerance."""
    shipped, remade = (load_bundle(folder, UnsafeUnsigned()) for folder in (first, second))
    worst = max(
        abs(a - b)
        for golden in shipped.golden
        for a, b in zip(
            scores(shipped, golden.prompt, golden.reply),
            scores(remade, golden.prompt, golden.reply),
            strict=True,
        )
    )
    same = shipped.digest == remade.digest
    print(
        f"largest difference over {len(shipped.golden)} golden exchanges: {worst:.2e}"
        f" (manifests {'equal' if same else 'differ'})"
    )
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))

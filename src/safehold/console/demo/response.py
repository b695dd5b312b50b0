"""The demo's incident: a wording that got past the guard, answered as `safehold respond` does.

Everything is done for real and takes the time that it takes: that is what the page's clock shows.
"""

import hashlib
import os
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.constitution.library import load
from safehold.detect.redteam.questions import questions, wrappers
from safehold.errors import SafeholdError
from safehold.guard.bundle.load import Bundle, SignedBy, load_bundle
from safehold.guard.bundle.overlay_file import approve
from safehold.guard.bundle.signing import load_public_key
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.corpus import Corpus, of_seed_books
from safehold.improve.response.gating import gated
from safehold.improve.response.hotrule import hot_rule
from safehold.improve.response.incident import dress_of
from safehold.improve.response.interface import Incident, IncidentKind
from safehold.improve.response.judged import Judge
from safehold.improve.response.proliferate import ProliferateSettings, variants
from safehold.improve.response.warm import WarmSettings, challenger
from safehold.progress import Progress

CASE = "nightly-run-wording"
_DOMAIN = "homebrewing"
_SEED = 1
_BENIGN = 600
_TRIES = 160
_NICE = 10
_APPROVERS = ("Mara Okoye", "Ines Pereira")


def answered(folder: Path, bundle: Path, public: Path) -> IncidentCase:
    """Open the case, make variants, measure a rule, have two persons sign it.

    Raises:
        SafeholdError: nothing gets past the guard, or a step fails.
    """
    champion = _loaded(bundle, public)
    text, ask = _miss(Judge(champion))
    case = IncidentCase(folder / CASE)
    incident = Incident(
        id=CASE,
        kind=IncidentKind.MISS,
        at=int(time.time()),
        text=text,
        clause="beer-production",
        source="red team: the prompt passed, the reply did not",
        reporter="Wei Zhang",
        confirmed_by=_APPROVERS[0],
    )
    dress = dress_of(incident, Judge(champion), ask=ask)
    case.begin(incident, dress)
    corpus = _corpus()
    made = variants(dress, corpus.asks(), ProliferateSettings(learnt=96, held_out=64, seed=_SEED))
    case.keep_variants(made)
    benign = corpus.benign(_BENIGN, _SEED)
    sources = {"seed books": hashlib.sha256("\n".join(benign).encode()).hexdigest()}
    found = hot_rule(
        incident, dress, made, benign, sources=sources, owner="Wei Zhang", now=int(time.time())
    )
    case.keep_rule(found)
    for name in _APPROVERS:
        case.keep_approval(approve(found.rule, name, Ed25519PrivateKey.generate()))
    return case


def retrained(folder: Path, bundle: Path, public: Path) -> None:
    """Make the challenger and put it before the gates; a process of its own may do it.

    Raises:
        SafeholdError: a step fails; the case stands where it stood.
    """
    champion, case, corpus = _loaded(bundle, public), IncidentCase(folder / CASE), _corpus()
    fresh = challenger(
        champion,
        bundle,
        incident=case.incident(),
        made=case.variants(),
        replay=corpus.replay(1_000, _SEED),
        benign=corpus.benign(_BENIGN, _SEED),
        settings=WarmSettings(seed=_SEED),
        out=case.challenger,
        key=Ed25519PrivateKey.generate(),
        progress=Progress(),
    )
    case.keep_report(gated(champion, fresh, case, corpus, domain=_DOMAIN, short=True, seed=_SEED))


def retrained_beside(folder: Path, bundle: Path, public: Path) -> None:
    """Do `retrained` and leave the processor to whoever looks at pages meanwhile."""
    os.nice(_NICE)
    retrained(folder, bundle, public)


def _loaded(bundle: Path, public: Path) -> Bundle:
    return load_bundle(bundle, SignedBy((load_public_key(public),)))


def _corpus() -> Corpus:
    return of_seed_books(load(_DOMAIN), _SEED)


def _miss(judge: Judge) -> tuple[str, str]:
    """Find a dressed question whose prompt the guard lets pass; return it and the question."""
    asks = [ask for topic in questions(_DOMAIN).topics for ask in topic.questions]
    worn = [one for one in wrappers() if "<<ask>>" in one.text]
    for turn in range(_TRIES):
        ask, dress = asks[(turn * 37 + 11) % len(asks)], worn[(turn * 5 + 36) % len(worn)]
        text = dress.around(ask)
        if ask in text and not judge.prompt(text).blocked:
            return text, ask
    raise SafeholdError("nothing gets past the demo's guard: there is no incident to answer")

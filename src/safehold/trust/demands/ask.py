"""Asking: a document, a log and the file of met controls in; nothing, or a refusal, out.

1. The document on disk is the pinned one.
2. The log is verified, and replayed as every reader does.
3. The controls are those that the pinned key signed, each until its own time.
4. The gate decides. Whatever can't be read is a refusal.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from safehold.errors import ConfigError, TrustError
from safehold.trust.demands.document import document_digest, parse_standards
from safehold.trust.demands.met import read_met
from safehold.trust.demands.records import StandingHistory, follow
from safehold.trust.grants.state import TrustState
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys
from safehold.trust.log.log_entries import read_leaf
from safehold.trust.log.note import parse_vkey
from safehold.trust.standing.gate import GatedAction, GateRefused, gate
from safehold.trust.standing.interface import StandardsDocument

_MAX_BYTES = 16 * 2**20


class StandingError(TrustError):
    """Bring into force, or determine, what the message names: the standards demand it."""


class StandingQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where to look, and for what: paths, the document's pinned digest, the model's compute.

    `model` is the SHA-256 of what is served; the key service takes the content id of the sealed
    header instead. `controls` is the file that `safehold controls run --valid` wrote, and
    `controls_key` the verifier key of who signs it.
    """

    document: str
    document_sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    log: str
    log_keys: str
    controls: str
    controls_key: str
    compute: Annotated[float, msgspec.Meta(gt=0)]
    model: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


def read_standing(folder: Path, keys_file: Path, document: StandardsDocument) -> StandingHistory:
    """Return the standing records of a log under a document, verified against pinned keys.

    Raises:
        LogError: The keys or the log can't be read, or the log contradicts its signed head.
    """
    keys = read_keys(keys_file)
    emitters = keys.emitter_keys()
    entries = Follower(DirectorySource(folder), keys).news()
    leaves = ((index, read_leaf(open_envelope(entry, emitters)[0])) for index, entry in entries)
    documents = {document_digest(document), document.supersedes} - {""}
    return follow(leaves, TrustState(keys.origin, keys.founding), documents)


def demand(question: StandingQuestion, action: GatedAction, *, at: int, model: str = "") -> None:
    """Return when the standards in force allow an action.

    Raises:
        TrustError: they don't (StandingError), or the log can't be believed.
    """
    name = model or question.model
    if not name:
        raise StandingError("expected the SHA-256 of the model, got none")
    document = _document(question)  # 1
    records = read_standing(Path(question.log), Path(question.log_keys), document).records  # 2
    verdict = gate(  # 4
        document,
        records,
        action,
        model=name,
        compute=question.compute,
        at=at,
        controls=_controls(question),  # 3
    )
    if isinstance(verdict, GateRefused):
        more = f" (and {len(verdict.reasons) - 1} more)" if len(verdict.reasons) > 1 else ""
        raise StandingError(f"the standards refuse to {action.value}: {verdict.reasons[0]}{more}")


def _document(question: StandingQuestion) -> StandardsDocument:
    path = Path(question.document)
    try:
        document = parse_standards(_read(path).decode("utf-8", "replace"), path.name)
    except ConfigError as error:
        raise StandingError(str(error)) from error
    if document_digest(document) != question.document_sha256:
        raise StandingError(f"{path.name} is not the pinned document of standards")
    return document


def _controls(question: StandingQuestion) -> dict[str, int]:
    try:
        key = parse_vkey(question.controls_key)
        return read_met(_read(Path(question.controls)), key).until
    except TrustError as error:
        raise StandingError(str(error)) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise StandingError(f"can't read {path.name}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise StandingError(f"{path.name}: expected at most {_MAX_BYTES} bytes")
    return data

"""The transparency log: append-only, provable offline with public keys alone."""

from safehold.trust.log.audit import AuditFinding, audit, check_size
from safehold.trust.log.book import Appender
from safehold.trust.log.checkpoint import open_checkpoint
from safehold.trust.log.dsse import Statement, StatementSubject, open_envelope, sign_envelope
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.interface import (
    Checkpoint,
    ConsistencyProof,
    InclusionProof,
    LogError,
    LogSource,
    LogTamperError,
    UnpublishedError,
)
from safehold.trust.log.keys import LogKeys, read_keys, write_keys
from safehold.trust.log.note import Algorithm, SigningKey, VerifierKey, parse_vkey
from safehold.trust.log.proof import check_proof, encode_proof, verify_proof_text
from safehold.trust.log.store import LogStore, create_log
from safehold.trust.log.tiles import TileReader
from safehold.trust.log.witness import Witness, attach, create_witness

__all__ = [
    "Algorithm",
    "Appender",
    "AuditFinding",
    "Checkpoint",
    "ConsistencyProof",
    "DirectorySource",
    "InclusionProof",
    "LogError",
    "LogKeys",
    "LogSource",
    "LogStore",
    "LogTamperError",
    "SigningKey",
    "Statement",
    "StatementSubject",
    "TileReader",
    "UnpublishedError",
    "VerifierKey",
    "Witness",
    "attach",
    "audit",
    "check_proof",
    "check_size",
    "create_log",
    "create_witness",
    "encode_proof",
    "open_checkpoint",
    "open_envelope",
    "parse_vkey",
    "read_keys",
    "sign_envelope",
    "verify_proof_text",
    "write_keys",
]

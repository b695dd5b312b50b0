"""Constitutions: what is restricted and what is permitted."""

from safehold.constitution.document import Document, Position, parse
from safehold.constitution.interface import (
    ClauseRole,
    CommonlyKnown,
    Constitution,
    GeneratorRefusedError,
    GeneratorRule,
    LexiconEntry,
    PermittedClause,
    RestrictedClause,
    SchemaError,
    Tier,
    WorkflowStage,
    admit_generator,
    is_id,
)
from safehold.constitution.library import load, load_document, stock

__all__ = [
    "ClauseRole",
    "CommonlyKnown",
    "Constitution",
    "Document",
    "GeneratorRefusedError",
    "GeneratorRule",
    "LexiconEntry",
    "PermittedClause",
    "Position",
    "RestrictedClause",
    "SchemaError",
    "Tier",
    "WorkflowStage",
    "admit_generator",
    "is_id",
    "load",
    "load_document",
    "parse",
    "stock",
]

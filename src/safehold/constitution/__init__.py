"""Constitutions: what is restricted and what is permitted."""

from safehold.constitution.document import Document, Position, parse
from safehold.constitution.interface import (
    CommonlyKnown,
    Constitution,
    GeneratorRefusedError,
    GeneratorRule,
    PermittedClause,
    RestrictedClause,
    Role,
    SchemaError,
    Stage,
    Tier,
    admit_generator,
)
from safehold.constitution.library import load, load_document, stock

__all__ = [
    "CommonlyKnown",
    "Constitution",
    "Document",
    "GeneratorRefusedError",
    "GeneratorRule",
    "PermittedClause",
    "Position",
    "RestrictedClause",
    "Role",
    "SchemaError",
    "Stage",
    "Tier",
    "admit_generator",
    "load",
    "load_document",
    "parse",
    "stock",
]

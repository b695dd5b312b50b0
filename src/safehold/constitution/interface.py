"""A constitution: what is restricted, what is permitted beside it, and what everybody knows."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.errors import ConstitutionError

SCHEMA = 1

Id = Annotated[str, msgspec.Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=20_000)]
_MAX_ITEMS = 500


def is_id(text: str) -> bool:
    """Whether a text may be the id of a clause or a stage."""
    try:
        msgspec.convert(text, type=Id)
    except msgspec.ValidationError:
        return False
    return True


class SchemaError(ConstitutionError):
    """Correct the file at `line` and `column`: it does not follow the schema."""

    def __init__(self, problem: str, *, source: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"{source}:{line}:{column}: {problem}")
        self.problem = problem
        self.line = line
        self.column = column


class GeneratorRefusedError(ConstitutionError):
    """Train from data of your own vetted generator; this constitution admits no other."""


class Tier(StrEnum):
    """How dangerous the help is, and so what a guard does about it.

    The four tiers and their usual actions are those of Anthropic's published cyber safeguards
    (2026-07-02): prohibited and high-risk dual use block, low-risk dual use is monitored and
    sometimes blocked, benign passes. Only a dual-use clause can be relaxed by an exemption.
    """

    PROHIBITED = "prohibited"
    HIGH_RISK_DUAL_USE = "high-risk-dual-use"
    LOW_RISK_DUAL_USE = "low-risk-dual-use"
    BENIGN = "benign"


class GeneratorRule(StrEnum):
    """Whose generator may make training data from the constitution."""

    ANY = "any"
    OPERATOR_ONLY = "operator-only"


class ClauseRole(StrEnum):
    """What a permitted clause is for: near a restricted one, or everything else."""

    NEIGHBOUR = "neighbour"
    GENERAL = "general"


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a constitution. Defaults are left out, so a new field changes no old digest."""


class WorkflowStage(_Value, frozen=True, kw_only=True):
    """A step of a restricted workflow; clauses name it by `id`."""

    id: Id
    covers: Text


class CommonlyKnown(_Value, frozen=True, kw_only=True):
    """What stays free although a restricted clause is near: single facts that everybody knows."""

    statement: Text
    examples: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()


class RestrictedClause(_Value, frozen=True, kw_only=True):
    """A kind of help that must not leave the model.

    `stages` are the steps of the workflow that it covers, `neighbours` the permitted clauses that
    are near enough to be confused with it: they become hard negatives. `asks` are messages that
    users would write: patterns for a generator and training data themselves.
    """

    id: Id
    title: Text
    tier: Tier
    policy: Text
    stages: Annotated[tuple[Id, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()
    commonly_known: CommonlyKnown | None = None
    neighbours: Annotated[tuple[Id, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()
    asks: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()


class PermittedClause(_Value, frozen=True, kw_only=True):
    """A kind of help that must keep working; `asks` are messages that users would write."""

    id: Id
    title: Text
    policy: Text
    tier: Tier = Tier.BENIGN
    role: ClauseRole = ClauseRole.NEIGHBOUR
    asks: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()


class LexiconEntry(_Value, frozen=True, kw_only=True):
    """The words of one language for a restricted clause, and ways to ask about them.

    `restricted` and `permitted` are sentences with `{name}`; synthesis crosses both with `names`,
    so that no name alone decides. `near` is the permitted clause that the permitted ones belong to.
    """

    language: Annotated[str, msgspec.Meta(pattern="^[a-z]{2,3}(-[A-Za-z0-9]+)*$", max_length=32)]
    clause: Id
    near: Id
    names: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()
    restricted: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()
    permitted: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()


class Constitution(_Value, frozen=True, kw_only=True):
    """The whole document."""

    schema: Literal[1]
    name: Id
    title: Text
    version: Text
    principle: Text
    generator: GeneratorRule = GeneratorRule.ANY
    stages: Annotated[tuple[WorkflowStage, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()
    restricted: Annotated[tuple[RestrictedClause, ...], msgspec.Meta(max_length=_MAX_ITEMS)]
    permitted: Annotated[tuple[PermittedClause, ...], msgspec.Meta(max_length=_MAX_ITEMS)]
    lexicon: Annotated[tuple[LexiconEntry, ...], msgspec.Meta(max_length=_MAX_ITEMS)] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical form, lower-case hexadecimal.

        Canonical: RFC 8785 JSON, defaults left out, lists sorted, every run of white space in a
        text one space. So layout, comments and order change nothing and every word does.
        """
        return sha256_hex(canonical(_sorted(msgspec.to_builtins(self))))

    @property
    def relaxable(self) -> frozenset[str]:
        """The ids of the restricted clauses that an exemption may relax: never prohibited ones."""
        return frozenset(c.id for c in self.restricted if c.tier is not Tier.PROHIBITED)

    @property
    def relaxable_tiers(self) -> dict[str, str]:
        """The tier of each restricted clause that an exemption may relax."""
        return {c.id: c.tier.value for c in self.restricted if c.tier is not Tier.PROHIBITED}

    def clause(self, clause_id: str) -> RestrictedClause | PermittedClause:
        """Return a clause by its id.

        Raises:
            ConstitutionError: there is no such clause.
        """
        clauses: list[RestrictedClause | PermittedClause] = [*self.restricted, *self.permitted]
        for clause in clauses:
            if clause.id == clause_id:
                return clause
        raise ConstitutionError(f"constitution {self.name} has no clause {clause_id!r}")


def admit_generator(constitution: Constitution, *, operator_owned: bool) -> None:
    """Refuse to make data with a generator that the constitution does not admit.

    Args:
        constitution: What the data would be made from.
        operator_owned: Whether the operator configured this generator and answers for it. Written
            seeds, grammars and the embedded model of this package are not.

    Raises:
        GeneratorRefusedError: the constitution is operator-only and the generator is not theirs.
    """
    if constitution.generator is GeneratorRule.OPERATOR_ONLY and not operator_owned:
        raise GeneratorRefusedError(
            f"constitution {constitution.name} is operator-only: nothing can be trained from it "
            "with the generators of this package; connect your own vetted generator "
            "(see docs/constitution.md, 'Operator-only constitutions')"
        )


def _sorted(value: object) -> object:
    match value:
        case str():
            return " ".join(value.split())
        case dict():
            return {key: _sorted(inner) for key, inner in value.items()}
        case list() | tuple():
            return sorted((_sorted(inner) for inner in value), key=canonical)
        case _:
            return value

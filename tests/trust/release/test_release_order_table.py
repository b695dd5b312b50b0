"""Every field of every settings type has an order; the table has no dead line."""

import importlib
import pkgutil

import msgspec
import pytest
from msgspec import inspect

import safehold
from safehold.constitution.interface import Constitution
from safehold.guard.gateway.bundles.loading import RulesFile
from safehold.guard.gateway.bundles.trial_file import TrialPlan
from safehold.guard.gateway.policy import Settings
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Register
from safehold.secure.endpoint.policy import EndpointPolicy
from safehold.secure.weights.keyd.config import KeydConfig
from safehold.trust.grants import policy as grants_policy
from safehold.trust.release.order_table import ORDERS
from safehold.trust.release.orders import Part, Rows
from safehold.trust.release.weaker import changes, settings_document

KINDS: dict[str, type] = {
    "gateway": Settings,
    "rules": RulesFile,
    "constitution": Constitution,
    "egress-plan": EgressPlan,
    "egress-register": Register,
    "grants-policy": grants_policy._PolicyFile,
    "key-service": KeydConfig,
    "endpoint-policy": EndpointPolicy,
    "trial": TrialPlan,
}
NO_SAFEGUARD = {
    "EvaluationPlan": "a leaf of the log: what will be measured, fixed before the run",
    "JudgeSettings": "how an evaluation is judged",
    "RaceSettings": "one race",
    "RollbackRules": "part of a trial's state",
    "GateLimits": "part of a signed gate report, which names them",
    "MeasureSettings": "how much the gates measure",
    "ProliferateSettings": "how many variants are made",
    "WarmSettings": "how a challenger is trained; its gates decide",
    "ChangePolicy": "a request that carries a whole policy file",
    "LedgerSettings": "sizes of queues, set in code",
    "BatchLimits": "sizes of batches, set in code",
    "StallLimits": "limits of one audit, set in code",
    "ViewLimits": "limits of decoding, set in code",
    "SessionPolicy": "made from a SurfacePolicy",
    "Policy": "made from a _PolicyFile",
    "GitChangeRules": "a file of the configuration repository, which its own reviews guard",
    "_PlanFile": "read into an EgressPlan, which is what is compared",
}


def fields(path: str, kind: inspect.Type) -> dict[str, str]:
    """Return what each path of a type is: leaf, part or rows."""
    found: dict[str, str] = {}
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                found |= fields(f"{path}.{field.encode_name}", field.type)
        case inspect.UnionType() if any(isinstance(t, inspect.StructType) for t in kind.types):
            found[path] = "part"
            for one in kind.types:
                if isinstance(one, inspect.StructType):
                    found |= fields(path, one)
        case inspect.DictType():
            found[path] = "rows"
            found |= fields(f"{path}.*", kind.value_type)
        case inspect.VarTupleType(item_type=inspect.StructType()):
            found[path] = "rows"
            found |= fields(f"{path}.*", kind.item_type)
        case _:
            found[path] = "leaf"
    return found


def all_paths() -> dict[str, str]:
    """Return every path of every kind."""
    found: dict[str, str] = {}
    for name, root in KINDS.items():
        found |= fields(name, inspect.type_info(root))
    return found


def test_a_field_without_an_order_is_found() -> None:
    """Each field that a configuration can hold has a line in the table of its shape."""
    missing = []
    for path, shape in all_paths().items():
        order = ORDERS.get(path)
        fits = {
            "rows": isinstance(order, Rows),
            "part": isinstance(order, Part),
            "leaf": order is not None and not isinstance(order, Rows | Part),
        }[shape]
        if not fits:
            missing.append((path, shape))
    assert not missing, f"say in order_table.py which value guards more: {missing}"


def test_no_line_of_the_table_is_dead() -> None:
    """Each line is about a field that exists."""
    assert set(ORDERS) - set(all_paths()) == set()


def reached(kind: inspect.Type) -> set[str]:
    """Return the names of the structs within a type."""
    match kind:
        case inspect.StructType():
            inner = [reached(field.type) for field in kind.fields]
            return {kind.cls.__name__}.union(*inner)
        case inspect.UnionType():
            return set().union(*(reached(one) for one in kind.types))
        case inspect.DictType():
            return reached(kind.value_type)
        case inspect.VarTupleType():
            return reached(kind.item_type)
        case _:
            return set()


def test_a_new_kind_of_settings_is_found() -> None:
    """A struct that is named like settings is compared, or says here why it guards nothing."""
    known = set(NO_SAFEGUARD).union(*(reached(inspect.type_info(t)) for t in KINDS.values()))
    endings = ("Settings", "Config", "Policy", "Limits", "Plan", "PlanFile", "Register", "Rules")
    unknown = set()
    for module in pkgutil.walk_packages(safehold.__path__, "safehold."):
        room = module.name.split(".")[1]
        if room not in {"constitution", "guard", "secure", "trust"} or "_child" in module.name:
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:
            continue
        for name, value in vars(loaded).items():
            own = isinstance(value, type) and value.__module__ == module.name
            if own and issubclass(value, msgspec.Struct) and name.endswith(endings):
                unknown.add(name)
    assert unknown - known == set()


@pytest.mark.parametrize("kind", ["gateway", "rules"])
def test_default_settings_compare_equal(kind: str) -> None:
    """Settings do not differ from themselves."""
    document = settings_document(KINDS[kind]())
    assert changes(kind, document, settings_document(KINDS[kind]())) == ()

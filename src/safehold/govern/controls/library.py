"""The catalogue: files of rows by family, checked as a whole."""

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import Assurance, Control, ControlError
from safehold.govern.controls.judges.table import JUDGES
from safehold.govern.controls.names import SAFEGUARDS, TECHNIQUES
from safehold.toml_text import parse_toml


class ControlFamily(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the catalogue."""

    id: str
    title: str
    control: tuple[Control, ...]


class ControlCatalogue(msgspec.Struct, frozen=True):
    """All families, in order of their ids."""

    families: tuple[ControlFamily, ...]

    @property
    def controls(self) -> tuple[Control, ...]:
        """Every row."""
        return tuple(one for family in self.families for one in family.control)

    @property
    def sha256(self) -> str:
        """The digest of the canonical form."""
        return sha256_hex(canonical(self.families))

    def control(self, name: str) -> Control:
        """Return a row by its id, in any case.

        Raises:
            ControlError: there is none.
        """
        for one in self.controls:
            if one.id == name.lower():
                return one
        raise ControlError(
            f"expected the id of a control, as in `safehold controls list`; came {name!r}"
        )


@cache
def stock_catalogue() -> ControlCatalogue:
    """Return the catalogue that ships with the product, checked."""
    folder = resources.files("safehold.govern.controls") / "catalogue"
    texts = {
        one.name: one.read_text("utf-8") for one in folder.iterdir() if one.name[-5:] == ".toml"
    }
    return parse_catalogue(texts)


def parse_catalogue(texts: dict[str, str]) -> ControlCatalogue:
    """Return the catalogue of these files' texts.

    Raises:
        ControlError: a file is malformed, or the rows contradict each other or the judges.
    """
    families = []
    for name in sorted(texts):
        try:
            families.append(msgspec.convert(parse_toml(texts[name]), ControlFamily))
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise ControlError(f"{name}: {error}") from error
    catalogue = ControlCatalogue(tuple(sorted(families, key=lambda one: one.id)))
    faults = catalogue_faults(catalogue)
    if faults:
        raise ControlError(f"catalogue: {faults[0]}")
    return catalogue


def catalogue_faults(catalogue: ControlCatalogue) -> tuple[str, ...]:
    """Return where a catalogue contradicts itself, the tables of names, or the judges."""
    said: list[str] = []
    ids = [one.id for one in catalogue.controls]
    said += [f"{one} is there twice" for one in sorted(set(ids)) if ids.count(one) > 1]
    for family in catalogue.families:
        said += [
            f"{one.id} is no control of family {family.id}"
            for one in family.control
            if not one.id.startswith(f"{family.id}-")
        ]
    for one in catalogue.controls:
        said += [
            f"{one.id}: {name} is unknown" for name in one.techniques if name not in TECHNIQUES
        ]
        said += [
            f"{one.id}: {name} is unknown" for name in one.safeguards if name not in SAFEGUARDS
        ]
        if (one.way is Assurance.AUTOMATIC) != (one.id in JUDGES):
            said.append(f"{one.id} is {one.way} and has {'a' if one.id in JUDGES else 'no'} judge")
    said += [f"judge {one} has no control" for one in sorted(set(JUDGES) - set(ids))]
    claimed = {name for one in catalogue.controls for name in one.safeguards}
    said += [f"safeguard {name} has no control" for name in sorted(set(SAFEGUARDS) - claimed)]
    return tuple(said)


def read_site(path: Path | None) -> Site:
    """Return the site of a `controls.toml`, or the usual one.

    Raises:
        ControlError: it can't be read or holds an unknown key.
    """
    if path is None:
        return Site()
    try:
        return msgspec.convert(parse_toml(path.read_text("utf-8")), Site)
    except OSError as error:
        raise ControlError(f"can't read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ControlError(f"{path.name}: {error}") from error

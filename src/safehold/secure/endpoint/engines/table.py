"""Every engine that a policy can be compiled for. A new one is one file and one line here."""

from safehold.secure.endpoint.engines import fapolicyd, labels, places
from safehold.secure.endpoint.engines.interface import Engine

ENGINES: tuple[Engine, ...] = (
    fapolicyd.ENGINE,
    places.SYSTEMD,
    places.LANDLOCK,
    places.APPARMOR,
    labels.IMA,
    labels.BPF,
)

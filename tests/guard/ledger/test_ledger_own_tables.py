"""Tables beside the ledger's: fresh, of an early release, of an older version, and foreign ones."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, inspect

from safehold.detect.bounty.tables import METADATA as BOUNTY
from safehold.detect.intel.tables import METADATA as INTEL
from safehold.detect.monitoring.tables import METADATA as MONITOR
from safehold.detect.monitoring.tables import MonitorStore
from safehold.detect.review.tables import METADATA as REVIEW
from safehold.errors import LedgerError
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.own_tables import make_tables, open_tables
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.monitoring import fill

PARTS = {"monitor": MONITOR, "review": REVIEW, "bounty": BOUNTY, "intel": INTEL}
STEP = "-- A shade for each thing.\nALTER TABLE part_things ADD COLUMN shade TEXT;"


def _shape(*columns: str) -> MetaData:
    metadata = MetaData()
    key = Column("id", Integer, primary_key=True)
    Table("part_things", metadata, key, *(Column(name, String) for name in columns))
    return metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]
) -> Engine:
    """An empty database of each storage."""
    url = str(tmp_path / "t.db") if request.param == "sqlite" else new_database()
    return open_engine(url, wait_s=5.0, write=True)


def _columns(engine: Engine) -> set[str]:
    return {one["name"] for one in inspect(engine).get_columns("part_things")}


def _versions(engine: Engine) -> list[int]:
    with engine.begin() as connection:
        query = "SELECT version FROM part_schema ORDER BY version"
        return [row[0] for row in connection.exec_driver_sql(query)]


def test_a_step_brings_old_tables_to_what_a_fresh_database_gets(engine: Engine) -> None:
    """Rows stay; opening again changes nothing."""
    make_tables(engine, _shape("name"), name="part")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO part_things (id, name) VALUES (1, 'one')")
    for _ in range(2):
        make_tables(engine, _shape("name", "shade"), name="part", steps=[STEP])
        assert _columns(engine) == {"id", "name", "shade"}
        assert _versions(engine) == [1, 2]
    with engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT id, name, shade FROM part_things").all()
    assert [tuple(row) for row in rows] == [(1, "one", None)]


def test_a_fresh_database_takes_no_step(engine: Engine) -> None:
    """The tables in code are the newest shape."""
    make_tables(engine, _shape("name", "shade"), name="part", steps=["THIS IS NO SQL"])
    assert _versions(engine) == [2]


def test_tables_from_before_versions_count_as_the_first(engine: Engine) -> None:
    """A database of an early release goes the same way."""
    _shape("name").create_all(engine)
    make_tables(engine, _shape("name", "shade"), name="part", steps=[STEP])
    assert _columns(engine) == {"id", "name", "shade"}
    assert _versions(engine) == [1, 2]


def test_tables_of_a_newer_release_are_left_alone(engine: Engine) -> None:
    """The message says which version came and what to do."""
    make_tables(engine, _shape("name", "shade"), name="part", steps=[STEP])
    with pytest.raises(LedgerError, match=r"version 2, this release knows up to 1; upgrade"):
        make_tables(engine, _shape("name"), name="part")


def test_somebody_elses_tables_are_refused_by_what_they_lack(engine: Engine) -> None:
    """A table of our name without our columns is named, and no version is written."""
    _shape("other").create_all(engine)
    with pytest.raises(LedgerError, match="part_things lacks name"):
        make_tables(engine, _shape("name"), name="part")
    with pytest.raises(LedgerError, match="lacks name"):
        make_tables(engine, _shape("name"), name="part")


def test_a_step_that_fails_leaves_the_version_before_it(engine: Engine) -> None:
    """Nothing is half changed."""
    make_tables(engine, _shape("name"), name="part")
    broken = f"{STEP}\nALTER TABLE nobody ADD COLUMN x TEXT;"
    with pytest.raises(LedgerError):
        make_tables(engine, _shape("name", "shade"), name="part", steps=[broken])
    assert _versions(engine) == [1]
    assert _columns(engine) == {"id", "name"}


def test_many_who_open_at_once_make_the_tables_once(engine: Engine) -> None:
    """No opener meets half-made tables."""
    with ThreadPoolExecutor(6) as pool:
        for _ in pool.map(lambda _: make_tables(engine, _shape("name"), name="part"), range(6)):
            pass
    assert _versions(engine) == [1]


def test_a_monitor_of_the_first_version_is_brought_up(tmp_path: Path) -> None:
    """What a step adds is what a fresh database has."""
    old, fresh = (str(tmp_path / name) for name in ("old.db", "fresh.db"))
    MonitorStore.open(fresh)
    engine = open_engine(old, wait_s=5.0, write=True)
    first = [table for table in MONITOR.sorted_tables if table.name != "monitor_lost"]
    MONITOR.create_all(engine, tables=first)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE monitor_units DROP COLUMN why")
        connection.exec_driver_sql("CREATE TABLE monitor_schema (version INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO monitor_schema VALUES (1)")
    MonitorStore.open(old)
    found, wanted = inspect(engine), inspect(open_engine(fresh, wait_s=5.0, write=True))
    assert set(found.get_table_names()) == set(wanted.get_table_names())
    for table in wanted.get_table_names():
        names = [[one["name"] for one in i.get_columns(table)] for i in (found, wanted)]
        assert names[0] == names[1]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_opens_its_own_tables_twice(part: str, tmp_path: Path) -> None:
    """Parts may share one database; each has its own version."""
    engine = open_engine(str(tmp_path / "t.db"), wait_s=5.0, write=True)
    for _ in range(2):
        for name, metadata in PARTS.items():
            make_tables(engine, metadata, name=name)
    assert inspect(engine).has_table(f"{part}_schema")


@pytest.mark.parametrize("part", PARTS)
def test_a_gateways_ledger_takes_no_other_tables(part: str, tmp_path: Path) -> None:
    """A file that a gateway writes is refused, and left as it is; the mirror as well."""
    path = tmp_path / "ledger.db"
    fill(str(path), [("a", "text", False)])
    before = inspect(open_engine(str(path), wait_s=1.0, write=False)).get_table_names()
    with pytest.raises(LedgerError, match=rf"is a gateway's ledger; name .* the {part} tables"):
        open_tables(str(path), PARTS[part], name=part)
    assert inspect(open_engine(str(path), wait_s=1.0, write=False)).get_table_names() == before
    own = tmp_path / "own.db"
    open_tables(str(own), PARTS[part], name=part)
    with pytest.raises(LedgerError, match=rf"holds other tables \({part}_.* another file"):
        fill(str(own), [("a", "text", False)])


def test_tables_that_an_earlier_release_put_into_a_ledger_go_on(tmp_path: Path) -> None:
    """Who has them there already keeps them: nothing is lost by an upgrade."""
    path = tmp_path / "both.db"
    fill(str(path), [("a", "text", False)])
    REVIEW.create_all(open_engine(str(path), wait_s=1.0, write=True))
    for _ in range(2):
        open_tables(str(path), REVIEW, name="review")
    assert LedgerReader.open(str(path)).tail(1)


def test_who_only_reads_makes_no_tables(engine: Engine) -> None:
    """Neither in a database of something else, nor before its tables are there."""
    url = engine.url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id INTEGER)")
    for _ in range(2):
        with pytest.raises(LedgerError, match="holds no part tables"):
            open_tables(url, _shape("name"), name="part", make=False)
    assert inspect(engine).get_table_names() == ["notes"]
    open_tables(url, _shape("name"), name="part")
    open_tables(url, _shape("name", "shade"), name="part", steps=[STEP], make=False)
    assert _columns(engine) == {"id", "name", "shade"}

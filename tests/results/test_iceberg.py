import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.utils.config import Config

from geoloc.errors import UsageError
from geoloc.results.iceberg import write_table
from geoloc.results.options import ExportOptions
from geoloc.results.parts import Parts
from geoloc.schema import RESULT
from geoloc.storage import Folder
from tests.results.test_results import results, row


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """As a user names one: by the environment."""
    for name, value in {
        "TYPE": "sql",
        "URI": f"sqlite:///{tmp_path}/catalog.db",
        "WAREHOUSE": f"file://{tmp_path}/w",
    }.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__MINE__{name}", value)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # which is read when pyiceberg is imported
    return lambda: load_catalog("mine")


def parts_of(folder, *tables: pa.Table) -> Parts:
    parts = Parts(Folder(str(folder)))
    for table in tables:
        parts.add(table.select(RESULT.names))
    return parts


def read(catalog) -> list[dict]:
    return sorted(catalog().load_table("photos.found").scan().to_arrow().to_pylist(), key=lambda found: found["id"])


def test_readers_see_the_results_of_one_run_and_then_those_of_the_next(catalog, tmp_path, monkeypatch):
    candidates = [{"lat": 1.0, "lon": 2.0, "score": 0.5, "rank": 3, "prompts": ["a"]}]
    first = parts_of(tmp_path / "1", results([row(0, candidates=candidates), row(1)]), results([row(2)]))
    assert write_table("mine.photos.found", first) == 3
    found = read(catalog)
    assert [one["id"] for one in found] == [0, 1, 2]
    assert found[0]["place"]["city"] == "Paris"
    assert (found[0]["candidates"][0]["rank"], found[0]["candidates"][0]["prompts"]) == (3, ["a"])
    second = parts_of(tmp_path / "2", results([row(1, lat=10.0)]), results([row(7)]))

    written = iter([1])
    tables = Parts.tables

    def dies(self, columns=None):
        for table in tables(self, columns):
            next(written)
            yield table

    with monkeypatch.context() as patched:
        patched.setattr(Parts, "tables", dies)
        with pytest.raises(RuntimeError):  # amid the second part
            write_table("mine.photos.found", second)
    assert read(catalog) == found
    assert write_table("mine.photos.found", second) == 2
    assert [(one["id"], one["lat"]) for one in read(catalog)] == [(1, 10.0), (7, 48.85837)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("found", "must be CATALOG.NAMESPACE.TABLE"),
        ("mine..x", "must be CATALOG"),
        ("nobodys.a.b", "cannot use the catalog nobodys"),
    ],
)
def test_what_names_no_table_stops_before_any_work(catalog, name, reason):
    with pytest.raises(UsageError, match=f"--table {name}: {reason}"):
        ExportOptions(table=name).check()
    ExportOptions(table="mine.a.b").check()

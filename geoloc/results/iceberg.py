"""The results as a table of Apache Iceberg, in a catalog that pyiceberg knows: readers see what one run came to, then what the next
one did, whatever is being written meanwhile. Needs the extra ``iceberg``."""

import contextlib
from typing import Any

import pyarrow as pa

from geoloc.errors import UsageError
from geoloc.results.parts import Parts
from geoloc.schema import RESULT
from geoloc.storage import describe


def check_table(name: str) -> None:
    """Before work. Raises UsageError where there is no such catalog, or it does not answer."""
    _catalog(name)


def write_table(name: str, parts: Parts) -> int:
    """Put the results in place of what the table holds, in one transaction, a part at a time. Returns the number of rows."""
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError
    from pyiceberg.expressions import AlwaysTrue

    catalog, schema, rows = _catalog(name), iceberg_schema(RESULT), 0
    identifier = tuple(name.split(".")[1:])
    try:
        table = catalog.load_table(identifier)
    except NoSuchTableError:
        with contextlib.suppress(NamespaceAlreadyExistsError):
            catalog.create_namespace(identifier[:-1])
        table = catalog.create_table(identifier, schema)
    with table.transaction() as transaction:
        if table.current_snapshot():
            transaction.delete(AlwaysTrue())
        for part in parts.tables():
            transaction.append(part.select(schema.names).cast(schema))
            rows += part.num_rows
    return rows


def iceberg_schema(schema: pa.Schema) -> pa.Schema:
    """With what Iceberg has in place of what it has not: no 16-bit numbers, no milliseconds.

    >>> iceberg_schema(pa.schema({"x": pa.list_(pa.int16())})).field("x").type.value_type
    DataType(int32)
    """
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(pa.field("element", _plain(kind.value_type)))
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.int32() if kind == pa.int16() else kind


def _catalog(name: str) -> Any:
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError as error:
        raise UsageError(f"--table {name}: needs pyiceberg; pip install 'geoloc[iceberg]'") from error
    if name.count(".") < 2 or not all(name.split(".")):
        raise UsageError(f"--table {name}: must be CATALOG.NAMESPACE.TABLE")
    catalog = name.split(".")[0]
    try:
        found = load_catalog(catalog)
        found.list_namespaces()
    except Exception as error:  # every kind of catalog fails in its own way
        raise UsageError(
            f"--table {name}: cannot use the catalog {catalog} ({describe(error)}); pyiceberg finds it in ~/.pyiceberg.yaml or in "
            f"PYICEBERG_CATALOG__{catalog.upper()}__URI and the like"
        ) from error
    return found

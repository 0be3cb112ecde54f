"""Check that Arrow columns have types whose values are read without running code.

Ray Data registers extension types with Arrow, one of which unpickles its values when they are read.
An Arrow or Parquet file names its types itself, so its readers call this check first.
"""

from collections.abc import Iterable

import pyarrow as pa

from recsys.errors import InputError


def require_plain(schema: pa.Schema, names: Iterable[str], place: str) -> None:
    """Check that some columns have types of Arrow's own.

    Raises:
        InputError: if the type of a column is an extension type or contains one.
    """
    for name in names:
        for kind in (field.type for field in schema if field.name == name):
            if not _is_plain(kind):
                raise InputError(
                    f"{place}, column {name}",
                    "must hold plain values",
                    found=f"holds {kind}",
                    remedy="Do not trust this file.",
                )


def _is_plain(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return all(_is_plain(kind.field(index).type) for index in range(kind.num_fields))

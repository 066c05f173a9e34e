"""Checksums that two engines compute alike: exact, and independent of the order of rows."""

from __future__ import annotations

import re


def checksums(types: dict[str, str], engine: str) -> list[str]:
    """Select expressions: the number of rows, then per column its NULLs and a sum of its values.

    A number is summed as it is (a decimal without its point), a date as days, a timestamp as microseconds since 1970, a
    text as the first 32 bits of its MD5. All sums are integers.

    Args:
        types: Spark type by column name.
        engine: `spark` or `duckdb`.
    """
    listed = ["count(*) as `rows`" if engine == "spark" else 'count(*) as "rows"']
    for number, (name, type_) in enumerate(types.items()):
        column = f"`{name}`" if engine == "spark" else '"' + name.replace('"', '""') + '"'
        listed.append(f"count({column}) as c{number}_filled")
        listed.append(f"sum({_as_integer(column, type_, engine)}) as c{number}_sum")
    return listed


def _as_integer(column: str, type_: str, engine: str) -> str:
    spark = engine == "spark"
    whole = "decimal(38,0)" if spark else "hugeint"
    if scale := re.fullmatch(r"decimal\(\d+,(\d+)\)", type_):
        digits = int(scale[1])
        text = f"replace(cast({column} as {'string' if spark else 'varchar'}), '.', '')" if digits else column
        return f"cast({text} as {whole})"
    if type_ == "boolean":
        return f"cast({column} as int)"
    if type_ == "date":
        return f"datediff({column}, date '1970-01-01')" if spark else f"datediff('day', date '1970-01-01', {column})"
    if type_ in ("timestamp", "timestamp_ntz"):
        micros = f"unix_micros(cast({column} as timestamp))" if spark else f"epoch_us({column})"
        return f"cast({micros} as {whole})"
    if type_ in ("tinyint", "smallint", "int", "bigint"):
        return f"cast({column} as {whole})"
    text = f"cast({column} as {'string' if spark else 'varchar'})"
    first = f"left(md5({text}), 8)"
    return f"cast(conv({first}, 16, 10) as {whole})" if spark else f"cast('0x' || {first} as bigint)"

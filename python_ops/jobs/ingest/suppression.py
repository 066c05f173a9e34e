"""Records of people who were erased: dropped, or keyed anew, before anything of a batch is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_ops.lake.contracts import Contract
from python_ops.lake.erasure import PSEUDONYM, Hashing, hashing, suppressed
from python_ops.lake.lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Suppression:
    """Who was erased, as far as a source's columns identify them.

    Attributes:
        columns: Column, its kind of subject, and whether it is keyed anew.
        digests: Hashes by kind.
    """

    columns: tuple[tuple[str, str, bool], ...]
    digests: dict[str, frozenset[str]]
    hashing: Hashing

    def apply(self, rows: DataFrame) -> DataFrame:
        """The rows without their records: these have `_kind` `suppressed` and no `_raw`.

        The key and the hashes are a row that is joined, so that no plan and no log of Spark has them as literals.
        """
        from pyspark.sql.functions import broadcast

        session = rows.sparkSession
        values: list[object] = []
        fields, found = [], {}
        for number, kind in enumerate(sorted(self.digests)):
            values += [*map(bytearray, self.hashing.pads(kind)), sorted(self.digests[kind])]
            fields.append(f"_inner{number} binary, _outer{number} binary, _erased{number} array<string>")
            found[kind] = number
        joined = rows.crossJoin(broadcast(session.createDataFrame([tuple(values)], ", ".join(fields))))
        hashes = [
            f"sha2(concat(_outer{n}, unhex(sha2(concat(_inner{n}, {text}), 256))), 256) as _hash_{column}"
            for column, kind, _ in self.columns
            for n, text in [(found[kind], f"encode(cast(`{column}` as string), 'UTF-8')")]
        ]
        hit = {c: f"coalesce(array_contains(_erased{found[kind]}, _hash_{c}), false)" for c, kind, _ in self.columns}
        anew = {column: hit[column] for column, _, is_rekeyed in self.columns if is_rekeyed}
        gone = [hit[column] for column, _, is_rekeyed in self.columns if not is_rekeyed]
        # A rejected record is kept as it was delivered, which cannot be keyed anew.
        gone += [f"({condition} and _kind <> 'event')" for condition in anew.values()]
        is_gone = " or ".join(gone)
        changed = {
            name: f"case when {c} then concat('{PSEUDONYM}', left(_hash_{name}, 32)) else `{name}` end"
            for name, c in anew.items()
        }
        changed["_kind"] = f"case when {is_gone} then 'suppressed' else _kind end"
        changed["_raw"] = f"case when {is_gone} then null else _raw end"
        if anew:
            changed["_extra"] = f"case when {' or '.join(anew.values())} then null else _extra end"
        return joined.selectExpr("*", *hashes).selectExpr(
            *(f"{changed[name]} as `{name}`" if name in changed else f"`{name}`" for name in rows.columns)
        )


def suppression(lake: Lake, contract: Contract) -> Suppression | None:
    """Who is to be kept out of a source; None where nobody is.

    Raises:
        ConfigError: somebody is, and the key is not set or another one.
    """
    named = [column for column in contract.columns if column.subject]
    if not named:
        return None
    digests = {kind: found for kind, found in suppressed(lake).items() if any(c.subject == kind for c in named)}
    if not digests:
        return None
    columns = tuple((c.name, c.subject, c.on_erasure == "rekey") for c in named if c.subject in digests)
    return Suppression(columns, digests, hashing(lake))

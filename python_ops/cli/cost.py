"""`lakeops cost`: what a month costs, by the lake's own figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from python_ops.cli import AsJson, Env, Environment, lake_of, local_file, print_json
from python_ops.cli.tables import print_rows
from python_ops.watch.cost import estimate
from python_ops.watch.cost.prices import DEFAULT, load


def cost(
    prices: Annotated[
        Path, typer.Option("--prices", callback=local_file, help="Price file; a copy of the default that you edited.")
    ] = DEFAULT,
    env: Env = Environment.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Estimate what a month costs: storage, requests, compute, warehouse loads. Starts no JVM and changes nothing.

    A home in a folder is counted as if it lay in S3. What is not counted is said below the sum.

    Example: lakeops cost --prices our_prices.yml
    """
    known = load(prices)
    made = estimate(lake_of(env), known)
    if as_json:
        lines = [{**asdict(line), "amount": line.amount} for line in made.lines]
        print_json({**asdict(made), "lines": lines, "total": made.total, "prices": str(prices)})
        return
    unit = f"{made.currency} a month"
    rows = [
        [
            line.group,
            line.part,
            f"{line.quantity:.6g}",
            line.unit,
            f"{line.price:.6g}",
            f"{line.amount:.4f}",
            line.basis,
        ]
        for line in made.lines
    ]
    rows.append(["total", "", "", "", "", f"{made.total:.4f}", f"prices of {made.region}: {prices}"])
    print_rows(["group", "part", "quantity", "unit", "price", unit, "basis"], rows)
    typer.echo("\nNot counted:")
    for what in made.not_counted:
        typer.echo(f"- {what}")

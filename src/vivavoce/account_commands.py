"""Commands for money: what models cost."""

import sys
import time
from typing import Literal, TypeAlias

import msgspec
from rich.console import Console
from rich.table import Table

from vivavoce.limits.prices import Price, PriceTable, usd

Form: TypeAlias = Literal["table", "csv", "json"]
Row: TypeAlias = dict[str, str | int | float]


def print_prices(table: PriceTable, pattern: str, form: Form, out: Console) -> None:
    """The price of each model whose name contains a text."""
    now = time.time()
    rows = [
        _price_row(price)
        for price in table
        if pattern in f"{price.provider}/{price.model}" and price.effective_from <= now
    ]
    print_rows(rows, form, out)


def _price_row(price: Price) -> Row:
    row: Row = {"provider": price.provider, "model": price.model}
    for name, nano in msgspec.structs.asdict(price.rates).items():
        row[name] = "" if nano is None else usd(nano)
    return row | {"version": price.version, "as_of": price.as_of, "source": price.source}


def print_rows(rows: list[Row], form: Form, out: Console) -> None:
    """Rows with the same columns: as a table without its empty columns, as CSV, or as JSON."""
    if form == "json":
        out.file.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
    elif form == "csv":
        import csv

        writer = csv.DictWriter(out.file, rows[0] if rows else (), lineterminator="\n")
        if rows:
            writer.writeheader()
        writer.writerows(rows)
    elif not rows:
        out.print("Nothing was found.")
    else:
        shown = [name for name in rows[0] if any(row[name] != "" for row in rows)]
        if form == "table" and "source" in shown:
            shown.remove("source")  # too wide; in CSV and JSON
        table = Table(box=None, pad_edge=False)
        for name in shown:
            number = isinstance(rows[0][name], int | float) or name not in _TEXT
            table.add_column(name.replace("_", " "), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(str(row[name]) for name in shown))
        out.print(table, soft_wrap=not sys.stdout.isatty())


_TEXT = frozenset({"provider", "model", "version", "as_of", "day", "user", "team", "key", "name"})

"""`manage.py llm_costs`: what LLM calls cost, by day, model, config, prompt, user or purpose."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from llm_wrapper import costs
from llm_wrapper.costs import Spent
from llm_wrapper.management.terminal import one_line

DAYS = 30
MOST_DAYS = 36_600


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text!r} is not a date. Write it as year-month-day, like 2026-11-30.") from None


class Command(BaseCommand):
    help = "Show what LLM calls cost, by day, model, config, prompt, user or purpose."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", help="First day, like 2026-11-01.")
        parser.add_argument("--until", help="Last day, which is included; else today.")
        parser.add_argument("--days", type=int, help=f"So many days up to the last, instead of --since; else {DAYS}.")
        parser.add_argument("--by", choices=costs.BY, action="append", help="Give it twice for both; else day.")
        parser.add_argument("--format", choices=("table", "csv"), default="table", help="csv goes to a spreadsheet.")
        for name in costs.FILTERS:
            parser.add_argument(f"--{name}", help=f"Only calls of this {name}.")

    def handle(self, *args: Any, **options: Any) -> None:
        since, until = self.period(options["since"], options["until"], options["days"])
        by = list(dict.fromkeys(options["by"] or ["day"]))
        only = {name: options[name] for name in costs.FILTERS if options[name] is not None}
        rows = costs.report(since, until, by, **only)
        if options["format"] == "csv":
            costs.write_csv(rows, by, self.stdout)  # type: ignore[arg-type]
        else:
            self.table(rows, by, since, until)

    def period(self, since: str | None, until: str | None, days: int | None) -> tuple[date, date]:
        if since and days is not None:
            raise CommandError("Give --since or --days, not both.")
        if days is not None and not 1 <= days <= MOST_DAYS:
            raise CommandError(f"--days must be between 1 and {MOST_DAYS}.")
        end = _day(until) if until else timezone.localdate()
        try:
            start = _day(since) if since else end - timedelta(days=(days or DAYS) - 1)
        except OverflowError:
            raise CommandError(f"There are no {days or DAYS} days before {end}.") from None
        if start > end:
            raise CommandError(f"--since {start} is after the last day, {end}.")
        return start, end

    def table(self, rows: Sequence[Spent], by: Sequence[str], since: date, until: date) -> None:
        self.stdout.write(f"{since} to {until} ({timezone.get_current_timezone_name()})\n")
        if not rows:
            self.stdout.write("No LLM calls.")
            return
        headings = (*by, "calls", "failed", "tokens in", "cached", "tokens out", "reasoning", "cost", "unpriced")
        found = costs.total(rows)
        lines = [[*(one_line(row.label(name)) for name in by), *_numbers(row)] for row in rows]
        last = ["total", *[""] * (len(by) - 1), *_numbers(found)]
        widths = [max(map(len, column)) for column in zip(headings, *lines, last, strict=True)]

        def line(cells: Sequence[str]) -> str:
            pairs = list(zip(cells, widths, strict=True))
            names = [cell.ljust(width) for cell, width in pairs[: len(by)]]
            return "  ".join([*names, *(cell.rjust(width) for cell, width in pairs[len(by) :])]).rstrip()

        rule = "  ".join("-" * width for width in widths)
        self.stdout.write("\n".join([line(headings), rule, *map(line, lines), rule, line(last)]))
        if found.unpriced:
            self.stdout.write(
                self.style.WARNING(
                    f"\nThe cost of {found.unpriced} call(s) is unknown, so the costs are lower bounds. "
                    "Set `price` or `price_model` in the YAML of their configs."
                )
            )


def _numbers(row: Spent) -> list[str]:
    tokens = (row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens)
    cost = "unknown" if row.known_cost is None else f"{row.cost:,.6f}"
    return [f"{row.calls:,}", f"{row.failed:,}", *(f"{count:,}" for count in tokens), cost, f"{row.unpriced:,}"]

"""`manage.py llm_costs`."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.utils import timezone

from llm_wrapper.models import LLMCall

pytestmark = pytest.mark.django_db


def call(day, *, cost="0.25", **values):
    row = LLMCall.objects.create(
        **{
            "attempt": 1,
            "config_name": "main",
            "model": "gpt",
            "status": "done",
            "first_position": 1,
            "last_position": 1,
            "input_tokens": 1500,
            "output_tokens": 20,
            "cost": None if cost is None else Decimal(cost),
            **values,
        }
    )
    moment = timezone.make_aware(datetime.combine(day, datetime.min.time()))
    LLMCall.objects.filter(pk=row.pk).update(started_at=moment)
    return row


def run(*args):
    out = io.StringIO()
    call_command("llm_costs", *args, stdout=out, no_color=True)
    return out.getvalue()


@pytest.fixture
def may():
    first = datetime(2026, 5, 1).date()
    call(first)
    call(first, model="claude", cost="1.0000000001")
    call(first + timedelta(days=1), status="failed", cost=None, input_tokens=None, output_tokens=None)
    return "--since=2026-05-01", "--until=2026-05-31"


def test_a_table_with_totals(may):
    """Each day is a line, columns stand under their headings, and the last line is the sum."""
    assert run(*may).splitlines() == [
        "2026-05-01 to 2026-05-31 (UTC)",
        "day         calls  failed  tokens in  cached  tokens out  reasoning      cost  unpriced",
        "----------  -----  ------  ---------  ------  ----------  ---------  --------  --------",
        "2026-05-01      2       0      3,000       0          40          0  1.250000         0",
        "2026-05-02      1       1          0       0           0          0  0.000000         0",
        "----------  -----  ------  ---------  ------  ----------  ---------  --------  --------",
        "total           3       1      3,000       0          40          0  1.250000         0",
    ]


def test_unknown_costs_are_said_to_be_unknown(may):
    """Calls without a price show as unknown, and the table says that its costs are lower bounds and what to do."""
    call(datetime(2026, 5, 3).date(), model="mine", cost=None)
    shown = run(*may, "--by", "model")
    assert [line.split()[-2:] for line in shown.splitlines() if line.startswith("mine")] == [["unknown", "1"]]
    assert "The cost of 1 call(s) is unknown" in shown
    assert "price_model" in shown


def test_csv_is_only_csv(may):
    """What goes to a spreadsheet is a heading and rows, with every place of a cost, and nothing else."""
    rows = list(csv.DictReader(io.StringIO(run(*may, "--by=day", "--by=model", "--format=csv"), newline="")))
    assert [(row["day"], row["model"], row["calls"], row["cost"]) for row in rows] == [
        ("2026-05-01", "claude", "1", "1.0000000001"),
        ("2026-05-01", "gpt", "1", "0.2500000000"),
        ("2026-05-02", "gpt", "1", "0.0000000000"),
    ]


def test_only_calls_of_a_user_or_a_prompt(may, make_prompt):
    """--user and --prompt leave the other calls out."""
    ada = get_user_model().objects.create_user("ada")
    version = make_prompt("support").current_version()
    call(datetime(2026, 5, 4).date(), user=ada, cost="7")
    call(datetime(2026, 5, 5).date(), prompt_version=version, cost="9")
    assert "7.000000" in run(*may, "--user", "ada", "--by", "user").splitlines()[-1]
    assert "9.000000" in run(*may, "--prompt", "support").splitlines()[-1]
    assert "No LLM calls." in run(*may, "--user", "nobody")


def test_days_end_today_unless_told_otherwise():
    """--days counts back from today, or from --until, and includes both ends; without it, 30 days are shown."""
    today = timezone.localdate()
    for days in (0, 6, 7, 29, 30):
        call(today - timedelta(days=days))

    def counted(*args):
        return run(*args).splitlines()[-1].split()[1]

    assert counted() == "4"
    assert counted("--days", "7") == "2"
    assert counted("--days", "1") == "1"
    assert counted("--days", "2", "--until", (today - timedelta(days=6)).isoformat()) == "2"


def test_names_cannot_steer_the_terminal(may):
    """Control characters of a name, which a provider may have sent, are not written to the terminal."""
    call(datetime(2026, 5, 4).date(), model="\x1b[2Jgone")
    shown = run(*may, "--by", "model")
    assert "\x1b" not in shown
    assert "[2Jgone" in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--since", "yesterday"], "'yesterday' is not a date. Write it as year-month-day"),
        (["--until", "2026-02-30"], "'2026-02-30' is not a date"),
        (["--since", "2026-05-02", "--until", "2026-05-01"], "2026-05-02 is after the last day, 2026-05-01"),
        (["--since", "2026-05-02", "--days", "3"], "not both"),
        (["--days", "0"], "must be between 1 and"),
        (["--until", "0001-01-02", "--days", "30"], "There are no 30 days before"),
        (["--by", "colour"], "invalid choice"),
    ],
)
def test_bad_arguments_say_what_to_do(args, words):
    """A mistake in the arguments is one line that names it, and no traceback."""
    with pytest.raises(CommandError, match=words):
        run(*args)

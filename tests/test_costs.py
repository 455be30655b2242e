from __future__ import annotations

import csv
import io
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from llm_wrapper import costs
from llm_wrapper.costs import Spent
from llm_wrapper.models import ChatHistory, LLMCall, PromptVersion, Turn

pytestmark = pytest.mark.django_db

UTC = ZoneInfo("UTC")
MAY = (date(2026, 5, 1), date(2026, 5, 31))


def call(started="2026-05-04 12:00", *, status="done", cost="0.5", zone=UTC, **values):
    """A call that began at a time of a zone; 100 tokens in and 10 out unless told otherwise."""
    row = LLMCall.objects.create(
        **{
            "attempt": 1,
            "config_name": "main",
            "model": "gpt",
            "status": status,
            "first_position": 1,
            "last_position": 1,
            "input_tokens": 100,
            "output_tokens": 10,
            "cost": None if cost is None else Decimal(cost),
            **values,
        }
    )
    moment = datetime.fromisoformat(started).replace(tzinfo=zone)
    LLMCall.objects.filter(pk=row.pk).update(started_at=moment)
    return row


def all_of(*period, **only):
    (row,) = costs.report(*(period or MAY), (), **only)
    return row


def test_everything_is_counted_and_summed():
    """Calls, failures, cache hits, each kind of token and costs are those of the rows."""
    call(cached_tokens=40, reasoning_tokens=3)
    call(cost="0.0000000001", input_tokens=7)
    call(status="failed", cost=None, input_tokens=None, output_tokens=None)
    call(status="lost", cost=None, input_tokens=None, output_tokens=None)
    call(cost="0", cache_hit=True)
    assert all_of() == Spent(
        calls=5,
        failed=2,
        cache_hits=1,
        input_tokens=207,
        output_tokens=30,
        cached_tokens=40,
        reasoning_tokens=3,
        cost=Decimal("0.5000000001"),
        unpriced=1,
    )


def test_no_call_is_no_cost():
    """Where nothing was called the sums are 0 and the cost is known; a report by something has no row."""
    assert all_of() == Spent()
    assert all_of().known_cost == 0
    assert costs.report(*MAY, ("model",)) == []


def test_the_sum_is_exact():
    """Decimals are summed as decimals: floats would make 0.1 * 3 another number, and lose the last places."""
    for cost in ("0.1", "0.1", "0.1", "0.0000000001", "12345.6789012345", "0.0000000333"):
        call(cost=cost)
    assert all_of().cost == Decimal("12345.9789012679")


@pytest.mark.parametrize("cost", ["0.0000100070", "1.2834759712", "5.9627743220", "399999.9999999999"])
def test_a_cost_that_no_float_is_equal_to_keeps_its_last_place(cost):
    """The float that SQLite stores is a little off; the sum is of what was stored, not of that."""
    for _ in range(3):
        call(cost=cost)
    assert all_of().cost == 3 * Decimal(cost)


def test_many_small_costs_lose_nothing():
    """3,000 costs of ten places add up to the last of them."""
    amounts = [Decimal(f"0.{number * 7919 % 10**10:010d}") for number in range(1, 3001)]
    call()
    (first,) = LLMCall.objects.all()
    copies = [
        LLMCall(**{field.name: getattr(first, field.name) for field in LLMCall._meta.fields[1:]}) for _ in amounts
    ]
    for copy, amount in zip(copies, amounts, strict=True):
        copy.cost = amount
    LLMCall.objects.bulk_create(copies)
    LLMCall.objects.exclude(pk=first.pk).update(started_at=datetime(2026, 5, 5, tzinfo=UTC))
    assert all_of(date(2026, 5, 5), date(2026, 5, 5)).cost == sum(amounts)


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ({"status": "done"}, True),
        ({"status": "cancelled", "input_tokens": None, "output_tokens": None}, True),
        ({"status": "lost", "input_tokens": None, "output_tokens": None}, True),
        ({"status": "failed", "output_tokens": None}, True),
        ({"status": "failed", "input_tokens": None, "output_tokens": None}, False),
        ({"status": "running", "input_tokens": None, "output_tokens": None}, False),
        ({"status": "done", "cache_hit": True}, False),
        ({"status": "done", "cost": "0"}, False),
    ],
)
def test_unpriced_is_what_may_be_billed_at_an_unknown_price(values, counts):
    """A call without a cost is unpriced if its provider may have billed it; its cost is unknown and not 0."""
    call(**{"cost": None, **values})
    row = all_of()
    assert row.unpriced == counts
    assert row.known_cost == (None if counts else 0)


def test_by_each_of_its_names():
    """A report is by model, config, prompt, user or purpose, the most expensive first; None is 'without one'."""
    ada, bob = (get_user_model().objects.create_user(name) for name in ("ada", "bob"))
    version = PromptVersion.objects.create(name="support", number=3, digest="x", content={})
    call(model="a", config_name="x", user=ada, prompt_version=version, cost="1")
    call(model="b", config_name="x", user=ada, purpose="summary", cost="2")
    call(model="a", config_name="y", user=bob, prompt_version=version, cost="4")
    call(model="b", config_name="z", cost="8")

    def by(name):
        return [(getattr(row, name), row.calls, row.cost) for row in costs.report(*MAY, (name,))]

    assert by("model") == [("b", 2, 10), ("a", 2, 5)]
    assert by("config") == [("z", 1, 8), ("y", 1, 4), ("x", 2, 3)]
    assert by("prompt") == [(None, 2, 10), ("support", 2, 5)]
    assert by("user") == [(None, 1, 8), ("bob", 1, 4), ("ada", 2, 3)]
    assert by("purpose") == [("answer", 3, 13), ("summary", 1, 2)]
    pairs = [(row.user, row.model, row.cost) for row in costs.report(*MAY, ("user", "model"), user="ada")]
    assert pairs == [("ada", "b", 2), ("ada", "a", 1)]
    assert all_of(prompt="support", config="y").cost == 4
    assert all_of(among={"user": ["bob", None]}).cost == 12
    assert costs.report(*MAY, ("user",))[0].label("user") == "(no user)"


def test_prompts_are_named_as_they_were(make_prompt):
    """A deleted template's calls still count under its name."""
    prompt = make_prompt("gone")
    call(prompt_version=prompt.current_version())
    prompt.delete()
    assert [row.prompt for row in costs.report(*MAY, ("prompt",))] == ["gone"]


def test_calls_of_deleted_chats_count():
    """What was spent stays spent when its chat is deleted, and with whom it was spent."""
    user = get_user_model().objects.create_user("ada")
    turn = Turn.objects.create(chat=ChatHistory.objects.create(user=user), number=1)
    call(turn=turn, user=user)
    turn.chat.delete()
    assert [(row.user, row.calls, row.cost) for row in costs.report(*MAY, ("user",))] == [("ada", 1, Decimal("0.5"))]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_days_are_those_of_the_current_time_zone(zone):
    """Each call of a year is on the day that a clock in the zone showed, also where clocks are changed."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    expected: dict[date, int] = {}
    rows = [call() for _ in range(700)]
    for row in rows:
        row.started_at = moment
        day = moment.astimezone(ZoneInfo(zone)).date()
        expected[day] = expected.get(day, 0) + 1
        moment += timedelta(hours=12, minutes=31)
    LLMCall.objects.bulk_update(rows, ["started_at"], batch_size=200)
    with timezone.override(zone):
        found = costs.report(date(2025, 12, 1), date(2027, 1, 31))
        assert {row.day: row.calls for row in found} == expected
        assert [row.day for row in found] == sorted(expected)
        assert sum(row.calls for row in costs.report(date(2026, 3, 1), date(2026, 3, 31))) == sum(
            count for day, count in expected.items() if (day.year, day.month) == (2026, 3)
        )


@pytest.mark.parametrize(
    ("local", "day"),
    [
        ("2026-03-29 00:00", 29),
        ("2026-03-29 23:59", 29),
        ("2026-03-30 00:00", 30),
        ("2026-10-25 00:30", 25),
        ("2026-10-25 23:59", 25),
        ("2026-10-26 00:00", 26),
    ],
)
def test_days_of_23_and_25_hours_hold_all_their_calls(local, day):
    """On the days on which Berlin changes its clocks, the first and the last minute are of that day."""
    call(local, zone=ZoneInfo("Europe/Berlin"))
    with timezone.override("Europe/Berlin"):
        (row,) = costs.report(date(2026, 1, 1), date(2026, 12, 31))
        assert row.day is not None
        assert row.day.day == day
        assert [found.day for found in costs.report(row.day, row.day)] == [row.day]


def test_both_ends_are_included():
    """The first day counts from its first moment, the last one to its last."""
    for started in ("2026-05-01 00:00", "2026-05-31 23:59:59.999999", "2026-04-30 23:59:59", "2026-06-01 00:00"):
        call(started)
    assert all_of().calls == 2


def test_coarser_rows_are_those_of_a_coarser_report():
    """Adding up a fine report gives what the database would have said, in the same order."""
    for number in range(40):
        call(f"2026-05-{number % 5 + 1:02d} 10:00", model=f"m{number % 3}", cost=f"0.{number:02d}")
    fine = costs.report(*MAY, ("day", "model"))
    assert costs.coarser(fine, ("model",)) == costs.report(*MAY, ("model",))
    assert costs.coarser(fine, ("day",)) == costs.report(*MAY, ("day",))
    assert costs.total(fine) == all_of()


def test_a_report_of_100_000_calls_is_one_statement(django_assert_num_queries):
    """The database does the counting: however many calls there are, one statement, and the sum is exact."""
    call(cost="0.1000000001", started="2026-05-01 10:00")
    names = ", ".join(
        connection.ops.quote_name(field.column) for field in LLMCall._meta.concrete_fields if field.column != "id"
    )
    with connection.cursor() as cursor:
        for _ in range(17):
            cursor.execute(f"INSERT INTO llm_wrapper_llmcall ({names}) SELECT {names} FROM llm_wrapper_llmcall")  # noqa: S608
    for by in ((), ("day",), ("day", "user"), ("prompt", "model", "config", "purpose")):
        with django_assert_num_queries(1):
            (row,) = costs.report(*MAY, by)
        assert (row.calls, row.cost) == (131_072, Decimal("13107.2000131072"))


@pytest.mark.parametrize(
    ("by", "only", "words"),
    [
        (("colour",), {}, "colour"),
        (("day",), {"size": "x"}, "size"),
        (("day",), {"day": "2026-05-01"}, "only day is no filter"),
    ],
)
def test_other_names_are_refused(by, only, words):
    """A name that a report cannot be by is an error that lists those that it can."""
    with pytest.raises(ValueError, match=words):
        costs.report(*MAY, by, **only)


def test_a_range_that_ends_before_it_begins_is_refused():
    """Dates the wrong way round are an error, and not an empty report."""
    with pytest.raises(ValueError, match="2026-05-31"):
        costs.report(MAY[1], MAY[0])


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx", "\rx", "\uff1d1"])
def test_a_name_is_never_a_formula_in_csv(name):
    """Names that a spreadsheet would run as formulas are marked as text."""
    call(model=name)
    file = io.StringIO()
    costs.write_csv(costs.report(*MAY, ("model",)), ("model",), file)
    (row,) = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert row["model"] == f"'{name}"


def test_csv_has_all_numbers_and_leaves_unknown_costs_empty():
    """A spreadsheet gets each number of a row as it is, and no 0 for a cost that nobody knows."""
    call(model="known, and quoted", cost="1.25", cached_tokens=4, reasoning_tokens=2)
    call(model="unknown", cost=None)
    file = io.StringIO()
    costs.write_csv(costs.report(*MAY, ("day", "model")), ("day", "model"), file)
    assert file.getvalue().splitlines() == [
        "day,model,calls,failed,cache_hits,input_tokens,cached_tokens,output_tokens,reasoning_tokens,cost,unpriced",
        '2026-05-04,"known, and quoted",1,0,0,100,4,10,2,1.2500000000,0',
        "2026-05-04,unknown,1,0,0,100,0,10,0,,1",
    ]

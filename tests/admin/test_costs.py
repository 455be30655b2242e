"""The page of costs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from llm_wrapper.models import LLMCall, PromptVersion

from .spending import spend

URL = "/admin/llm_wrapper/llmcall/costs/"


def call(days_ago: int = 0, **values: Any) -> LLMCall:
    row = LLMCall.objects.create(
        **{
            "attempt": 1,
            "config_name": "main",
            "model": "gpt",
            "status": "done",
            "first_position": 1,
            "last_position": 1,
            "input_tokens": 1000,
            "output_tokens": 50,
            "cost": Decimal("0.25"),
            **values,
        }
    )
    LLMCall.objects.filter(pk=row.pk).update(started_at=timezone.now() - timedelta(days=days_ago))
    return row


def page(client: Client, **query: Any) -> str:
    response = client.get(URL, query)
    assert response.status_code == 200
    return response.content.decode()


def cells(text: str, by: str, name: str) -> list[str]:
    """The numbers of a row in the table of a breakdown."""
    section = text.split(f'id="by-{by}"')[1].split("</table>")[0]
    row = next(row for row in section.split("<tr>") if f"</svg>{escape(name)}</th>" in row)
    return re.findall(r"<td[^>]*>([^<]*)</td>", row)


def test_h1_only_who_may_see_calls_may_see_costs(staff: Callable[..., Client], client: Client) -> None:
    """The page and its CSV need the view permission for LLM calls."""
    for query in ({}, {"csv": "user"}):
        assert client.get(URL, query).status_code == 302
        assert staff_with(staff, "view_chathistory").get(URL, query).status_code == 403
        assert staff_with(staff, "view_llmcall").get(URL, query).status_code == 200


def staff_with(staff: Callable[..., Client], codename: str) -> Client:
    get_user_model().objects.filter(username=codename).delete()
    return staff(codename)


def test_the_page_shows_what_was_spent(boss: Client) -> None:
    """Sums, each model with its numbers and share, and the calls of other days left out."""
    call(model="gpt", cost=Decimal("1.5"))
    call(3, model="claude", cost=Decimal("0.5"), cached_tokens=400)
    call(3, model="claude", status="failed", cost=None, input_tokens=None, output_tokens=None)
    call(40, model="model-of-old", cost=Decimal(100))
    text = page(boss)
    assert re.search(r'llmw-number">\s*2\.00</p>', text)
    assert cells(text, "model", "gpt") == ["1", "0", "1\u202f000", "0", "50", "0", "1.50", "75%"]
    assert cells(text, "model", "claude") == ["2", "1", "1\u202f000", "400", "50", "0", "0.50", "25%"]
    assert "model-of-old" not in text
    assert "model-of-old" in page(boss, since=(timezone.localdate() - timedelta(days=50)).isoformat())


def test_unpriced_calls_stand_out_and_lead_to_themselves(boss: Client) -> None:
    """With unknown costs the sum is 'at least', and the link lists exactly the calls that were counted."""
    call(cost=Decimal(1))
    unknown = {call(model="mine", cost=None).pk, call(model="mine", status="lost", cost=None).pk}
    call(model="mine", status="failed", cost=None, input_tokens=None, output_tokens=None)
    call(model="mine", cost=None, cache_hit=True)
    call(60, model="mine", cost=None)
    text = page(boss)
    assert "<small>at least</small> 1.00" in text
    assert cells(text, "model", "mine")[-3:] == ["2", "unknown", "-"]
    link = re.search(r'href="([^"]*price=unknown[^"]*)"', text)
    assert link is not None
    found = boss.get(link[1].replace("&amp;", "&"))
    assert {row.pk for row in found.context["cl"].result_list} == unknown


def test_nothing_known_is_unknown(boss: Client) -> None:
    """Where no cost is known the page says so, and does not show 0."""
    call(cost=None)
    assert re.search(r'llmw-number">\s*unknown</p>', page(boss))


def test_many_users_are_shown_as_the_first_and_the_others(
    boss: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    """Six users have a colour each, the rest one together, and nothing is left out of the sum or asked for one by
    one."""
    for number in range(40):
        call(number % 5, user=get_user_model().objects.create_user(f"u{number:02d}"), cost=Decimal(number + 1))
    with django_assert_max_num_queries(8):
        text = page(boss)
    assert cells(text, "user", "u39")[-2] == "40.00"
    assert cells(text, "user", "34 others")[-2] == "595.00"
    assert cells(text, "model", "gpt")[-2] == "820.00"
    section = text.split('id="by-user"')[1]
    assert set(re.findall(r'class="llmw-series-(\d)"', section)) == set("0123456")


def test_the_bars_can_be_of_tokens_or_calls(boss: Client) -> None:
    """Models whose costs are unknown have bars of tokens and of calls."""
    call(cost=None)
    call(model="claude", input_tokens=3000, output_tokens=150)
    text = page(boss, show="tokens")
    assert "Tokens by model" in text
    assert cells(text, "model", "gpt")[-1] == "25%"
    assert cells(page(boss, show="calls"), "model", "gpt")[-1] == "50%"


def test_the_csv_holds_what_is_shown(boss: Client) -> None:
    """A row for each day and user of the range, every place of the cost, and no name that is a formula."""
    call(1, user=get_user_model().objects.create_user("=cmd|' /C calc'!A0"), cost=Decimal("0.0000000001"))
    call(1)
    response = boss.get(URL, {"csv": "user"})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in response.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"), newline="")))
    day = (timezone.localdate() - timedelta(days=1)).isoformat()
    assert [(row["day"], row["user"], row["cost"]) for row in rows] == [
        (day, "(no user)", "0.2500000000"),
        (day, "'=cmd|' /C calc'!A0", "0.0000000001"),
    ]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"since": "2026-05-02", "until": "2026-05-01"}, "The first day is after the last one."),
        ({"since": "soon"}, "Enter a valid date."),
        ({"since": "2020-01-01", "until": "2026-01-01"}, "manage.py llm_costs --since 2020-01-01"),
        ({"show": "colour"}, "Select a valid choice"),
    ],
)
def test_days_that_cannot_be_shown_are_explained(boss: Client, query: dict[str, str], words: str) -> None:
    """A bad range answers 400 with the page, which says what is wrong; the CSV of it does too."""
    for more in ({}, {"csv": "model"}):
        response = boss.get(URL, {**query, **more})
        assert response.status_code == 400
        assert words in response.content.decode()


def test_without_calls_there_is_nothing_to_draw(boss: Client) -> None:
    """An empty range says that it is empty."""
    text = page(boss)
    assert "No LLM call was made in these days." in text
    assert '<svg class="llmw-chart"' not in text


def test_names_are_text(boss: Client) -> None:
    """What a provider or a user calls something is never markup, in the table or in the chart."""
    name = "<script>alert(1)</script>"
    call(model=name, prompt_version=PromptVersion.objects.create(name=name, number=1, digest="x", content={}))
    text = page(boss)
    assert name not in text
    assert text.count(escape(name)) >= 4


def test_the_page_is_linked_from_the_calls_and_the_index(boss: Client) -> None:
    """The list of LLM calls, the app's index and the sidebar of the example lead to the page."""
    for url in (reverse("admin:llm_wrapper_llmcall_changelist"), reverse("admin:app_list", args=["llm_wrapper"])):
        assert f'href="{URL}"' in boss.get(url).content.decode()


@pytest.mark.parametrize("language", ["de", "fr", "en"])
def test_shapes_are_numbers_in_every_language(boss: Client, settings: Any, language: str) -> None:
    """A comma in a coordinate would break the chart, so no language's way of writing numbers gets into one."""
    settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = language, True
    spend(days=8, calls_a_day=5)
    charts = re.findall(r'<svg class="llmw-chart".*?</svg>', page(boss), re.DOTALL)
    assert len(charts) == 3
    for chart in charts:
        shapes = re.findall(r' (?:x|y|x1|x2|y1|y2|width|height)="([^"]*)"', chart)
        assert len(shapes) > 50
        assert all(re.fullmatch(r"-?\d+(\.\d+)?", shape) for shape in shapes)


def test_each_chart_has_its_numbers_in_tables(boss: Client) -> None:
    """What the bars show can be read without seeing them: a row for each colour, with each day of the range."""
    spend(days=5, calls_a_day=10)
    since = (timezone.localdate() - timedelta(days=4)).isoformat()
    for section in page(boss, since=since).split('<section class="llmw-card llmw-breakdown"')[1:]:
        assert 'role="img" aria-label="' in section
        rows, days = (table.count('<th scope="row">') for table in section.split("<table")[1:])
        assert rows == days > 0
        assert len(re.findall(r'<th scope="col">\d{4}-', section)) == 5

"""The page of costs in a real browser, which may load nothing from elsewhere."""

from __future__ import annotations

import pytest

from tests.admin.spending import spend

from .conftest import Tab

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

URL = "/admin/llm_wrapper/llmcall/costs/"


def test_costs_are_reached_by_links_and_shown_for_other_days(tab: Tab) -> None:
    """From the list of calls to the costs, to another range, to bars of tokens: all by links, with a bar a day."""
    spend()
    tab.open("/admin/llm_wrapper/llmcall/")
    tab.page.click(".llmw-tool-link a")
    tab.page.wait_for_url(f"**{URL}")
    assert tab.page.locator("#by-model .llmw-chart-day").count() == 30
    tab.photograph("costs", height=905)
    tab.page.click("text=7 days")
    assert tab.page.locator("#by-model .llmw-chart-day").count() == 7
    tab.page.click(".llmw-choices >> text=Tokens")
    tab.page.wait_for_selector("text=Tokens by model")
    assert tab.page.locator("#by-model .llmw-chart-day").count() == 7


@pytest.mark.parametrize("tab", ["dark"], indirect=True)
def test_bars_stand_out_from_the_dark(tab: Tab) -> None:
    """In the dark the page takes its dark colours: every bar differs from the card that it stands on."""
    spend(days=10)
    tab.open(URL)
    colours = tab.page.evaluate(
        "[...document.querySelectorAll('#by-model .llmw-swatch rect')].map(bar => getComputedStyle(bar).fill)"
    )
    assert len(set(colours)) == len(colours) == 5
    assert "rgb(110, 162, 247)" in colours
    tab.photograph("costs-dark", height=905)

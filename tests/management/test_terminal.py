"""What commands write to a terminal."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from django.core.management import BaseCommand

from llm_wrapper.management.terminal import Terminal, cost_of, money, one_line, shown, tokens, wants_colours
from llm_wrapper.models import ChatHistory
from llm_wrapper.types import Usage


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_no_character_steers_a_terminal():
    """Of all characters only line breaks and tabs of the control characters are let through, and no mark that turns the
    direction of writing; what languages and emoji need stays."""
    everything = "".join(chr(code) for code in range(0x110000))
    left = set(shown(everything))
    controls = {chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)]}
    assert left & controls == {"\n", "\t"}
    assert not left & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ud800\udfff")
    assert shown("a\r\nb\rc") == "a\nb\ufffdc"
    for text in ("Ünïcödé", "你好\u3000世界", "👩\u200d🚀", "a\u200cb", "1\xa0000"):
        assert shown(text) == text


def test_a_line_is_one_line():
    """Breaks become spaces, and what is too long is cut with a sign."""
    assert one_line(" a\n\tb\x1b[0m ") == "a b\ufffd[0m"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("stream", "environ", "wanted"),
    [
        (Screen(), {}, True),
        (Screen(), {"NO_COLOR": ""}, True),
        (Screen(), {"NO_COLOR": "0"}, False),
        (Screen(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_who_wants_colours(stream, environ, wanted):
    """Terminals do; NO_COLOR counts where it is set to anything but nothing, as its page says."""
    assert wants_colours(stream, environ) is wanted


def test_tokens_and_money():
    """What is not known is said to be unknown, and a sum with unknown parts to be a lower bound."""
    assert tokens(Usage(1200, 3)) == "1,200 tokens in, 3 out"
    assert tokens(Usage(None, 3)) == "? tokens in, 3 out"
    assert tokens(Usage()) == "tokens unknown"
    assert (money(None), money(Decimal("1234.5"))) == ("unknown", "1,234.500000")
    rows = [ChatHistory(cost=cost, unpriced_calls=calls) for cost, calls in ((0, 0), (0, 2), (Decimal("0.5"), 1))]
    assert [cost_of(row) for row in rows] == ["0.000000", "unknown", "at least 0.500000"]


def test_a_target_that_cannot_write_every_character():
    """What the encoding of a terminal lacks is replaced and does not end the conversation."""
    raw = io.BytesIO()
    terminal = Terminal(BaseCommand(stdout=io.TextIOWrapper(raw, encoding="ascii")), io.StringIO())
    terminal.say("Größe 👩")
    assert raw.getvalue() == b"Gr??e ?\n"

import contextvars
import threading
import time

import pytest

from llm_wrapper.transport.deadline import within


def test_items_come_through_in_order():
    """The caller sees what the work yields, as it yields it."""
    assert list(within(5, lambda: iter_of(1, 2, 3))) == [1, 2, 3]


def test_errors_come_through():
    """What the work raises is raised to the caller, after the items before it."""
    seen = []

    def work():
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        seen.extend(within(5, work))
    assert seen == [] or seen == [1]


def test_time_is_up_in_the_middle_of_a_step():
    """A step that does not come back does not hold the caller."""
    release = threading.Event()

    def work():
        yield 1
        release.wait(10)
        yield 2

    items, started = within(0.2, work), time.monotonic()
    assert next(items) == 1
    with pytest.raises(TimeoutError):
        next(items)
    assert time.monotonic() - started < 2
    release.set()


def test_an_abandoned_work_is_closed():
    """The work's own `finally` runs when nobody listens any more."""
    closed, go_on = threading.Event(), threading.Event()

    def work():
        try:
            while True:
                yield 1
                go_on.wait(5)
        finally:
            closed.set()

    items = within(5, work)
    next(items)
    items.close()
    go_on.set()
    assert closed.wait(5)


def test_context_variables_reach_the_work():
    """Tracing that hangs on context variables goes on in the work's thread."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    def work():
        yield variable.get()

    assert list(within(5, work)) == ["set"]


def iter_of(*items):
    yield from items

"""What bounds the chaos tests: a lane or a run that hangs fails, and says which."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.__main__ import run
from tests.chaos.lanes import LANES, in_lanes

pytestmark = pytest.mark.chaos


def test_lanes_count_together():
    """What the lanes count is added up."""
    assert in_lanes(lambda number: {"lanes": 1, "last": int(number == LANES - 1)}, seconds=30) == {
        "lanes": LANES,
        "last": 1,
    }


def test_a_lane_that_hangs_or_fails_fails_the_test():
    """A lane that does not end is ended, and one that fails is shown with its traceback; neither counts as passed."""

    def work(number):
        if number == 0:
            time.sleep(60)
        assert number == 0, "a rule was broken"
        return {}

    with pytest.raises(pytest.fail.Exception) as caught:
        in_lanes(work, seconds=2)
    assert "lane 0 had not ended after 2 seconds" in str(caught.value)
    assert "AssertionError: a rule was broken" in str(caught.value)


def test_a_run_that_is_not_done_in_time_fails_with_its_processes(tmp_path, capfd):
    """A run past its time is ended with all that it started, and is told as a failure."""
    told = tmp_path / "pid"
    code = f"import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, file=open({str(told)!r}, 'w', 1))"
    assert run([sys.executable, "-c", f"{code}; time.sleep(60)"], dict(os.environ), 3) == 1
    assert "FAILED: not done after" in capfd.readouterr().out
    until = time.monotonic() + 10
    while alive(int(told.read_text())):
        assert time.monotonic() < until, "what the run started is still there"
        time.sleep(0.01)


def alive(pid):
    """Whether it runs; one that has ended and that nobody has asked for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

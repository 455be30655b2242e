"""A command run in a pseudo-terminal, by somebody who types."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CTRL_C, CTRL_D = "\x03", "\x04"


def _of_a_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A shell without job control has what it runs in the background ignore SIGINT, and that is inherited.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Typed:
    """`manage.py` with these arguments in a terminal of its own, so that Ctrl-C is the kernel's SIGINT.

    `seen` is all that it has written so far.
    """

    def __init__(self, *arguments, columns=120, **environ):
        self.keyboard, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "example.settings", "TERM": "xterm", **environ},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=_of_a_terminal,
        )
        os.close(terminal)
        self.seen = ""
        self._waited = 0

    def type(self, text, enter=True):
        os.write(self.keyboard, (text + "\r" * enter).encode())

    def wait_for(self, words, seconds=60):
        """Wait until it has written these words, after those that were waited for before."""
        until = time.monotonic() + seconds
        while words not in self.seen[self._waited :]:
            left = until - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{words!r} was not written. What was:\n{self.seen}")
        self._waited = self.seen.index(words, self._waited) + len(words)

    def end(self, seconds=60):
        """Wait for its end; gives the exit code."""
        until = time.monotonic() + seconds
        while self._read(max(until - time.monotonic(), 0)):
            pass
        try:
            return self.process.wait(max(until - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It did not end. What it wrote was:\n{self.seen}") from None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        # By its id, and only if it is still there: what a test left hanging.
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self.keyboard)

    def _read(self, seconds):
        if not select.select([self.keyboard], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.keyboard, 65536)
        except OSError:  # how Linux tells that the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

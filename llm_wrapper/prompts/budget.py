"""What one rendering may still use: steps, characters and time. Counting happens before the work is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.utils import Namespace

from ..conf import conf
from ..errors import TemplateTooExpensive
from .values import MAX_INT_BITS

MAX_CALL_DEPTH = 32  # macros and recursive loops inside each other
MAX_DATA_DEPTH = 64  # lists inside lists that a template builds
STEPS_PER_CLOCK = 64
NODES_PER_STEP = 4
CHARS_PER_NODE = 256


class Group(NamedTuple):
    """One group of the `groupby` filter."""

    grouper: Any
    list: list[Any]


SCALARS = frozenset({type(None), bool, int, float, str})
SEQUENCES = frozenset({list, tuple, Group})
DATA = SCALARS | SEQUENCES | {dict, range}
USABLE = DATA | {LoopContext, Macro, Namespace}
ITERABLES = SEQUENCES | {dict, range, str}


class Budget:
    """The limits of one rendering. One object per rendering, held by its context: nothing is shared."""

    __slots__ = ("chars", "chars_limit", "clock_at", "deadline", "depth", "seconds", "steps", "steps_limit")

    def __init__(self, *, seconds: float, steps: int, chars: int) -> None:
        self.seconds, self.steps_limit, self.chars_limit = seconds, steps, chars
        self.steps, self.chars, self.depth = steps, chars, 0
        self.clock_at = steps
        self.deadline = time.monotonic() + seconds

    @classmethod
    def from_settings(cls) -> Budget:
        return cls(seconds=conf.template_max_seconds, steps=conf.template_max_steps, chars=conf.template_max_chars)

    # -- counting --------------------------------------------------------------------------------------

    def step(self, count: int = 1) -> None:
        """Counts work. Looks at the clock only now and then, since a step takes less time than looking."""
        self.steps -= count
        if self.steps < self.clock_at:
            if self.steps < 0:
                raise TemplateTooExpensive(
                    f"it takes more than {self.steps_limit} steps. Loop over less, or raise "
                    "LLM_WRAPPER_TEMPLATE_MAX_STEPS"
                )
            self.clock_at = self.steps - STEPS_PER_CLOCK
            self.check_time()

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise TemplateTooExpensive(
                f"it takes more than {self.seconds} seconds. Simplify it, or raise LLM_WRAPPER_TEMPLATE_MAX_SECONDS"
            )

    def fits(self, chars: int) -> None:
        """Raises unless so many characters may still be made; takes nothing."""
        if chars > self.chars:
            raise TemplateTooExpensive(
                f"it makes more than {self.chars_limit} characters, also counting texts on the way. "
                "Shorten it, or raise LLM_WRAPPER_TEMPLATE_MAX_CHARS"
            )

    def grow(self, chars: int) -> None:
        """Takes characters that are about to be made."""
        self.fits(chars)
        self.chars -= chars

    def split(self, text: str) -> None:
        """Counts work that takes a text apart, before it does: each piece is an object of its own."""
        self.step(len(text) // 8)

    def enter(self) -> None:
        self.step()
        self.depth += 1
        if self.depth > MAX_CALL_DEPTH:
            raise TemplateTooExpensive(f"macros or recursive loops go more than {MAX_CALL_DEPTH} levels deep")

    def leave(self) -> None:
        self.depth -= 1

    # -- called by compiled templates ------------------------------------------------------------------

    def text(self, value: str) -> str:
        """Text of the template itself, or a text just made."""
        self.grow(len(value))
        return value

    def emit(self, value: Any) -> str:
        """The text of `{{ value }}`."""
        self.step()
        return self.text(value if type(value) is str else self.as_text(value))

    def join(self, values: tuple[Any, ...]) -> str:
        """`a ~ b ~ c`."""
        self.step(len(values))
        texts = [self.as_text(value) for value in values]
        self.grow(sum(map(len, texts)))
        return "".join(texts)

    def items(self, values: Any) -> Any:
        """A list or tuple written in the template."""
        self.step(1 + len(values))
        return values

    def mapping(self, pairs: Iterable[Any]) -> dict[Any, Any]:
        """A dict from pairs. Its keys are scalars: hashing nested tuples can take exponential time."""
        result = {}
        for key, value in pairs:
            self.step()
            if is_undefined(key):
                str(key)
            if type(key) not in SCALARS:
                raise TypeError(f"a key of a dict is text or a number, not a {type(key).__name__}")
            result[key] = value
        return result

    def each(self, values: Any) -> Iterator[Any]:
        """The values of a loop."""
        if type(values) not in ITERABLES:
            refuse(values, "looped over")
        for value in values:
            self.step()
            yield usable(value)

    # -- measuring -------------------------------------------------------------------------------------

    def take(self, values: Any) -> list[Any]:
        """A list of any values that can be looped over."""
        if type(values) not in ITERABLES:
            refuse(values, "looped over")
        self.step(len(values))
        return list(values)

    def as_text(self, value: Any) -> str:
        """What `str` gives, for data only. Does not count the characters, but refuses what cannot fit."""
        if type(value) in SCALARS or is_undefined(value):
            return str(value)  # undefined: raises, except for `{{ a if b }}` without an else
        self.fits(self.measure(value))
        return str(value)

    def measure(self, value: Any, *, times: int = 1, indent: int = 0) -> int:
        """Walks through data and counts it, so that what comes next (comparing, writing, sorting) is bounded.

        A list may hold the same list many times over, so its real size can be exponential in the steps that
        built it; hence the walk, which stops where the budget does. Returns the fewest characters that the
        value takes when written. `times` says how often the work that follows looks at each value.
        """
        kind = type(value)
        if kind is str:
            if len(value) > CHARS_PER_NODE:
                self.step(len(value) // CHARS_PER_NODE // NODES_PER_STEP * times)
            return len(value)
        if kind in SCALARS:
            return 1
        stack, nodes, chars = [iter((value,))], 0, 0
        while stack:
            item = next(stack[-1], stack)
            if item is stack:
                stack.pop()
                continue
            kind = type(item)
            nodes += 1
            chars += 1 + indent * (len(stack) - 1)
            if kind is str:
                nodes += len(item) // CHARS_PER_NODE
                chars += 1 + len(item)
            elif kind in SEQUENCES or kind is dict:
                if len(stack) > MAX_DATA_DEPTH:
                    raise TemplateTooExpensive(f"it makes data of more than {MAX_DATA_DEPTH} levels")
                chars += 1
                stack.append(iter(_parts(item)))
            elif kind not in DATA:
                refuse(item, "used as data")
            if nodes >= 1024:
                self.step(nodes * times // NODES_PER_STEP)
                nodes = 0
        self.step(1 + nodes * times // NODES_PER_STEP)
        self.check_time()
        return chars

    def made(self, result: Any) -> Any:
        """Counts the result of a filter or method."""
        kind = type(result)
        if kind is str:
            self.grow(len(result))
        elif kind in SEQUENCES:
            self.step(len(result))
        elif kind is int and result.bit_length() > MAX_INT_BITS:
            raise TemplateTooExpensive(f"it makes an integer of more than {MAX_INT_BITS} bits")
        return result


def _parts(value: Any) -> Iterable[Any]:
    return [part for pair in value.items() for part in pair] if type(value) is dict else value


def is_undefined(value: Any) -> bool:
    """By the type: `isinstance` would ask the object for its class."""
    return issubclass(type(value), Undefined)


def usable(value: Any) -> Any:
    """The value, or an error where it is of a type that templates do not know."""
    if type(value) not in USABLE and not is_undefined(value):
        refuse(value, "used")
    return value


def refuse(value: Any, doing: str) -> None:
    """Raises: an undefined name says which it is, an object says its kind (never its content)."""
    if is_undefined(value):
        value._fail_with_undefined_error()
    if type(value) in SCALARS:
        raise TypeError(f"a value of type {type(value).__name__} cannot be {doing}")
    raise SecurityError(f"a value of type {type(value).__name__} cannot be {doing}; only plain data can")

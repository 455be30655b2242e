"""The sandbox: what a compiled template may look up, get, call and compute."""

from __future__ import annotations

from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, cast

from jinja2 import StrictUndefined
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from . import operators
from .budget import DATA, SCALARS, Budget, is_undefined, refuse, usable
from .codegen import BoundedCodeGenerator
from .filters import FILTERS
from .methods import LOOP_METHODS, call_loop, call_method, is_allowed, refusal
from .predicates import TESTS


class UnknownName(UndefinedError):
    """A name was used that is neither a context variable nor set in the template; the message is the name."""


class Unknown(StrictUndefined):
    """An undefined value that says which name or attribute is missing, and nothing of any value."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        if hint is None and obj is missing:
            hint, exc = name, UnknownName
        elif hint is None:
            kind = type(obj).__name__
            hint = f"there is no {'such item' if name is None else repr(name)} in a value of type {kind}"
        super().__init__(hint, obj, name, exc)


class BoundedContext(Context):
    """The variables and the budget of one rendering."""

    budget: Budget

    def resolve_or_missing(self, key: str) -> Any:
        value = super().resolve_or_missing(key)
        return value if value is missing or _is_function(value) else usable(value)


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Everything is refused that is not listed, by exact type and before the object is touched."""

    code_generator_class = BoundedCodeGenerator
    context_class = BoundedContext
    intercepted_binops = frozenset(operators.ARITHMETIC)

    def __init__(self) -> None:
        super().__init__(undefined=Unknown, autoescape=False, optimized=False, keep_trailing_newline=True, cache_size=0)
        self.filters = dict(FILTERS)
        self.tests = dict(TESTS)
        self.globals = dict(GLOBALS)

    # -- attributes and items --------------------------------------------------------------------------

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Asked before `value` is got, which is therefore not looked at."""
        return is_allowed(obj, attr)

    def is_safe_callable(self, obj: Any) -> bool:
        """Macros, recursive loops, this package's functions, and methods; which methods, `call` decides."""
        if type(obj) is MethodType:
            return type(obj.__self__) is LoopContext and obj.__name__ in LOOP_METHODS
        return type(obj) in (Macro, LoopContext, BuiltinMethodType) or _is_function(obj)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: a method first, then an item of a dict, as in Jinja."""
        if is_undefined(obj):
            refuse(obj, "used")
        if self.is_safe_attribute(obj, attribute, None):
            try:
                return getattr(obj, attribute)
            except AttributeError:  # of a namespace
                return self.undefined(obj=obj, name=attribute)
        if type(obj) is dict and attribute in obj:
            return usable(obj[attribute])
        if attribute.startswith("_") or hasattr(type(obj), attribute):
            return self.undefined(refusal(obj, attribute), exc=SecurityError)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj["name"]` or `obj[0]`, where the template holds the key: an item first, then a method."""
        if type(argument) is not str:
            return self.lookup(obj, argument)
        value = self.lookup(obj, argument) if type(obj) in DATA else self.undefined()
        return self.getattr(obj, argument) if is_undefined(value) else value

    def lookup(self, obj: Any, key: Any) -> Any:
        """`obj[key]`, an item and never an attribute; a key that was computed is not named in errors."""
        for part in (obj, key):
            if is_undefined(part):
                refuse(part, "used")
        if type(obj) not in DATA:
            refuse(obj, "indexed")
        if type(key) not in SCALARS:
            raise TypeError("a key is text or a number")
        try:
            return usable(obj[key])
        except (TypeError, LookupError):
            return self.undefined(obj=obj)

    # -- calls and operators ---------------------------------------------------------------------------

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("_loop_vars", None)  # the compiler adds these for functions that take the context
        kwargs.pop("_block_vars", None)
        budget = cast(BoundedContext, context).budget
        budget.step(1 + len(args) + len(kwargs))
        if not self.is_safe_callable(obj):
            refuse(obj, "called")
        if type(obj) is BuiltinMethodType:
            return call_method(budget, obj, args, kwargs)
        if type(obj) is MethodType:
            return call_loop(budget, obj, args)
        if type(obj) is FunctionType:
            return obj(budget, *args, **kwargs)
        if type(obj) is LoopContext:
            args = tuple(budget.each(values) for values in args)
        budget.enter()
        try:
            return obj(*args, **kwargs)
        finally:
            budget.leave()

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return operators.calculate(cast(BoundedContext, context).budget, operator, left, right)

    compare = staticmethod(operators.compare)
    compared = staticmethod(operators.compared)
    cut = staticmethod(operators.cut)


def _range(budget: Budget, *bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > budget.steps:
        budget.step(len(numbers))
    return numbers


def _dict(budget: Budget, /, *sources: Any, **items: Any) -> dict[Any, Any]:
    if len(sources) > 1:
        raise TypeError("dict takes one dict or one list of pairs, and names")
    result: dict[Any, Any] = {}
    for source in sources:
        pairs = source.items() if type(source) is dict else budget.take(source)
        result.update(budget.mapping(pairs))
    return result | items


def _namespace(budget: Budget, /, *sources: Any, **items: Any) -> Namespace:
    return Namespace(_dict(budget, *sources, **items))


def _is_function(value: Any) -> bool:
    return type(value) is FunctionType and value in FUNCTIONS


GLOBALS = {"range": _range, "dict": _dict, "namespace": _namespace}
FUNCTIONS: frozenset[Any] = frozenset(GLOBALS.values())

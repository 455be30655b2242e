"""Rules of the decorators and of dotted paths."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from llm_wrapper.errors import ToolDefinitionError
from llm_wrapper.tools import host_function, llm_tool
from llm_wrapper.tools.registry import host_functions, is_dotted_path, resolve, tool_name

from . import shop
from .shop import PATH


def test_a_registered_function_is_found_by_its_path() -> None:
    """Tool.tool_code may name a function marked with @llm_tool, spaces around it not counting."""
    assert resolve(f" {PATH}refund\n") is shop.refund
    assert tool_name(shop.refund) == "refund"
    assert tool_name(shop.orders) == "find_orders"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{PATH}not_registered", "@llm_tool"),
        (f"{PATH}RETURNS", "@llm_tool"),
        (f"{PATH}nope", "no 'nope'"),
        ("tests.tools.nope.f", "cannot be imported: ModuleNotFoundError"),
        ("os.system", "standard library"),
        ("subprocess.run", "standard library"),
        ("refund", "not a dotted path"),
        ("tests.tools.shop.refund()", "not a dotted path"),
        ("tests.tools.shop.refund; x", "not a dotted path"),
        ("..shop.refund", "not a dotted path"),
        ("tests.tools.shop.refu\u0274d", "not a dotted path"),
        ("django.utils.module_loading.import_string", "@llm_tool"),
    ],
)
def test_only_registered_functions_are_found(path: str, words: str) -> None:
    """A path that names anything else is an error that says what to do."""
    with pytest.raises(ToolDefinitionError) as caught:
        resolve(path)
    assert words in str(caught.value)
    assert caught.value.field == "tool_code"


def test_a_module_that_fails_to_import_is_named_with_its_error() -> None:
    """Whatever a module raises while it is imported becomes a clear error."""
    script = textwrap.dedent(
        """
        import sys, types, importlib.abc, importlib.machinery
        class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "broken_module":
                    return importlib.machinery.ModuleSpec(name, self)
            def create_module(self, spec): return None
            def exec_module(self, module): raise RuntimeError("no apps yet")
        sys.meta_path.insert(0, Finder())
        from llm_wrapper.tools.registry import resolve
        try:
            resolve("broken_module.f")
        except Exception as error:
            print(type(error).__name__, error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ToolDefinitionError The module broken_module of broken_module.f")
    assert "RuntimeError: no apps yet" in done.stdout


@pytest.mark.parametrize("code", ["a.b", "a_1.b.c", " a.b "])
def test_a_dotted_path_is_told_from_source(code: str) -> None:
    """Names joined by dots, and nothing else, are a path."""
    assert is_dotted_path(code)
    assert not is_dotted_path(f"{code}()")
    assert not is_dotted_path(f"x = {code}")


def test_a_local_function_is_refused() -> None:
    """A function that no dotted path reaches cannot be registered."""

    def local() -> None: ...

    with pytest.raises(ToolDefinitionError, match="module level"):
        llm_tool(local)


def test_a_tool_name_must_please_the_models() -> None:
    """A name that providers refuse is refused when it is given."""
    with pytest.raises(ToolDefinitionError, match="64"):
        llm_tool(name="refund order")(shop.not_registered)


@pytest.mark.parametrize("name", ["a b", "class", "a.b", "1a"])
def test_a_host_function_needs_a_name_that_source_can_call(name: str) -> None:
    """A host function's name is a Python name."""
    with pytest.raises(ToolDefinitionError):
        host_function(name=name)(shop.not_registered)


def test_a_host_name_is_not_taken_twice() -> None:
    """A second function may not silently replace a host function; the same one may register again."""
    assert host_function(shop.shop_stock) is shop.shop_stock
    with pytest.raises(ToolDefinitionError, match=r"already tests\.tools\.shop\.shop_stock"):
        host_function(name="shop_stock")(shop.not_registered)
    assert host_functions()["shop_stock"] is shop.shop_stock


def test_host_functions_is_a_copy() -> None:
    """Nobody changes the registry through what it gives out."""
    host_functions().clear()
    assert "shop_stock" in host_functions()

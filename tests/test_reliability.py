"""docs/reliability.md names tests that exist, and leaves out no row."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS_OF = {"A": 10, "B": 9, "C": 11, "D": 8, "E": 7, "F": 11, "H": 9, "I": 7}
NAMED = re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGE)


def table():
    """id -> the other cells of its row."""
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if re.match(r"\| `[A-Z]\d+` \|", line)]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}


def functions_of(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_every_named_test_exists(path):
    """A test that the page names is in the file where the page says it is."""
    assert {name for named, name in NAMED if named == path} <= functions_of(path)


def test_every_row_is_there_once():
    """Each id of the groups has one row, in order, with a fault and what holds."""
    wanted = [f"{group}{number}" for group, rows in ROWS_OF.items() for number in range(1, rows + 1)]
    assert list(table()) == wanted
    assert re.findall(r"^\| `([A-Z]\d+)` ", PAGE, re.MULTILINE) == wanted
    for row, (fault, holds, _) in table().items():
        assert fault, row
        assert holds, row


def test_what_is_not_a_test_is_a_name_of_one():
    """The last cell holds tests and nothing else, so that no row seems covered that is not."""
    for row, (*_, tests) in table().items():
        for named in filter(None, tests.split(", ")):
            assert re.fullmatch(r"tests/[\w/]+\.py::test_\w+", named), row


def test_every_test_with_an_id_is_of_a_row():
    """A test whose name begins with an id of these groups carries one that exists."""
    known = {row.lower() for row in table()}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in functions_of(path):
            found = re.match(r"test_([a-fhi]\d+)_", name)
            assert found is None or found[1] in known, f"{path.name}: {name}"

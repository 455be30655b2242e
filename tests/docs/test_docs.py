"""The documentation: its code runs, its tables are complete, its links and commands exist."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.dispatch import Signal

from llm_wrapper import configs, errors, events, models, prompts, signals, types
from llm_wrapper.conf import AppSettings, Setting
from llm_wrapper.prompts.environment import PromptEnvironment
from llm_wrapper.tools import registry
from llm_wrapper.types import PromptSpec

from .pages import PAGES, ROOT, Runner, anchors, blocks, code_lines, name_of, prose, rows, text_of

EVERY_PAGE = pytest.mark.parametrize("name", [name_of(page) for page in PAGES])
MUST_RUN = {
    "README.md",
    "docs/chats.md",
    "docs/quickstart.md",
    "docs/testing.md",
    "docs/documents/0-persistent-chats.md",
    "docs/documents/1-prompt-template-wrapper.md",
}
WITH_CODE = sorted(
    name_of(page) for page in PAGES if any(block.info == "python" for block in blocks(page.read_text(encoding="utf-8")))
)
RUNNABLE = frozenset({"python", "python no-run", "text", "yaml", "json", "jinja", "sh"})


@pytest.fixture
def site(db, settings, tmp_path, monkeypatch):
    """A site as `make demo` makes it, with a folder of its own for the YAML files of a page."""
    folder = tmp_path / "llm_configs"
    shutil.copytree(ROOT / "llm_configs", folder)
    settings.LLM_CONFIGS_PATH = folder
    monkeypatch.setattr(registry, "_host_functions", dict(registry._host_functions))
    call_command("loaddata", ROOT / "fixtures" / "demo.json", verbosity=0)
    # A sample names chat 6, so no sequence may come to that number while a page runs.
    while models.ChatHistory.objects.create().pk <= 6:
        continue
    models.ChatHistory.objects.all().delete()
    yield folder
    for name in configs.get_configs().names():
        configs.warm_up(name)


# -- code ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MUST_RUN | set(WITH_CODE)))
def test_the_code_of_a_page_runs_and_prints_what_it_says(name, site):
    """Every Python block of a page runs, in order, and prints the text that stands below it."""
    modules = {}
    try:
        ran = Runner(name, site, modules).run()
    finally:
        for module in modules:
            del sys.modules[module]
    assert ran or name not in MUST_RUN


@EVERY_PAGE
def test_blocks_are_of_known_kinds_and_parse(name):
    """A block's info string is one that this module knows, and what is not run is Python all the same."""
    for block in blocks(text_of(name)):
        assert block.info in RUNNABLE, f"{name}:{block.line}"
        if block.info == "python no-run":
            ast.parse(block.body)


def test_few_blocks_are_not_run():
    """Blocks that only look like code are kept to the fragments of settings files."""
    unrun = [
        (name_of(page), block.line)
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.info == "python no-run"
    ]
    assert len(unrun) <= 6, unrun


@EVERY_PAGE
def test_templates_of_a_page_are_valid(name):
    """Every Jinja block is a template that a prompt may hold."""
    for block in blocks(text_of(name)):
        if block.info == "jinja":
            assert prompts.check(PromptSpec(name="page", user=block.body)) == [], f"{name}:{block.line}"


# -- tables ----------------------------------------------------------------------------------------------


def test_settings_are_listed_with_default_and_meaning():
    """docs/settings.md lists exactly the settings of llm_wrapper.conf, each with its default and its help."""
    listed = {
        name: (ast.literal_eval(default), meaning) for name, default, meaning in rows(text_of("docs/settings.md"))
    }
    known = {item.name: (item.default, item.help) for item in vars(AppSettings).values() if isinstance(item, Setting)}
    assert listed == known


def test_errors_are_listed_with_what_they_carry():
    """docs/errors.md lists exactly the classes of llm_wrapper.errors with code, status and both flags."""
    listed = {row[0]: tuple(row[1:5]) for row in rows(text_of("docs/errors.md")) if row[0][0].isupper()}
    known = {
        name: (
            kind.code,
            str(kind.http_status),
            "yes" if kind.retryable else "no",
            "yes" if getattr(kind, "fails_over", False) else "no",
        )
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.LLMWrapperError)
    }
    assert listed == known
    assert all(row[5] for row in rows(text_of("docs/errors.md")) if row[0][0].isupper())


def test_events_are_listed_with_their_signals():
    """docs/turn.md lists exactly the events, their names on the wire and their signals."""
    names = {value: name for name, value in vars(signals).items() if isinstance(value, Signal)}
    listed = {row[0]: (row[1], row[2]) for row in rows(text_of("docs/turn.md")) if row[0] in vars(events)}
    known = {
        kind.__name__: (kind.type, names[signals.SIGNAL_OF[kind]] if kind in signals.SIGNAL_OF else "none")
        for kind in events.Event.__subclasses__()
    }
    assert listed == known


@pytest.mark.parametrize(("heading", "kind"), [("Filters", "filters"), ("Tests", "tests"), ("Functions", "globals")])
def test_what_templates_may_use_is_listed(heading, kind):
    """docs/prompts.md lists exactly the filters, tests and functions of templates."""
    section = text_of("docs/prompts.md").split(f"### {heading}\n")[1].split("\n#")[0]
    assert set(re.findall(r"`([^`]+)`", section)) == set(getattr(PromptEnvironment(), kind))


def test_words_of_the_glossary_name_what_exists():
    """Every model, field and class that docs/glossary.md names is there."""
    for line in text_of("docs/glossary.md").splitlines():
        cell = line.strip("| ").rpartition("| ")[2]
        for name in re.findall(r"`([A-Z]\w+(?:\.\w+)?)`", cell):
            owner, _, field = name.partition(".")
            kind = next(getattr(module, owner) for module in (models, types, configs) if hasattr(module, owner))
            assert not field or kind._meta.get_field(field), name


def test_layers_are_those_that_are_checked():
    """CONTRIBUTING.md draws the layers that import-linter checks, in their order."""
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawn = next(block.body for block in blocks(text_of("CONTRIBUTING.md")) if block.info == "text")
    lines = [re.split(r"\s{2,}", line)[0] for line in drawn.splitlines()]
    assert lines == [layer.replace("llm_wrapper.", "") for layer in layers]


# -- links and commands ----------------------------------------------------------------------------------


@EVERY_PAGE
def test_relative_links_resolve(name):
    """Every relative link and picture leads to a file of the project, and every anchor to a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text_of(name))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{name}: {target}"


@EVERY_PAGE
def test_paths_in_the_text_exist(name):
    """A path of the project that a page names as code is there."""
    for line in code_lines(text_of(name)):
        for path in re.findall(r"(?:^|\s)((?:tests|docs|fixtures|example|benchmarks)/[\w./-]+)", line):
            assert (ROOT / path).exists(), f"{name}: {path}"
            words = re.search(rf"{re.escape(path)} -k (\w+)", line)
            assert words is None or re.search(rf"def test_\w*{words[1]}", text_of(path)), f"{name}: {line}"


@EVERY_PAGE
def test_make_targets_exist(name):
    """Every `make` target that a page names is in the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in code_lines(text_of(name)):
        named = re.match(r"make ((?:[\w-]+ ?)+)", line)
        assert named is None or set(named[1].split()) <= targets, f"{name}: {line}"


@EVERY_PAGE
def test_manage_commands_exist(name):
    """Every `manage.py` command that a page names exists and takes those arguments."""
    known = get_commands()
    for line in code_lines(text_of(name)):
        found = re.search(r"manage\.py (.+)", line)
        if found is None:
            continue
        command, *arguments = shlex.split(found[1], comments=True)
        assert command in known, f"{name}: {line}"
        if isinstance(known[command], str):
            parser = load_command_class(known[command], command).create_parser("manage.py", command)
            try:
                parser.parse_args([argument for argument in arguments if argument != "..."])
            except CommandError as error:
                pytest.fail(f"{name}: {line}: {error}")


def test_every_page_is_reachable_from_the_readme():
    """Following links from README.md leads to every page of docs/."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", prose(page.read_text(encoding="utf-8"))):
            if not re.match(r"[a-z]+:", target):
                waiting.append(page.parent / target)
    missing = [name_of(page) for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in seen]
    assert not missing
    assert Path(ROOT / "CONTRIBUTING.md").resolve() in seen

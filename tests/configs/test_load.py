"""The folder: hot reload, broken edits, links, and files that are no config files."""

import logging
import os
import threading

import pytest

from llm_wrapper.configs import get_configs, load
from llm_wrapper.errors import LLMConfigsNotAvailable

from .conftest import CANARY

GROQ = "llm_config_class: GroqConfig\nmodel_name: m\napi_key: {}\n"


def key_of(name: str) -> str:
    return get_configs().get(name).choice().credentials["api_key"]


def lines() -> list[str]:
    return [str(problem) for problem in get_configs().problems()]


def test_both_endings_load_and_the_name_may_be_left_out(write):
    """*.yml and *.yaml are configs, named by their file."""
    write("b.yaml")
    write("a.yml", "name: a\nllm_config_class: DemoConfig\n")
    write("notes.txt", "not a config")
    write(".hidden.yml", "an editor's file")
    assert get_configs().names() == ["a", "b"]
    assert lines() == []
    assert "a" in get_configs()
    assert len(get_configs()) == 2


def test_i3_a_rotated_key_counts_at_once(write):
    """The next call after an edit uses the new key; a choice made before keeps its own."""
    write("x.yml", GROQ.format("old"), age=60)
    before = get_configs().get("x").choice()
    write("x.yml", GROQ.format("new"), age=50)
    assert key_of("x") == "new"
    assert before.credentials["api_key"] == "old"


def test_i3_two_writes_within_one_tick_of_the_clock(write, monkeypatch):
    """A change of the same size in the same tick shows in no stat, so a young file is read again."""
    monkeypatch.setattr(load, "signature", lambda status: (status.st_size,))
    path = write("x.yml", GROQ.format("aaa"), age=0)
    assert key_of("x") == "aaa"
    path.write_text(GROQ.format("bbb"))
    assert key_of("x") == "bbb"


def test_unchanged_files_are_not_read_again(write, monkeypatch):
    """A look at an unchanged folder costs stats only, since every turn looks."""
    write("x.yml")
    first = get_configs()

    def refuse(*args):
        raise AssertionError("read again")

    monkeypatch.setattr(load, "read", refuse)
    assert get_configs() is first


def test_only_the_changed_file_is_read(write, monkeypatch):
    """An edit of one file does not cost reading the others."""
    write("x.yml")
    write("y.yml")
    get_configs()
    reads = []
    real = load.read
    monkeypatch.setattr(load, "read", lambda folder, name: reads.append(name) or real(folder, name))
    write("y.yml", "llm_config_class: DemoConfig\nweight: 2\n", age=50)
    assert get_configs().get("y").weight == 2
    assert reads == ["y.yml"]


def test_files_appear_and_vanish(write):
    """New files count without a restart, and removed ones are gone."""
    path = write("x.yml")
    assert get_configs().names() == ["x"]
    write("y.yml")
    path.unlink()
    assert get_configs().names() == ["y"]


def test_i2_a_broken_edit_keeps_the_last_good_version_and_says_so(write, caplog):
    """A typo in a live file takes no model away, and is neither silent nor logged at every look."""
    write("x.yml", GROQ.format(CANARY), age=60)
    get_configs()
    with caplog.at_level(logging.WARNING, "llm_wrapper.configs"):
        write("x.yml", GROQ.format(CANARY) + "wieght: 2\n", age=50)
        assert key_of("x") == CANARY
        assert lines() == [
            "x.yml: wieght is not a known key; did you mean weight?; the last good version stays in force"
        ]
        get_configs()
    assert len(caplog.records) == 1
    assert "CANARY" not in caplog.text
    write("x.yml", GROQ.format("fixed"), age=40)
    assert key_of("x") == "fixed"
    assert lines() == []


@pytest.mark.parametrize("partial", ["", "llm_config", GROQ.format(CANARY)[:40]])
def test_i3_half_a_file_does_not_lose_the_last_good_one(write, partial):
    """A file that is looked at while it is being written is as if it were not written yet."""
    write("x.yml", GROQ.format("old"), age=60)
    get_configs()
    write("x.yml", partial, age=50)
    assert key_of("x") == "old"
    assert lines()
    assert all("the last good version stays in force" in line for line in lines())


def test_i3_a_file_written_while_it_is_read_is_not_taken(write, monkeypatch, caplog):
    """Bytes of two versions never make one config."""
    write("x.yml", GROQ.format("old"), age=60)
    get_configs()
    write("x.yml", GROQ.format("new"), age=50)
    real = os.read

    def read_slowly(descriptor, size):
        monkeypatch.setattr(os, "read", real)
        write("x.yml", GROQ.format("newer"), age=40)
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", read_slowly)
    assert key_of("x") == "old"
    assert "was written while it was read" in caplog.text
    assert key_of("x") == "newer"


def test_i3_replacing_a_file_under_readers_never_shows_a_gap(write, folder):
    """While a file is replaced by rename, every reader in every thread finds one complete version of it."""
    write("x.yml", GROQ.format("key-0"))
    get_configs()
    seen, failures, stop = set(), [], threading.Event()

    def reader():
        while not stop.is_set():
            try:
                seen.add(key_of("x"))
            except LLMConfigsNotAvailable as error:
                failures.append(error)

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 30):
        new = folder / ".new"
        new.write_text(GROQ.format(f"key-{number}"))
        new.replace(folder / "x.yml")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert seen <= {f"key-{number}" for number in range(30)}
    assert key_of("x") == "key-29"


def test_i2_one_bad_file_does_not_harm_the_others(write):
    """Each file stands alone; all problems of all files are told at once."""
    write("good.yml")
    write("syntax.yml", f"api_key: [{CANARY}")
    write("class.yml", "llm_config_class: Nope\n")
    write("missing.yml", "llm_config_class: GroqConfig\n")
    assert get_configs().names() == ["good"]
    assert sorted({problem.file for problem in get_configs().problems()}) == [
        "class.yml",
        "missing.yml",
        "syntax.yml",
    ]
    assert len(lines()) == 4
    assert "CANARY" not in "".join(lines()) + repr(get_configs()) + repr(get_configs().problems())


def test_e7_an_unknown_name_says_why(write):
    """Asking for a config that is gone or broken gives an error that says what to do."""
    write("bad.yml", "llm_config_class: Nope\n")
    with pytest.raises(LLMConfigsNotAvailable, match="'gone' is not loaded: no file of that name"):
        get_configs().get("gone")
    with pytest.raises(LLMConfigsNotAvailable, match=r"not loaded: bad\.yml: llm_config_class is not a known"):
        get_configs()["bad"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "x.yml", "", "x\0", "a" * 10_000, "..", "x/../x"])
def test_i4_a_name_is_never_a_path(write, name):
    """Names are looked up among what was loaded; they open no file."""
    write("x.yml")
    with pytest.raises(LLMConfigsNotAvailable) as caught:
        get_configs().get(name)
    assert len(str(caught.value)) < 300


def test_two_files_of_one_name(write):
    """Of x.yaml and x.yml one counts, always the same, and the other is a problem."""
    write("x.yml", "llm_config_class: DemoConfig\nweight: 1\n")
    write("x.yaml", "llm_config_class: DemoConfig\nweight: 2\n")
    assert get_configs().get("x").weight == 2
    assert lines() == ["x.yml: name is already used by the file with the other ending"]


def test_i2_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    """A link cannot make a file from elsewhere a config, nor show it in an error."""
    (tmp_path / "secret.yml").write_text("llm_config_class: DemoConfig\n")
    (folder / "secret.yml").symlink_to(tmp_path / "secret.yml")
    (folder / "nowhere.yml").symlink_to(folder / "missing.yml")
    assert get_configs().names() == []
    assert lines() == [
        "nowhere.yml is a link that leads nowhere",
        "secret.yml is a link to a place outside the folder",
    ]


def test_kubernetes_links_within_the_folder_work(folder):
    """A mounted secret is a chain of links inside the folder, switched as a whole."""

    def version(number: int, key: str) -> None:
        (folder / f"..v{number}").mkdir()
        (folder / f"..v{number}" / "x.yml").write_text(GROQ.format(key))
        (folder / "..new").symlink_to(f"..v{number}")
        (folder / "..new").replace(folder / "..data")

    version(1, "one")
    (folder / "x.yml").symlink_to("..data/x.yml")
    assert key_of("x") == "one"
    version(2, "two")
    assert key_of("x") == "two"
    assert lines() == []


def test_i2_what_is_no_regular_file_is_refused_at_once(folder):
    """A pipe would block every turn, and a directory has nothing to read."""
    os.mkfifo(folder / "pipe.yml")
    (folder / "dir.yml").mkdir()
    assert lines() == ["dir.yml is not a regular file", "pipe.yml is not a regular file"]


def test_i2_a_huge_file_is_not_read(folder):
    """100 MB in the folder cost a stat and nothing more."""
    with (folder / "big.yml").open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    assert lines() == ["big.yml is larger than 256 KiB"]


def test_i2_a_file_without_read_permission_is_a_problem(write, monkeypatch):
    """A file that the process may not open is named; it is no crash."""
    write("x.yml")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert lines() == ["x.yml cannot be read: Permission denied"]


def test_a_folder_that_is_away_keeps_its_configs(write, folder):
    """A mount that is gone for a moment takes no model away, and says so."""
    write("x.yml")
    get_configs()
    away = folder.with_name("away")
    folder.rename(away)
    assert get_configs().names() == ["x"]
    assert lines() == [
        "LLM_CONFIGS_PATH cannot be read: No such file or directory; the last good versions stay in force"
    ]
    away.rename(folder)
    assert lines() == []


def test_a_missing_folder_is_a_problem_without_its_path(settings, tmp_path):
    """An error that a visitor might see does not tell where files lie."""
    settings.LLM_CONFIGS_PATH = str(tmp_path / "nope")
    assert lines() == ["LLM_CONFIGS_PATH cannot be read: No such file or directory"]
    with pytest.raises(LLMConfigsNotAvailable) as caught:
        get_configs().get("x")
    assert str(tmp_path) not in str(caught.value)


def test_an_unset_folder_is_a_problem(settings):
    """Without LLM_CONFIGS_PATH there are no configs, and the reason is told."""
    settings.LLM_CONFIGS_PATH = None
    assert lines() == ["LLM_CONFIGS_PATH is not set"]


def test_a_change_of_the_environment_is_not_watched(write, monkeypatch):
    """References are filled when a file is loaded; a file that was only touched is the same version."""
    monkeypatch.setenv("LLM_TEST_KEY", "one")
    path = write("x.yml", GROQ.format("${LLM_TEST_KEY}"), age=60)
    assert key_of("x") == "one"
    monkeypatch.setenv("LLM_TEST_KEY", "two")
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 5))
    assert key_of("x") == "one"


@pytest.mark.parametrize("path", ["llm_configs", "tests/llm_configs"])
def test_the_shipped_files_load(settings, request, path):
    """The demo's and the tests' own configs have no problem and need no key."""
    settings.LLM_CONFIGS_PATH = request.config.rootpath / path
    assert lines() == []
    assert all(get_configs()[name].model().startswith("demo/") for name in get_configs())
    assert len(get_configs()) >= 2

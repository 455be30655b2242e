"""What the package costs before it is used."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_manage_py_imports_neither_litellm_nor_openai(tmp_path):
    """`manage.py check` stays quick: the LLM client is loaded at the first call, not before."""
    script = (
        "import sys; sys.argv = ['manage.py', 'check']; import manage, os\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'example.settings'\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
        "heavy = {'litellm', 'openai', 'pydantic_monty', 'tiktoken'} & set(sys.modules)\n"
        "print('loaded:', sorted(heavy))\n"
    )
    environment = {
        **os.environ,
        "SQLITE_PATH": str(tmp_path / "db.sqlite3"),
        "CACHE_PATH": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout

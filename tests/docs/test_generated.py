"""What the documentation takes from the code is what the code says today."""

import os
import subprocess
import sys
from pathlib import Path

import dalsegno
from tests.docs.pages import DOCS, ROOT


def test_the_generated_parts_of_the_documentation_are_up_to_date() -> None:
    """The reference, the state diagram, the crash table and the streams' examples follow the code. Else: run it."""
    source = str(Path(dalsegno.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"run `python docs/generate.py`\n{done.stdout}{done.stderr}"

"""Files of `examples/`, as blocks that a reader saves."""

from pathlib import Path


def saved(file: Path) -> str:
    """The file as a block under its own name; the marker is for the test that saves it."""
    return f"<!-- file: {file.name} -->\n```python\n{file.read_text('utf-8')}```\n"

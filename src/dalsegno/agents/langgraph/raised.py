"""What a tool raised, on record: the framework's handlers choose by its class, so it is raised again as what it was."""

import sys

from dalsegno.core.json import JsonObject
from dalsegno.errors import DalsegnoError

RAISED = "raised"


class ToolFailed(DalsegnoError):
    """A tool raised before the crash, something that cannot be made again from the record."""


def raised_details(error: Exception) -> JsonObject:
    """The details of the output of a call that raised."""
    kind = type(error)
    arguments = [value for value in error.args if isinstance(value, str | int | float | bool)]
    return {RAISED: [kind.__module__, kind.__qualname__, str(error), *arguments]}


def raised_again(item: JsonObject) -> None:
    """Raise what the call of this output raised; nothing if it returned."""
    details = item.get("details")
    found = details.get(RAISED) if isinstance(details, dict) else None
    if not isinstance(found, list):
        return
    module, name, text, *arguments = found
    kind = getattr(sys.modules.get(str(module)), str(name), None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind(*arguments)
        except (TypeError, ValueError, LookupError, AttributeError):
            error = ToolFailed(str(text))
        if str(error) == text:
            raise error
    raise ToolFailed(str(text))

"""What a show needs around it: an agent that writes down what its model is shown, or one with a real client."""

from collections.abc import Mapping
from pathlib import Path

from dalsegno.testing.fleet import Fleet
from tests.acceptance.retail.asked import ModelLog
from tests.acceptance.retail.killer import Heard
from tests.acceptance.retail.play import Stage

DATA = "RETAIL_DATA"
WITNESS = "RETAIL_WITNESS"


def witnessed(data: Path, folder: Path) -> Stage:
    """The plain function of `agent.py`, which writes a line for each question to its model into a file of `folder`."""
    folder.mkdir()

    def heard(fleet: Fleet) -> Heard:
        def lines() -> Mapping[str, int]:
            files = {replica.name: folder / f"{replica.pid}.ndjson" for replica in fleet if replica.serving}
            return {name: file.stat().st_size for name, file in files.items() if file.exists()}

        return lines

    return Stage({DATA: str(data), WITNESS: str(folder)}, lambda name: {}, heard)


def scripted(url: str, log: ModelLog) -> Stage:
    """An agent of a framework, whose provider client asks the scripted model server at `url`.

    Each replica calls itself a project of its own, so that the server's log says who has asked.
    """
    variables = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "none", "RETAIL_MODEL": "scripted"}
    return Stage(variables, lambda name: {"OPENAI_PROJECT_ID": name}, lambda fleet: log.counted)

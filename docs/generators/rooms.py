"""Who may import whom, from the contract that `make lint` checks."""

import configparser
from pathlib import Path

CONTRACT = "importlinter:contract:rooms"


def picture(file: Path) -> str:
    """The rooms from top to bottom; a room imports only rooms below it."""
    contracts = configparser.ConfigParser()
    contracts.read_string(file.read_text("utf-8"))
    layers = contracts[CONTRACT]["layers"].strip().splitlines()
    rows = [" | ".join(name.strip(" ()") for name in layer.split("|")) for layer in layers]
    return "```text\n" + "\n  │\n".join(rows) + "\n```\n"

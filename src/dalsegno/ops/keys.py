"""API keys as an operator writes them. Values in, values out, but for `@FILE`, which is read."""

from pathlib import Path
from typing import TypeAlias

from dalsegno.errors import ConfigError

Pairs: TypeAlias = tuple[tuple[str, str], ...]


def read_keys(text: str) -> Pairs:
    """Pairs of key and tenant. The key is all before the last colon, so that it may be `sha256:<hex>`."""
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text("utf-8").splitlines()
        except OSError as error:
            raise ConfigError(f"{text[1:]} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{text[1:]} is not UTF-8") from None
        entries = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    else:
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    tenants: dict[str, str] = {}
    for number, (key, _, tenant) in enumerate((entry.rpartition(":") for entry in entries), 1):
        if not key or not tenant:
            raise ConfigError(f"entry {number} is not KEY:TENANT")
        if tenants.setdefault(key, tenant) != tenant:
            raise ConfigError(f"entry {number} has the key of an earlier one, and another tenant")
    if not tenants:
        raise ConfigError("there is no key in it")
    return tuple(tenants.items())

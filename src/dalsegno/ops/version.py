"""The release's number, once: the package's `__version__`, `/metrics` and the OpenAPI document read it from here."""

VERSION = "0.1.0"

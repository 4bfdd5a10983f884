"""Credentials: which tenant a request speaks for. Keys are kept as SHA-256 and compared in constant time.

The tenant comes from the key and from nothing else: no path, body or header can name another one.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable

from dalsegno.errors import ConfigError, Refused

DEFAULT_TENANT = "default"
DIGEST_PREFIX = "sha256:"
_PREFIX_BYTES = 4
_HEX = re.compile(r"[0-9a-f]{64}")


class Keys:
    """API keys and their tenants: pairs of key, or `sha256:<hex digest of the key>`, and tenant.

    Without any key, everybody is tenant `default`; who may listen where in that case is decided by `ops`.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._tenants: dict[bytes, list[tuple[bytes, str]]] = {}
        for key, tenant in pairs:
            if not key or not tenant:
                raise ConfigError("an API key and its tenant are not empty")
            digest = _digest_of(key)
            self._tenants.setdefault(digest[:_PREFIX_BYTES], []).append((digest, tenant))

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def tenant(self, authorization: bytes | None, api_key: bytes | None) -> str:
        """Whose request it is, from `Authorization: Bearer` or `X-API-Key`. Raises `Refused("unauthorized")`."""
        if not self._tenants:
            return DEFAULT_TENANT
        presented = _presented(authorization, api_key)
        digest = hashlib.sha256(presented).digest()
        found = ""
        # Which keys share a prefix is learnt from a hash, not from the key: it tells a guesser nothing.
        for known, tenant in self._tenants.get(digest[:_PREFIX_BYTES], [(b"\0" * 32, "")]):
            if hmac.compare_digest(known, digest):
                found = tenant
        if not found:
            raise Refused("unauthorized", "the API key is not known")
        return found


def _presented(authorization: bytes | None, api_key: bytes | None) -> bytes:
    bearer = None
    if authorization is not None:
        scheme, _, bearer = authorization.partition(b" ")
        bearer = bearer.strip()
        if scheme.lower() != b"bearer" or not bearer:
            raise Refused("unauthorized", "the Authorization header is not `Bearer <API key>`")
    if bearer is not None and api_key is not None and not hmac.compare_digest(bearer, api_key):
        raise Refused("unauthorized", "the request carries two different API keys")
    presented = bearer or api_key
    if not presented:
        raise Refused("unauthorized", "send an API key as `Authorization: Bearer` or `X-API-Key`")
    return presented


def _digest_of(key: str) -> bytes:
    if not key.startswith(DIGEST_PREFIX):
        return hashlib.sha256(key.encode()).digest()
    digest = key.removeprefix(DIGEST_PREFIX).lower()
    if not _HEX.fullmatch(digest):
        raise ConfigError("`sha256:` is followed by 64 hexadecimal digits")
    return bytes.fromhex(digest)

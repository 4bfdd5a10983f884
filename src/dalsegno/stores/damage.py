"""What a store says of a session that cannot be read while it is walking past many."""

from dalsegno.errors import Damaged, Shelved
from dalsegno.ports import Ref


def named(ref: Ref, error: Exception) -> Damaged | Shelved:
    """The error as one that names its session, so that whoever walks can go on behind it."""
    return error if isinstance(error, Shelved) else Damaged(ref.tenant, ref.id, str(error))

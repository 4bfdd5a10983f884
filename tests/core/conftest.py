"""Laws are checked on the same examples each time; `--hypothesis-profile=explore` looks further."""

from hypothesis import settings

settings.register_profile("laws", deadline=None, derandomize=True, database=None, max_examples=200)
settings.register_profile("explore", deadline=None, database=None, max_examples=5000, print_blob=True)
settings.load_profile("laws")

"""Tests that share what is costly, or that measure time, run one after another on one worker: their mark says so."""

import pytest


@pytest.mark.xdist_group("here")
def test_tests_of_a_group_run_on_one_worker(request: pytest.FixtureRequest):
    """pytest-xdist groups tests by the names that it gives them. With a pytest that it does not know it gives none, and
    says nothing: every fixture is made on every worker, and fleets get in each other's way.
    """
    spread = request.config.getoption("loadgroup", default=False)
    assert not spread or request.node.nodeid.endswith("@here"), f"no groups with pytest {pytest.__version__}"

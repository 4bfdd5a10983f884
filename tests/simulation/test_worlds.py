"""Simulated worlds: three replicas, a few people and at least five faults each; every promise holds in every one of
them.

`RELEASE_SIZES=1` looks at as many as a release needs, `WORLDS=n` at as many as you like; `FIRST=n` begins elsewhere. A
world that fails is lived through again, with its trace, by `python -m dalsegno.testing.world --seed N`.
"""

import os
import subprocess
import sys
from collections import Counter

import pytest

from dalsegno.testing.world.errands import DONE
from dalsegno.testing.world.trouble import FAULTS_LEAST, KINDS
from dalsegno.testing.world.weather import CRASH_POINTS
from dalsegno.testing.world.world import Verdict, comings_and_goings, run_seed
from tests.acceptance.sizes import size
from tests.simulation.small import make_much_of_little

CHUNKS = 2
WORLDS = int(os.environ.get("WORLDS") or size(2_000, 100_000))
FIRST = int(os.environ.get("FIRST", "0"))


@pytest.mark.timeout(max(240, WORLDS // CHUNKS // 2))
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_promise_holds_in_every_world(chunk: int):
    """Nothing is lost, doubled, torn or stuck in any world, and every kind of fault and every place to crash occurred.

    A fault that never happens proves nothing.
    """
    happened, crashed, done = Counter[str](), Counter[str](), Counter[str]()
    failures: list[str] = []
    size = WORLDS // CHUNKS
    for seed in range(FIRST + chunk * size, FIRST + (chunk + 1) * size):
        verdict = run_seed(seed)
        happened += verdict.happened
        crashed += verdict.crashed
        done += verdict.done
        failures += _problems(verdict)
    assert not failures, "\n".join(failures[:30])
    assert sorted(set(KINDS) - set(happened)) == [], "faults that never happened"
    assert min(done[errand] for errand in DONE) > size // 20, f"nobody deletes, forks or copies sessions: {done}"
    assert sorted(CRASH_POINTS - set(crashed)) == [], "places where nothing ever crashed"


def _problems(verdict: Verdict) -> list[str]:
    command = f"python -m dalsegno.testing.world --seed {verdict.seed}"
    problems = [f"{command}: {text}" for text in verdict.broken]
    if sum(verdict.happened.values()) < FAULTS_LEAST:
        problems.append(f"{command}: only {sum(verdict.happened.values())} faults")
    if verdict.completed == 0 or verdict.messages == 0:
        problems.append(f"{command}: nothing was ever completed; a world in which all fails breaks no promise")
    return problems


@pytest.mark.timeout(max(240, WORLDS // 2))
def test_every_promise_holds_where_sessions_come_and_go(monkeypatch: pytest.MonkeyPatch):
    """P1, P8 and P9 also where sessions are archived and swept all the time, by replicas that die while they do so, and
    where a few words are a large text; P9 and P11 where they are deleted and copied meanwhile.
    """
    make_much_of_little(monkeypatch)
    done = Counter[str]()
    failures: list[str] = []
    for seed in range(FIRST, FIRST + WORLDS // 10):
        verdict = run_seed(seed, comings_and_goings)
        failures += _problems(verdict)
        done += verdict.done
    assert not failures, "\n".join(failures[:30])
    assert min(done["archived"], done["came back"]) > WORLDS // 10
    assert min(done[errand] for errand in DONE) > WORLDS // 200, f"nobody deletes, forks or copies sessions: {done}"


HASHES = """
import sys
from dalsegno.testing.world.world import run_seed
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    print(seed, run_seed(seed).trace)
"""


def _traces(*, hash_seed: str, first: int, last: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", HASHES, str(first), str(last)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_seed_is_a_world():
    """The same seed is the same world to the last step, in another process, with another hash seed, whatever ran
    before.
    """
    together = _traces(hash_seed="1", first=40, last=60)
    assert together == _traces(hash_seed="2", first=40, last=60)
    assert together.splitlines()[7:9] == _traces(hash_seed="3", first=47, last=49).splitlines()
    assert len(set(together.split()[1::2])) == 20

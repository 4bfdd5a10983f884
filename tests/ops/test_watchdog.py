"""A loop that stands still ends its process; one that is busy, or a process that was stopped, does not."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from dalsegno.ops.watchdog import EXIT_CODE, Watchdog
from tests.support import wait_until

LIMIT = timedelta(milliseconds=300)


@pytest.mark.parametrize(("blocked", "ends"), [(20, True), (0.1, False)])
async def test_a_loop_that_stands_still_is_noticed(blocked: float, ends: bool):
    """From another thread, while it stands; a shorter block is none of its business."""
    ended = threading.Event()
    dog = Watchdog(limit=LIMIT, end=ended.set)
    dog.start()
    await asyncio.sleep(0)
    assert ended.wait(blocked) is ends  # the thread of the loop waits, as an agent does that blocks it
    dog.stop()
    assert not dog._thread.is_alive(), "it would look once more, at a loop that is closed"


STANDING = """
import asyncio, sys, time
from datetime import timedelta
from dalsegno.ops.watchdog import Watchdog

async def main():
    Watchdog(limit=timedelta(seconds=1)).start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    def agent_that_blocks():
        time.sleep(60)
    agent_that_blocks()

asyncio.run(main())
"""


async def test_the_process_ends_and_says_where_it_stood():
    """A process that was stopped for longer has not stood still; one that then blocks its loop ends, and its log names
    the function.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", STANDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(1.5)  # the time that it was stopped for
    os.kill(process.pid, signal.SIGCONT)
    await asyncio.sleep(0.3)  # as long as it would take to end by mistake
    assert process.poll() is None
    process.stdin.write(b"\n")
    process.stdin.flush()
    await wait_until(lambda: process.poll() is not None, description="it has ended")
    _, log = process.communicate()
    assert process.returncode == EXIT_CODE
    assert b"agent_that_blocks" in log

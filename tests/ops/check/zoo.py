"""Agents that keep something in their process, one habit each; and agents that keep nothing that anybody can see."""

HIDDEN: dict[str, tuple[str, str]] = {
    "a list of messages": (
        "agent.HISTORY",
        """
        HISTORY = []

        async def answer(turn):
            HISTORY.append(turn.text)

            async def model(context):
                yield f"I have heard {HISTORY}"

            await turn.generate(model)
        """,
    ),
    "a counter": (
        "agent.count",
        """
        count = 0

        async def answer(turn):
            global count
            count += 1
            await turn.say(f"message number {count}")
        """,
    ),
    "a cache of user data": (
        "agent.remembered",
        """
        from functools import lru_cache

        @lru_cache
        def remembered(user):
            return []

        async def answer(turn):
            remembered("ada").append(turn.text)
            await turn.say(f"so far: {remembered('ada')}")
        """,
    ),
    "a dictionary by session": (
        "agent.MEMORY",
        """
        MEMORY = {}

        async def answer(turn):
            MEMORY.setdefault(turn.session, []).append(turn.text)
            await turn.say(f"so far: {MEMORY[turn.session]}")
        """,
    ),
    "a file in the working directory": (
        "notes.txt",
        """
        from pathlib import Path

        NOTES = Path(__file__).with_name("notes.txt")

        async def answer(turn):
            before = NOTES.read_text() if NOTES.exists() else ""
            with open("notes.txt", "a") as notes:
                notes.write(turn.text)
            await turn.say(f"noted after: {before}")
        """,
    ),
    "a temporary file": (
        "last-message",
        """
        import tempfile
        from pathlib import Path

        LAST = Path(tempfile.gettempdir()) / "last-message"

        async def answer(turn):
            before = LAST.read_text() if LAST.exists() else ""
            LAST.write_text(turn.text)
            await turn.say(f"before: {before}")
        """,
    ),
    "a variable of the environment": (
        "LAST_MESSAGE",
        """
        import os

        async def answer(turn):
            before = os.environ.get("LAST_MESSAGE", "")
            os.environ["LAST_MESSAGE"] = turn.text
            await turn.say(f"before: {before}")
        """,
    ),
    "a default that changes": (
        "agent.remember(seen=…)",
        """
        def remember(text, seen=[]):
            seen.append(text)
            return seen

        async def answer(turn):
            await turn.say(f"so far: {remember(turn.text)}")
        """,
    ),
    "an attribute of a class": (
        "agent.Shop.last",
        """
        class Shop:
            last = None

        async def answer(turn):
            before, Shop.last = Shop.last, turn.text
            await turn.say(f"before: {before}")
        """,
    ),
    "an object that a closure holds": (
        "agent.answer.<locals>.history",
        """
        def make():
            history = []

            async def answer(turn):
                history.append(turn.text)
                await turn.say(f"so far: {history}")

            return answer

        answer = make()
        """,
    ),
    "what one step leaves for the next": (
        "agent.PRICES",
        """
        PRICES = {}

        async def load():
            PRICES["tea"] = 5

        async def answer(turn):
            await turn.step("load", load)
            await turn.say(f"tea costs {PRICES['tea']}")
        """,
    ),
    "a database in memory": (
        "agent.ORDERS",
        """
        from dalsegno import tool

        ORDERS = {"1": "open"}

        @tool("read")
        async def look(order: str) -> str:
            return ORDERS[order]

        @tool("once")
        async def cancel(order: str) -> str:
            ORDERS[order] = "cancelled"
            return "done"

        async def answer(turn):
            await turn.call(cancel, order="1")
            await turn.say(await turn.call(look, order="1"))
        """,
    ),
}
"""What it is → the name that has to be found, and the module `agent`."""

PATHS: dict[str, tuple[str, str]] = {
    "a path that is drawn": (
        "on record, and not asked for",
        """
        import random

        async def left(): ...
        async def right(): ...

        async def answer(turn):
            way = random.choice([left, right])
            await turn.step(way.__name__, way)
            await turn.say("there")
        """,
    ),
    "a clock in the name of a step": (
        "fetch 2",
        """
        from datetime import datetime

        async def fetch(): ...

        async def answer(turn):
            await turn.step(f"fetch {datetime.now().isoformat()}", fetch)
            await turn.say("fetched")
        """,
    ),
    "the order of a set": (
        "look ",
        """
        async def look(): ...

        async def answer(turn):
            for place in list({"rome", "bern", "oslo", "kyiv", "riga", "wien"})[:2]:
                await turn.step(f"look {place}", look)
            await turn.say("looked")
        """,
    ),
}
"""What decides → what is named, and the module."""

LEFT: dict[str, tuple[str, str]] = {
    "task": (
        "index",
        """
        import asyncio

        tasks = set()

        async def index():
            await asyncio.sleep(3600)

        async def answer(turn):
            tasks.add(asyncio.create_task(index()))
            await turn.say("indexed")
        """,
    ),
    "thread": (
        "index",
        """
        import threading

        def index():
            threading.Event().wait(3600)

        async def answer(turn):
            threading.Thread(target=index).start()
            await turn.say("indexed")
        """,
    ),
}

CLEAN: dict[str, str] = {
    "a loop that counts, logs and caches": """
        import asyncio, functools, logging, re, tempfile
        from dalsegno import ToolCall, Usage, tool

        log, asked, client, done = logging.getLogger(__name__), 0, None, []

        @functools.lru_cache
        def compiled(pattern):
            return re.compile(pattern)

        @tool("read")
        async def weather(city: str) -> str:
            return f"dry in {city}"

        async def model(context):
            global asked, client
            asked, client = asked + 1, client or object()
            compiled("x+")
            with open("asked.log", "a") as file:
                file.write("once more")
            last = context.items[-1]
            if last["type"] == "function_call_output":
                yield f"It is {last['output']}."
            else:
                yield ToolCall("weather", {"city": "Bologna"})
            yield Usage({"output_tokens": 5})

        async def answer(turn):
            log.warning("answering")
            while (reply := await turn.generate(model, tools=(weather,))).calls:
                await turn.perform(reply)
            await asyncio.create_task(asyncio.sleep(0))
    """,
    "chance in a step": """
        import random

        async def roll():
            return random.randint(1, 6)

        async def answer(turn):
            await turn.say(f"You rolled {await turn.step('roll', roll)}")
    """,
    "a human who is asked": """
        from dalsegno import ToolCall, tool

        @tool("once", gate="approval")
        async def refund(amount: int) -> str:
            return f"refunded {amount}"

        async def model(context):
            last = context.items[-1]
            yield "so be it" if last["type"] == "function_call_output" else ToolCall("refund", {"amount": 5})

        async def answer(turn):
            while (reply := await turn.generate(model, tools=(refund,))).calls:
                await turn.perform(reply)
    """,
}

"""A scripted model: speaks the wire formats of OpenAI and Anthropic over real HTTP, fails on purpose, refuses what
real providers refuse, and logs every context that it was shown. Needs no provider's library.
"""

from dalsegno.core.part import Thought, ToolCall, Usage
from dalsegno.testing.model.answer import Answer, Pace
from dalsegno.testing.model.faults import Die, Fail, Garble, Hold, To
from dalsegno.testing.model.log import Entry, Log
from dalsegno.testing.model.scripts import Script, at_pace, by_round, by_turn, by_words, echo
from dalsegno.testing.model.server import ModelServer
from dalsegno.testing.model.shown import Asked, Message, Offered, Shown

__all__ = ["Answer", "Asked", "Die", "Entry", "Fail", "Garble", "Hold", "Log", "Message", "ModelServer", "Offered"]
__all__ += ["Pace", "Script", "Shown", "Thought", "To", "ToolCall", "Usage"]
__all__ += ["at_pace", "by_round", "by_turn", "by_words", "echo"]

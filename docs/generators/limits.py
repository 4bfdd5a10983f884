"""The reference of limits: every bound, read from where it is enforced (law 12)."""

from dalsegno.agents.langgraph import readings
from dalsegno.core import bring, check, claim, frozen, item, json, saga, stretch, tier
from dalsegno.http import call, gate, server
from dalsegno.ops import watchdog
from dalsegno.ops.config import Config
from dalsegno.ops.units import format_duration, format_size
from dalsegno.runtime import blame, contexts, feed, near, notes, play, turn
from dalsegno.runtime import saga as undoing
from dalsegno.runtime.replica import Tuning
from dalsegno.stores.memory import entries
from dalsegno.wire import requests
from generators.markdown import table

DEFAULTS, LIMITS, TUNING = Config(), gate.Limits(), Tuning()


def page() -> str:
    """The whole page."""
    return (
        "# Limits\n\nEverything is bounded. Over a bound is a documented answer, never a crash.\n"
        "“Setting” is the option of `dalsegno serve`; where there is none, the bound is fixed.\n\n"
        "## Requests\n\n"
        + _rows(_requests())
        + "\n## Turns\n\n"
        + _rows(_turns())
        + "\n## Streams\n\n"
        + _rows(_streams())
    )


def _rows(rows: list[tuple[str, str, str, str]]) -> str:
    return table(("what", "bound", "setting", "over it"), rows)


def _requests() -> list[tuple[str, str, str, str]]:
    return [
        ("a request's body", format_size(DEFAULTS.max_body), "`--max-body`", "`too_large`"),
        ("an import", format_size(DEFAULTS.max_import), "`--max-import`", "`too_large`"),
        ("a line of an import", format_size(LIMITS.import_line), "", "`too_large`"),
        ("a request's head", format_size(server.HEADER_BYTES_MAX), "", "400, the connection is closed"),
        ("time for a request's head", format_duration(server.Bearing().header_time), "", "the connection is closed"),
        ("time for a request's body", format_duration(LIMITS.body_time), "", "`invalid_request`"),
        ("requests at once, per replica", str(DEFAULTS.max_requests), "`--max-requests`", "`overloaded`"),
        ("nesting of JSON", f"{json.DEPTH_MAX} levels", "", "`too_deep`"),
        ("metadata of a session", format_size(requests.METADATA_BYTES_MAX), "", "`invalid_request`"),
        ("an idempotency key", f"{requests.KEY_MAX} printable ASCII characters", "", "`invalid_request`"),
        ("names and call ids in items", f"{check.NAME_MAX} characters", "", "`invalid_request`"),
        ("items of one append from outside", str(bring.ITEMS_MAX), "", "`too_large`"),
        ("their JSON", format_size(bring.BYTES_MAX), "", "`too_large`"),
        ("calls brought in that wait for a result", str(stretch.WAITING_MAX), "", "`invalid_request`"),
        ("query parameters", str(requests.PARAMETERS_MAX), "", "`invalid_request`"),
        ("a page", f"{requests.LIMIT} by default, {requests.LIMIT_MAX} at most", "`limit`", "`invalid_request`"),
        ("a long poll", f"{requests.WAIT_SECONDS_MAX} s", "`wait`", "`invalid_request`"),
        ("a refused body that is read on", format_size(call.DISCARD_BYTES_MAX), "", "the connection is closed"),
    ]


def _turns() -> list[tuple[str, str, str, str]]:
    return [
        (
            "turns at once, per replica",
            str(DEFAULTS.max_turns),
            "`--max-turns`",
            "the turn waits for a replica with room",
        ),
        ("open turns of a session", str(DEFAULTS.max_queue), "`--max-queue`", "`queue_full`"),
        ("attempts that end in a replica's death", str(claim.ATTEMPTS_MAX), "", "the turn fails as `poisoned`"),
        ("deaths while a turn is undone", str(saga.UNDONE_BY_MAX), "", "what is left is `not_undone`"),
        ("time to hear which tools can undo", f"{undoing.REHEARSAL_SECONDS:g} s", "", "what is left is `not_undone`"),
        ("an event loop that stands still", format_duration(watchdog.STANDSTILL), "", "the process ends; others go on"),
        ("a cancelled agent that does not stop", f"{play.CANCELS * play.LEAVING_SECONDS:g} s", "", "is left behind"),
        (
            "a turn in one go",
            format_duration(DEFAULTS.turn_timeout),
            "`--turn-timeout`",
            "the turn fails as `deadline_exceeded`",
        ),
        (
            "log behind the context",
            format_size(turn.CONTEXT_LIMIT_BYTES),
            "`--max-context`",
            "old turns give way to a note that names them",
        ),
        ("a text in the log", format_size(tier.INLINE_MAX), "`--max-inline`", "becomes an artifact"),
        ("a record of LangGraph's checkpoints", format_size(notes.NOTE_BYTES_MAX), "", "the turn fails as `too_large`"),
        ("the preview of an artifact", f"{tier.PREVIEW_CHARS} characters", "", "ends there"),
        ("message of a turn's error", f"{blame.ERROR_CHARS} characters", "", "is cut"),
        ("transcripts kept by a process", format_size(contexts.BUDGET_BYTES), "", "the least recently used goes"),
        ("threads kept by a served LangGraph graph", format_size(readings.BUDGET_BYTES), "", "the same"),
        ("a context or a tool's result in the hot tier", format_size(entries.ENTRY_BYTES_MAX), "", "is not kept there"),
        ("a context in the hot tier", format_duration(frozen.CONTEXT_KEPT), "", "is read from the log again"),
        ("what is on its way there, per replica", str(near.PUTS_MAX), "", "is not kept there"),
        (
            "a leaving replica's wait for its turns",
            format_duration(DEFAULTS.drain_timeout),
            "`--drain-timeout`",
            "a cut-off",
        ),
    ]


def _streams() -> list[tuple[str, str, str, str]]:
    return [
        ("open streams, per replica", str(DEFAULTS.max_streams), "`--max-streams`", "`overloaded`"),
        (
            "open streams of a tenant, per replica",
            str(DEFAULTS.max_streams_per_tenant),
            "`--max-streams-per-tenant`",
            "`rate_limited`",
        ),
        ("silence in a stream", format_duration(LIMITS.heartbeat), "", "a comment is sent"),
        (
            "a reader that takes nothing",
            format_duration(LIMITS.slow_reader),
            "",
            "is disconnected; it resumes by cursor",
        ),
        ("events kept for a session's readers", str(feed.RING_EVENTS), "", "older ones are read from the log"),
        ("fields that deltas fill", ", ".join(sorted(set(item.FIELD_OF.values()))), "", ""),
        ("look for work without a hint", format_duration(TUNING.claim_every), "`--poll-interval`", ""),
        ("look for dead replicas", format_duration(TUNING.bury_every), "", ""),
        ("look at followed sessions without a hint", format_duration(TUNING.sweep_every), "", ""),
        ("look for deletions that were interrupted", format_duration(TUNING.erase_every), "", ""),
    ]

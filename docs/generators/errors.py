"""The reference of errors: the table of `http.problems`, with a sentence for each code."""

from dalsegno.http.problems import FINAL, RETRY_AFTER_SECONDS, STATUS, problem, problem_bytes
from dalsegno.http.routes import ROUTES
from generators.markdown import table

SENTENCES = {
    "invalid_request": "A field, header or parameter is missing, unknown or does not fit; `detail` names it.",
    "invalid_json": "No JSON that the contract allows: NaN, a duplicate key, a number that no double holds.",
    "invalid_unicode": "The body or query is not UTF-8, or holds a lone surrogate.",
    "invalid_cursor": "`after` or `Last-Event-ID` is not the `id` of an event as it was received.",
    "cursor_ahead": "The cursor is past the session's head: it belongs to another session.",
    "too_deep": "The JSON is nested more than 64 levels deep.",
    "unauthorized": "The API key is missing or not known.",
    "forbidden": "A page of another origin tried to open a WebSocket.",
    "not_found": "It does not exist, or it is another tenant's; the answer is the same.",
    "method_not_allowed": "The path exists and the method does not; `allow` lists those that do.",
    "session_busy": "A turn is open, and the message said `on_busy: reject`. Wait, or choose another `on_busy`.",
    "session_exists": "The chosen session id exists or existed. Choose another.",
    "no_such_action": "Nothing waits for that `call_id`, or no turn is open to cancel.",
    "already_decided": "The action was answered, or the turn has ended.",
    "version_mismatch": "`If-Match` names another head. Read the session and decide again.",
    "too_large": "The body, a line of an import or a WebSocket frame is over its limit.",
    "unsupported_media_type": "The body is not sent as the media type that the route takes, or is compressed.",
    "range_not_satisfiable": "The artifact is shorter than the range begins.",
    "key_reused": "The idempotency key was used for another input; nothing was changed.",
    "rate_limited": "The tenant has as many streams open as it may on this replica.",
    "queue_full": "As many turns are open in the session as may be. Wait for one to end.",
    "internal": "An error of the server's own; `reference` finds it in the server's log.",
    "unreadable": "Stored state is damaged or from a newer version. An operator has to look; `reference` finds it.",
    "overloaded": "The replica is at one of its bounds. Try again, perhaps on another replica.",
    "draining": "The replica is going away. Try again; the load balancer knows another one.",
    "store_unavailable": "The log's database does not answer. Try again with the same key.",
}

TURN_ERRORS = {
    "poisoned": "Three attempts ended in the death of their replica. The session is usable.",
    "deadline_exceeded": "The turn ran longer than `--turn-timeout` in one go.",
    "no_agent": "The session names an agent that the replica which ran it does not serve.",
    "unreadable": "The turn's log could not be understood.",
    "any other": "The agent raised: the exception's `code` if it has one, else the name of its class.",
}


def page() -> str:
    """The whole page."""
    rows = [
        (f"`{code}`", str(status), SENTENCES[code], _again(code), ", ".join(_where(code)))
        for code, status in STATUS.items()
    ]
    example = problem_bytes(
        problem("session_busy", "a turn is open; wait for its end, or send another `on_busy`")
    ).decode()
    turns = [(f"`{code}`" if code != "any other" else code, says) for code, says in TURN_ERRORS.items()]
    return (
        "# Errors\n\n"
        "An error is RFC 9457 `application/problem+json`. `code` is for programs, `detail` for people,\n"
        "and `outcome` says what is known: `not_applied` means that nothing was changed,\n"
        "`unknown` that it may have been, and that the same request with the same idempotency key resolves it.\n\n"
        f"```json\n{example}\n```\n\n"
        "“Retry” is the number of seconds in `Retry-After`; “never” is `x-should-retry: false`,\n"
        "which keeps common clients from repeating a 409 by themselves.\n\n"
        + table(("code", "status", "says", "retry", "routes"), rows)
        + "\nEvery route under `/v1` also knows the codes that are marked “everywhere”.\n\n"
        "## Errors of turns\n\n"
        "A turn that fails was accepted, so it is no HTTP error: `turn.failed` carries `error {code, message}`.\n\n"
        + table(("code", "says"), turns)
    )


def _again(code: str) -> str:
    return f"{RETRY_AFTER_SECONDS[code]} s" if code in RETRY_AFTER_SECONDS else "never" if code in FINAL else ""


def _where(code: str) -> list[str]:
    private = [route for route in ROUTES if route.private]
    found = [f"`{route.operation.name}`" for route in private if code in route.operation.errors]
    return ["everywhere"] if len(found) == len(private) else found

"""This room's figures for Prometheus, in a registry that is handed in: nothing is counted in a module."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dalsegno.http.gate import Gate


class Metrics:
    """Requests, and streams with how they ended."""

    def __init__(self, registry: CollectorRegistry, gate: Gate) -> None:
        self.registry = registry
        self.requests = Counter("dalsegno_http_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "dalsegno_http_request_seconds", "Time to an answer or to a stream's start", ["route"], registry=registry
        )
        self.cut = Counter("dalsegno_http_streams_cut", "Streams that did not end cleanly", ["why"], registry=registry)
        self.sent = Counter("dalsegno_http_stream_events", "Events sent to streams that have ended", registry=registry)
        open_streams = Gauge("dalsegno_http_streams_open", "Streams that are open now", registry=registry)
        open_streams.set_function(lambda: gate.streams)

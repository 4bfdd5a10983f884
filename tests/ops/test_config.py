"""Configuration: options over environment over defaults; every error names its place; secrets stay secret."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from dalsegno.errors import ConfigError
from dalsegno.ops.config import Config, Reach, Setting, redacted, resolve, settings, shown
from dalsegno.ops.guard import is_loopback, refuse_lost_payloads, refuse_open_door, refuse_split_fleet

SAMPLES: dict[str, tuple[str, Any]] = {
    "agent_name": ("support", "support"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "own_port": ("9000", 9000),
    "replicas": ("3", 3),
    "replica_id": ("web-0", "web-0"),
    "warm": ("sqlite:///x.db", "sqlite:///x.db"),
    "hot": ("memory:", "memory:"),
    "cold": ("file:///x", "file:///x"),
    "lease_ttl": ("700ms", timedelta(milliseconds=700)),
    "api_keys": ("k1:acme,sha256:ab:other", (("k1", "acme"), ("sha256:ab", "other"))),
    "insecure": ("true", True),
    "settling": ("true", True),
    "drain_timeout": ("3s", timedelta(seconds=3)),
    "turn_timeout": ("2m", timedelta(minutes=2)),
    "max_turns": ("5", 5),
    "max_queue": ("6", 6),
    "max_inline": ("64KiB", 65536),
    "max_context": ("64KiB", 65536),
    "max_body": ("2MiB", 2 * 2**20),
    "max_import": ("1GiB", 2**30),
    "max_requests": ("7", 7),
    "max_streams": ("8", 8),
    "max_streams_per_tenant": ("9", 9),
    "archive_after": ("30d", timedelta(days=30)),
    "sweep_after": ("0s", timedelta(0)),
    "poll_interval": ("50ms", timedelta(milliseconds=50)),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "url": ("http://example:1", "http://example:1"),
    "api_key": ("secret", "secret"),
    "tenant": ("acme", "acme"),
}
EVERY = [(kind, setting) for kind in (Config, Reach) for setting in settings(kind)]
every_setting = pytest.mark.parametrize(("kind", "setting"), EVERY, ids=[f"{k.__name__}.{s.name}" for k, s in EVERY])


@every_setting
def test_every_setting_has_a_flag_a_variable_and_a_default(kind: type[msgspec.Struct], setting: Setting):
    """An option wins over the environment, the environment over the default."""
    text, value = SAMPLES[setting.name]
    assert getattr(resolve(kind, {}, {}), setting.name) == setting.default
    assert getattr(resolve(kind, {}, {setting.variable: text}), setting.name) == value
    assert getattr(resolve(kind, {setting.name: text}, {}), setting.name) == value
    both = resolve(kind, {setting.name: text}, {setting.variable: "!!"})
    assert getattr(both, setting.name) == value


@every_setting
def test_every_setting_explains_itself(kind: type[msgspec.Struct], setting: Setting):
    """`serve --help` has something to say about each."""
    assert setting.help.endswith(".")
    assert setting.flag == f"--{setting.name.replace('_', '-')}"


@every_setting
def test_an_empty_variable_is_not_set(kind: type[msgspec.Struct], setting: Setting):
    """`DALSEGNO_WARM=${WARM:-}` in a compose file means nothing."""
    assert resolve(kind, {}, {setting.variable: ""}) == resolve(kind, {}, {})


def test_a_configuration_survives_the_way_to_a_replica():
    """The supervisor sends it as JSON."""
    given = {name: text for name, (text, _) in SAMPLES.items() if name not in ("url", "api_key", "tenant")}
    config = resolve(Config, given, {}, target="agent.py:answer")
    assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config


def test_an_unknown_variable_is_an_error_with_a_suggestion():
    """A typo must not run with a default."""
    with pytest.raises(ConfigError, match="DALSEGNO_LEASE_TLL: did you mean DALSEGNO_LEASE_TTL"):
        resolve(Config, {}, {"DALSEGNO_LEASE_TLL": "5s"})


@pytest.mark.parametrize("name", ["DALSEGNO_SERVICE_HOST", "DALSEGNO_SERVICE_PORT_HTTP", "DALSEGNO_PORT_8000_TCP_ADDR"])
def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(name: str):
    """A service named `dalsegno` puts these into every pod; they are no typos."""
    assert resolve(Config, {}, {name: "10.0.0.1", "DALSEGNO_PORT": "tcp://10.0.0.1:8000"}) == Config()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("port", "99999", "<= 65535"),
        ("port", "http", "expected a whole number"),
        ("replicas", "0", ">= 1"),
        ("lease_ttl", "5", "write 5s"),
        ("lease_ttl", "2d", "200ms to 1h"),
        ("max_body", "lots", "1MiB"),
        ("log_level", "loud", "debug, info, warning, error"),
        ("insecure", "maybe", "true, false"),
        ("replica_id", "a b", "will not do"),
        ("replica_id", "a\n", "will not do"),
    ],
)
def test_a_bad_value_names_its_place_and_what_would_do(name: str, text: str, says: str):
    """Flag or variable, whichever it was."""
    setting = next(setting for setting in settings(Config) if setting.name == name)
    with pytest.raises(ConfigError) as by_flag:
        resolve(Config, {name: text}, {})
    assert str(by_flag.value).startswith(f"{setting.flag}: ") and says in str(by_flag.value)
    with pytest.raises(ConfigError) as by_variable:
        resolve(Config, {}, {setting.variable: text})
    assert str(by_variable.value).startswith(f"{setting.variable}: ")


def test_keys_may_stand_in_a_file(tmp_path: Path):
    """One a line; comments and empty lines do not count."""
    file = tmp_path / "keys"
    file.write_text("# the first customer\nk1:acme\n\nk2:other\n")
    assert resolve(Config, {"api_keys": f"@{file}"}, {}).api_keys == (("k1", "acme"), ("k2", "other"))
    with pytest.raises(ConfigError, match="/nowhere cannot be read: No such file"):
        resolve(Config, {"api_keys": "@/nowhere"}, {})
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        resolve(Config, {"api_keys": f"@{file}"}, {})


@pytest.mark.parametrize(
    "text", ["topsecret", "topsecret:", ":t", ",", "topsecret:a,topsecret", "topsecret:a,topsecret:b"]
)
def test_a_key_of_no_tenant_or_of_two_is_refused_and_not_shown(text: str):
    """The error counts entries; it never repeats a key."""
    with pytest.raises(ConfigError) as refused:
        resolve(Config, {}, {"DALSEGNO_API_KEYS": text})
    assert "topsecret" not in str(refused.value)


@given(key=st.text("abcdefXYZ0123", min_size=12, max_size=30), password=st.text("ghijkl789", min_size=12, max_size=20))
def test_secrets_are_in_no_description(key: str, password: str):
    """Not in `repr`, not in rich's, not in what is logged."""
    url = f"postgresql://user:{password}@db/x"
    config = resolve(Config, {"api_keys": f"{key}:acme", "warm": url}, {})
    reach = resolve(Reach, {"api_key": key, "warm": url}, {})
    for text in (repr(config), repr(reach), pretty_repr(config), pretty_repr(reach), str(shown(config))):
        assert key not in text and password not in text


def test_a_url_is_shown_without_its_password():
    """Everything else of it is."""
    assert redacted("postgresql://me:p@ss@db:5432/x") == "postgresql://me:***@db:5432/x"
    assert redacted("sqlite:////var/x.db") == "sqlite:////var/x.db"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "127.0.0.1.example.org", ""])
def test_an_open_door_needs_keys_or_a_word(host: str):
    """Without API keys the server listens on loopback only, unless `--insecure`."""
    with pytest.raises(ConfigError, match="--insecure"):
        refuse_open_door(Config(host=host))
    refuse_open_door(Config(host=host, insecure=True))
    refuse_open_door(Config(host=host, api_keys=(("k", "t"),)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_loopback_is_loopback(host: str):
    """In every spelling."""
    assert is_loopback(host)
    refuse_open_door(Config(host=host))


def test_a_fleet_on_a_memory_of_its_own_is_refused():
    """Each replica would have sessions that no other sees."""
    for warm in ("memory:", "MEMORY:"):
        with pytest.raises(ConfigError, match="one process"):
            refuse_split_fleet(Config(warm=warm, replicas=2))
    refuse_split_fleet(Config(warm="memory:", replicas=1))


@pytest.mark.parametrize("warm", ["", "sqlite:///x.db"])
def test_payloads_that_the_log_would_outlive_are_refused(warm: str):
    """What a log points to must be there when the process is not."""
    with pytest.raises(ConfigError, match="choose another --cold"):
        refuse_lost_payloads(Config(warm=warm, cold="Memory:"))
    refuse_lost_payloads(Config(warm="memory:", cold="memory:"))
    refuse_lost_payloads(Config(warm=warm))

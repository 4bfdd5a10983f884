"""Durations and sizes: what people write is what is meant, and what is printed can be written."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.errors import ConfigError
from dalsegno.ops.units import format_duration, format_size, parse_duration, parse_size


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_printed_duration_reads_back_as_itself(duration: timedelta):
    """To the microsecond, whatever the duration."""
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_number_and_a_unit_is_a_duration(number: int, unit: str):
    """`500ms`, `5s`, `2m`, `1h`, `30d`."""
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert parse_duration(f"{number}{unit}") == timedelta(seconds=number * seconds)


@pytest.mark.parametrize(("text", "seconds"), [("1m30s", 90), ("1.5s", 1.5), ("1h0m1ms", 3600.001), ("0s", 0)])
def test_durations_may_be_composed(text: str, seconds: float):
    """Units add up."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["5", "", "s", "5 s", "-5s", "5sec", "1e3s", "５s", "5s5", "999999999999d"])
def test_what_is_no_duration_is_refused(text: str):
    """A number without a unit is refused, too: nobody knows what it means."""
    with pytest.raises(ConfigError):
        parse_duration(text)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_a_clear_error(text: str):
    """Nothing but `ConfigError` comes out."""
    try:
        assert parse_duration(text) >= timedelta(0)
    except ConfigError as error:
        assert str(error)


@given(st.integers(0, 2**40))
def test_a_printed_size_reads_back_as_itself(size: int):
    """Exactly."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(("text", "size"), [("1MiB", 2**20), ("64kb", 64000), ("4096", 4096), ("2 GiB", 2**31)])
def test_sizes_have_units(text: str, size: int):
    """Binary and decimal ones."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1.5MiB", "-1", "MiB", "1XB"])
def test_what_is_no_size_is_refused(text: str):
    """With an error that shows how it is done."""
    with pytest.raises(ConfigError, match="64KB"):
        parse_size(text)

"""Servers of one's own to test against: real ones, private, on a free port of loopback, gone with the test."""

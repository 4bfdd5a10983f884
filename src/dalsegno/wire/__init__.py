"""Translate: values of the log to a protocol's bytes, a protocol's requests to inputs. Pure; one file per duty."""

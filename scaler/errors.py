"""Expected outcomes of scaling, beside those of `rapp.errors`.

An objective below the fastest configuration is `rapp.errors.InfeasibleError`, an option out of its range
`rapp.errors.ConfigError`.
"""

from __future__ import annotations

from rapp.errors import DataError, RappError


class FunctionsError(DataError):
    """A functions.yaml that is not valid; names file, function and key."""


class TraceError(DataError):
    """A trace or workload that is not valid; names file and line."""


class NoLatencySourceError(RappError):
    """A function whose network the latency source does not know."""


class QuotaSemanticsError(RappError):
    """A question about a quota that gates launches, put to a source that was not opened for that."""


class BackendError(RappError):
    """A backend that cannot be reached, or that answers something that it must not."""

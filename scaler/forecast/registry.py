"""The forecasters by their names on a command line."""

from __future__ import annotations

import difflib

from rapp.errors import ConfigError
from scaler.forecast.base import Forecaster

NAMES = ("last-value", "kalman", "seasonal")


def forecaster(name: str, *, season_s: float = 86_400.0) -> Forecaster:
    """The forecaster of this name.

    Args:
        season_s: length of the season of `seasonal`, s.

    Raises:
        ConfigError: there is none; the message has the near name.
        MissingExtraError: `seasonal` without its library.
    """
    if name == "last-value":
        from scaler.forecast.last_value import LastValue

        return LastValue()
    if name == "kalman":
        from scaler.forecast.kalman import Kalman

        return Kalman()
    if name == "seasonal":
        from scaler.forecast.seasonal import Seasonal

        return Seasonal(season_s)
    close = difflib.get_close_matches(name, NAMES, n=1)
    near = f" (near: {close[0]})" if close else ""
    raise ConfigError(f"no forecaster {name!r}{near}: there are {', '.join(NAMES)}")

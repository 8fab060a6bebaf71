"""A step that was launched: its tokens may still be on their way from the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llava.engine.request import Request
from llava.engine.sampler import SampledToken

Sampled = SampledToken | Exception


class LaunchedStep:
    """What a launched step samples for each of ``requests``.

    ``read`` waits for the device and returns the tokens or errors in the order of the requests.
    """

    def __init__(self, requests: Sequence[Request], read: Callable[[], Sequence[Sampled]]) -> None:
        self._requests, self._read = requests, read

    def wait(self) -> dict[int, Sampled]:
        """The new token or error of each request, by its arrival. Waits for the device."""
        arrivals = [request.arrival for request in self._requests]
        return dict(zip(arrivals, self._read(), strict=True))

"""A step that was launched: its tokens may still be on their way from the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from llava.engine.request import Request
from llava.engine.sampler import SampledToken

Sampled = SampledToken | Exception


class LaunchedStep:
    """What a launched step samples for each of ``requests``.

    Args:
        read: waits for the device and returns the tokens or errors in the order of the requests. It is given the
            requests whose tokens mean nothing, for which it returns anything.
        can_wait: whether the next step may be launched before ``wait``, since the device has the tokens.
        on_void: takes back what was drawn for a request whose token means nothing.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        read: Callable[[LaunchedStep], Sequence[Sampled]],
        can_wait: bool = False,
        on_void: Callable[[Request], None] = lambda request: None,
    ) -> None:
        self.requests, self._read, self.can_wait, self._on_void = requests, read, can_wait, on_void
        # Requests of this step that ran another token than the one that was chosen in the step before.
        self.void: set[Request] = set()
        # The arrivals of requests whose token is another one than the device has; known after ``wait``.
        self.corrected: set[int] = set()

    def cancel(self, requests: Iterable[Request]) -> None:
        """Marks requests of this step whose tokens mean nothing."""
        for request in requests:
            if request in self.requests:
                self.void.add(request)
                self._on_void(request)

    def wait(self) -> dict[int, Sampled]:
        """The new token or error of each request, by its arrival. Waits for the device."""
        arrivals = [request.arrival for request in self.requests]
        return dict(zip(arrivals, self._read(self), strict=True))

"""Runs one step ahead of the host: a step is planned and launched before the tokens of the step before it are read.

    device   | step 1      | step 2      | step 3      |
    host      plan 2 ------ read 1, plan 3 ------ read 2

A token that has not been read yet is a placeholder in its request's keys; the device has the token and runs it in the
next step. So steps run ahead only while every request decodes and every token is sampled on the device. If a token
turns out to end its answer, one position is wasted: the request is finished and its blocks are released before that
position counts as computed, and its token is dropped. A request that gets these blocks writes to them in a later step.
"""

from __future__ import annotations

from collections.abc import Callable

from llava.engine.launched_step import LaunchedStep, Sampled
from llava.engine.request import Request, State
from llava.engine.scheduler import Scheduler, Step


class RunAhead:
    """The step that is in flight, if there is one: its chunks count as computed, and its tokens as pending.

    ``take``: records a request's new token or error, after its keys end with the last known token again.
    """

    def __init__(self, scheduler: Scheduler, take: Callable[[Request, Sampled], None]) -> None:
        self._scheduler, self._take = scheduler, take
        self._in_flight: tuple[Step, LaunchedStep] | None = None

    @property
    def is_in_flight(self) -> bool:
        """Whether there is a step whose tokens are not read yet."""
        return self._in_flight is not None

    def leave(self, step: Step, launched: LaunchedStep) -> bool:
        """Leaves a launched step in flight if its tokens need not be read at once; False if they have to be."""
        assert self._in_flight is None
        if not launched.can_wait:
            return False
        pending = []
        for chunk in step.chunks:
            request = chunk.request
            # Ended by the step before, or with another token than the device ran.
            if request.state is State.RUNNING and request not in launched.void:
                self._scheduler.complete(chunk)
                request.keys.append(0)
                request.is_pending = True
                pending.append(request)
        if pending:
            self._in_flight = (step, launched)
        return True

    def settle(self, after: LaunchedStep | None = None) -> None:
        """Reads the tokens of the step in flight, and records them.

        ``after``: a step that was launched meanwhile, in which requests are void whose token is not the device's.
        """
        if self._in_flight is None:
            return
        step, launched = self._in_flight
        self._in_flight = None
        pending = [chunk.request for chunk in step.chunks if chunk.request.is_pending]
        for request in pending:
            forget_pending(request)
        try:
            sampled = launched.wait()
        except Exception as error:  # the device failed, so none of its results can be used
            sampled = dict.fromkeys((request.arrival for request in pending), error)
        if after is not None:
            after.cancel([request for request in pending if request.arrival in launched.corrected])
        for request in pending:
            if request.state is State.RUNNING:
                self._take(request, sampled[request.arrival])


def forget_pending(request: Request) -> None:
    """Removes the placeholder of a token that was not read."""
    if request.is_pending:
        request.keys.pop()
        request.is_pending = False

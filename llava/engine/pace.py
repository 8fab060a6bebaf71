"""How much of the waiting prompts the next step runs, so that answers in progress are not delayed too long. No torch.

A step that runs a part of a prompt delays every request that is decoding by what that part takes. Cutting prompts into
many small parts delays the prompts themselves: each part reads the weights and the positions before it again. So the
budget is ``stall_s`` for each prompt that is waiting, and up to MAX_STALLS times that:

    decoding   prompts   budget of a step, in seconds beyond its decoding
    none       any       as many as ``max_positions`` take
    any        1         stall_s
    any        3         3 * stall_s
    any        8, 9, ..  8 * stall_s
"""

from __future__ import annotations

from dataclasses import dataclass

# However many prompts wait, they delay an answer by no more than this many times ``stall_s`` in one step.
MAX_STALLS = 8
# The budget before the first measurement, in positions.
FIRST_BUDGET = 64
# Fewer positions say nothing: reading the weights took the time.
MIN_MEASURED = 16
# The weight of the newest measurement in a moving average.
NEWEST = 0.3


@dataclass
class Pace:
    """Turns seconds into a budget of positions, by the steps measured so far.

    ``stall_s``: seconds for each waiting prompt. ``max_positions``: in any step. ``tile_cost``: how many positions take
    as long as a tile; an estimate, which is corrected by what is measured.
    """

    stall_s: float
    max_positions: int
    tile_cost: float
    position_s: float | None = None  # seconds for each position of a prompt
    decoding_s: float = 0.0  # seconds of a step without prompts

    def find_budget(self, num_decoding: int, num_prompts: int) -> int:
        """How many positions the next step may run, the decoding requests' own included.

        ``num_prompts``: requests whose prompts are not computed yet.
        """
        if not num_decoding:
            return self.max_positions
        if self.position_s is None:
            return min(self.max_positions, FIRST_BUDGET)
        stall_s = self.stall_s * min(max(num_prompts, 1), MAX_STALLS)
        return max(1, int(min(self.max_positions, num_decoding + stall_s / self.position_s)))

    def learn(self, num_positions: int, num_tiles: int, seconds: float) -> None:
        """Records what a step took that ran so many positions of prompts and tiles."""
        if not num_positions and not num_tiles:
            self.decoding_s = _average(self.decoding_s or seconds, seconds, NEWEST)
            return
        tiles_cost = num_tiles * self.tile_cost
        if num_positions + tiles_cost < MIN_MEASURED or seconds <= 0:
            return
        seconds = max(seconds - self.decoding_s, 0.1 * seconds)
        measured_s = seconds / (num_positions + tiles_cost)
        if self.position_s is None:
            self.position_s = measured_s
            return
        # A step that ran only positions, or only tiles, tells the cost of these; one that ran both, of both in part.
        tiles_share = tiles_cost / (num_positions + tiles_cost)
        tile_s = _average(self.tile_cost * self.position_s, self.tile_cost * measured_s, NEWEST * tiles_share)
        self.position_s = _average(self.position_s, measured_s, NEWEST * (1 - tiles_share))
        self.tile_cost = tile_s / self.position_s


def _average(old: float, new: float, weight: float) -> float:
    """The weighted geometric mean, in which a single step that was interrupted counts for little."""
    return old ** (1 - weight) * new**weight

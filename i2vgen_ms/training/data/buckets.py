"""Which clips share a batch: those of like aspect, in another order each time all of them were seen.

Given the sizes that batches may have and the clips' own sizes. It opens no file and keeps no state: the clips of a
batch follow from its number.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

from i2vgen_ms.training.randomness import derive

Size = tuple[int, int]


def nearest_size(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """The size whose aspect is nearest to that of `width` x `height`; of equal ones the first."""
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - math.log(width / height)))


class Buckets:
    """Clips in batches of one size each.

    Args:
        places: the size of each clip's batch, by the clip's number. seed: of the order.
    """

    def __init__(self, places: dict[int, Size], seed: int) -> None:
        self._seed = seed
        self._members: dict[Size, list[int]] = {}
        for clip, size in places.items():
            self._members.setdefault(size, []).append(clip)
        self._epoch = functools.lru_cache(maxsize=4)(self._shuffled)

    def batch(self, number: int, count: int) -> tuple[Size, tuple[int, ...]]:
        """The size and the clips of batch `number` of `count` clips.

        After as many batches as there are, each clip was seen at least once; where a size has not enough clips for a
        whole number of batches, some of them are seen twice.
        """
        batches = sum(-(-len(members) // count) for members in self._members.values())
        epoch, place = divmod(number, batches)
        return self._epoch(epoch, count)[place]

    def _shuffled(self, epoch: int, count: int) -> list[tuple[Size, tuple[int, ...]]]:
        order = random.Random(derive(self._seed, "epoch", epoch, count))
        batches = []
        for size, members in self._members.items():
            mixed = order.sample(members, len(members))
            while len(mixed) % count:
                mixed += order.sample(members, min(len(members), count - len(mixed) % count))
            batches += [(size, tuple(mixed[start : start + count])) for start in range(0, len(mixed), count)]
        order.shuffle(batches)
        return batches

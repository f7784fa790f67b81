"""A source that goes wrong; in a module that a worker process imports quickly."""

from __future__ import annotations

import os
import sys

from i2vgen_ms.errors import UnreadableMediaError
from i2vgen_ms.training.data.batch import Plan
from i2vgen_ms.training.data.world import Drawn, WorldSource


class Failing(WorldSource):
    """Says what is wrong with its batch number three, or dies of it."""

    how: str = "raise"

    def prepare(self, plan: Plan) -> Drawn:
        if plan.number == 3:
            if self.how == "raise":
                raise UnreadableMediaError("number three is broken")
            os.kill(os.getpid(), 9)
        sys.stdout.write("this must not get between the answers")
        return super().prepare(plan)

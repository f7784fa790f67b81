"""Batches of clips of like aspect: each clip is seen, and the order follows from the number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from i2vgen_ms.training.data.buckets import Buckets, nearest_size

SIZES = [(64, 32), (32, 32), (32, 64)]


def test_the_nearest_aspect_is_that_of_the_smallest_ratio() -> None:
    assert nearest_size(1920, 1080, SIZES) == (64, 32)
    assert nearest_size(640, 480, SIZES) == (32, 32)
    assert nearest_size(480, 640, SIZES) == (32, 32)
    assert nearest_size(100, 400, SIZES) == (32, 64)
    assert nearest_size(1000, 1414, SIZES) == (32, 32)
    assert nearest_size(1000, 1415, SIZES) == (32, 64)


@given(
    clips=st.lists(st.sampled_from(SIZES), min_size=1, max_size=30),
    count=st.integers(1, 7),
    seed=st.integers(0, 3),
)
def test_every_clip_is_seen_in_each_round_in_batches_of_one_size(clips, count, seed) -> None:
    places = dict(enumerate(clips))
    buckets = Buckets(places, seed)
    rounds = sum(-(-clips.count(size) // count) for size in set(clips))
    for epoch in range(2):
        seen: list[int] = []
        for number in range(epoch * rounds, (epoch + 1) * rounds):
            size, members = buckets.batch(number, count)
            assert len(members) == count
            assert {places[member] for member in members} == {size}
            seen += members
        assert set(seen) == set(places)
        assert len(seen) - len(places) < count * len(set(clips))


def test_the_order_changes_with_each_round_and_follows_from_the_seed() -> None:
    places = dict.fromkeys(range(40), SIZES[0])
    one, again, other = Buckets(places, 1), Buckets(places, 1), Buckets(places, 2)
    first = [one.batch(number, 4) for number in range(30)]
    assert first == [again.batch(number, 4) for number in range(30)]
    assert first != [other.batch(number, 4) for number in range(30)]
    assert first[:10] != first[10:20]
    assert one.batch(25, 4) == first[25]  # whatever was asked before

"""The range coder of SPEC 7.1 is constriction's."""

import constriction
import numpy as np

from tests.spec.entropy import RangeDecoder, uniform

queue, Uniform = constriction.stream.queue, constriction.stream.model.Uniform


def test_both_range_decoders_agree_on_what_is_exhausted() -> None:
    rng = np.random.default_rng(0)
    found = []
    for trial in range(300):
        sizes = rng.choice([2, 3, 63, 256, 1000], rng.integers(0, 12)).tolist()
        encoder = queue.RangeEncoder()
        for size in sizes:
            encoder.encode(rng.integers(0, size, 1).astype(np.int32), Uniform(size))
        more = rng.integers(0, 3, trial % 3).astype(np.uint32)
        words = np.append(encoder.get_compressed(), more).astype(np.uint32)
        theirs, ours = queue.RangeDecoder(words), RangeDecoder(words.tolist())
        for size in sizes[: len(sizes) - trial % 2]:
            assert theirs.decode(Uniform(size), 1)[0] == ours.decode(uniform(size))
        found.append(ours.exhausted)
        assert theirs.maybe_exhausted() == found[-1]
    assert set(found) == {False, True}

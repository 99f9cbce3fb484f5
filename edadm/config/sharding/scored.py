"""Which images each of several jobs looks at for their scores, and how many jobs there are.

Both follow from the preset and its shards of images, so that another machine makes the same files.
"""

from __future__ import annotations

from collections.abc import Sequence

from edadm.config.schema import Evaluation
from edadm.config.sharding.shares import number, shard_range
from edadm.errors import EdadmError

BATCH = 256  # images whose features are computed at once, with which the last bits of sums go
MOST_IMAGES = 50 * BATCH  # of a job, which loses all of them when it is killed


def jobs_for(evaluation: Evaluation) -> int:
    """As many jobs as are needed, and no more than made the images; where it is one, `evaluate` itself is it.

    A job takes seconds to start, so small sets are not divided.
    """
    return min(number(evaluation.shards), -(-evaluation.images // MOST_IMAGES))


def part_of(images: int, jobs: int, job: int) -> range:
    """The images of one of several jobs, which begin where a batch of all images begins.

    Raises:
        EdadmError: there is no such job, or there are more jobs than batches.
    """
    batches = -(-images // BATCH)
    if not 1 <= jobs <= batches:
        raise EdadmError(
            f"{images} images, looked at {BATCH} at once, are work for at most {batches} jobs; --jobs is "
            f"{jobs}"
        )
    if not 0 <= job < jobs:
        raise EdadmError(f"there is no job {job}; jobs are counted from 0 to {jobs - 1}")
    return shard_range(images, jobs, job, BATCH)


def holding(part: range, shards: Sequence[range]) -> range:
    """Numbers of the shards that hold images of a part."""
    found = [
        number
        for number, shard in enumerate(shards)
        if shard.start < part.stop and part.start < shard.stop and len(shard)
    ]
    return range(found[0], found[-1] + 1) if found else range(0)

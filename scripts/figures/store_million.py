#!/usr/bin/env python3
"""A million results of 64 bytes: made durable, folded, and looked up one by one (layout hybrid)."""

from statistics import median

import common

COUNT, RUNS = 1_000_000, 3


def main():
    common.arguments(__doc__)
    runs = []
    for _ in range(RUNS):
        with common.scratch() as dir:
            runs.append(common.bench("store_objects", "tiny", COUNT, dir))

    def of(what):
        return median(run[what] for run in runs)

    common.table(
        ("durable, s of the writer's time", of("durable_s"), common.at_most(1.0)),
        ("folded, s", of("fold_s"), common.at_most(3.0)),
        ("on disk at the peak, MB", of("peak_disk_bytes") / 1e6, common.at_most(300)),
        ("a look-up, cold, us (p50)", of("cold_us"), common.at_most(20)),
        ("a look-up, learnt, us (p50)", of("warm_us"), common.at_most(3)),
        ("a look-up in an unfolded log, us (p50)", of("unfolded_us"), None),
    )


if __name__ == "__main__":
    main()

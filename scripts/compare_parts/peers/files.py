"""Luigi over files that are all there."""

import sys
from pathlib import Path

import luigi

import times

layers, width, dir = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
NEEDS = list(times.needs(layers, width))


class Node(luigi.Task):
    at = luigi.IntParameter()

    def requires(self):
        return [Node(at=need) for need in NEEDS[self.at]]

    def output(self):
        return luigi.LocalTarget(str(dir / f"n{self.at}"))


class All(luigi.WrapperTask):
    """It asks each node, as one does who wants to know whether all is there: Luigi looks no further than to what is."""

    def requires(self):
        return [Node(at=at) for at in range(layers * width)]


def work():
    if not luigi.build([All()], local_scheduler=True, workers=1, log_level="ERROR"):
        sys.exit("it did not succeed")


times.say(seconds=times.seconds(work))

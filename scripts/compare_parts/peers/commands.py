"""HyperQueue's server and a worker of two cores in this process, by its Python interface: commands a second."""

import os
import sys
import tempfile

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

import times


def commands(count):
    os.chdir(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
    with LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=2))
        client = cluster.client()

        def run(count):
            job = Job()
            for _ in range(count):
                job.program(["/bin/true"], stdout=None, stderr=None)
            client.wait_for_jobs([client.submit(job)])

        run(100)
        times.say(per_s=count / times.seconds(lambda: run(count)))
        # Its threads outlive the cluster.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    times.run(commands=commands)

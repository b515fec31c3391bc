"""Ray on two cores of this machine. Its start is not in the figures, but in that of the first result."""

import ray

import times


@ray.remote
def nothing(*_):
    return None


def start():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False, _node_ip_address="127.0.0.1")


def warm():
    start()
    ray.get([nothing.remote() for _ in range(100)])


def dag(layers, width):
    warm()

    def work():
        results = []
        for needs in times.needs(layers, width):
            results.append(nothing.remote(*(results[need] for need in needs)))
        ray.get(results)

    times.say(seconds=times.seconds(work))


def chain(count):
    warm()

    def work():
        last = None
        for _ in range(count):
            last = nothing.remote(last)
        ray.get(last)

    times.say(seconds=times.seconds(work))


def first():
    start()
    times.say(first=ray.get(nothing.remote()))


def one(count):
    warm()
    times.say(per_s=count / times.seconds(lambda: ray.get([nothing.remote() for _ in range(count)])))


def submit(count):
    warm()
    times.say(**times.round_trips(lambda: ray.get(nothing.remote()), count))


if __name__ == "__main__":
    times.run(dag=dag, chain=chain, first=first, one=one, submit=submit)

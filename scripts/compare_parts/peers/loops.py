"""Callbacks handed to an event loop of Python by its threads: asyncio's own loop, and uvloop."""

import asyncio
import sys
import threading
import time

import times


def loop_of(name):
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def mixed(loop, writers=10, each=2_000):
    """Operations a second: so many put in by each thread, and as many taken out meanwhile."""
    left, barrier = [writers * each], threading.Barrier(writers + 1)

    def callback():
        left[0] -= 1
        if not left[0]:
            loop.stop()

    def write():
        barrier.wait()
        for _ in range(each):
            loop.call_soon_threadsafe(callback)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    barrier.wait()
    seconds = times.seconds(loop.run_forever)
    for thread in threads:
        thread.join()
    times.say(million_per_s=2 * writers * each / seconds / 1e6)


def chain(loop, count=50_000):
    """Nanoseconds each: a callback submits the next."""
    left = [count]

    def callback():
        left[0] -= 1
        loop.call_soon(callback) if left[0] else loop.stop()

    start = time.perf_counter()
    loop.call_soon(callback)
    loop.run_forever()
    times.say(ns=1e9 * (time.perf_counter() - start) / count)


if __name__ == "__main__":
    {"mixed": mixed, "chain": chain}[sys.argv[1]](loop_of(sys.argv[2]))

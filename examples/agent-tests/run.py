#!/usr/bin/env python3
"""Runs this example: starts the stand-in of the API, runs the manifest, says what came out, stops the stand-in.

    python3 examples/agent-tests/run.py [options of `forkyard run`]

`forkyard` is $FORKYARD, or the one in the PATH, or target/release/forkyard. What the API was asked is added to
asked.log beside this file (or to $AGENT_LOG). Standard library only.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOG = Path(os.environ.get("AGENT_LOG") or HERE / "asked.log")


def find_forkyard():
    built = HERE.parent.parent / "target/release/forkyard"
    found = os.environ.get("FORKYARD") or shutil.which("forkyard") or (built.exists() and str(built))
    return found or sys.exit("there is no forkyard: build it with cargo build --release, or set FORKYARD")


def start_stand_in(folder):
    """The stand-in, and the URL at which it listens."""
    port = Path(folder) / "port"
    command = [sys.executable, str(HERE / "stand_in.py"), str(port), str(LOG)]
    # In a session of its own: Ctrl-C is not for it, and calls that were begun are answered.
    env = {**os.environ, "STARTED_BY": str(os.getpid())}
    server = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 10
    while not port.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            sys.exit("the stand-in of the API does not start")
        time.sleep(0.005)
    return server, f"http://127.0.0.1:{port.read_text()}"


def log_lines(since=0):
    """How often each line stands in the log."""
    if not LOG.exists():
        return Counter()
    with open(LOG) as file:
        file.seek(since)
        return Counter(file.read().splitlines())


def tell_asked(before):
    counts = Counter(line.split()[0] for line in log_lines(before).elements())
    asked, answered, refused = counts["asked"], counts["answered"], counts["refused"]
    cut_off = f", {asked - answered - refused} cut off" if asked > answered + refused else ""
    print(f"asked the API {asked} times: {answered} answered, {refused} refused (429){cut_off}")
    again = sum(count - 1 for line, count in log_lines().items() if line.startswith("answered "))
    print(f"answered again, in all runs that {LOG.name} knows: {again}")


def tell_report(forkyard):
    cat = subprocess.run([forkyard, "results", "cat", "report"], check=True, stdout=subprocess.PIPE)
    report = json.loads(cat.stdout)
    print(f"{report['passed']} of {report['prompts']} prompts passed ({report['tokens']:,} tokens)")
    for why, count in sorted(report["failed_because"].items()):
        print(f"  {count:3} failed: the tool {why}")
    tools = ", ".join(f"{tool} {count}" for tool, count in report["failed_by_tool"].items())
    print(textwrap.fill(f"failed by tool: {tools}", 110, initial_indent="  ", subsequent_indent="    "))


def main():
    forkyard = find_forkyard()
    before = LOG.stat().st_size if LOG.exists() else 0
    run = None
    # Ctrl-C reaches forkyard without us. (Ignoring it here would make forkyard ignore it too.)
    signal.signal(signal.SIGINT, lambda *_: run or sys.exit(128 + signal.SIGINT))
    signal.signal(signal.SIGTERM, lambda *_: run.terminate() if run else sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as folder:
        server, url = start_stand_in(folder)
        try:
            command = [forkyard, "run", str(HERE / "agent-tests.toml"), *sys.argv[1:]]
            run = subprocess.Popen(command, env={**os.environ, "AGENT_API": url})
            code = run.wait()
        finally:
            server.terminate()
            server.wait()
    tell_asked(before)
    if code == 0:
        tell_report(forkyard)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())

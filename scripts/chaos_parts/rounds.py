"""A round: something is disturbed, then everything must be as if it had not been."""

import signal
import time

from . import stores
from .commands import DEADLINE_S, FAILED, OK, STORE, ZYGOTE_DIED, expect, same
from .faults import CHANGES, FAULTS, READS, WRITES
from .processes import send, strike

AT_THE_START = 0.1  # of the moments, before the first line
DELAY_S = 0.004  # after a line, at most
LATEST_S = 2  # of a command on a store: it took longer only on a machine that was busy


def kinds():
    """All kinds of rounds and their variants."""
    runs = {kind: list(fault.variants) for kind, fault in FAULTS.items()}
    return {**runs, "damaged store": list(stores.DAMAGES), "fold": SIGNALS, "gc": [*SIGNALS, *LAYER],
            "verify": [*SIGNALS, *LAYER]}


def make(kind, *how):
    return (RunRound if kind in FAULTS else StoreRound)(kind, *how)


class Round:
    def __init__(self, kind, variant, forkyard, peace, chance):
        self.kind, self.variant = kind, variant
        self.forkyard, self.peace, self.chance = forkyard, peace, chance

    def run_again(self, name, kept):
        """A run that nothing disturbs."""
        outcomes = self.forkyard.run(self.peace.manifest(name))
        again = [node for node in kept if outcomes[node] != "cached"]
        expect(not again, f"run again though durable: {again[:5]}")
        found, damaged = self.forkyard.results()
        expect(not damaged, f"still damaged after a run of {name}: {damaged}")
        same(found, self.peace.references[name], f"the run of {name} after it")
        self.forkyard.expect_nothing_left("after the end")
        return outcomes

    def expect_sound(self):
        code, running = self.forkyard.do("store", "verify", codes=(OK, STORE))
        expect(code == OK, f"verify finds damage at the end: {running.said()}")


class RunRound(Round):
    """A run in a fresh store."""

    def go(self):
        """Whether what was to be struck was struck."""
        first, manifest = self.peace.first, self.peace.manifest("first")
        fault = FAULTS[self.kind](self.variant, self.peace, self.forkyard, self.chance)
        running = self.forkyard.start_run(manifest, environment=fault.environment, before=fault.before)
        if fault.has_moment:
            self.wait_for_a_moment(running, first)
        struck = fault.strike(running)
        code = running.end(fault.codes(), f"the run under {self.kind} ({self.variant})")
        struck = fault.has_struck(struck)
        expect(struck or code == OK, f"it ends with {code} though nothing struck: {running.said()}")
        self.forkyard.expect_nothing_left("after the fault", files=fault.ends_in_order)
        fault.heal()

        kept, damaged = self.forkyard.results()
        missing, others, rekeyed = fault.may_be_other(self.peace.nodes, running)
        but = missing | others
        expect(damaged <= but, f"damaged though only disturbed: {list(damaged)[:5]}")
        wrong = [node for node in kept if node not in others and kept[node] != first.reference[node]]
        expect(not wrong, f"wrong results: {wrong[:5]}")
        done = self.expect_accounted(running, code, kept, fault, but)
        again = self.run_again("first", kept.keys() - others - rekeyed)
        # The journal may have failed where the store did not: the next run knows better than `results`.
        cached = sum(outcome == "cached" for outcome in again.values())
        for summary in (event for event in running.events() if event["event"] == "run_finished"):
            # Who ran twice is one node.
            durable = min(summary["durable"], len(done)) - len(but | rekeyed)
            expect(durable <= cached, f"of {durable} durable results {cached} are there")
        self.expect_sound()
        return struck

    def wait_for_a_moment(self, running, first):
        if self.chance.random() < AT_THE_START:
            time.sleep(self.chance.uniform(0, first.start))
        else:
            running.wait_for_lines(self.chance.randint(1, first.lines * 9 // 10))
            time.sleep(self.chance.uniform(0, DELAY_S))

    def expect_accounted(self, running, code, kept, fault, but):
        """What it said at its end is in the store. The nodes that it called done."""
        finished = [event for event in running.events() if event["event"] == "node_finished"]
        done = {event["node"] for event in finished if event["outcome"] in ("ran", "cached")}
        if code in (OK, FAILED, ZYGOTE_DIED, 128 + signal.SIGTERM) and fault.ends_in_order:
            lost = done - kept.keys() - but
            expect(not lost, f"done, and not in the store after exit code {code}: {list(lost)[:5]}")
        return done


SIGNALS = ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT", "SIGSTOP"]
LAYER = {"error": [WRITES, CHANGES], "readonly": [WRITES, CHANGES], "full": [WRITES], "short": [WRITES],
         "torn": [WRITES], "kill": [WRITES, CHANGES], "read": [READS]}


class StoreRound(Round):
    """A store of several runs: damaged, or a command on it struck, or both."""

    def go(self):
        many = self.peace.many
        stores.copy(many.forkyard.store, self.forkyard.store)
        self.damaged, self.has_holes = {}, False
        self.in_the_end = (OK,)  # how verify and gc end when the store has been verified
        command, kept = self.kind, set(many.runs)
        if self.kind == "damaged store":
            command = self.chance.choice(["run", "verify", "gc", "none"])
            self.damage(many)
        words = {"verify": ["store", "verify"], "gc": ["store", "gc", "--keep-runs"]}.get(command)
        if command == "gc":
            everything = self.forkyard.runs()
            keep = self.chance.randint(0, len(everything) - 1)
            words.append(str(keep))
            kept &= set(everything[len(everything) - keep :])
        # A damaged store is looked at by somebody who is not disturbed.
        is_disturbed, struck = self.kind != "damaged store", True
        unsound = (OK,) if is_disturbed else (OK, STORE)
        if is_disturbed:
            struck = self.strike_command(command, words, many)
        elif command == "run":
            self.run_on_damage()
        elif command != "none":
            self.forkyard.do(*words, codes=unsound)
        self.forkyard.expect_nothing_left("after the strike", files=False)

        self.read(kept, many)
        if command == "gc":
            self.forkyard.do(*words, codes=unsound)
        self.forkyard.do("store", "verify", codes=unsound)
        self.forkyard.do("store", "verify", codes=self.in_the_end)
        if command == "gc" and self.forkyard.do(*words, codes=self.in_the_end)[0] == OK:
            self.expect_gc_complete(words, kept, many)
        good = self.read(kept, many)
        for name in sorted(good) or [self.chance.choice(list(self.peace.references))]:
            self.run_again(name, good.get(name, {}))
        self.forkyard.do("store", "verify", codes=self.in_the_end)
        return struck

    def damage(self, many):
        """Which results of which runs are lost by it."""
        hurt = stores.DAMAGES[self.variant](self.forkyard.store, self.chance)
        if hurt is None:  # there is nothing of the kind in this layout
            hurt = stores.flip_a_bit(self.forkyard.store, self.chance)
        self.has_holes = hurt.leaves_holes
        self.in_the_end = (OK, STORE) if hurt.stays else (OK,)
        for run, name in many.runs.items():
            good, lost = self.forkyard.results(run, codes=(OK, STORE) if self.has_holes else (OK,))
            self.expect_right(run, name, good, lost)
            if lost:
                self.damaged[run] = lost
        expect(self.damaged or not hurt.must_be_noticed, f"damage is not found: {hurt.what}")

    def expect_right(self, run, name, good, lost):
        """What is handed out is right, and all that is not damaged is handed out."""
        reference = self.peace.references[name]
        expected = {n: r for n, r in reference.items() if n not in lost and (n in good or not self.has_holes)}
        same(good, expected, f"run {run} of {self.kind} ({self.variant})")

    def run_on_damage(self):
        """It may find the damage before verify does. It need not: what it does not read may stay."""
        running = self.forkyard.start_run(self.peace.manifest(self.chance.choice(list(self.peace.references))))
        running.end((OK, STORE) if self.has_holes else (OK,))
        self.forkyard.expect_nothing_left("after a run on damage")

    def strike_command(self, command, words, many):
        """Whether it was struck."""
        if self.variant in LAYER:
            calls = sum(many.calls[command][what] for what in LAYER[self.variant])
            how = {"at": self.chance.randint(1, max(calls, 1)), "for": 0 if self.variant == "readonly" else 1}
            running = self.forkyard.start(*words, environment=self.peace.faults(self.forkyard, self.variant, **how))
            running.end((OK, STORE, -signal.SIGKILL), f"{command} under {self.variant}")
            return (self.forkyard.directory / "struck").exists()
        if command == "fold":
            if self.peace.layout == "filesystem":
                return False
            running = self.forkyard.start_run(self.peace.manifest("hold"))
        else:
            running = self.forkyard.start(*words)
        first, last = many.spans[command]
        time.sleep(self.chance.uniform(min(first, LATEST_S), min(last, LATEST_S)))
        number = getattr(signal, self.variant)
        struck = running.is_alive() and strike(running.pid, number)
        if number == signal.SIGSTOP:
            time.sleep(self.chance.uniform(0, 0.05))
            send(running.pid, signal.SIGCONT)
        if command == "fold" and number in (signal.SIGSTOP, signal.SIGTERM):
            self.interrupt(running)
        running.end((OK, -number, 128 + number, 128 + signal.SIGTERM), f"{command}, struck by {self.variant}")
        return struck

    @staticmethod
    def interrupt(running):
        """Its node would go on for minutes: the second signal ends it, if it is not one with the first."""
        deadline = time.monotonic() + DEADLINE_S
        while running.is_alive() and time.monotonic() < deadline:
            send(running.pid, signal.SIGTERM)
            time.sleep(0.1)

    def read(self, runs, many):
        """The good results of runs by manifest: all but those that were damaged before."""
        read = {}
        for run in runs:
            name, allowed = many.runs[run], self.damaged.get(run, set())
            good, lost = self.forkyard.results(run, codes=(OK, STORE) if self.has_holes else (OK,))
            more = lost - allowed
            expect(not more or self.has_holes, f"run {run}: damaged though only struck: {sorted(more)[:5]}")
            self.expect_right(run, name, good, lost)
            read[name] = good
        return read

    def expect_gc_complete(self, words, kept, many):
        if not self.has_holes:
            expect(kept <= set(self.forkyard.runs()), f"gc removed one of the runs {kept}")
        _, running = self.forkyard.do(*words, "--dry-run")
        expect("remove 0 runs and 0 results" in running.said(), f"gc, repeated, is not done: {running.said()}")
        _, listed = self.forkyard.do("store", "ls", "--json")
        digests = {result[1] for run in kept for result in self.peace.references[many.runs[run]].values()}
        more = {line["digest"] for line in listed.events()} - digests
        expect(not more, f"gc, repeated, leaves what no run has made: {list(more)[:5]}")

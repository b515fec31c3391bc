"""What disturbs a run. A fault arms itself before the run starts, strikes at its moment, says with which exit codes the
run may end after that, and heals what it broke outside of the run."""

import contextlib
import hashlib
import itertools
import os
import pathlib
import re
import resource
import shutil
import signal
import time

from . import manifests
from .commands import DOES_NOT_FIT, FAILED, OK, STORE, UNUSABLE_ARTIFACT, ZYGOTE_DIED
from .processes import TARGETS, open_files, send, strike

EVER = 0


class Fault:
    variants = [""]
    # Whether it strikes when the run has printed some lines, rather than being there from the start.
    has_moment = True
    # Whether the run can clear tmp/ at its end, and keeps whatever it called done.
    ends_in_order = True

    def __init__(self, variant, peace, forkyard, chance):
        self.variant, self.peace, self.forkyard, self.chance = variant, peace, forkyard, chance
        self.environment = {}
        self.arm()

    def arm(self):
        pass

    def before(self):
        """In the process that is to become the coordinator."""

    def strike(self, running):
        """Whether it has struck, as far as that can be said now."""
        return running.is_alive()

    def has_struck(self, struck):
        return struck

    def codes(self):
        return (OK,)

    def heal(self):
        pass

    def may_be_other(self, nodes, running):
        """Nodes whose results may be missing; those whose results may be others; those that may have other keys."""
        return set(), set(), set()


# ---- signals ----


class Signal(Fault):
    number = None
    variants = list(TARGETS)

    def strike(self, running):
        return self.send(running, self.variant, self.number)

    def send(self, running, target, number):
        """As soon as there is a target; False if the run ends before."""
        while running.is_alive():
            if victims := TARGETS[target](running.pid):
                self.victim = self.chance.choice(victims)
                return strike(self.victim, number)
            time.sleep(0.001)  # nobody tells us when a process is there
        return False

    def codes(self):
        return self.codes_of(self.variant, self.number)

    def codes_of(self, target, number):
        """A coordinator that was all but done, or a zygote that was no longer needed, is not missed."""
        if number == signal.SIGSTOP:
            return (OK,)
        if target == "coordinator":
            return (OK, 128 + number, -number) if number == signal.SIGTERM else (OK, -number)
        return (OK, ZYGOTE_DIED) if target in ("zygote", "Python zygote") else (OK,)

    @property
    def ends_in_order(self):
        return self.variant != "coordinator" or self.number == signal.SIGTERM


class Kill(Signal):
    number = signal.SIGKILL


class Terminate(Signal):
    number = signal.SIGTERM


class Segv(Signal):
    number = signal.SIGSEGV


class Abort(Signal):
    number = signal.SIGABRT


class Stop(Signal):
    number = signal.SIGSTOP

    def strike(self, running):
        if struck := super().strike(running):
            time.sleep(self.chance.uniform(0, 0.1))  # so long it stands still
            send(self.victim, signal.SIGCONT)
        return struck


class Two(Signal):
    """Two signals, the second one right after the first. Whoever is stopped goes on at the end."""

    variants = [" and ".join(pair) for pair in itertools.permutations(TARGETS, 2)]
    numbers = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV]

    def arm(self):
        self.sent = [(target, self.chance.choice(self.numbers)) for target in self.variant.split(" and ")]
        # Nobody is left to end what runs below, if both die in the same instant. That is not promised.
        if {target for target, _ in self.sent} == {"coordinator", "zygote"}:
            self.sent[0] = (self.sent[0][0], signal.SIGSTOP)

    def strike(self, running):
        stopped, struck = [], False
        for target, number in self.sent:
            # Once the coordinator is gone, or stands still, others come no more.
            victims = TARGETS[target](running.pid) if running.is_alive() else []
            if victims and strike(victim := self.chance.choice(victims), number):
                struck = True
                stopped += [victim] * (number == signal.SIGSTOP)
        time.sleep(self.chance.uniform(0, 0.05))
        for victim in stopped:
            send(victim, signal.SIGCONT)
        return struck

    def codes(self):
        return tuple({code for sent in self.sent for code in self.codes_of(*sent)})

    @property
    def ends_in_order(self):
        return not any(target == "coordinator" and number != signal.SIGTERM for target, number in self.sent)


# ---- the disk ----

WRITES, CHANGES, READS = range(3)


class Disk(Fault):
    """Calls on the store, of the coordinator and of the workers, misbehave from one of them on."""

    kind = None
    counted = [WRITES, CHANGES]
    variants = {"once": 1, "for some calls": 8, "from then on": EVER}
    has_moment = False
    ends_in_order = False

    def arm(self):
        calls = sum(self.peace.first.calls[what] for what in self.counted)
        self.environment = self.peace.faults(
            self.forkyard, self.kind, at=self.chance.randint(1, max(calls, 1)), **{"for": self.variants[self.variant]}
        )

    def has_struck(self, struck):
        return (self.forkyard.directory / "struck").exists()

    def codes(self):
        return (OK, STORE)


class Full(Disk):
    kind, counted = "full", [WRITES]


class Io(Disk):
    kind = "io"


class Unreadable(Disk):
    kind, counted = "read", [READS]

    def may_be_other(self, nodes, running):
        """What could not be read back was said to be lost, and with it what shares its bytes."""
        digest_of = {node: result[1] for node, result in self.peace.first.reference.items()}
        lost = {digest_of[node] for node in re.findall(r"node (\S+) runs again", running.said())}
        return {node for node, digest in digest_of.items() if digest in lost}, set(), set()


class ReadOnly(Disk):
    kind = "readonly"
    variants = {"from the start": EVER, "from then on": EVER}

    def arm(self):
        super().arm()
        if self.variant == "from the start":
            self.environment["FAULT_AT"] = "1"


class Short(Disk):
    kind, counted, ends_in_order = "short", [WRITES], True

    def codes(self):
        return (OK,)


class Torn(Disk):
    """Who makes the call dies in it, be it coordinator or worker."""

    kind, counted, variants = "torn", [WRITES], {"once": 1}

    def codes(self):
        return (OK, -signal.SIGKILL)


class Killed(Torn):
    kind, counted = "kill", [WRITES, CHANGES]


# ---- what the system gives ----


class Descriptors(Fault):
    """No file can be opened any more, or almost none."""

    variants = ["from the start", "coordinator", "zygote", "worker", "Python zygote"]

    def arm(self):
        self.has_moment = self.variant != "from the start"
        self.more = self.chance.choice([0, 1, 2, 5, 12]) if self.has_moment else self.chance.randint(6, 60)

    def before(self):
        if not self.has_moment:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.more, self.more))

    def strike(self, running):
        if not self.has_moment:
            return True
        for pid in TARGETS[self.variant](running.pid)[:1]:
            # The limit is on numbers: there may be gaps below.
            most = max(open_files(pid), default=0) + 1 + self.more
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
                return True
        return False

    def codes(self):
        return (OK, FAILED, 2, UNUSABLE_ARTIFACT, STORE, DOES_NOT_FIT, ZYGOTE_DIED)


class Processes(Fault):
    """No process and no thread can be started any more, or almost none."""

    variants = ["from the start", "later", "later, for a while"]
    above = pathlib.Path("/sys/fs/cgroup/pids")

    def arm(self):
        self.has_moment = self.variant != "from the start"
        self.group = self.above / f"chaos-{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            self.group.rmdir()  # of a round that ended with a violation
        self.group.mkdir()
        if not self.has_moment:
            self.limit(self.chance.randint(1, 16))

    @classmethod
    def is_possible(cls):
        return os.access(cls.above / "cgroup.procs", os.W_OK)

    def limit(self, most):
        (self.group / "pids.max").write_text(str(most))

    def before(self):
        (self.group / "cgroup.procs").write_text("0")

    def strike(self, running):
        if not self.has_moment:
            return True
        if not running.is_alive():
            return False
        self.limit(int((self.group / "pids.current").read_text()) + self.chance.choice([0, 0, 1, 3]))
        if self.variant.endswith("while"):
            time.sleep(self.chance.uniform(0, 0.1))
            self.limit("max")
        return True

    def codes(self):
        return (OK, FAILED, 2, UNUSABLE_ARTIFACT, STORE, DOES_NOT_FIT, ZYGOTE_DIED)

    def heal(self):
        # This fails if a process is left in it.
        self.group.rmdir()


class Clock(Fault):
    """The time of day jumps, once or back and forth."""

    variants = {"an hour back": -3600, "an hour on": 3600, "ten years back": -315360000, "ten years on": 315360000,
                "a second back": -1}
    has_moment = False

    def arm(self):
        self.environment = self.peace.faults(
            self.forkyard, "clock", at=self.chance.randint(1, 6), jump=self.variants[self.variant],
            **{"for": self.chance.choice([EVER, 1, 3, 40])},
        )

    def has_struck(self, struck):
        return (self.forkyard.directory / "struck").exists()


# ---- what is read ----


class Input(Fault):
    """A file that nodes read changes under the run."""

    variants = ["artifact cut", "artifact emptied", "artifact rewritten", "artifact replaced", "artifact longer",
                "artifact touched", "artifact gone", "code rewritten"]

    def arm(self):
        name = "called.py" if self.variant.startswith("code") else self.chance.choice(["m.npy", "noise"])
        self.path = self.forkyard.directory / name

    def strike(self, running):
        before = self.path.read_bytes()
        other = self.path.with_name("other")
        match self.variant.split()[1]:
            case "cut":
                os.truncate(self.path, self.chance.randrange(len(before)))
            case "emptied":
                os.truncate(self.path, 0)
            case "rewritten":
                self.path.write_bytes(self.changed(before))
            case "replaced":
                other.write_bytes(self.changed(before))
                other.replace(self.path)
            case "longer":
                with open(self.path, "ab") as file:
                    file.write(b"more")
            case "touched":
                self.path.touch()
            case "gone":
                self.path.unlink()
        return running.is_alive()

    def changed(self, before):
        """Of the same length, and what is read is another thing."""
        if self.path.suffix == ".py":
            return before.replace(b'"name": name', b'"name":"eman"')
        start = len(before) // 4
        return before[:start] + bytes(byte ^ 1 for byte in before[start:])

    def codes(self):
        return (OK, FAILED) if self.path.suffix == ".py" else (OK, UNUSABLE_ARTIFACT)

    def heal(self):
        shutil.copy(self.peace.space / self.path.name, self.path)

    def may_be_other(self, nodes, running):
        direct, readers = manifests.touched(nodes, self.path.stem)
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        # What changed before it was looked at is another input, of which other results follow. Of code nobody tells. What
        # changed later spoils results, which are thrown away; but who has read one by then has another key.
        is_known = any(e["event"] == "artifact_mapped" and e["sha256"] == digest for e in running.events())
        others = readers if is_known else direct | readers
        return direct - others, others, manifests.after(nodes, others)


FAULTS = {
    "kill": Kill,
    "stop and continue": Stop,
    "terminate": Terminate,
    "segmentation fault": Segv,
    "abort": Abort,
    "two signals": Two,
    "disk full": Full,
    "input/output errors": Io,
    "unreadable": Unreadable,
    "read-only store": ReadOnly,
    "short writes": Short,
    "death in a write": Torn,
    "death before a call": Killed,
    "no descriptors": Descriptors,
    "no processes": Processes,
    "clock": Clock,
    "changed input": Input,
}

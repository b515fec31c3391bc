"""Where the peers come from: a virtual environment of their own, and the system's packages. Knows no workload."""

import json
import os
import platform
import shutil
import subprocess
import sys

# What pip is asked for, by the name that rows use.
PACKAGES = {
    "numpy": ["numpy"],
    "joblib": ["joblib"],
    "ray": ["ray"],
    "dask": ["dask[distributed]"],
    "faiss": ["faiss-cpu", "numpy"],
    "usearch": ["usearch", "numpy"],
    "hyperqueue": ["hyperqueue"],
    "ninja": ["ninja"],
    "uvloop": ["uvloop"],
    "luigi": ["luigi"],
    "snakemake": ["snakemake"],
}
DEBIAN = {"parallel": "parallel", "make": "make"}


class Site:
    """Places, and what can be had there."""

    def __init__(self, root, forkyard):
        self.root, self.forkyard = root, forkyard
        self.work = root / "target" / "compare"
        self.bin = self.work / "venv" / "bin"
        self.python = self.bin / "python"
        self.peers = root / "scripts" / "compare_parts" / "peers"
        self._missing = {}
        self.work.mkdir(parents=True, exist_ok=True)

    def peer(self, program, *words):
        """The command of a peer's program."""
        return [self.python, self.peers / f"{program}.py", *map(str, words)]

    def bench(self, name):
        """The newest build of a bench, None if there is none."""
        built = (self.root / "target" / "release" / "deps").glob(f"{name}-*")
        programs = [file for file in built if not file.suffix and os.access(file, os.X_OK)]
        return max(programs, key=lambda file: file.stat().st_mtime, default=None)

    def missing(self, name):
        """Why a peer cannot be run; empty if it can. It is installed if need be."""
        if name not in self._missing:
            self._missing[name] = self._install(name)
        return self._missing[name]

    def _install(self, name):
        if name in PACKAGES:
            return self._pip(PACKAGES[name])
        if shutil.which(name):
            return ""
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            return f"{name} is not installed, and only root can do that"
        for words in [["update"], ["install", "--yes", DEBIAN[name]]]:
            done = subprocess.run(["apt-get", "-q", *words], capture_output=True, text=True)
        return "" if done.returncode == 0 and shutil.which(name) else f"apt-get has no {name}"

    def _pip(self, packages):
        if not self.python.exists():
            print(f"making {self.bin.parent}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", self.bin.parent], check=True)
        stamps = self.work / "installed"
        stamps.mkdir(exist_ok=True)
        stamp = stamps / packages[0]
        if not stamp.exists():
            print(f"installing {' '.join(packages)}", file=sys.stderr)
            command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                last = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
                return f"not to be had: pip install {packages[0]}: {last}"
            stamp.touch()
        return ""

    def versions(self):
        """What is compared."""
        def first_line(*command):
            done = subprocess.run(command, capture_output=True, text=True, cwd=self.root)
            return (done.stdout.splitlines() or [""])[0]

        said = {"forkyard": first_line(self.forkyard, "--version"), "python": platform.python_version()}
        said |= {name: first_line(name, "--version") for name in ["parallel", "make", "xargs"] if shutil.which(name)}
        if self.python.exists():
            listed = subprocess.run(
                [self.python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
                capture_output=True, text=True,
            )
            wanted = {package.partition("[")[0] for packages in PACKAGES.values() for package in packages}
            said |= {each["name"]: each["version"] for each in json.loads(listed.stdout) if each["name"] in wanted}
        return said

    def machine(self):
        """Where it is compared."""
        lines = open("/proc/cpuinfo").read().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        return {"kernel": platform.release(), "cpu": cpu, "cpus": os.cpu_count(), "load": os.getloadavg()[0]}

    def commit(self):
        """What was built, if git knows it."""
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=self.root, capture_output=True, text=True)
        return done.stdout.strip()


def surroundings():
    """The environment of every command: no reports to anybody, no dashboards, and libraries as they are by themselves."""
    env = dict(os.environ)
    for name in ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]:
        env.pop(name, None)         # Set for old builds; a new one knows the processor.
    env |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "PYTHONWARNINGS": "ignore",
    }
    return env

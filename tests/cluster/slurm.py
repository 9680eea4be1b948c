"""A Slurm for tests: controller, accounting and nodes on this machine, with devices that stand for GPUs.

Nobody shares it: it has its own folder, ports, key and database, and ends with the process that started it.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "srun", "sacct")
USER = pwd.getpwuid(os.getuid()).pw_name
PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
# Slurm accepts only character or block devices, and these are on every Linux. Nobody opens them.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is queued again waits as long as a credential lasts, by default two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass={folder}/munge.socket
AccountingStoragePort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
ReturnToService=2
# A node may say that it has more than this machine.
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
GresTypes=gpu
{nodes}
PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} CoresPerSocket={cpus} "
    "RealMemory=16000 Gres=gpu:{gpus} State=UNKNOWN"
)
ACCOUNTING = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={ports[1]}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
"""


def missing() -> list[str]:
    """The programs that a cluster needs and this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> object:
    """What a condition comes to when it is met; TimeoutError if it is not within the time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.1)
    return value


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it; Snakemake's comment names the rule and its wildcards."""

    id: str
    state: str
    node: str
    partition: str
    comment: str


class Cluster:
    """A running Slurm; ``gpus`` says how many each of its nodes has. Use it as a context."""

    def __init__(self, folder: Path, gpus: dict[str, int], cpus: int = 16) -> None:
        self.folder, self.gpus, self.daemons = folder, gpus, {}
        self.environment = {"PATH": f"{folder}/bin:{PATH}", "SLURM_CONF": str(folder / "slurm.conf")}
        ports, host = _free_ports(2 + len(gpus)), socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            NODE.format(name=name, host=host, port=port, cpus=cpus, gpus=count)
            for (name, count), port in zip(gpus.items(), ports[2:], strict=True)
        )
        devices = [f"NodeName={name} Name=gpu File={file}" for name in gpus for file in DEVICES[: gpus[name]]]
        texts = {"slurm.conf": CONFIGURATION, "slurmdbd.conf": ACCOUNTING, "gres.conf": "\n".join(devices)}
        folder.mkdir(parents=True)
        (folder / "state").mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text.format(folder=folder, ports=ports, host=host, user=USER, nodes=nodes))
            (folder / name).chmod(0o600)
        # Within a job the plugin removes every variable of Slurm, and with them the way to this cluster.
        srun = folder / "bin/srun"
        srun.parent.mkdir()
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n')
        srun.chmod(0o755)
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)

    def __enter__(self) -> "Cluster":
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_all(self) -> None:
        at = self.folder
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        self._start("munged", "--foreground", "--force", *(f"--{key}={at / name}" for key, name in files.items()))
        database = ("--no-defaults", f"--user={USER}", f"--datadir={at}/database", f"--tmpdir={at}")
        self.run("mariadb-install-db", *database, "--auth-root-authentication-method=socket",
                 f"--auth-root-socket-user={USER}", "--skip-test-db")  # fmt: skip
        self.environment["MYSQL_UNIX_PORT"] = str(at / "database.socket")
        self._start("mariadbd", *database, f"--socket={at}/database.socket", f"--pid-file={at}/mariadbd.pid",
                    "--skip-networking", "--innodb-buffer-pool-size=64M")  # fmt: skip
        wait_for((at / "database.socket").exists, "the database")
        self._start("slurmdbd", "-D")
        wait_for(lambda: self._ok("sacctmgr", "-n", "list", "cluster"), "slurmdbd")
        self.run("sacctmgr", "-i", "add", "cluster", "tests")
        self.start_controller()
        for name in self.gpus:
            self.start_node(name)

    def run(self, *command: object, **options: object) -> str:
        """The output of a command, with this cluster's programs and configuration; RuntimeError if it fails."""
        words, settings = [*map(str, command)], os.environ | self.environment
        ran = subprocess.run(words, env=settings, capture_output=True, text=True, timeout=60, **options)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(words)}: {ran.stdout}{ran.stderr}")
        return ran.stdout

    def _ok(self, *command: object) -> bool:
        try:
            self.run(*command)
        except RuntimeError:
            return False
        return True

    def _start(self, program: str, *arguments: str, name: str = "", **environment: str) -> None:
        """Start a daemon that ends with the process that starts it, in whatever way that ends."""
        name = name or program
        command, settings = ["setpriv", "--pdeathsig", "TERM", program, *arguments], self.environment | environment
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def _end(self, name: str, number: int = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        daemon.wait(60)

    def stop(self) -> None:
        """End all jobs, and then all daemons, those first that ask the others."""
        if "slurmctld" in self.daemons and self._ok("scancel", "--full", f"--user={USER}"):
            with contextlib.suppress(TimeoutError, RuntimeError):
                wait_for(lambda: not self.jobs(), "the end of all jobs", 20)
        for name in reversed(self.daemons.copy()):
            self._end(name)
        self._kill_jobs()

    # -- jobs

    def jobs(self, states: str = "") -> list[Job]:
        """The jobs that wait or run, or those in the given states; RuntimeError while the controller is down."""
        fields = "%i|%T|%N|%P|%k"
        lines = self.run("squeue", "--noheader", f"--format={fields}", *([f"--states={states}"] if states else []))
        return [Job(*line.split("|")) for line in lines.splitlines()]

    def ended(self) -> list[tuple[str, str]]:
        """Identity and state of every start of every job that has ended, as the accounting has them."""
        fields = ["--format=JobIDRaw,State", "--duplicates", "--allocations", "--noheader", "--parsable2"]
        lines = self.run("sacct", *fields, "--starttime=2000-01-01").splitlines()
        rows = [tuple(line.split("|")) for line in lines]
        return [(identity, state.split()[0]) for identity, state in rows if state not in ("PENDING", "RUNNING")]

    # -- faults

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self._start("slurmctld", "-D")
        wait_for(lambda: self._ok("scontrol", "ping"), "slurmctld")

    def stop_controller(self) -> None:
        """End slurmctld. What jobs run goes on."""
        self._end("slurmctld")

    def start_node(self, name: str) -> None:
        """Start a node's slurmd, and wait until the node takes jobs."""
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._start("slurmd", "-D", "-N", name, name=name, SLURMD_NODENAME=name)
        usable = ("idle", "mixed", "allocated")
        wait_for(lambda: self.run("sinfo", "-h", "-n", name, "-o", "%T").split()[0] in usable, f"node {name}")

    def lose_node(self, name: str) -> None:
        """As if the power of a node failed: whatever runs there is gone, and then the controller notices."""
        self._end(name, signal.SIGKILL)
        self._kill_jobs(name)
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def _kill_jobs(self, node: str = "") -> None:
        """Kill what Slurm has started on a node or, without a name, on all; it has their names in its environment."""
        wanted = {f"SLURM_CONF={self.folder / 'slurm.conf'}", *([f"SLURMD_NODENAME={node}"] if node else [])}
        daemons = {daemon.pid for daemon in self.daemons.values()}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
                started_here = any(one.startswith("SLURMD_NODENAME=") for one in variables)
                if started_here and wanted <= set(variables) and int(process.name) not in daemons:
                    os.kill(int(process.name), signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]

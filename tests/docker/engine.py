"""Docker engines of the tests' own: on this machine, or on machines made of network namespaces."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.support.process import ROOT
from tests.support.waiting import wait_until

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "socratic-chat-bot-docker"
# What the images of these names do when they are started.
_DEFAULTS = {
    "python:3.11-slim-bookworm": ("python.tar", ['CMD ["python3"]']),
    "haproxy:2.8": (
        "haproxy.tar",
        ["USER haproxy", 'CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]'],
    ),
}


class Engine:
    """One dockerd and the `docker` command that talks to it.

    Args:
        directory: for its images, containers and socket.
        namespace: the network namespace that it lives in; None for the machine itself.
        keeps: leave the directory, so that the next run need not build again.
    """

    def __init__(self, directory, namespace=None, keeps=False):
        self.directory = directory
        self.namespace = namespace
        self.keeps = keeps
        self.address = f"unix://{directory}/socket"
        self._process = None

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = (self.directory / "log").open("w")
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []
        command = [
            *inside,
            "dockerd",
            f"--data-root={self.directory}/data",
            f"--exec-root={self.directory}/exec",
            f"--pidfile={self.directory}/pid",
            f"--host={self.address}",
            f"--storage-driver={storage_driver(self.directory)}",
        ]
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        wait_until(lambda: self._is_up() or self._process.poll() is not None, "dockerd")
        assert self._process.poll() is None, (self.directory / "log").read_text()[-2000:]
        return self

    def __exit__(self, *exception):
        names = self.run("ps", "--all", "--quiet", check=False).stdout.split()
        if names:
            self.run("rm", "--force", "--volumes", *names, check=False)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._log.close()
        _unmount_below(self.directory)
        if not self.keeps:
            shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *arguments, check=True, **options):
        """Run `docker` with these arguments; returns the finished process."""
        result = subprocess.run(
            ["docker", *arguments], env=self.environment, capture_output=True, text=True, **options
        )
        assert not check or result.returncode == 0, f"docker {arguments}: {result.stderr}"
        return result

    def __call__(self, *arguments, **options):
        """Run `docker` with these arguments; returns what it prints."""
        return self.run(*arguments, **options).stdout.strip()

    @property
    def environment(self):
        """The variables that point Docker's commands at this engine."""
        # The builder of Docker 20.10, the oldest that we name, and of those without buildx.
        return os.environ | {"DOCKER_HOST": self.address, "DOCKER_BUILDKIT": "0"}

    def popen(self, *arguments, **options):
        """Start `docker` with these arguments."""
        return subprocess.Popen(["docker", *arguments], env=self.environment, **options)

    def inspect(self, name):
        """What `docker inspect` knows of one object."""
        return json.loads(self("inspect", name))[0]

    def _is_up(self):
        return self.run("version", check=False).returncode == 0


def storage_driver(directory):
    """overlay2 where the kernel can, else vfs, which copies every layer."""
    lower, upper, work, merged = (directory / "try" / name for name in ("l", "u", "w", "m"))
    for path in (lower, upper, work, merged):
        path.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    tried = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, merged], capture_output=True
    )
    if tried.returncode == 0:
        subprocess.run(["umount", merged], check=True)
    shutil.rmtree(directory / "try")
    return "overlay2" if tried.returncode == 0 else "vfs"


def _unmount_below(directory):
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted(mounted, reverse=True):
        if path.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", path], check=False)


def add_base_images(engine):
    """Give the engine the base images: from the registry, or stand-ins made of Debian packages."""
    for name, (file, changes) in _DEFAULTS.items():
        is_there = engine.run("inspect", name, check=False).returncode == 0
        if not is_there and engine.run("pull", name, check=False).returncode != 0:
            subprocess.run([ROOT / "tests" / "docker" / "base_images.sh", CACHE], check=True)
            options = [option for change in changes for option in ("--change", change)]
            engine("import", *options, str(CACHE / file), name)

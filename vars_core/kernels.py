"""Kernels of the interpreter that runs us, started anew or forked from a zygote.

A study executes seven notebooks, each in a kernel of its own, and in the smoke profile importing torch, timm and
scikit-learn seven times takes longer than what the notebooks compute. A zygote (the term of Android and Chromium)
imports them once; each kernel is a fork of it, which is a fresh process all the same.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

# What notebooks import and what is safe to fork: no thread runs yet, no GPU is touched, no backend is chosen.
HEAVY = (
    "torch",
    "timm.layers",
    "kornia.filters",
    "torchmetrics",
    "scipy.stats",
    "sklearn.metrics",
    "pandas",
    "ipykernel.kernelapp",
)
LAUNCH = ["-f", "{connection_file}", "--log-level=50"]


def manager(environment: dict[str, str], zygote: "Zygote | None" = None) -> type[AsyncKernelManager]:
    """A class of kernel managers for papermill; kernels get `environment` on top of ours."""
    # A kernelspec named python3 may belong to another environment; this one is the interpreter that runs us.
    argv = [sys.executable, "-m", "ipykernel_launcher", *LAUNCH]
    spec = KernelSpec(argv=argv, env=environment, display_name="Python 3", language="python", name="python3")

    class Kernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

        async def _async_pre_start_kernel(self, **options):
            if zygote and self.provisioner is None:
                self.provisioner = Forked(kernel_id=self.kernel_id, kernel_spec=spec, parent=self)
                self.provisioner.zygote = zygote
            return await super()._async_pre_start_kernel(**options)

    return Kernel


class Zygote:
    """A process that has done the imports (HEAVY) and forks on request; it starts with the first request."""

    def __init__(self):
        self._process: subprocess.Popen | None = None

    def ask(self, **request):
        if self._process is None:
            self._process = self._start()
        with contextlib.suppress(BrokenPipeError):  # told below
            print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that starts kernels is gone (exit code {self._process.wait()})")
        return json.loads(answer)

    def close(self):
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()

    @staticmethod
    def _start() -> subprocess.Popen:
        command = [sys.executable, "-c", f"from vars_core import kernels; kernels.serve({HEAVY!r})"]
        environment = os.environ | {"PYTHONHASHSEED": "0"}  # read when an interpreter starts, hence not per kernel
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # a session of its own: an interrupt is for the study to pass on; the end of stdin ends the zygote
        return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


@contextlib.contextmanager
def zygote() -> Iterator[Zygote | None]:
    """A zygote for as long as the block runs; None where forking isn't sound (macOS frameworks, Windows)."""
    if not sys.platform.startswith("linux"):
        yield None
        return
    process = Zygote()
    try:
        yield process
    finally:
        process.close()


class Forked(LocalProvisioner):
    """jupyter_client's local provisioner, with the zygote's child in place of a new process."""

    zygote: Zygote

    async def launch_kernel(self, cmd, **options):
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        folder = options.get("cwd") or str(Path.cwd())  # papermill changes ours
        pid = self.zygote.ask(arguments=arguments, environment=options["env"], folder=folder)
        self.process, self.pid, self.pgid = _Child(self.zygote, pid), pid, None
        return self.connection_info


class _Child:
    """As much of subprocess.Popen as the local provisioner uses; the zygote alone may wait for its children."""

    stdin = stdout = stderr = None

    def __init__(self, zygote: Zygote, pid: int):
        self.pid, self._zygote, self.returncode = pid, zygote, None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._zygote.ask(poll=self.pid)
        return self.returncode

    def wait(self) -> int | None:
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve(modules: Iterable[str]) -> None:
    """The zygote's side: import, then fork a kernel or tell of one for every line of stdin, until it ends.

    It ends with the study, also with one that was killed: kernels that still run then would compute for nobody."""
    for name in modules:
        importlib.import_module(name)
    running = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            answer = _exit_code(request["poll"])
            if answer is not None:
                running.discard(request["poll"])
        else:
            answer = os.fork()
            if answer == 0:
                _kernel(**request)
                return
            running.add(answer)
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)  # ours until we wait for it, so the number is nobody else's


def _exit_code(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # the zygote's stdout carries its answers
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    IPKernelApp.launch_instance(argv=arguments)

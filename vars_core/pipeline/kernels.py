"""Kernels of the interpreter that runs us, started anew or forked from a process that has done the imports.

A study executes a notebook after the other, each in a kernel of its own. Importing torch, torchvision, timm,
torchmetrics and scikit-learn takes eight to eleven seconds on two cores, longer than what the notebooks of the smoke
profile compute. Python's own fork server imports them once; each kernel is a fork of it, a fresh process all the
same.
"""

import contextlib
import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

# What notebooks import and what is safe to fork: no thread runs yet, no GPU is touched, no backend is chosen.
HEAVY = [
    "torch",
    "timm.layers",
    "kornia.filters",
    "torchmetrics",
    "scipy.stats",
    "sklearn.metrics",
    "pandas",
    "ipykernel.kernelapp",
]
LAUNCH = ["-f", "{connection_file}", "--log-level=50"]
# Linux kills the kernel with the process that started it, also in the middle of a long sum; elsewhere ipykernel looks
# once a second whether that is still there. 1 is PR_SET_PDEATHSIG.
START = """
import ctypes, runpy, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
"""


def manager(environment: dict[str, str], *, fork: bool = False) -> type[AsyncKernelManager]:
    """A class of kernel managers for papermill; kernels get `environment` on top of ours. With `fork` they come from
    the fork server, where forking is sound (Linux: not with macOS's frameworks, not on Windows). The class's `ended`
    is a dead kernel's exit status: below 0, the number of a signal."""
    # A kernelspec named python3 may belong to another environment; this one is the interpreter that runs us.
    argv = [sys.executable, "-c", START, *LAUNCH]
    spec = KernelSpec(argv=argv, env=environment, display_name="Python 3", language="python", name="python3")

    class Kernel(AsyncKernelManager):
        ended = None

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

        async def _async_pre_start_kernel(self, **options):
            if self.provisioner is None:
                kind = Forked if fork and sys.platform.startswith("linux") else Started
                self.provisioner = kind(kernel_id=self.kernel_id, kernel_spec=spec, parent=self)
            return await super()._async_pre_start_kernel(**options)

    return Kernel


class Started(LocalProvisioner):
    """jupyter_client's local provisioner; the manager's class learns how the process ended."""

    async def poll(self) -> int | None:
        status = await super().poll()
        if self.has_process and status is not None:
            type(self.parent).ended = status
        return status


class Forked(Started):
    """The same with a child of the fork server in place of a new process."""

    async def launch_kernel(self, cmd, **options):
        arguments = cmd[cmd.index("-f") :]
        folder = options.get("cwd") or str(Path.cwd())  # papermill changes ours
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(HEAVY)
        own, os.environ["PYTHONHASHSEED"] = os.environ.get("PYTHONHASHSEED"), "0"  # read when the server starts
        try:
            self.process = _Child(target=_kernel, args=(arguments, options["env"], folder))
            self.process.start()
        finally:
            os.environ.pop("PYTHONHASHSEED") if own is None else os.environ.update(PYTHONHASHSEED=own)
        self.pid, self.pgid = self.process.pid, None
        return self.connection_info


class _Child(ForkServerProcess):
    """multiprocessing's process, with what the local provisioner wants of a subprocess."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        if self.is_alive():
            os.kill(self.pid, number)


def _kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.setsid()  # Ctrl-C in the terminal is for the study, which then ends its kernel
    _end_with_the_study()
    IPKernelApp.launch_instance(argv=arguments)


def _end_with_the_study() -> None:
    """End this process when the study has gone, also one that was killed: the kernel would compute for nobody."""
    sentinel = multiprocessing.parent_process().sentinel  # a pipe whose other end only the study holds
    with contextlib.suppress(ImportError, OSError, AttributeError):  # Linux has it all
        import fcntl

        # when that end closes, the system sends SIGIO, which ends a process that has no handler for it, at once
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    Thread(target=_wait_for_the_end, daemon=True).start()  # it was gone already, or pipes send no signals here


def _wait_for_the_end() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

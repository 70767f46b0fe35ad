"""Kernels of the interpreter that runs us, started anew or forked from a process that has done the imports.

A study executes a notebook after the other, each in a kernel of its own. Importing torch, torchvision, timm,
torchmetrics and scikit-learn takes eight to eleven seconds on two cores, longer than what the notebooks of the smoke
profile compute. Python's own fork server imports them once; each kernel is a fork of it, a fresh process all the
same.
"""

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


def manager(environment: dict[str, str], *, fork: bool = False) -> type[AsyncKernelManager]:
    """A class of kernel managers for papermill; kernels get `environment` on top of ours. With `fork` they come from
    the fork server, where forking is sound (Linux: not with macOS's frameworks, not on Windows)."""
    # A kernelspec named python3 may belong to another environment; this one is the interpreter that runs us.
    argv = [sys.executable, "-m", "ipykernel_launcher", *LAUNCH]
    spec = KernelSpec(argv=argv, env=environment, display_name="Python 3", language="python", name="python3")

    class Kernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

        async def _async_pre_start_kernel(self, **options):
            if fork and sys.platform.startswith("linux") and self.provisioner is None:
                self.provisioner = Forked(kernel_id=self.kernel_id, kernel_spec=spec, parent=self)
            return await super()._async_pre_start_kernel(**options)

    return Kernel


class Forked(LocalProvisioner):
    """jupyter_client's local provisioner, with a child of the fork server in place of a new process."""

    async def launch_kernel(self, cmd, **options):
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
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
    Thread(target=_end_with_the_study, daemon=True).start()
    IPKernelApp.launch_instance(argv=arguments)


def _end_with_the_study() -> None:
    multiprocessing.parent_process().join()  # also one that was killed: the kernel would compute for nobody
    os._exit(1)

"""Ray as this package uses it: one of its own on this machine, or one that is there, and the workers on it."""

import logging
import os
from contextlib import ExitStack, suppress
from typing import Any

from dataflow_grounding.cluster.worker import Worker
from dataflow_grounding.errors import InputError, MissingExtra
from dataflow_grounding.terminal import counted
from dataflow_grounding.version import __version__

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_OBJECTS = 100 * 2**20  # bytes for Ray's objects, of which there are hardly any: what goes around are paths and counts


class RayCluster:
    """A Ray cluster; without an `address`, one of this machine's own, from the first worker on and until `close`.

    Args:
        address: Of the cluster, as `ray.init` takes it: `auto`, `host:6379`, `ray://host:10001`.
        workers: How many processes work; None takes as many as the cluster has CPUs.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._address, self._workers = address, workers
        self._open = ExitStack()
        self._ray: Any = None

    def connect(self) -> None:
        """Start Ray, or find it. Raises MissingExtra, InputError."""
        if self._ray is not None:
            return
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError:
            raise MissingExtra("Ray", "ray") from None
        if not ray.is_initialized():  # else it is the user's own, in a notebook, say
            self._init(ray)
        self._ray = ray

    def _init(self, ray: Any) -> None:
        cpus = max(self._workers or 1, os.cpu_count() or 1)
        own = {"address": "local", "num_cpus": cpus, "object_store_memory": _OBJECTS, "include_dashboard": False}
        _silence(ray, self._open)
        try:
            ray.init(
                log_to_driver=False, configure_logging=False, **({"address": self._address} if self._address else own)
            )
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            what = f"can't reach Ray at {self._address}" if self._address else "can't start Ray"
            raise InputError(f"{what}: {said}") from None
        self._open.callback(ray.shutdown)

    def close(self) -> None:
        """Leave it; one that was started here ends."""
        self._open.close()

    @property
    def workers(self) -> int:
        """How many processes are to work."""
        return self._workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def worker(self, work: bytes, gpus: float) -> Any:
        """A handle on a new worker, which takes one CPU and so many GPUs; it may have to wait for them."""
        # several at once: one works, the others answer how far it is
        options = {"num_cpus": 1, "num_gpus": gpus, "max_concurrency": 4, "max_restarts": 0}
        return self._ray.remote(Worker).options(**options).remote(work, os.getcwd(), __version__)

    def end(self, worker: Any) -> None:
        """End a worker, whatever it is at."""
        with suppress(Exception):
            self._ray.kill(worker)

    def lost(self, error: BaseException) -> str | None:
        """What an error of a call says of a worker that is gone; None for an error of ours."""
        if not isinstance(error, self._ray.exceptions.RayError):
            return None
        return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)

    def room(self) -> str:
        """What the cluster has, in words."""
        has, free = self._ray.cluster_resources(), self._ray.available_resources()
        kinds = [kind for kind in ("CPU", "GPU") if kind == "CPU" or has.get(kind)]
        parts = [f"{free.get(kind, 0):g} of {has.get(kind, 0):g} {kind}" for kind in kinds]
        return f"{' and '.join(parts)} free on {counted(sum(node['Alive'] for node in self._ray.nodes()), 'node')}"


def _silence(ray: Any, until: ExitStack) -> None:
    """Keep Ray's own messages off the terminal, also those that it prints on standard output when a worker is lost."""
    logger = logging.getLogger("ray")
    until.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.CRITICAL)
    inside = ray._private.worker
    if hasattr(inside, "print_to_stdstream"):
        until.callback(setattr, inside, "print_to_stdstream", inside.print_to_stdstream)
        inside.print_to_stdstream = lambda *_, **__: None

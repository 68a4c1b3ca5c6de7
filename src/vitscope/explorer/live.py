"""A run while it is explored: its tables now, its models soon, its γ when someone moves it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from vitscope.errors import VitscopeError
from vitscope.explorer.records import Models, RunRecord

State = Literal["loading", "ready", "failed"]


@dataclass(eq=False)
class LiveRun:
    """One explored run; safe among threads.

    Attributes:
        read: reads the run's tables; called at once, and again after γ was saved.
        load: loads backbone, SAE and text tower; called once, in a thread.
        save: writes γ as the run's partition (None: as the histogram proposes it); None where the
            explorer may not write.
    """

    read: Callable[[], RunRecord]
    load: Callable[[], Models]
    save: Callable[[float | None], None] | None
    record: RunRecord = field(init=False)
    _models: "Future[Models]" = field(init=False, default_factory=Future[Models])
    _started: threading.Event = field(init=False, default_factory=threading.Event)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.record = self.read()

    def start_loading(self) -> None:
        """Begin to load the models; a second call does nothing."""
        with self._lock:
            if self._started.is_set():
                return
            self._started.set()
        threading.Thread(target=self._load, name="vitscope-models", daemon=True).start()

    def models(self) -> Models:
        """Wait for the models.

        Raises:
            VitscopeError: they cannot be loaded; the message says why.
        """
        self.start_loading()
        return self._models.result()

    def state(self) -> tuple[State, str]:
        """Return how far the models are, and what went wrong."""
        if not self._models.done():
            return "loading", ""
        error = self._models.exception()
        return ("failed", str(error)) if error is not None else ("ready", "")

    def save_gamma(self, gamma: float | None) -> RunRecord:
        """Save γ as the run's partition, and read the tables again.

        Raises:
            VitscopeError: the run is locked, cannot be written, or was made from other inputs.
        """
        if self.save is None:
            raise VitscopeError("this explorer may not write; start it without --read-only")
        with self._lock:
            self.save(gamma)
            self.record = self.read()
        return self.record

    def _load(self) -> None:
        try:
            models = self.load()
        except VitscopeError as error:
            self._models.set_exception(error)
        except Exception as error:  # a page says it; the other pages go on
            self._models.set_exception(
                VitscopeError(f"the models cannot be loaded ({type(error).__name__}: {error})")
            )
        else:
            self._models.set_result(models)

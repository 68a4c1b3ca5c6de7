"""What was computed for a page and may be asked for again, within bounds."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """The values used last, up to so many bytes; safe among threads.

    A value is computed once at a time: who asks meanwhile waits for it.

    Args:
        max_bytes: what all values together may take; the one used longest ago goes first.
        size: bytes of a value.
    """

    def __init__(self, max_bytes: int, size: Callable[[Value], int]) -> None:
        self.max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()
        self._working: dict[Hashable, threading.Lock] = {}

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        return self._n_bytes

    def get(self, key: Hashable) -> Value | None:
        """Return what is held under ``key``."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: Value) -> None:
        """Hold ``value``, unless it alone is larger than all may be."""
        size = self._size(value)
        if size > self.max_bytes:
            return
        with self._lock:
            if key in self._values:
                self._n_bytes -= self._size(self._values.pop(key))
            self._values[key] = value
            self._n_bytes += size
            while self._n_bytes > self.max_bytes:
                _, oldest = self._values.popitem(last=False)
                self._n_bytes -= self._size(oldest)

    def get_or(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return what is held under ``key``, computed if need be."""
        found = self.get(key)
        if found is not None:
            return found
        with self._lock:
            working = self._working.setdefault(key, threading.Lock())
        try:
            with working:
                found = self.get(key)
                if found is None:
                    found = compute()
                    self.put(key, found)
        finally:
            with self._lock:
                self._working.pop(key, None)
        return found

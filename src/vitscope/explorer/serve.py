"""The explorer on a port of this machine, until it is stopped."""

import socket
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import uvicorn

from vitscope.errors import ConfigError
from vitscope.explorer.app import build_app
from vitscope.explorer.guard import LOOPBACK, access_for
from vitscope.explorer.live import LiveRun

DEFAULT_PORT = 8765


def require_local(host: str, also: Sequence[str]) -> None:
    """Refuse to serve beyond this machine unless it was asked for in so many words.

    Raises:
        ConfigError: ``host`` is no loopback address, and no name is given that others will use.
    """
    if host not in LOOPBACK and not also:
        raise ConfigError(
            f"--host {host} would show the run's images to the network, to whoever asks, without "
            "encryption. If that is meant, name this machine as others do: --allow-host NAME "
            "(safer: keep 127.0.0.1 and forward the port with ssh -L)"
        )


def serve(
    runs: list[LiveRun],
    *,
    host: str = LOOPBACK[0],
    port: int = DEFAULT_PORT,
    also: Sequence[str] = (),
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve one or two runs until the process is interrupted.

    Args:
        runs: the first is ``a`` in addresses, the second ``b``.
        host: address to bind.
        port: 0 takes any that is free.
        also: further host names to answer to; needed where ``host`` is no loopback address.
        on_ready: called with the address once the port is bound.

    Raises:
        ConfigError: the port is taken or may not be bound, or the host is not of this machine.
    """
    require_local(host, also)
    with closing(_bound(host, port)) as bound:
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{bound.getsockname()[1]}/")
        config = uvicorn.Config(
            build_app(runs, access_for(host, also)),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        with suppress(KeyboardInterrupt):  # the way to end it, and no accident
            uvicorn.Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # who comes before the server is up waits, and is not turned away
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}; choose another --port (0 takes any "
            "that is free)"
        ) from None
    return found

"""What a running server takes over from its settings when it is told to look at them again (SIGHUP): its certificate,
the secrets that the settings name, and the level of the log. Nobody who is connected notices.

What else differs is named in the log, and waits for a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from landline.channel.records import Configured
from landline.config import Settings
from landline.errors import ConfigurationError, StoreError
from landline.observe import change_level
from landline.server.certificates import end_of
from landline.server.configured import configured

_SECRETS = ("secret", "admin_secret", "bot_app_secret")
_CERTIFICATE = ("tls_cert", "tls_key")

_log = structlog.get_logger(__name__)


class Reload:
    """Takes settings over, one time after the other."""

    def __init__(
        self,
        settings: Settings,
        *,
        show: Callable[[Settings], None],
        admit: Callable[[Settings], None],
        configure: Callable[[Configured], Awaitable[None]],
    ) -> None:
        """`settings` are in force. `show` shows their certificate to whoever connects, or raises `ConfigurationError`
        and goes on showing the former; `admit` and `configure` take over their secrets."""
        self._in_force = settings
        self._show = show
        self._admit = admit
        self._configure = configure
        self._changing = asyncio.Lock()

    async def reload(self, read: Callable[[], Settings]) -> None:
        """Take over what `read` answers. If it raises `ConfigurationError` only the certificate's files are looked at
        again, since they are what changes by itself."""
        async with self._changing:
            try:
                wanted = await asyncio.to_thread(read)
            except ConfigurationError as error:
                _log.error("the settings were not read again; the former ones hold", reason=error.message)
                self._take_certificate(self._in_force)
                return
            waiting = waiting_for_restart(self._in_force, wanted)
            self._take_certificate(wanted)
            await self._take_secrets(wanted)
            _log.info("settings read again")
            if waiting:
                _log.warning("some settings have changed that need a restart", settings=", ".join(waiting))
            self._take_level(wanted)

    def _take_level(self, wanted: Settings) -> None:
        """Last, so that one who asks for less hears what became of it."""
        if wanted.log_level != self._in_force.log_level:
            change_level(wanted.log_level)
            self._take("log_level", wanted)
            _log.info("log level changed", to=wanted.log_level)

    def _take(self, name: str, wanted: Settings) -> None:
        self._in_force = msgspec.structs.replace(self._in_force, **{name: getattr(wanted, name)})

    def _take_certificate(self, wanted: Settings) -> None:
        if wanted.tls_cert is None or self._in_force.tls_cert is None:
            return
        try:
            self._show(wanted)
        except ConfigurationError as error:
            _log.error("the certificate was not loaded again; the former one is shown", reason=error.message)
            return
        for name in _CERTIFICATE:
            self._take(name, wanted)
        _log.info("certificate loaded", ends=end_of(wanted.tls_cert).isoformat())

    async def _take_secrets(self, wanted: Settings) -> None:
        try:
            await self._configure(configured(wanted))
            self._admit(wanted)
        except (StoreError, OSError) as error:
            _log.error("the secrets were not taken over; the former ones hold", reason=str(error))
            return
        for name in _SECRETS:
            self._take(name, wanted)


def waiting_for_restart(in_force: Settings, wanted: Settings) -> list[str]:
    """The settings that differ and cannot change while the server runs. Those of a certificate can, but TLS cannot be
    turned on or off."""
    taken = {*_SECRETS, "log_level"}
    if (in_force.tls_cert is None) == (wanted.tls_cert is None):
        taken |= {*_CERTIFICATE}
    return [
        name
        for name in Settings.__struct_fields__
        if name not in taken and _without_secrets(getattr(in_force, name)) != _without_secrets(getattr(wanted, name))
    ]


def _without_secrets(value: object) -> object:
    """A setting, as far as it cannot change: tables are compared without their secrets."""
    if isinstance(value, tuple):
        return tuple(map(_without_secrets, value))
    if isinstance(value, msgspec.Struct):
        names = set(value.__struct_fields__) - {"secret", "app_secret"}
        return {name: _without_secrets(getattr(value, name)) for name in names}
    return value

"""What is kept by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from landline import ports
from landline.stores.sqlite.connections import Reader, Writer
from landline.stores.sqlite.engine import Engine


class Records(Engine, ports.Records):
    """As `landline.ports.Records` says."""

    async def put_if_absent(self, name: str, value: bytes) -> bytes:
        def remember(writer: Writer) -> bytes:
            writer.connection.execute(
                "INSERT INTO kept (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, value)
            )
            kept = _kept(writer, name)
            assert kept is not None
            return kept

        return await self._write(remember)

    async def get(self, name: str) -> bytes | None:
        return await self._read(lambda reader: _kept(reader, name))

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        def read(reader: Reader) -> Mapping[str, bytes]:
            rows = reader.connection.execute(
                "SELECT name, value FROM kept WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1", (prefix,)
            )
            return {str(name): bytes(value) for name, value in rows.fetchall()}  # type: ignore[arg-type]  # by schema

        return await self._read(read)

    def watch(self, changed: Callable[[], None]) -> None:
        """No other node writes here: the directory is locked."""

    async def compare_and_set(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        def replace(writer: Writer) -> bool:
            if _kept(writer, name) != old:
                return False
            writer.erasures += 1
            if new is None:
                writer.connection.execute("DELETE FROM kept WHERE name = ?", (name,))
            else:
                writer.connection.execute("INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)", (name, new))
            return True

        return await self._write(replace)


def _kept(reader: Reader, name: str) -> bytes | None:
    kept: bytes | None = reader.connection.execute("SELECT value FROM kept WHERE name = ?", (name,)).get
    return kept

"""Which store, and which keeper of attachments, the settings ask for."""

from __future__ import annotations

from landline.blobs.files import FileBlobs
from landline.blobs.totals import Bounds
from landline.config import Settings
from landline.errors import ConfigurationError
from landline.ports import Blobs, Clock, Store
from landline.stores.directory import Directory
from landline.stores.sqlite import SqliteStore

SQLITE = "sqlite"


def storage(
    settings: Settings, directory: Directory, clock: Clock, bounds: Bounds | None = None
) -> tuple[Store, Blobs]:
    """Neither is open yet; the store is to be opened first. Raises `ConfigurationError`."""
    if settings.store == SQLITE:
        return SqliteStore(directory, clock), FileBlobs(settings.data / "blobs", bounds)
    # Only who has a database needs the driver.
    try:
        from landline.blobs.postgres import PostgresBlobs
        from landline.stores.postgres import PostgresStore
    except ModuleNotFoundError as error:
        raise ConfigurationError("store: PostgreSQL needs an extra: pip install 'landline[postgres]'") from error
    store = PostgresStore(settings.store, clock, listen_dsn=settings.store_listen)
    return store, PostgresBlobs(store, clock, bounds)

"""The embedded store: one SQLite file in a directory that one process owns.

`engine` has the threads, `connections` what both know of the file, and each subject of the port its statements and its
methods in a file of its own.
"""

from __future__ import annotations

from landline.ports import Store
from landline.stores.directory import STORE_FILE
from landline.stores.sqlite.failures import Failures
from landline.stores.sqlite.log import Log
from landline.stores.sqlite.members import Members
from landline.stores.sqlite.records import Records
from landline.stores.sqlite.upkeep import Upkeep

FILE = STORE_FILE


class SqliteStore(Log, Members, Records, Upkeep, Failures, Store):
    """A `landline.ports.Store` in a directory of its own."""

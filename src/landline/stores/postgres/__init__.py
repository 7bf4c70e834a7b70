"""The store in PostgreSQL, for several nodes: the extra `landline[postgres]`.

`engine` has the connections and the node's memory, `lane` what appends, `doorbells` what nodes tell each other,
`layout` and `schema.sql` the tables, and each subject of the port its statements and its methods in a file of its own.
"""

from __future__ import annotations

from landline.ports import Store
from landline.stores.postgres.failures import Failures
from landline.stores.postgres.log import Log
from landline.stores.postgres.members import Members
from landline.stores.postgres.records import Records
from landline.stores.postgres.upkeep import Upkeep


class PostgresStore(Log, Members, Records, Upkeep, Failures, Store):
    """A `landline.ports.Store` in a database that several nodes share."""

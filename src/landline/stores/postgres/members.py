"""Who takes part: the bot, and accounts that joined. Who has left keeps a row, so that a person is found who is to be
forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from landline import ports
from landline.core.conversation import Account, Member, as_member
from landline.core.log import ConversationId
from landline.errors import TooManyMembers, UnknownConversation
from landline.stores.postgres.connections import Connection
from landline.stores.postgres.engine import Engine
from landline.stores.postgres.text import is_storable, to_bytes, to_text

# Unless it is a member already. Who has left comes back as a newcomer.
_JOIN = """
    INSERT INTO landline.members AS m (conversation, account_id, name, rank, is_bot)
    SELECT $1, $2, $3, coalesce(max(rank), 0) + 1, false FROM landline.members WHERE conversation = $1
    ON CONFLICT (conversation, account_id) DO UPDATE
    SET name = excluded.name, announced = false, rank = excluded.rank, has_left = false, claimed_until_ms = NULL
    WHERE m.has_left
"""


class Members(Engine, ports.Members):
    """As `landline.ports.Members` says."""

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        async def read(connection: Connection) -> Sequence[Member]:
            return await _members(connection, await _number(connection, conversation))

        return await self.read(read)

    async def join(self, conversation: ConversationId, account: Account, most: int | None = None) -> Sequence[Member]:
        async def join(connection: Connection) -> Sequence[Member]:
            number = await _number(connection, conversation, "FOR NO KEY UPDATE")
            members = await _members(connection, number)
            if any(member.account.id == account.id for member in members):
                return members
            if most is not None and len(members) >= most:
                raise TooManyMembers
            await connection.execute(_JOIN, number, to_bytes(account.id), to_bytes(as_member(account).name))
            return await _members(connection, number)

        return await self.change(join)

    async def claim_joins(
        self, conversation: ConversationId, account_ids: Sequence[str], until_ms: int
    ) -> Sequence[str]:
        now_ms = self._clock.now_ms()

        async def claim(connection: Connection) -> Sequence[str]:
            rows = await connection.fetch(
                """
                UPDATE landline.members SET claimed_until_ms = $3
                WHERE conversation = $1 AND account_id = ANY ($2) AND NOT announced AND NOT has_left
                    AND (claimed_until_ms IS NULL OR claimed_until_ms <= $4)
                RETURNING account_id
                """,
                await _number(connection, conversation),
                [to_bytes(account_id) for account_id in account_ids],
                until_ms,
                now_ms,
            )
            return [str(to_text(row[0])) for row in rows]

        return await self.change(claim)

    async def release_joins(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        async def release(connection: Connection) -> None:
            await connection.execute(
                """
                UPDATE landline.members SET claimed_until_ms = NULL
                WHERE conversation = $1 AND account_id = ANY ($2) AND NOT announced
                """,
                await _number(connection, conversation),
                [to_bytes(account_id) for account_id in account_ids],
            )

        await self.change(release)

    async def mark_announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        async def mark(connection: Connection) -> None:
            await connection.execute(
                """
                UPDATE landline.members SET announced = true
                WHERE conversation = $1 AND account_id = ANY ($2) AND NOT announced
                """,
                await _number(connection, conversation),
                [to_bytes(account_id) for account_id in account_ids],
            )

        await self.change(mark)

    async def leave(self, conversation: ConversationId, account_id: str) -> None:
        async def leave(connection: Connection) -> None:
            await connection.execute(
                """
                UPDATE landline.members SET has_left = true
                WHERE conversation = $1 AND account_id = $2 AND NOT is_bot
                """,
                await _number(connection, conversation, "FOR NO KEY UPDATE"),
                to_bytes(account_id),
            )

        await self.change(leave)

    async def conversations_of_member(self, account_id: str, most: int) -> Sequence[ConversationId]:
        async def read(connection: Connection) -> Sequence[ConversationId]:
            rows = await connection.fetch(
                """
                SELECT c.id FROM landline.members AS m JOIN landline.conversations AS c ON c.number = m.conversation
                WHERE m.account_id = $1 AND NOT m.is_bot LIMIT $2
                """,
                to_bytes(account_id),
                most,
            )
            return [ConversationId(row[0]) for row in rows]

        return await self.read(read)

    async def conversations_of_bot(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        if not is_storable(bot_id):
            return []

        async def read(connection: Connection) -> Sequence[tuple[int, ConversationId]]:
            rows = await connection.fetch(
                """
                SELECT place, id FROM landline.conversations WHERE bot_id = $1 AND place > $2 AND purged_ms IS NULL
                ORDER BY place LIMIT $3
                """,
                bot_id,
                after,
                most,
            )
            return [(place, ConversationId(name)) for place, name in rows]

        return await self.read(read)


async def _number(connection: Connection, conversation: ConversationId, lock: str = "") -> int:
    """The number of a conversation. Raises `UnknownConversation`."""
    number: int | None = None
    if is_storable(conversation):
        number = await connection.fetchval(
            f"SELECT number FROM landline.conversations WHERE id = $1 AND purged_ms IS NULL {lock}",  # noqa: S608  # ours
            conversation,
        )
    if number is None:
        raise UnknownConversation
    return number


async def _members(connection: Connection, number: int) -> Sequence[Member]:
    rows = await connection.fetch(
        """
        SELECT account_id, name, is_bot, announced FROM landline.members WHERE conversation = $1 AND NOT has_left
        ORDER BY rank
        """,
        number,
    )
    return [
        Member(Account(to_text(account_id), to_text(name)), is_bot=is_bot, announced=announced)
        for account_id, name, is_bot, announced in rows
    ]

"""Who takes part: the bot, and accounts that joined. Who has left keeps a row, so that a person is found who is to be
forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from landline import ports
from landline.core.conversation import Account, Member, as_member
from landline.core.log import ConversationId, Newcomer
from landline.errors import TooManyMembers
from landline.stores.sqlite.connections import Reader, Row, Writer
from landline.stores.sqlite.engine import Engine


class Members(Engine, ports.Members):
    """As `landline.ports.Members` says."""

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        return await self._read(lambda reader: _members(reader, reader.known(conversation)))

    async def join(self, conversation: ConversationId, account: Account, most: int | None = None) -> Sequence[Member]:
        def join(writer: Writer) -> Sequence[Member]:
            number = writer.known(conversation)
            members = _members(writer, number)
            if any(member.account.id == account.id for member in members):
                return members
            if most is not None and len(members) >= most:
                raise TooManyMembers
            add_member(writer, number, account, is_bot=False)
            return _members(writer, number)

        return await self._write(join)

    async def claim_joins(
        self, conversation: ConversationId, account_ids: Sequence[str], until_ms: int
    ) -> Sequence[str]:
        """All of them that are due: no other node serves this directory, and within one a line keeps them apart."""
        due = {member.account.id for member in await self.members(conversation) if not member.announced}
        return [account_id for account_id in account_ids if account_id in due]

    async def release_joins(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        """Nothing was kept of the claim."""

    async def mark_announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        def mark(writer: Writer) -> None:
            number = writer.known(conversation)
            writer.connection.executemany(
                "UPDATE members SET announced = 1 WHERE conversation = ? AND account_id = ? AND NOT announced",
                [(number, account_id) for account_id in account_ids],
            )

        await self._write(mark)

    async def leave(self, conversation: ConversationId, account_id: str) -> None:
        def leave(writer: Writer) -> None:
            writer.connection.execute(
                "UPDATE members SET has_left = 1 WHERE conversation = ? AND account_id = ? AND NOT is_bot",
                (writer.known(conversation), account_id),
            )

        await self._write(leave)

    async def conversations_of_member(self, account_id: str, most: int) -> Sequence[ConversationId]:
        query = """
            SELECT c.id FROM members AS m JOIN conversations AS c ON c.number = m.conversation
            WHERE m.account_id = ? AND NOT m.is_bot LIMIT ?
            """
        return await self._read(lambda reader: reader.ids(query, (account_id, most)))

    async def conversations_of_bot(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        def read(reader: Reader) -> Sequence[tuple[int, ConversationId]]:
            rows: Iterable[Row] = reader.connection.execute(
                """
                SELECT number, id FROM conversations WHERE bot_id = ? AND number > ? AND purged_ms IS NULL
                ORDER BY number LIMIT ?
                """,
                (bot_id, after, most),
            )
            return [(number, ConversationId(name)) for number, name in rows]

        return await self._read(read)


def _members(reader: Reader, number: int) -> Sequence[Member]:
    rows = reader.connection.execute(
        """
        SELECT account_id, name, is_bot, announced FROM members WHERE conversation = ? AND NOT has_left
        ORDER BY rank
        """,
        (number,),
    )
    return [
        Member(Account(account_id, name), is_bot=bool(is_bot), announced=bool(announced))
        for account_id, name, is_bot, announced in rows
    ]


def add_member(writer: Writer, number: int, account: Account, *, is_bot: bool) -> None:
    """Make an account a member, its join due, unless it is one already."""
    writer.connection.execute(
        """
        INSERT INTO members (conversation, account_id, name, is_bot, rank)
        VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(rank), 0) + 1 FROM members WHERE conversation = ?1))
        ON CONFLICT (conversation, account_id) DO UPDATE
        SET name = excluded.name, announced = 0, rank = excluded.rank, has_left = 0 WHERE has_left
        """,
        (number, account.id, as_member(account).name, is_bot),
    )


def check_place(writer: Writer, number: int, newcomer: Newcomer) -> None:
    """Whoever speaks joins: where there is no place, nothing is said. Raises `TooManyMembers`."""
    members, among_them = writer.connection.execute(
        "SELECT count(*), coalesce(sum(account_id = ?2), 0) FROM members WHERE conversation = ?1 AND NOT has_left",
        (number, newcomer.account_id),
    ).get
    if members >= newcomer.most_members and not among_them:
        raise TooManyMembers

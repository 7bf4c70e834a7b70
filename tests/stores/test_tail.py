from __future__ import annotations

from landline.core.conversation import Conversation, NewConversation
from landline.core.log import Audience, ConversationId, Entry, Original, Page, Transient
from landline.stores.tail import Tail

A, B = ConversationId("A"), ConversationId("B")
STARTED = NewConversation(A, "bot")
LARGE = 1 << 20


def entry(sequence: int, size: int = 10, original: Original | None = None) -> Entry:
    return Entry(sequence, 1000 + sequence, b"x" * size, original=original)


def filled(count: int, conversation: ConversationId = A, most_bytes: int = LARGE) -> Tail:
    tail = Tail(most_bytes)
    for sequence in range(count):
        tail.append(conversation, entry(sequence))
    return tail


def numbers(page: Page | None) -> list[int]:
    assert page is not None
    return [record.sequence for record in page.records if isinstance(record, Entry)]


def test_what_was_appended_is_shown_from_any_position() -> None:
    tail = filled(3)
    assert tail.recent(A, 1, 0, LARGE) == Page([entry(1), entry(2)], 3, 1002, 0, more=False)
    assert tail.recent(A, 3, 0, LARGE) == Page([], 3, None, 0, more=False)


def test_a_position_it_does_not_reach_is_left_to_the_log() -> None:
    tail = Tail(LARGE)
    tail.append(A, entry(5))
    assert tail.recent(A, 4, 0, LARGE) is None
    assert tail.recent(A, 7, 0, LARGE) is None
    assert tail.recent(B, 0, 0, LARGE) is None
    assert numbers(tail.recent(A, 5, 0, LARGE)) == [5]


def test_a_page_ends_at_its_bytes_but_has_at_least_one_entry() -> None:
    tail = filled(3)
    assert tail.recent(A, 0, 0, 20) == Page([entry(0), entry(1)], 2, 1001, 0, more=True)
    assert tail.recent(A, 0, 0, 1) == Page([entry(0)], 1, 1000, 0, more=True)
    assert tail.recent(A, 0, 0, 30) == Page([entry(0), entry(1), entry(2)], 3, 1002, 0, more=False)


def test_an_update_is_shown_and_nothing_before_it() -> None:
    tail = filled(3)
    tail.append(A, entry(3, original=Original(0, 1000)))
    assert tail.recent(A, 2, 0, LARGE) is None
    assert numbers(tail.recent(A, 3, 0, LARGE)) == [3]


def test_a_gap_in_the_numbers_is_not_papered_over() -> None:
    tail = filled(2)
    tail.append(A, entry(7))
    assert tail.recent(A, 1, 0, LARGE) is None
    assert numbers(tail.recent(A, 7, 0, LARGE)) == [7]


def test_transients_stand_where_they_passed() -> None:
    tail = filled(1)
    tail.pass_by(A, b"1")
    tail.pass_by(A, b"2")
    tail.append(A, entry(1))
    tail.pass_by(A, b"3")
    page = tail.recent(A, 0, 0, LARGE)
    assert page is not None
    assert page.records == [entry(0), Transient(1, 1, b"1"), Transient(2, 1, b"2"), entry(1), Transient(3, 2, b"3")]
    assert page.transient == 3
    page = tail.recent(A, 1, 1, LARGE)
    assert page is not None
    assert page.records == [Transient(2, 1, b"2"), entry(1), Transient(3, 2, b"3")]


def test_transients_of_other_conversations_pass_without_being_seen() -> None:
    tail = filled(1)
    tail.append(B, entry(0))
    tail.pass_by(B, b"1")
    assert tail.recent(A, 1, 0, LARGE) == Page([], 1, None, 1, more=False)


def test_only_the_last_transients_are_kept() -> None:
    tail = filled(1)
    for number in range(1000):
        tail.pass_by(A, b"%d" % number)
    page = tail.recent(A, 1, 0, LARGE)
    assert page is not None
    assert 32 <= len(page.records) <= 64
    assert page.records[-1] == Transient(1000, 1, b"999")


def test_nobody_can_be_shown_a_transient_where_the_head_is_not_known() -> None:
    tail = Tail(LARGE)
    assert not tail.pass_by(A, b"{}")
    assert tail.transients == 0


# Learning from the log


def test_what_the_log_says_makes_a_reader_at_the_head_live() -> None:
    tail = Tail(LARGE)
    tail.meet(A, 5, 1004, tail.forgotten, STARTED)
    assert tail.recent(A, 5, 0, LARGE) == Page([], 5, None, 0, more=False)
    assert tail.conversation(A) == Conversation(A, "bot", None, None, 5, 1004)
    tail.append(A, entry(5))
    assert tail.conversation(A) == Conversation(A, "bot", None, None, 6, 1005)
    assert numbers(tail.recent(A, 5, 0, LARGE)) == [5]


def test_an_answer_of_the_log_that_is_older_than_what_is_known_changes_nothing() -> None:
    tail = filled(2)
    tail.meet(A, 1, 1000, tail.forgotten, STARTED)
    assert numbers(tail.recent(A, 0, 0, LARGE)) == [0, 1]
    assert tail.conversation(A) is None


def test_an_answer_of_the_log_is_not_believed_if_something_was_forgotten_meanwhile() -> None:
    """It may have been this conversation, appended to and forgotten again: a reader would then wait at an old head."""
    tail = filled(0, most_bytes=5000)
    asked = tail.forgotten
    tail.append(A, entry(0))
    for sequence in range(100):
        tail.append(B, entry(sequence))
    for number in range(10):
        tail.append(ConversationId(str(number)), entry(0))
    assert tail.recent(A, 0, 0, LARGE) is None
    tail.meet(A, 0, None, asked, STARTED)
    assert tail.recent(A, 0, 0, LARGE) is None


def test_an_entry_that_the_log_told_of_first_is_not_told_twice() -> None:
    tail = Tail(LARGE)
    tail.meet(A, 3, 1002, tail.forgotten)
    tail.append(A, entry(2))
    assert tail.recent(A, 2, 0, LARGE) is None
    assert tail.recent(A, 3, 0, LARGE) == Page([], 3, None, 0, more=False)


def test_acceptance_times_are_told_only_of_entries_that_are_there() -> None:
    tail = Tail(LARGE)
    tail.meet(A, 5, 1004, tail.forgotten)
    tail.append(A, entry(5))
    assert [tail.accepted_at(A, sequence) for sequence in (4, 5, 6)] == [None, 1005, None]
    assert tail.accepted_at(B, 0) is None


def test_what_the_log_says_was_said_last_is_shown_from_there_on() -> None:
    tail = Tail(LARGE)
    tail.meet(A, 5, 1004, tail.forgotten)
    tail.append(A, entry(5))
    tail.recall(A, [entry(3), entry(4), entry(5)], tail.forgotten)
    tail.append(A, entry(6))
    assert numbers(tail.recent(A, 3, 0, LARGE)) == [3, 4, 5, 6]
    assert tail.accepted_at(A, 3) == 1003
    assert tail.recent(A, 2, 0, LARGE) is None


def test_what_the_log_said_before_a_conversation_moved_is_not_learnt() -> None:
    """It may have moved by a delete, and then what was read of it is to be seen by nobody."""
    tail = Tail(LARGE)
    tail.meet(A, 3, 1002, tail.forgotten)
    tail.append(A, entry(3, original=Original(1, 1001)))
    tail.recall(A, [entry(1), entry(2)], tail.forgotten)
    assert tail.recent(A, 1, 0, LARGE) is None
    assert numbers(tail.recent(A, 3, 0, LARGE)) == [3]


def test_what_the_log_said_before_it_forgot_something_is_not_learnt() -> None:
    tail = Tail(LARGE)
    tail.meet(A, 3, 1002, tail.forgotten)
    asked = tail.forgotten
    tail.expire(A, 2)
    tail.recall(A, [entry(1), entry(2)], asked)
    assert tail.recent(A, 1, 0, LARGE) is None


def test_what_was_erased_and_all_before_it_is_left_to_the_log() -> None:
    tail = Tail(LARGE)
    tail.meet(A, 3, 1002, tail.forgotten)
    tail.recall(A, [entry(0), Entry(1, 1001, b"", Audience.NOBODY), entry(2)], tail.forgotten)
    assert tail.recent(A, 1, 0, LARGE) is None
    assert numbers(tail.recent(A, 2, 0, LARGE)) == [2]


def test_a_gap_in_what_the_log_says_is_not_papered_over() -> None:
    tail = Tail(LARGE)
    tail.meet(A, 5, 1004, tail.forgotten)
    tail.recall(A, [entry(0), entry(4)], tail.forgotten)
    assert tail.recent(A, 0, 0, LARGE) is None
    assert numbers(tail.recent(A, 4, 0, LARGE)) == [4]


# Bounds


def test_all_of_it_is_bounded_and_the_least_recently_appended_goes_first() -> None:
    tail = Tail(10_000)
    idle = [ConversationId(str(number)) for number in range(100)]
    for sequence, name in enumerate(idle):
        tail.append(A, entry(sequence, size=1))
        tail.append(name, entry(0))
    known = [name for name in idle if tail.recent(name, 0, 0, LARGE)]
    assert 4 <= len(known) <= 9
    assert known == idle[-len(known) :]
    assert numbers(tail.recent(A, 99, 0, LARGE)) == [99]


def test_what_it_counts_is_what_it_holds() -> None:
    """After any history the count is that of its contents, or the bound would drift."""
    tail = filled(300, most_bytes=50_000)
    for number in range(300):
        tail.pass_by(A, b"x" * number)
    tail.append(A, entry(300, original=Original(0, 1)))
    tail.meet(B, 3, 1002, tail.forgotten)
    tail.recall(B, [entry(number, size=number) for number in range(3)], tail.forgotten)
    for number in range(300):
        tail.append(ConversationId(str(number % 7)), entry(number // 7, size=number))
    held = sum(
        900 + sum(len(e.body) + 250 for e in live.entries) + sum(len(t.activity) + 250 for t in live.transients)
        for live in tail._live.values()
    )
    assert tail._bytes == held
    assert held <= 50_000


def test_a_busy_conversation_does_not_push_out_a_quiet_one() -> None:
    tail = Tail(100_000)
    tail.append(B, entry(0))
    for sequence in range(5000):
        tail.append(A, entry(sequence))
    assert numbers(tail.recent(B, 0, 0, LARGE)) == [0]
    newest = numbers(tail.recent(A, 4995, 0, LARGE))
    assert newest == [4995, 4996, 4997, 4998, 4999]
    assert tail.recent(A, 0, 0, LARGE) is None


def test_a_tail_without_room_knows_nothing() -> None:
    tail = filled(3, most_bytes=0)
    tail.meet(A, 3, 1002, tail.forgotten, STARTED)
    assert tail.recent(A, 3, 0, LARGE) is None
    assert tail.conversation(A) is None

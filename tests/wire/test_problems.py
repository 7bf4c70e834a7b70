"""Each error has its place in the table of spec 3.5, and its answer has the one form of all errors."""

from __future__ import annotations

import json

import pytest

from landline import errors
from landline.errors import LandlineError
from landline.wire.problems import UNEXPECTED, Problem, problem_of

# Written out a second time, from the specification: a table that is compared with itself proves nothing.
ANSWERS: dict[LandlineError, tuple[int, str]] = {
    errors.RequestError(): (400, "BadArgument"),
    errors.BadSyntax(): (400, "BadSyntax"),
    errors.BadArgument(): (400, "BadArgument"),
    errors.TooManyMembers(): (400, "BadArgument"),
    errors.NotWebSocket(): (400, "BadArgument"),
    errors.MissingProperty(): (400, "MissingProperty"),
    errors.UnsupportedMediaType(): (415, "BadArgument"),
    errors.UnsupportedCoding(): (415, "BadArgument"),
    errors.TooLarge(): (413, "MessageSizeTooBig"),
    errors.TooMuchInConversation(): (413, "MessageSizeTooBig"),
    errors.TooMuchOfSite(): (413, "MessageSizeTooBig"),
    errors.TooLittleSpace(): (413, "MessageSizeTooBig"),
    errors.UrlTooLong(): (414, "BadArgument"),
    errors.TooSlow(): (408, "BadArgument"),
    errors.RangeNotSatisfiable(7): (416, "BadArgument"),
    errors.NotFound(): (404, "BadArgument"),
    errors.MethodNotAllowed(("GET", "POST")): (405, "BadArgument"),
    errors.CredentialError(): (403, "BadArgument"),
    errors.MissingCredential(): (401, "BadArgument"),
    errors.BotNotAuthenticated(): (401, "BadArgument"),
    errors.Forbidden(): (403, "BadArgument"),
    errors.TokenExpired(): (403, "TokenExpired"),
    errors.Conflict(): (409, "Conflict"),
    errors.RateLimited(1.2): (429, "RateLimited"),
    errors.TooManyConnections(): (429, "RateLimited"),
    errors.UnknownConversation(): (404, "BadArgument"),
    errors.UnknownActivity(): (404, "BadArgument"),
    errors.BotGone(): (403, "BadArgument"),
    errors.NotTrusted(): (403, "ServiceError"),
    errors.UnknownBot(): (404, "BadArgument"),
    errors.UnknownSite(): (404, "BadArgument"),
    errors.UnknownKey(): (404, "BadArgument"),
    errors.AlreadyThere(): (409, "Conflict"),
    errors.ReadOnly(): (409, "Conflict"),
    errors.CallConflict(): (409, "Conflict"),
    errors.UnknownAttachment(): (404, "BadArgument"),
    errors.UnknownMember(): (404, "BadArgument"),
    errors.IssuerUnavailable(): (503, "ServiceError"),
    errors.Draining(): (503, "ServiceError"),
    errors.NotServing(): (409, "Conflict"),
    errors.StoreError(): (503, "ServiceError"),
    errors.StoreUnavailable(): (503, "ServiceError"),
    errors.DeadlinePassed(): (503, "ServiceError"),
    errors.OutcomeUnknown(): (503, "ServiceError"),
    errors.ConversationFull(): (400, "BadArgument"),
    errors.DeliveryError(): (502, "BotError"),
    errors.BotUnreachable(): (502, "BotError"),
    errors.BotTimedOut(): (502, "BotError"),
    errors.BotBroke(): (502, "BotError"),
    errors.BotRejected(418): (502, "BotRejectedActivity"),
    errors.NoBot(): (502, "BotError"),
}

NEVER_ANSWERED = {
    LandlineError,  # nobody raises it as such
    errors.ClientGone,  # nobody is there to be answered
    errors.StartupError,
    errors.ConfigurationError,
    errors.DataDirectoryError,
    errors.DirectoryInUse,
}

each_answer = pytest.mark.parametrize(
    ("error", "status", "code"), [(error, *answer) for error, answer in ANSWERS.items()], ids=lambda each: repr(each)
)


def error_object(problem: Problem) -> dict[str, object]:
    """What stands under `error`; fails unless it stands there alone."""
    body = json.loads(problem.body())
    assert list(body) == ["error"]
    assert isinstance(body["error"], dict)
    return body["error"]


@each_answer
def test_every_error_has_the_status_and_code_of_the_specification(error: LandlineError, status: int, code: str) -> None:
    problem = problem_of(error)
    assert problem.status == status
    assert error_object(problem) == {"code": code, "message": error.message}


def test_every_error_that_can_reach_the_edge_is_in_the_table() -> None:
    kinds = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, LandlineError)}
    assert {type(error) for error in ANSWERS} == kinds - NEVER_ANSWERED


@each_answer
def test_retry_after_comes_with_every_429_and_503_only(error: LandlineError, status: int, code: str) -> None:
    retry_after = dict(problem_of(error).headers).get(b"retry-after")
    assert (retry_after is not None) == (status in (429, 503))
    assert retry_after is None or int(retry_after) >= 1


def test_who_is_too_fast_is_told_when_to_come_back_in_whole_seconds() -> None:
    assert [problem_of(errors.RateLimited(wait_s)).headers for wait_s in (0.01, 1.0, 1.2)] == [
        ((b"retry-after", b"1"),),
        ((b"retry-after", b"1"),),
        ((b"retry-after", b"2"),),
    ]


def test_method_that_is_not_allowed_is_told_which_are() -> None:
    assert problem_of(errors.MethodNotAllowed(("GET", "POST"))).headers == ((b"allow", b"GET, POST"),)


def test_who_asks_for_a_part_that_is_not_there_is_told_the_size() -> None:
    assert problem_of(errors.RangeNotSatisfiable(7)).headers == ((b"content-range", b"bytes */7"),)


def test_unexpected_failure_says_nothing_about_itself() -> None:
    assert UNEXPECTED.status == 500
    assert error_object(UNEXPECTED) == {"code": "ServiceError", "message": "Internal error"}


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"reason":"no"}', {"reason": "no"}),
        (b'"text"', "text"),
        (b"", None),
        (b"<h1>Oh</h1>", "<h1>Oh</h1>"),
        (b"\xff\xfe", "��"),
        (b'"\xff"', '"�"'),
        (b"[" * 3000, "[" * 3000),
        (b"[" * 2000 + b"]" * 2000, "[" * 2000 + "]" * 2000),
        (b"x" * 10_000, "x" * 4096),
        (b'{"cut":"' + b"x" * 10_000, '{"cut":"' + "x" * 4088),
    ],
    ids=["object", "text", "empty", "markup", "binary", "broken text", "deep", "deep JSON", "long", "cut JSON"],
)
def test_answer_of_the_bot_is_shown_where_that_is_asked_for(body: bytes, shown: object) -> None:
    error = errors.BotRejected(500, body)
    inner = error_object(problem_of(error, show_inner=True))["innerHttpError"]
    assert inner == {"statusCode": 500, "body": shown}
    assert "innerHttpError" not in error_object(problem_of(error))


def test_no_depth_of_the_bots_answer_breaks_ours() -> None:
    for depth in (1, 199, 200, 201, 900, 1000, 2048):
        body = b"[" * depth + b"]" * depth
        assert error_object(problem_of(errors.BotRejected(500, body), show_inner=True))["code"] == "BotRejectedActivity"


def test_only_a_bot_that_answered_has_an_inner_error() -> None:
    for error in ANSWERS:
        if not isinstance(error, errors.BotRejected):
            assert "innerHttpError" not in error_object(problem_of(error, show_inner=True))

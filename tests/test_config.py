"""Where a setting comes from, and what becomes of one that cannot be used: one line that names it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from landline.commands.serve import serve
from landline.config import Settings, description, settings_from, unknown_variables
from landline.errors import ConfigurationError

GOOD_SECRET = "A-secret.of_24-characters"
LISTS = (
    "trusted_proxies",
    "cors_origins",
    "trusted_origins",
    "bot_app_secret",
    "bot_allowed_hosts",
    "trusted_issuers",
)


def written(directory: Path, text: str) -> Path:
    """A configuration file."""
    path = directory / "landline.toml"
    path.write_text(text)
    return path


def refusal(flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, **file: Path) -> str:
    """The one line that a start with these settings ends with."""
    with pytest.raises(ConfigurationError) as refused:
        settings_from(flags or {}, environment or {}, file.get("config"))
    assert "\n" not in refused.value.message
    assert refused.value.exit_code == 2
    return refused.value.message


# Where a setting comes from


def test_no_configuration_at_all_is_a_good_one() -> None:
    assert settings_from({}, {}) == Settings()


def test_flag_wins_over_environment_and_environment_over_file(tmp_path: Path) -> None:
    config = written(tmp_path, "port = 1\ntoken_ttl_s = 11\nstall_s = 21\n")
    environment = {"LANDLINE_PORT": "2", "LANDLINE_TOKEN_TTL_S": "12"}
    settled = settings_from({"port": "3", "stall_s": None}, environment, config)
    assert (settled.port, settled.token_ttl_s, settled.stall_s, settled.drain_s) == (3, 12, 21, 10)


def test_settings_are_the_same_from_every_place(tmp_path: Path) -> None:
    from_file = settings_from(
        {},
        {},
        written(
            tmp_path,
            'bot = "http://bot.example:3978/api/messages"\nport = 0\ndata = "elsewhere"\nkeepalive_s = 1.5\n'
            'inner_http_error = true\ntrusted_proxies = ["10.0.0.1", "10.1.0.0/16", "::1"]\n',
        ),
    )
    texts = {
        "bot": "http://bot.example:3978/api/messages",
        "port": "0",
        "data": "elsewhere",
        "keepalive_s": "1.5",
        "inner_http_error": "true",
        "trusted_proxies": "10.0.0.1, 10.1.0.0/16,::1",
    }
    assert settings_from(texts, {}) == from_file
    assert settings_from({}, {f"LANDLINE_{name.upper()}": text for name, text in texts.items()}) == from_file


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_is_heard_in_the_environment(name: str) -> None:
    text = "?" if name in LISTS else ""  # an empty list is a good one
    assert refusal(environment={f"LANDLINE_{name.upper()}": text}).startswith(f"{name}: ")


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_has_one_sentence_for_its_reader(name: str) -> None:
    assert description(name).endswith((".", "_ -"))


def test_every_default_is_within_the_bounds_of_its_setting() -> None:
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        msgspec.convert(field.default, hints[field.name])


def test_what_the_environment_says_to_others_is_not_ours() -> None:
    # A service called "landline" gives every container of its namespace LANDLINE_SERVICE_HOST and more.
    environment = {"PORT": "1", "LANDLINE_SERVICE_HOST": "10.0.0.7", "LANDLINE_UNHEARD_OF": "1", "landline_port": "2"}
    assert settings_from({}, environment) == Settings()


def test_line_end_behind_a_value_is_not_part_of_it() -> None:
    environment = {"LANDLINE_BOT": "http://bot.example\n", "LANDLINE_LOG_LEVEL": "debug\r\n", "LANDLINE_PORT": " 80 "}
    settled = settings_from({}, environment)
    assert (settled.bot, settled.log_level, settled.port) == ("http://bot.example", "debug", 80)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:4820/api/messages?code=abc",
        "https://bot.example?code=a%20b&clientId=d@e:/?",
        "HTTP://bot.example/api/messages",
        "Https://bot.example/",
    ],
)
def test_a_bot_can_be_at_any_url(tmp_path: Path, endpoint: str) -> None:
    assert settings_from({"bot": endpoint}, {}).bot == endpoint
    tables = settings_from({}, {}, written(tmp_path, f'[[bots]]\nid = "a"\nendpoint = "{endpoint}"'))
    assert tables.bots[0].endpoint == endpoint


@pytest.mark.parametrize("name", ["public_url", "service_url", "issuer"])
def test_what_urls_of_ours_begin_with_has_no_query(name: str) -> None:
    assert refusal({name: "http://a.example/?b=c"}).startswith(f"{name}: must be an http or https URL")


@pytest.mark.parametrize("endpoint", ["http://", "ftp://a.b", "http://u:p@a.b/?x", "http://a.b/ c?d", "http://a.b?c#d"])
def test_what_is_no_url_is_no_endpoint(endpoint: str) -> None:
    assert refusal({"bot": endpoint}).startswith("bot: must be an http or https URL")


def test_an_empty_list_takes_back_what_the_file_says(tmp_path: Path) -> None:
    config = written(tmp_path, 'cors_origins = ["https://www.example.org"]')
    assert settings_from({}, {}, config).cors_origins == ("https://www.example.org",)
    assert settings_from({}, {"LANDLINE_CORS_ORIGINS": ""}, config).cors_origins == ()


# What cannot be used


def test_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    config = written(tmp_path, "port = 1\nporto = 2\n")
    assert refusal(config=config) == f"porto: no such setting (in {config})"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "x"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "80.5"),
        ("token_ttl_s", "0"),
        ("token_ttl_s", "1209601"),
        ("bot_timeout_s", "18.1"),
        ("bot_timeout_s", "0"),
        ("keepalive_s", "30.5"),
        ("keepalive_s", "nan"),
        ("keepalive_s", "true"),
        ("stall_s", "inf"),
        ("drain_s", "-0.1"),
        ("drain_s", "nan"),
        ("stream_url_ttl_s", "1e300"),
        ("streams_per_conversation", "0"),
        ("streams_per_conversation", "33"),
        ("activity_bytes", "0"),
        ("page_activities", "-5"),
        ("inner_http_error", "perhaps"),
        ("log_level", "loud"),
        ("bot", "bot.example"),
        ("bot", "ftp://bot.example"),
        ("bot", "http://"),
        ("bot", "http://bot.example/a b"),
        ("public_url", "http://bot.example/?code=1"),
        ("bot", "http://bot.example:99999/"),
        ("bot", "http://bot.example:0/"),
        ("bot", "http://[::1/"),
        ("bot", "http://["),
        ("bot", "http://bot..example/"),
        ("public_url", "http://bot$.example/"),
        ("stall_s", "1e308"),
        ("sends_per_s", "1e308"),
        ("idempotency_ttl_s", "1e308"),
        ("dead_peer_s", "5e-324"),
        ("bot_ca_file", "a\0b"),
        ("trusted_issuers", "https://issuer.example"),
        ("trusted_issuers", "https://issuer.example=http://issuer.example/keys"),
        ("trusted_issuers", "https://issuer.example=https://["),
        ("trusted_issuers", "a=https://a.example/keys,a=https://b.example/keys"),
        ("public_url", "wss://chat.example"),
        ("public_url", "https://chat.example/#here"),
        ("service_url", "https://user:password@chat.example"),
        ("bot_id", "x" * 257),
        ("bot_name", " "),
        ("data", ""),
        ("trusted_proxies", "proxy.example"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("cors_origins", "www.example.org"),
        ("cors_origins", "https://www.example.org/page"),
    ],
)
def test_value_that_cannot_be_used_is_refused_by_name(name: str, text: str) -> None:
    for flags, environment, place in (
        ({name: text}, {}, "on the command line"),
        ({}, {f"LANDLINE_{name.upper()}": text}, "in the environment"),
    ):
        line = refusal(flags, environment)
        assert line.startswith(f"{name}: ")
        assert line.endswith(f"({place})")


@pytest.mark.parametrize(
    ("name", "toml"),
    [
        ("port", '"many"'),
        ("port", "true"),
        ("port", "[80]"),
        ("bot", "3978"),
        ("data", "3"),
        ("data", "{}"),
        ("bot_name", "7"),
        ("keepalive_s", "2026-01-01"),
        ("inner_http_error", '"perhaps"'),
        ("trusted_proxies", "[1]"),
        ("trusted_proxies", "1"),
        ("secret", "123456789012345678901234567890"),
        ("stall_s", "inf"),
        ("stall_s", "nan"),
    ],
)
def test_wrong_type_in_the_file_is_refused_by_name(tmp_path: Path, name: str, toml: str) -> None:
    config = written(tmp_path, f"{name} = {toml}\n")
    line = refusal(config=config)
    assert re.match(rf"{name}(\[\d+\])?: ", line)
    assert line.endswith(f"(in {config})")


def test_good_flag_does_not_excuse_a_bad_line_in_the_file(tmp_path: Path) -> None:
    assert refusal({"port": "1"}, config=written(tmp_path, "port = 'x'")).startswith("port: ")


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2\n", b"\xff", b"[", b"bot_name = 'a\n'"])
def test_file_that_is_no_toml_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "landline.toml"
    config.write_bytes(content)
    assert refusal(config=config).startswith(f"config: {config}: ")


def test_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.toml"
    assert refusal(config=missing) == f"config: {missing}: No such file or directory"
    assert refusal(config=tmp_path) == f"config: {tmp_path}: Is a directory"


# The secret


@pytest.mark.parametrize("secret", [GOOD_SECRET, "x" * 24, "x" * 4096, "._-" * 8])
def test_secret_of_24_allowed_characters_is_taken(secret: str) -> None:
    assert settings_from({}, {"LANDLINE_SECRET": secret}).secret == secret


@pytest.mark.parametrize(
    "secret", ["", "x" * 23, GOOD_SECRET + "+", GOOD_SECRET + " x", GOOD_SECRET + "\nx", "ä" * 24, "٣" * 24]
)
def test_secret_that_is_short_or_has_other_characters_is_refused_and_not_repeated(tmp_path: Path, secret: str) -> None:
    lines = [refusal(environment={"LANDLINE_SECRET": secret})]
    if "\n" not in secret:
        lines.append(refusal(config=written(tmp_path, f'secret = "{secret}"')))
    for line in lines:
        assert line.startswith("secret: ")
        assert not secret or secret not in line


def test_secrets_and_tables_are_the_settings_that_are_no_flags() -> None:
    flags = {parameter.name for parameter in serve.params} - {"config", "help"}
    assert set(Settings.__struct_fields__) - flags == {"secret", "admin_secret", "bot_app_secret", "bots"}


# Tables of bots


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('bot_id = "x"\n[[bots]]\nid = "a"', "bot_id: belongs into one of the [[bots]] tables"),
        ('trusted_origins = ["https://a.b"]\n[[bots]]\nid = "a"', "trusted_origins: belongs into"),
        ("[[bots]]", "bots[0]: id is missing"),
        ('[[bots]]\nid = "a"\nbot_name = "A"', "bots[0]: there is no 'bot_name'"),
        ('[[bots]]\nid = "a"\nendpoint = "a.b"', "bots[0].endpoint: must be an http or https URL"),
        ('[[bots]]\nid = "a"\nendpoint = "http://a:0/"', "bots: port 0"),
        ('[[bots]]\nid = "a"\n[[bots]]\nid = "a"', "bots: two bots have the same id"),
        ('[[bots]]\nid = "a"\n[[bots.sites]]\nid = "s"\n[[bots.sites]]\nid = "s"', "bots: two sites have the same id"),
        ('[[bots]]\nid = "a"\n[[bots]]\nid = "b"\n[[bots.sites]]\nid = "default"', "bots: two sites have the same id"),
        ('[[bots]]\nid = "a"\n[[bots.sites]]\nid = "a/b"', "bots[0].sites[0].id: must have 1 to 64 characters of"),
        ('[[bots]]\nid = "a"\n[[bots.sites]]\nid = "s"\nbot_id = "a"', "bots[0].sites[0]: there is no 'bot_id'"),
        ('[[bots]]\nid = "a"\n[[bots.sites]]\nid = "s"\ntrusted_origins = ["a.b"]', "bots: 'a.b' is not an origin"),
        (
            f'[[bots]]\nid = "a"\n[[bots.sites]]\nid = "s"\ntrusted_origins = ["https://a.{"b" * 3500}"]',
            "bots: The trusted origins have more than 3500 characters together",
        ),
        (
            f"trusted_origins = {[f'https://a{number}.b' for number in range(257)]}",
            "trusted_origins: There are more than 256 trusted origins",
        ),
        ('[[bots]]\nid = "a"\n[[bots.sites]]\nid = "s"\nsecret = "short-secret"', "bots: needs at least 24"),
        ("bots = 1", "bots: must be a list"),
        ('[[bots]]\nid = "a"\ntrusted_issuers = ["x"]', "bots: 'x' is not ISSUER=URL"),
        ('[[bots]]\nid = "a"\nendpoint = "http://["', "bots: "),
        ('[[bots]]\nid = "a"\ndelivery = "post"', "bots[0].delivery: must be normal, expectReplies or stream"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_with_their_reason(tmp_path: Path, text: str, reason: str) -> None:
    line = refusal(config=written(tmp_path, text))
    assert line.startswith(reason)
    assert "short-secret" not in line


def test_two_sites_cannot_share_a_secret_and_the_refusal_does_not_repeat_it(tmp_path: Path) -> None:
    sites = "".join(f'[[bots.sites]]\nid = "{name}"\nsecret = "{GOOD_SECRET}"\n' for name in "st")
    line = refusal(config=written(tmp_path, f'[[bots]]\nid = "a"\n{sites}'))
    assert line.startswith("bots: two sites have the same secret")
    assert GOOD_SECRET not in line


def test_the_one_bot_cannot_be_named_beside_tables_from_anywhere(tmp_path: Path) -> None:
    config = written(tmp_path, '[[bots]]\nid = "a"')
    assert refusal({"bot": "http://a.b/"}, config=config).startswith("bot: belongs into")
    assert refusal(environment={"LANDLINE_BOT_NAME": "A"}, config=config).startswith("bot_name: belongs into")


# What people write


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("7 d", 604_800), ("500ms", 0.5), ("15", 15)]
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(tmp_path: Path, text: str, seconds: float) -> None:
    table = '[[bots]]\nid = "a"\ntoken_ttl_s = "15m"\n[[bots.sites]]\nid = "s"\ntoken_ttl_s = "1h"\n'
    config = written(tmp_path, f'activity_ttl_s = "{text}"\n{table}')
    for settings in (
        settings_from({"activity_ttl_s": text}, {}),
        settings_from({}, {"LANDLINE_ACTIVITY_TTL_S": text}),
        settings_from({}, {}, config),
    ):
        assert settings.activity_ttl_s == seconds
    (bot,) = settings.bots
    assert (bot.token_ttl_s, bot.sites[0].token_ttl_s) == (900, 3600)


@pytest.mark.parametrize(
    ("text", "size"), [("500KB", 500_000), ("10MB", 10_000_000), ("1GiB", 1 << 30), ("64 kib", 65_536), ("4096", 4096)]
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert settings_from({"upload_bytes": text}, {}).upload_bytes == size


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("token_ttl_s", "0", "must be at least 1"),
        ("token_ttl_s", "15d", "must be at most 1209600"),
        ("token_ttl_s", "soon", "must be a whole number"),
        ("token_ttl_s", "500ms", "must be a whole number"),
        ("keepalive_s", "31", "must be at most 30"),
        ("activity_ttl_s", "0", "must be more than 0"),
        ("activity_ttl_s", "10M", "'M' is no unit here; write 90s, 10m, 2h or 7d"),
        ("activity_ttl_s", "10MB", "'MB' is no unit here; write 90s, 10m, 2h or 7d"),
        ("upload_bytes", "10m", "'m' is no unit here; write 500KB, 10MB or 1GiB"),
        ("inner_http_error", "maybe", "must be true or false"),
        ("log_level", "loud", "must be debug, info, warning or error"),
        ("bot_turns", "both", "must be overlap or serial"),
        ("host", ["x"], "must be text"),
        ("bot_app_secret", ["x"] * 3, "must have at most 2 entries"),
        ("bot_app_id", "!", "must have 1 to 128 characters of A-Z a-z 0-9 . _ -"),
        ("bot_id", "x" * 300, "must have at most 256 characters"),
    ],
)
def test_a_refusal_says_in_words_what_a_value_must_be(name: str, value: Any, reason: str) -> None:
    assert refusal({name: value}) == f"{name}: {reason} (on the command line)"


@pytest.mark.parametrize("name", sorted(Settings.__struct_fields__))
def test_no_refusal_speaks_of_types(name: str) -> None:
    for value in ("!", "-1", "1" * 30, "x" * 300, {}, [{}], [7], [[]], 3.5, -1, True):
        with contextlib.suppress(ConfigurationError):
            settings_from({name: value}, {})
            continue
        line = refusal({name: value})
        assert not re.search(r"`|Expected|regex|\$|PathLike|NoneType", line), line


def test_variables_that_are_no_settings_are_found_with_what_was_meant() -> None:
    known = {"LANDLINE_PORT": "1", "LANDLINE_CONFIG": "x", "LANDLINE_SECRET": "x", "PATH": "/bin", "OTHER_PORT": "1"}
    assert unknown_variables(known) == []
    misspelt = {"LANDLINE_BOT_ALOWED_HOSTS": "x", "LANDLINE_TRUSTED_ORIGIN": "x", "LANDLINE_COLOUR": "red"}
    assert unknown_variables(known | misspelt) == [
        ("LANDLINE_BOT_ALOWED_HOSTS", "LANDLINE_BOT_ALLOWED_HOSTS"),
        ("LANDLINE_COLOUR", None),
        ("LANDLINE_TRUSTED_ORIGIN", "LANDLINE_TRUSTED_ORIGINS"),
    ]


def test_what_kubernetes_says_of_a_service_named_landline_is_no_setting() -> None:
    made = {
        "LANDLINE_SERVICE_HOST": "10.0.0.1",
        "LANDLINE_SERVICE_PORT": "3000",
        "LANDLINE_SERVICE_PORT_HTTP": "3000",
        "LANDLINE_PORT": "tcp://10.0.0.1:3000",
        "LANDLINE_PORT_3000_TCP": "tcp://10.0.0.1:3000",
        "LANDLINE_PORT_3000_TCP_PROTO": "tcp",
        "LANDLINE_PORT_3000_TCP_PORT": "3000",
        "LANDLINE_PORT_3000_TCP_ADDR": "10.0.0.1",
        "LANDLINE_BOT_SERVICE_HOST": "10.0.0.2",
        "LANDLINE_BOT_PORT": "tcp://10.0.0.2:3978",
    }
    assert unknown_variables(made) == []
    assert settings_from({}, made).port == 3000
    assert refusal(environment={"LANDLINE_PORT": "http://10.0.0.1"}).startswith("port: must be a whole number")

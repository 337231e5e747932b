import os
from pathlib import Path

import pytest

from node import settings
from node.origins import Address
from node.settings import ALIASES, SettingsFault, environment_name, load

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a data directory of its own and nothing else."""
    return {"CIVICNODE_DATA_DIR": str(tmp_path)}


def test_defaults_are_those_of_the_contract(home: dict[str, str]) -> None:
    found = load(environ=home)
    assert (found.api, found.listen) == (Address("127.0.0.1", 8080), Address("0.0.0.0", 4490))
    assert (found.s1_rate_limit_authenticated, found.s1_rate_limit_anonymous) == (1000, 60)
    assert (found.mdns, found.jwt_expires_s, found.jwt_secret) == (True, 3600, None)
    assert (found.origin["api"], found.origin["data_dir"]) == ("default", "env")


def test_flags_outrank_the_environment_and_that_the_file(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('api = "127.0.0.1:1"\nname = "file"\nlog_level = "debug"\n')
    home |= {"CIVICNODE_API": "127.0.0.1:2", "CIVICNODE_NAME": "env"}
    found = load({"api": "127.0.0.1:3", "name": None}, environ=home)
    assert (str(found.api), found.name, found.log_level) == ("127.0.0.1:3", "env", "debug")
    assert [found.origin[name] for name in ("api", "name", "log_level", "mdns")] == [
        "flag",
        "env",
        "file",
        "default",
    ]
    assert found.places["log_level"] == str(tmp_path / "config.toml")
    assert (found.places["name"], found.places["api"]) == ("CIVICNODE_NAME", "--api")


def test_every_fault_of_every_layer_is_named_at_once(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        'listen = "nowhere"\nmdsn = true\njwt_expires_s = 5\npeers = ["a:1", "b"]\nmdns = 1\n'
    )
    home |= {"CIVICNODE_LOG_FORMAT": "xml", "JWT_SECRET": "short", "CIVICNODE_ORIGINS": "http://a/b"}
    with pytest.raises(SettingsFault) as caught:
        load({"api": "0.0.0.0:8080", "api_tls_key": tmp_path / "none"}, environ=home)
    faults = caught.value.faults
    assert {fault.split()[0].rstrip(":") for fault in faults} == {
        "api",
        "api_tls_cert",
        "api_tls_key",
        "jwt_expires_s",
        "jwt_secret",
        "listen",
        "log_format",
        "mdns",
        "mdsn",
        "origins",
        "peers",
    }
    assert len(faults) == 11
    text = str(caught.value)
    assert "did you mean mdns?" in text
    assert "JWT_SECRET" in text
    assert "short" not in text  # a secret is not repeated
    assert all("\n" not in fault for fault in faults)


@pytest.mark.parametrize(
    ("secret", "is_taken"),
    [
        (SECRET, True),
        ("é" * 16, True),
        (SECRET[:-1], False),
        ("your-secret-key", False),
        ("your-secret-key-your-secret-key-your", False),
        ("access_secret_key", False),
    ],
)
def test_a_weak_or_well_known_jwt_secret_stops_the_start(
    home: dict[str, str], secret: str, is_taken: bool
) -> None:
    home["JWT_SECRET"] = secret
    if is_taken:
        found = load(environ=home)
        assert (found.jwt_secret, found.places["jwt_secret"]) == (secret, "JWT_SECRET")
        assert secret not in str(found.describe())
    else:
        with pytest.raises(SettingsFault, match="jwt_secret") as caught:
            load(environ=home)
        assert len(caught.value.faults) == 1
        assert secret not in str(caught.value)


def test_the_prefixed_name_outranks_the_seeds(home: dict[str, str]) -> None:
    home |= {"JWT_EXPIRES_S": "600", "CIVICNODE_JWT_EXPIRES_S": "700"}
    assert load(environ=home).jwt_expires_s == 700
    del home["CIVICNODE_JWT_EXPIRES_S"]
    assert load(environ=home).jwt_expires_s == 600


def test_only_hs256_goes_with_the_secret(home: dict[str, str]) -> None:
    assert load(environ=home | {"JWT_ALGORITHM": "hs256"}).jwt_algorithm == "HS256"
    with pytest.raises(SettingsFault, match="HS256"):
        load(environ=home | {"JWT_ALGORITHM": "none"})


def test_lists_are_read_from_text_and_from_lists(home: dict[str, str]) -> None:
    home |= {"CIVICNODE_PEERS": "a:1, b:2", "CIVICNODE_ORIGINS": "http://A:80 tauri://localhost http://a"}
    found = load({"hosts": ["Box.Example", "::1"]}, environ=home)
    assert found.peers == (Address("a", 1), Address("b", 2))
    assert found.origins == ("http://a", "tauri://localhost")
    assert found.hosts == ("box.example", "::1")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False), ("false", False)],
)
def test_switches_are_read_in_the_usual_words(home: dict[str, str], text: str, value: bool) -> None:
    assert load(environ=home | {"CIVICNODE_MDNS": text}).mdns is value


@pytest.mark.parametrize("api", ["0.0.0.0:80", "192.168.1.5:80", "[::]:80", "box:80"])
def test_an_api_that_others_can_reach_needs_tls_or_the_users_word(
    home: dict[str, str], api: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsFault, match="--insecure-http"):
        load({"api": api}, environ=home)
    assert load({"api": api, "insecure_http": True}, environ=home).insecure_http
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    tls = {"api_tls_cert": tmp_path / "cert", "api_tls_key": tmp_path / "key"}
    assert load({"api": api, **tls}, environ=home).api_tls_cert == tmp_path / "cert"


def test_loopback_needs_neither(home: dict[str, str]) -> None:
    for api in ("127.0.0.1:0", "localhost:0", "[::1]:0"):
        load({"api": api}, environ=home)


def test_a_file_that_was_named_must_be_there_and_may_set_the_data_directory(
    home: dict[str, str], tmp_path: Path
) -> None:
    named = tmp_path / "my.toml"
    with pytest.raises(SettingsFault, match="does not exist"):
        load({"config": named}, environ={})
    named.write_text(f'data_dir = "{tmp_path}/data"\n')
    found = load({"config": named}, environ={})
    assert (found.data_dir, found.origin["data_dir"]) == (tmp_path / "data", "file")
    assert load(environ={"CIVICNODE_CONFIG": str(named)}).data_dir == tmp_path / "data"


@pytest.mark.parametrize(
    "content", [b"api = ", b"\xff\xfe", b"[api]\nx=1", b"data_dir = 'x'", b"config = 'x'"]
)
def test_a_file_that_cannot_be_used_is_a_fault(home: dict[str, str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(SettingsFault, match=r"config\.toml"):
        load(environ=home)


def test_unknown_variables_of_ours_are_told_but_do_no_harm(home: dict[str, str]) -> None:
    found = load(environ=home | {"CIVICNODE_MDSN": "0", "OTHER": "x"})
    assert found.warnings == ("CIVICNODE_MDSN is no setting of this version and is ignored",)


def test_a_variable_that_is_empty_counts_as_not_set(home: dict[str, str]) -> None:
    assert load(environ=home | {"CIVICNODE_API": "", "JWT_SECRET": ""}).origin["api"] == "default"


def test_the_description_names_every_setting_with_its_origin(home: dict[str, str]) -> None:
    rows = load({"peers": ["a:1"]}, environ=home | {"JWT_SECRET": SECRET}).describe()
    by_name = {row["name"]: row for row in rows}
    fields = set(settings.Settings.__dataclass_fields__) - {"origin", "places", "warnings"}
    assert set(by_name) == fields
    assert by_name["jwt_secret"]["value"] == "(set)"
    assert by_name["peers"] == {
        "name": "peers",
        "value": ["a:1"],
        "origin": "flag",
        "place": "--peer",
        "help": "Peers to connect to",
    }
    assert all(row["help"] for row in rows)


def test_environment_names_follow_from_the_settings() -> None:
    assert environment_name("s1_rate_limit_anonymous") == "CIVICNODE_S1_RATE_LIMIT_ANONYMOUS"
    assert set(ALIASES) <= set(settings.Settings.__dataclass_fields__)


def test_a_flag_that_does_not_exist_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError):
        load({"colour": "red"}, environ={})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_the_file_of_somebody_else_names_the_fix(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "config.toml").chmod(0)
    with pytest.raises(SettingsFault, match="run this as its owner"):
        load(environ=home)


def test_the_data_directory_is_told_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"data_dir": Path("here")}, environ={}).data_dir == tmp_path / "here"

"""The node's settings: a TOML file, then the environment, then flags; each value with where it came from.

Room: reading and checking values, all faults at once. What a value does is its user's business. Nothing is
read here but the settings file and the mappings handed in; nothing is written.

The file is the one named by `--config` or `CIVICNODE_CONFIG`, else `config.toml` in the data directory if
there is one. Keys in it are the names of the fields below; in the environment they are upper case with the
prefix `CIVICNODE_`. `ALIASES` are the environment names that the seeds use.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_origin, get_type_hints

from node.origins import Address, parse_address, parse_host, parse_origin

PREFIX = "CIVICNODE_"
FILE_NAME = "config.toml"

# RFC 7518, section 3.2: a key for HS256 has at least the length of the hash.
JWT_SECRET_MIN_BYTES = 32
_EXAMPLE_SECRETS = frozenset(
    {"your-secret-key", "access_secret_key", "refresh_secret_key", "user_specific_key"}
)


class SettingsFault(Exception):
    """Settings that cannot be used. `faults` names every one; the text is one line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class _Setting:
    """How a setting is read, and what `civicnode config` says about it."""

    help: str
    read: Callable[[object], Any]
    is_secret: bool = False


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be a text")
    return value.strip()


def _secret(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text")
    if value in _EXAMPLE_SECRETS or "your-secret" in value.lower():
        raise ValueError("is the example of the documentation, which everybody knows: set one of your own")
    if len(value.encode()) < JWT_SECRET_MIN_BYTES:
        raise ValueError(f"has {len(value.encode())} bytes, at least {JWT_SECRET_MIN_BYTES} are needed")
    return value


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value.expanduser()
    return Path(_text(value)).expanduser()


def _directory(value: object) -> Path:
    # Whole, since messages and `civicnode status` show it to somebody who may stand elsewhere.
    return _path(value).absolute()


def _address(value: object) -> Address:
    return value if isinstance(value, Address) else parse_address(_text(value))


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("1", "true", "yes", "on"):
        return True
    if isinstance(value, str) and value.strip().lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("must be true or false")


def _number(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def _choice(*options: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        for option in options:
            if isinstance(value, str) and value.strip().lower() == option.lower():
                return option
        raise ValueError(f"must be {' or '.join(options)}")

    return read


def _list_of(read_one: Callable[[object], Any]) -> Callable[[object], tuple[Any, ...]]:
    def read(value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [part for part in value.replace(",", " ").split() if part]
        if not isinstance(value, (list, tuple)):
            raise ValueError("must be a list")
        return tuple(dict.fromkeys(read_one(one) for one in value))

    return read


def _origin(value: object) -> str:
    return parse_origin(_text(value))


def _host(value: object) -> str:
    return parse_host(_text(value))


def _peer(value: object) -> Address:
    address = _address(value)
    if address.port == 0:
        raise ValueError(f"{address}: a peer has a port of its own")
    return address


_LOG_LEVELS = ("debug", "info", "warning", "error")


_API = Address("127.0.0.1", 8080)
_LISTEN = Address("0.0.0.0", 4490)
_RATE = _number(1, 1_000_000_000)
_INTROSPECTION = _choice("nobody", "signed-in", "everybody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is in force. `origin` says `flag`, `env`, `file` or `default` of each; `places` says where."""

    data_dir: Annotated[Path, _Setting("Where the node keeps its data", _directory)]
    config: Annotated[Path | None, _Setting("The settings file", _path)] = None
    api: Annotated[Address, _Setting("Where the API listens, HOST:PORT", _address)] = _API
    listen: Annotated[Address, _Setting("Where the node listens for peers", _address)] = _LISTEN
    name: Annotated[str, _Setting("What people call this node; empty: the machine's name", _text)] = ""
    peers: Annotated[tuple[Address, ...], _Setting("Peers to connect to", _list_of(_peer))] = ()
    mdns: Annotated[bool, _Setting("Find peers on the local network", _flag)] = True
    origins: Annotated[
        tuple[str, ...],
        _Setting("Web origins that count as local, besides those of `civicnode origins`", _list_of(_origin)),
    ] = ()
    hosts: Annotated[tuple[str, ...], _Setting("More host names the API answers to", _list_of(_host))] = ()
    api_tls_cert: Annotated[Path | None, _Setting("The API's certificate, PEM", _path)] = None
    api_tls_key: Annotated[Path | None, _Setting("The key of the API's certificate, PEM", _path)] = None
    insecure_http: Annotated[bool, _Setting("Serve other machines without TLS", _flag)] = False
    s1_rate_limit_authenticated: Annotated[int, _Setting("Requests an hour, signed in", _RATE)] = 1000
    s1_rate_limit_anonymous: Annotated[int, _Setting("Requests an hour, otherwise", _RATE)] = 60
    graphql_introspection: Annotated[
        str,
        _Setting("Who is shown the GraphQL schema; locally everybody counts as signed in", _INTROSPECTION),
    ] = "signed-in"
    jwt_secret: Annotated[str | None, _Setting("Accept HS256 tokens made with it", _secret, True)] = None
    jwt_algorithm: Annotated[str, _Setting("Of tokens made with jwt_secret", _choice("HS256"))] = "HS256"
    jwt_expires_s: Annotated[int, _Setting("Seconds an access token lasts", _number(60, 31_536_000))] = 3600
    plugins_dir: Annotated[Path | None, _Setting("Where plugins lie: files and packages", _directory)] = None
    webhooks_allow_private: Annotated[
        bool, _Setting("Let webhooks go to private addresses, this machine's included", _flag)
    ] = False
    log_level: Annotated[str, _Setting("debug, info, warning or error", _choice(*_LOG_LEVELS))] = "info"
    log_format: Annotated[str, _Setting("text or json", _choice("text", "json"))] = "text"
    log_requests: Annotated[bool, _Setting("Log every request", _flag)] = False
    origin: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def describe(self) -> list[dict[str, object]]:
        """What is in force, for `civicnode config`: name, value, origin, place, help. No secrets."""
        return [
            {
                "name": name,
                "value": _shown(getattr(self, name), setting.is_secret),
                "origin": self.origin.get(name, "default"),
                "place": self.places.get(name, "default"),
                "help": setting.help,
            }
            for name, setting in _KNOWN.items()
        ]


_KNOWN: Mapping[str, _Setting] = MappingProxyType(
    {
        name: hint.__metadata__[0]
        for name, hint in get_type_hints(Settings, include_extras=True).items()
        if get_origin(hint) is Annotated
    }
)

# Environment names of seed S4; the prefixed name outranks them.
ALIASES: Mapping[str, str] = MappingProxyType(
    {"jwt_secret": "JWT_SECRET", "jwt_algorithm": "JWT_ALGORITHM", "jwt_expires_s": "JWT_EXPIRES_S"}
)

# Flags that are not called like their setting.
_FLAGS: Mapping[str, str] = MappingProxyType(
    {"api_tls_cert": "--api-tls", "api_tls_key": "--api-tls", "mdns": "--no-mdns", "peers": "--peer"}
)


def environment_name(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def load(flags: Mapping[str, object] | None = None, *, environ: Mapping[str, str]) -> Settings:
    """The settings in force: `flags` (by name, None counts as not given) over `environ` over the file.

    Raises `SettingsFault` with every fault at once, whatever layer it lies in.
    """
    faults: list[str] = []
    given: dict[str, tuple[object, str, str]] = {}  # name -> raw value, origin, place
    for name, value in (flags or {}).items():
        if name not in _KNOWN:
            raise TypeError(f"there is no setting {name!r}")
        if value is not None:
            given[name] = (value, "flag", _FLAGS.get(name, f"--{name.replace('_', '-')}"))
    for name in _KNOWN:
        for variable in (environment_name(name), ALIASES.get(name)):
            if name not in given and variable is not None and environ.get(variable, "") != "":
                given[name] = (environ[variable], "env", variable)
    _read_file(given, faults)

    values: dict[str, Any] = {}
    for name, (raw, _, place) in given.items():
        try:
            values[name] = _KNOWN[name].read(raw)
        except ValueError as error:
            faults.append(f"{name} (from {place}) {_joined(str(error))}")
    if "data_dir" not in given:
        values["data_dir"] = default_data_dir()
    _check_together(values, faults)
    if faults:
        raise SettingsFault(sorted(faults))
    return Settings(
        **values,
        origin=MappingProxyType({name: given[name][1] if name in given else "default" for name in _KNOWN}),
        places=MappingProxyType({name: given[name][2] if name in given else "default" for name in _KNOWN}),
        warnings=tuple(_unknown_variables(environ)),
    )


def default_data_dir() -> Path:
    """The platform's place for a program's data of this user."""
    from platformdirs import user_data_path

    return user_data_path("civicnode", appauthor=False)


def _read_file(given: dict[str, tuple[object, str, str]], faults: list[str]) -> None:
    named = given.get("config")
    if named is not None:
        try:
            path = _path(named[0])
        except ValueError:
            return  # reported with the other values
    else:
        base = given.get("data_dir")
        try:
            path = (default_data_dir() if base is None else _path(base[0])) / FILE_NAME
        except ValueError:
            return
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if named is not None:
            faults.append(f"config (from {named[2]}): {path} does not exist")
        return
    except PermissionError:
        faults.append(f"config: {path} belongs to somebody else: run this as its owner")
        return
    except OSError as error:
        faults.append(f"config: {path} cannot be read: {error.strerror}")
        return
    except UnicodeDecodeError:
        faults.append(f"config: {path} is not UTF-8 text")
        return
    import tomllib  # here, since most starts have no file to read

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        faults.append(f"config: {path} is not valid TOML: {error}")
        return
    for name, value in table.items():
        if name not in _KNOWN or name == "config":
            import difflib

            close = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f": did you mean {close[0]}?" if close else ""
            faults.append(f"{name} (from {path}) is no setting{hint}")
        elif name == "data_dir" and named is None:
            faults.append(f"data_dir (from {path}) cannot be set in the file that lies in it: use --config")
        elif name not in given:
            given[name] = (value, "file", str(path))


def _check_together(values: Mapping[str, Any], faults: list[str]) -> None:
    """What no value can be judged on by itself."""
    certificate, key = values.get("api_tls_cert"), values.get("api_tls_key")
    if (certificate is None) != (key is None):
        missing = "api_tls_key" if key is None else "api_tls_cert"
        faults.append(f"{missing} is missing: a certificate and its key go together")
    for name in ("api_tls_cert", "api_tls_key"):
        file = values.get(name)
        if file is not None and not file.is_file():
            faults.append(f"{name}: {file} does not exist")
    api = values.get("api")
    if api is not None and not api.is_loopback and certificate is None and not values.get("insecure_http"):
        faults.append(
            f"api: {api} can be reached from other machines: add --api-tls CERT KEY, or --insecure-http"
        )


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {environment_name(name) for name in _KNOWN}
    return [
        f"{variable} is no setting of this version and is ignored"
        for variable in sorted(environ)
        if variable.startswith(PREFIX) and variable not in known
    ]


def _joined(message: str) -> str:
    return message if message.startswith(("must", "has", "is")) else f"is wrong: {message}"


def _shown(value: object, is_secret: bool) -> object:
    if is_secret:
        return None if value is None else "(set)"
    if isinstance(value, tuple):
        return [_shown(one, False) for one in value]
    return str(value) if isinstance(value, (Path, Address)) else value

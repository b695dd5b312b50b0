"""`safehold keys`: keys, tenants and budgets of a running gateway, over its admin API."""

import datetime as dt
import json
import re
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from safehold.cli._reads import secret_file
from safehold.errors import ConfigError, TrustError, UpstreamError, UsageError, WireError
from safehold.http_ask import ask, object_of

_TIMEOUT_S = 30.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_NO_LIMIT = "none"
_MOST_PERIOD_S = 36_500 * 86_400
_F = TypeVar("_F", bound=Callable[..., Any])
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_id, _tenant_name = click.argument("key_id", metavar="ID"), click.argument("name", metavar="TENANT")


class AdminApi(msgspec.Struct, frozen=True):
    """A gateway's admin API: its address, and the file with an administrator's key."""

    url: str
    key_file: Path

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask and return the answer.

        Raises:
            TrustError: The key is no administrator's.
            UsageError: There is no such key or tenant, or it is given to no change.
            UpstreamError: Nobody answers there, or the gateway's own store or ledger does not.
            WireError: What answers there is no gateway.
        """
        headers = {"authorization": f"Bearer {self._key()}", "content-type": "application/json"}
        data = None if method == "GET" else json.dumps(body or {}).encode()
        address = f"{self._base}{path}"
        try:
            answer = ask(address, timeout_s=_TIMEOUT_S, data=data, headers=headers, method=method)
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error.code, _words(error), str(error.reason)) from error
        except ConnectionError as error:
            if str(error).startswith("expected"):
                raise UpstreamError(f"{self.url}: {error}") from error
            raise UpstreamError(f"{self.url}: expected a gateway; nobody answers there") from error
        except OSError as error:
            raise UpstreamError(f"{self.url}: expected a gateway; nobody answers there") from error
        return object_of(answer, of=self.url)

    def told(self, path: str) -> dict[str, Any]:
        """Ask what a key or a tenant is; the answer has at least what is printed of one."""
        found = self.call("GET", path)
        self.shaped(found)
        return found

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """Ask for all keys or tenants."""
        found = self.call("GET", f"/admin/{kind}").get(kind)
        if not isinstance(found, list):
            raise WireError(f"{self.url}: expected a gateway's list of {kind}, came something else")
        for one in found:
            self.shaped(one)
        return found

    def shaped(self, found: object) -> None:
        """Refuse what is no description of a key or tenant.

        Raises:
            WireError: Its fields are others.
        """
        try:
            msgspec.convert(found, _Told)
        except msgspec.ValidationError as error:
            raise WireError(
                f"{self.url}: expected a gateway's description of it, came something else"
            ) from error

    @property
    def _base(self) -> str:
        """The address; clients of models know it with `/v1` at its end."""
        return self.url.rstrip("/").removesuffix("/v1").rstrip("/")

    def _key(self) -> str:
        from safehold.trust.log.key_files import read_bearer

        return read_bearer(self.key_file)


class _Told(msgspec.Struct, frozen=True):
    """What is printed of a key or of a tenant."""

    id: str
    state: str
    budget: dict[str, int | None] = {}
    surfaces: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    used: dict[str, int] = {}
    tenant: str = ""
    admin: bool = False
    expires_at: str | None = None
    origin: str | None = msgspec.field(name="from", default=None)

    def limits(self) -> Iterator[str]:
        """Yield the limits that are set."""
        return (f"{name} {limit}" for name, limit in self.budget.items() if limit is not None)


def _words(error: urllib.error.HTTPError) -> str | None:
    """Return what a gateway says is wrong; None: it is no gateway's answer."""
    try:
        said = json.loads(error.read())["error"]
        return str(said["message"] if isinstance(said, dict) else said)[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _refused(status: int, said: str | None, reason: str) -> Exception:
    if said is None:
        return UpstreamError(f"expected a gateway's answer, came status {status} ({reason})")
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return TrustError(f"the gateway refuses the admin key: {said}")
        case HTTPStatus.CONFLICT:
            return ConfigError(said)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return UpstreamError(f"the gateway answers {status}: {said}")
        case _:
            return UsageError(said)


@click.group()
@click.option(
    "--gateway",
    default="http://127.0.0.1:8400",
    envvar="SAFEHOLD_GATEWAY",
    show_default=True,
    show_envvar=True,
    help="Base URL of the running gateway.",
)
@click.option(
    "--admin-key-file",
    type=secret_file(),
    envvar="SAFEHOLD_ADMIN_KEY_FILE",
    show_envvar=True,
    required=True,
    help="File with the gateway's admin key (`safehold init --new-key ops --admin` makes one).",
)
@click.pass_context
def keys(context: click.Context, gateway: str, admin_key_file: Path) -> None:
    """Keys, tenants and budgets of a running gateway; each change holds on all its hosts.

    \b
    Examples:
      export SAFEHOLD_ADMIN_KEY_FILE=admin.key
      safehold keys list
      safehold keys add laptop --tenant research --model 'qwen-*' --expires-in 30d
      safehold keys budget laptop --requests-per-minute 60 --tokens-per-day none
      safehold keys rotate laptop --grace 1h
      safehold keys revoke laptop
      safehold keys tenant research --tokens-per-day 2000000
      safehold keys block research
    """
    context.obj = AdminApi(gateway, admin_key_file)


def _limits(*names: str) -> Callable[[_F], _F]:
    """Add one option for each limit of a budget."""

    def add(command: _F) -> _F:
        for name in reversed(names):
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, name, metavar="N", help="A number, or `none`.")(command)
        return command

    return add


_TENANT_LIMITS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "flags_per_day")
_KEY_LIMITS = (*_TENANT_LIMITS, "unreadable_per_day")
_models = click.option(
    "--model", "models", multiple=True, help="A model it may ask for; * for any letters."
)


def _known_surfaces(
    context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a surface that no gateway has."""
    del context, option
    if given:
        from safehold.guard.gateway.interface import Surface

        for name in given:
            if name not in tuple(Surface):
                known = ", ".join(Surface)
                raise UsageError(f"--surface: expected one of {known}, got {name[:40]!r}")
    return given


_surfaces = click.option(
    "--surface",
    "surfaces",
    multiple=True,
    callback=_known_surfaces,
    help="A surface it may use.",
)


def _budget(given: Mapping[str, str | None]) -> dict[str, int | None]:
    """Return the limits that were given."""
    budget: dict[str, int | None] = {}
    for name, text in given.items():
        if text is None:
            continue
        if text != _NO_LIMIT and re.fullmatch(r"[0-9]{1,15}", text) is None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: expected a number or none, got {text[:40]!r}")
        budget[name] = None if text == _NO_LIMIT else int(text)
    return budget


def _period_s(flag: str, text: str, *, least: int = 1) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found is not None else -1
    if not least <= seconds <= _MOST_PERIOD_S:
        raise UsageError(
            f"{flag}: expected a period like 20m, 12h or 30d, at most {_MOST_PERIOD_S // 86_400}d, "
            f"got {text[:40]!r}"
        )
    return seconds


def _place(kind: str, name: str, verb: str = "") -> str:
    return f"/admin/{kind}/{urllib.parse.quote(name, safe='')}{verb and '/'}{verb}"


def _say(answer: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    click.echo(json.dumps(answer) if as_json else sentence)


def _secret(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if not all(isinstance(answer.get(name), str) for name in ("id", "key")):
        raise WireError("expected a gateway's answer with the key, came something else")
    _say(answer, f"Key {answer['id']} (shown this once): {answer['key']}", as_json=as_json)


@keys.command("list")
@_json_option
@click.pass_obj
def list_keys(api: AdminApi, as_json: bool) -> None:
    """List every key, without digests.

    \b
    Example:
      safehold keys list --json
    """
    found = api.listed("keys")
    if as_json:
        click.echo(json.dumps({"keys": found}))
        return
    for key in found:
        click.echo(_line(key))


def _line(found: Mapping[str, Any]) -> str:
    key = msgspec.convert(found, _Told)
    parts = [key.id, key.state]
    if key.tenant:
        parts += ["admin" if key.admin else key.tenant, f"from {key.origin}"]
        parts += [f"models {','.join(key.models)}"] if key.models else []
        parts += [f"surfaces {','.join(key.surfaces)}"] if key.surfaces else []
        parts += [f"until {key.expires_at}"] if key.expires_at else []
        parts += key.limits()
    return "  ".join(parts)


@keys.command()
@_id
@_json_option
@click.pass_obj
def show(api: AdminApi, key_id: str, as_json: bool) -> None:
    """Show one key, and what it used of its budget.

    \b
    Example:
      safehold keys show laptop
    """
    found = api.told(_place("keys", key_id))
    used = "".join(f"\n  used {name}: {count}" for name, count in found.get("used", {}).items())
    _say(found, f"{_line(found)}{used}", as_json=as_json)


@keys.command()
@_id
@click.option("--tenant", default="default", show_default=True, help="Whose the key is.")
@_models
@_surfaces
@_limits(*_KEY_LIMITS)
@click.option("--expires-in", metavar="PERIOD", help="For instance 30d, 12h, 20m.")
@_json_option
@click.pass_obj
def add(
    api: AdminApi,
    /,
    *,
    key_id: str,
    tenant: str,
    models: tuple[str, ...],
    surfaces: tuple[str, ...],
    expires_in: str | None,
    as_json: bool,
    **limits: str | None,
) -> None:
    """Make a key; it is printed this once.

    \b
    Examples:
      safehold keys add laptop --tenant research
      safehold keys add ci --model small --surface openai.chat --requests-per-minute 30 \\
          --expires-in 7d
    """
    until = None
    if expires_in is not None:
        until = _in(expires_in)
    asked = {
        "id": key_id,
        "tenant": tenant,
        "models": models,
        "surfaces": surfaces,
        "budget": _budget(limits),
        "expires_at": until,
    }
    _secret(api.call("POST", "/admin/keys", asked), as_json=as_json)


def _in(period: str) -> str:
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_period_s("--expires-in", period))
    return until.isoformat(timespec="seconds")


@keys.command()
@_id
@_limits(*_KEY_LIMITS)
@_json_option
@click.pass_obj
def budget(api: AdminApi, /, *, key_id: str, as_json: bool, **limits: str | None) -> None:
    """Change limits of a key that the admin API made; those not named stay.

    \b
    Examples:
      safehold keys budget laptop --requests-per-minute 60
      safehold keys budget laptop --tokens-per-day none
    """
    changes = _budget(limits)
    if not changes:
        raise UsageError("expected a limit that is to change, such as --tokens-per-day N")
    answer = api.call("PATCH", _place("keys", key_id), {"budget": changes})
    _say(answer, f"{key_id}: changed", as_json=as_json)


@keys.command()
@_id
@click.option("--grace", metavar="PERIOD", help="How long the key before still opens: 1h, 1d.")
@_json_option
@click.pass_obj
def rotate(api: AdminApi, key_id: str, grace: str | None, as_json: bool) -> None:
    """Make a key's secret anew, under the same id and budget; it is printed this once.

    \b
    Example:
      safehold keys rotate laptop --grace 1h
    """
    asked = {"grace_s": 0 if grace is None else _period_s("--grace", grace, least=0)}
    _secret(api.call("POST", _place("keys", key_id, "rotate"), asked), as_json=as_json)


@keys.command()
@_id
@_json_option
@click.pass_obj
def revoke(api: AdminApi, key_id: str, as_json: bool) -> None:
    """Keep a key out everywhere, a configured one too; it is out when this ends.

    \b
    Example:
      safehold keys revoke laptop
    """
    answer = api.call("POST", _place("keys", key_id, "revoke"))
    _say(answer, f"{key_id}: revoked", as_json=as_json)


@keys.command()
@_id
@_json_option
@click.pass_obj
def restore(api: AdminApi, key_id: str, as_json: bool) -> None:
    """Let a configured key in again.

    \b
    Example:
      safehold keys restore laptop
    """
    answer = api.call("POST", _place("keys", key_id, "restore"))
    _say(answer, f"{key_id}: active", as_json=as_json)


@keys.command()
@_json_option
@click.pass_obj
def tenants(api: AdminApi, as_json: bool) -> None:
    """List the tenants, their bounds and their keys.

    \b
    Example:
      safehold keys tenants
    """
    found = api.listed("tenants")
    if as_json:
        click.echo(json.dumps({"tenants": found}))
        return
    for one in found:
        tenant = msgspec.convert(one, _Told)
        parts = [tenant.id, tenant.state, f"keys {','.join(tenant.keys)}", *tenant.limits()]
        click.echo("  ".join(parts))


@keys.command()
@_tenant_name
@_models
@_surfaces
@_limits(*_TENANT_LIMITS)
@click.option("--unbound", is_flag=True, help="Take the bounds away.")
@_json_option
@click.pass_obj
def tenant(
    api: AdminApi,
    /,
    *,
    name: str,
    models: tuple[str, ...],
    surfaces: tuple[str, ...],
    unbound: bool,
    as_json: bool,
    **limits: str | None,
) -> None:
    """Show a tenant, or bound all its keys together; what is not named stays.

    \b
    Examples:
      safehold keys tenant research
      safehold keys tenant research --requests-per-minute 100 --model 'qwen-*'
      safehold keys tenant research --unbound
    """
    changes = _budget(limits)
    if unbound:
        if models or surfaces or changes:
            raise UsageError("--unbound takes all bounds away: expected it alone")
        answer = api.call("POST", _place("tenants", name, "remove"))
        _say(answer, f"{name}: without bounds", as_json=as_json)
        return
    given = {"surfaces": surfaces, "models": models, "budget": changes}
    asked = {field: value for field, value in given.items() if value}
    if not asked:
        shown = api.told(_place("tenants", name))
        _say(shown, json.dumps(shown, indent=2), as_json=as_json)
        return
    answer = api.call("PATCH", _place("tenants", name), asked)
    _say(answer, f"{name}: bounded", as_json=as_json)


@keys.command()
@_tenant_name
@_json_option
@click.pass_obj
def block(api: AdminApi, name: str, as_json: bool) -> None:
    """Keep all keys of a tenant out everywhere.

    \b
    Example:
      safehold keys block research
    """
    answer = api.call("POST", _place("tenants", name, "block"))
    _say(answer, f"{name}: blocked", as_json=as_json)


@keys.command()
@_tenant_name
@_json_option
@click.pass_obj
def unblock(api: AdminApi, name: str, as_json: bool) -> None:
    """Let the keys of a tenant in again.

    \b
    Example:
      safehold keys unblock research
    """
    answer = api.call("POST", _place("tenants", name, "unblock"))
    _say(answer, f"{name}: active", as_json=as_json)

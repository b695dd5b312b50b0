"""`safehold keys`: keys, tenants and budgets of a running gateway, over its admin API."""

import datetime as dt
import json
import re
import urllib.error
import urllib.parse
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from safehold.errors import ConfigError, TrustError, UpstreamError, UsageError, WireError
from safehold.http_ask import ask

_TIMEOUT_S = 30.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_NO_LIMIT = "none"
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
        """
        headers = {"authorization": f"Bearer {self._key()}", "content-type": "application/json"}
        data = None if method == "GET" else json.dumps(body or {}).encode()
        address = f"{self.url.rstrip('/')}{path}"
        try:
            with ask(
                address, timeout_s=_TIMEOUT_S, data=data, headers=headers, method=method
            ) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error.code, _words(error.read())) from error
        except (OSError, ValueError) as error:
            raise UpstreamError(f"{self.url}: expected a gateway; nobody answers there") from error
        if not isinstance(found, dict):
            raise WireError(f"{self.url}: expected a JSON object")
        return found

    def _key(self) -> str:
        try:
            return self.key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.key_file}: expected a file with the admin key") from error


def _words(body: bytes) -> str:
    try:
        said = json.loads(body)["error"]
        return str(said["message"] if isinstance(said, dict) else said)[:300]
    except (ValueError, KeyError, TypeError):
        return "the answer is no JSON of a gateway"


def _refused(status: int, said: str) -> Exception:
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
    type=click.Path(dir_okay=False, path_type=Path),
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
_surfaces = click.option("--surface", "surfaces", multiple=True, help="A surface it may use.")


def _budget(given: Mapping[str, str | None], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a budget with the limits that were given in the place of those before."""
    budget = dict(before)
    for name, text in given.items():
        if text is None:
            continue
        if text != _NO_LIMIT and re.fullmatch(r"\d{1,15}", text) is None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: expected a number or none, got {text[:40]!r}")
        budget[name] = None if text == _NO_LIMIT else int(text)
    return budget


def _period_s(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None:
        raise UsageError(f"expected a period like 30d, 12h or 20m, got {text[:40]!r}")
    return int(found[1]) * _UNITS[found[2]]


def _place(kind: str, name: str, verb: str = "") -> str:
    return f"/admin/{kind}/{urllib.parse.quote(name, safe='')}{verb and '/'}{verb}"


def _say(answer: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    click.echo(json.dumps(answer) if as_json else sentence)


def _secret(answer: Mapping[str, Any], *, as_json: bool) -> None:
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
    found = api.call("GET", "/admin/keys")
    if as_json:
        click.echo(json.dumps(found))
        return
    for key in found["keys"]:
        click.echo(_line(key))


def _line(key: Mapping[str, Any]) -> str:
    parts = [key["id"], key["state"]]
    if "tenant" in key:
        parts += ["admin" if key["admin"] else key["tenant"], f"from {key['from']}"]
        parts += [f"models {','.join(key['models'])}"] if key["models"] else []
        parts += [f"surfaces {','.join(key['surfaces'])}"] if key["surfaces"] else []
        parts += [f"until {key['expires_at']}"] if key["expires_at"] else []
        parts += [f"{name} {limit}" for name, limit in key["budget"].items() if limit is not None]
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
    found = api.call("GET", _place("keys", key_id))
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
        "budget": _budget(limits, {}),
        "expires_at": until,
    }
    _secret(api.call("POST", "/admin/keys", asked), as_json=as_json)


def _in(period: str) -> str:
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_period_s(period))
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
    found = api.call("GET", _place("keys", key_id))
    if found.get("from") != "admin":
        raise UsageError(f"{key_id}: expected an active key that the admin API made")
    fields = ("id", "tenant", "surfaces", "models", "expires_at")
    asked = {name: found[name] for name in fields}
    asked["budget"] = _budget(limits, found["budget"])
    answer = api.call("PUT", _place("keys", key_id), asked)
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
    asked = {"grace_s": _period_s(grace) if grace else 0}
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
    found = api.call("GET", "/admin/tenants")
    if as_json:
        click.echo(json.dumps(found))
        return
    for one in found["tenants"]:
        limits = [f"{name} {n}" for name, n in one["budget"].items() if n is not None]
        click.echo("  ".join([one["id"], one["state"], f"keys {','.join(one['keys'])}", *limits]))


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
    if unbound:
        answer = api.call("POST", _place("tenants", name, "remove"))
        _say(answer, f"{name}: without bounds", as_json=as_json)
        return
    unknown: dict[str, Any] = {"surfaces": [], "models": [], "budget": {}}
    tenants_now = api.call("GET", "/admin/tenants")["tenants"]
    found = next((one for one in tenants_now if one["id"] == name), unknown)
    if not (models or surfaces or any(limits.values())):
        shown = api.call("GET", _place("tenants", name))
        _say(shown, json.dumps(shown, indent=2), as_json=as_json)
        return
    asked = {
        "surfaces": surfaces or found["surfaces"],
        "models": models or found["models"],
        "budget": _budget(limits, found["budget"]),
    }
    answer = api.call("PUT", _place("tenants", name), asked)
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

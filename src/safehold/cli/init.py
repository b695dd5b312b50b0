"""`safehold init`: write a starter configuration, or make a client key."""

import json
import secrets
from pathlib import Path

import click

from safehold.errors import UsageError

STARTER = """\
# Safehold gateway. `safehold serve --config safehold.yaml` reads it once; unknown keys are errors.
host: 127.0.0.1        # beyond loopback at least one key is needed (below)
port: 8400
upstream:
  url: local           # or the base URL of any OpenAI-compatible or Anthropic server
  # api_key_file: upstream.key
# bundle: my-bundle    # a folder made by `safehold train`, or a YAML file of rules
# bundle_keys: [release.pub.pem]
ledger: safehold-ledger.db

default:               # the policy of every surface; `surfaces:` and a key's `policies:` override
  mode: hold           # hold | full | audit
  hold_tokens: 16      # text that is withheld until what follows it is scored
  doubt_tokens: 64     # the same once stage 1 doubts the prompt or the reply
  decoded_tokens: 1024 # the same once something in the reply had to be decoded
  unreadable_chars: 200 # of a reply that may leave although nobody can read them
  on_block: block      # block | fallback (needs fallback_model) | review
  shadow: false        # true: deliver everything, record what would have been blocked
  fail_mode_stage1: block   # block | bypass, when a scorer of that stage breaks
  fail_mode_stage2: block
  ledger_fail_mode: block
  category: restricted # what clients are told; never a clause
  rules: {logprobs: strip, images: refuse, opaque_reasoning: refuse}

# surfaces:
#   anthropic.messages: {mode: full}
embeddings: refuse
canary: {every_s: 300}
limits: {max_body_bytes: 8388608, max_streams: 1024}
# keys:                # `safehold init --new-key NAME` prints an entry and, once, the key itself
"""


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("safehold.yaml"))
@click.option("--new-key", "name", metavar="NAME", help="Make a client key instead.")
@click.option("--tenant", default="default", show_default=True, help="Whose the new key is.")
@click.option("--admin", is_flag=True, help="The new key opens the admin API, nothing else.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def init(
    path: Path, name: str | None, tenant: str, admin: bool, force: bool, as_json: bool
) -> None:
    """Write a starter configuration to PATH, or make a client key.

    \b
    Examples:
      safehold init
      safehold init gateway.yaml --force
      safehold init --new-key laptop --tenant research
      safehold init --new-key ops --admin
    """
    if name is not None:
        _new_key(name, tenant, admin=admin, as_json=as_json)
        return
    if path.exists() and not force:
        raise UsageError(f"{path} exists; --force writes over it")
    try:
        path.write_text(STARTER, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: can't be written") from error
    if as_json:
        click.echo(json.dumps({"written": str(path)}))
    else:
        click.echo(f"Wrote {path}. Next: safehold serve --config {path}")


def _new_key(name: str, tenant: str, *, admin: bool, as_json: bool) -> None:
    from safehold.guard.gateway.policy import digest_key

    key = f"sk-safehold-{secrets.token_urlsafe(32)}"
    entry = {"id": name, "sha256": digest_key(key), "tenant": tenant, "admin": admin}
    if as_json:
        click.echo(json.dumps({"key": key, "entry": entry}))
        return
    click.echo(f"Key (shown this once): {key}")
    click.echo("Entry for `keys:` in the configuration, which holds only the digest:")
    click.echo(f"  - {json.dumps(entry)}")

"""Options that several commands of `safehold endpoint` have, each written once."""

import click

from safehold.cli._reads import log_folder

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
log_option = click.option(
    "--log",
    "log_dir",
    type=log_folder(),
    envvar="SAFEHOLD_LOG",
    help="Transparency log: it gets the leaves, and holds the grants without which nothing may be"
    " loosened.",
)
keys_option = click.option(
    "--keys",
    "key_dir",
    type=log_folder(),
    envvar="SAFEHOLD_LOG_KEYS",
    help="The log's private keys.",
)

"""`safehold demo`: a guarded model, real exchanges through it, and what happened."""

import asyncio
import contextlib
import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.errors import SafeholdError

if TYPE_CHECKING:
    from rich.console import Console

    from safehold.demo.gateways import DemoGateway
    from safehold.demo.outcomes import Happened
    from safehold.demo.scenes import Scene
    from safehold.testing.upstream import MockUpstream, Script

_DELTA_CHARS = 5
_DELTA_S = 0.004
_PICTURE_WIDTH = 172
_PIPE_WIDTH = 120


@click.command()
@click.option("--once", is_flag=True, help="End after the table; fail if a verdict is wrong.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8400,
    show_default=True,
    help="Port of the gateway; 0 takes a free one.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Where the ledgers and logs go.",
)
@click.option("--bundle", help="Another bundle than the stock one.")
@click.option("--bundle-key", "keys", multiple=True, help="Public key that signs bundles.")
@click.option("--unsafe-unsigned-bundle", "unsigned", is_flag=True, help="Trust any bundle.")
@click.option("--svg", type=click.Path(path_type=Path), help="Also write the table as a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines; implies --once.")
def demo(
    once: bool,
    port: int,
    folder: Path,
    bundle: str | None,
    keys: tuple[str, ...],
    unsigned: bool,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Start the embedded model and the gateway, play exchanges through them, keep serving.

    The restricted subject of the stock bundle is home-brewing, a harmless stand-in. Replies that
    turn restricted half-way come from a scripted upstream behind a second gateway, and the table
    says so: the embedded model is too small to misbehave on demand.

    \b
    Examples:
      safehold demo
      safehold demo --once
      safehold demo --bundle bundles/mine --bundle-key mine.pub --port 8500
    """
    from rich.console import Console

    from safehold.demo.gateways import free_port, gateway
    from safehold.guard.bundle.stock import stock_bundle
    from safehold.testing.upstream import MockUpstream

    guard = [part for key in keys for part in ("--bundle-key", key)]
    if bundle is None:
        stock, pinned = stock_bundle()
        guard += ["--bundle", str(stock), "--bundle-sha256", pinned.sha256]
    else:
        guard += ["--bundle", bundle]
    guard += ["--unsafe-unsigned-bundle"] if unsigned else []
    # A terminated demo must stop its gateways: the signal becomes the usual interrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    err = Console(stderr=True, quiet=as_json)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        with err.status("Starting the embedded model and two gateways"):
            script = stack.enter_context(MockUpstream())
            main = stack.enter_context(
                gateway(folder, "gateway", "local", free_port(port), tuple(guard))
            )
            second = stack.enter_context(gateway(folder, "scripted", script.url, 0, tuple(guard)))
        rows = _played(main, second, script, err)
        if as_json:
            click.echo(msgspec.json.encode(rows).decode())
        else:
            _show(rows, svg)
        if once or as_json:
            _check(rows)
            return
        _check_softly(rows, err)
        _point(main, err)
        main.process.wait()


def _played(
    main: "DemoGateway", second: "DemoGateway", script: "MockUpstream", err: "Console"
) -> "list[Happened]":
    from safehold.demo.outcomes import Happened
    from safehold.demo.scenes import scenes

    rows: list[Happened] = []
    with err.status("") as status:
        for scene in scenes():
            status.update(f"Playing: {scene.title}")
            through = main if scene.reply is None else second
            if scene.reply is not None:
                script.script = _script(scene.reply)
            rows.append(_one(scene, through))
    return rows


def _one(scene: "Scene", through: "DemoGateway") -> "Happened":
    from safehold.demo.client import play
    from safehold.demo.outcomes import happened
    from safehold.guard.ledger.reader import LedgerReader

    heard = asyncio.run(play(through.url, scene))
    entries = LedgerReader.open(os.fspath(through.ledger)).decision(heard.decision_id)
    return happened(scene, heard, entries)


def _script(reply: str) -> "Script":
    from safehold.testing.upstream import SaidRun, Script, split

    return Script(said=(SaidRun(split(reply, _DELTA_CHARS)),), delay_s=_DELTA_S)


def _show(rows: "list[Happened]", svg: Path | None) -> None:
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console

    from safehold.demo.table import table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(table(rows, console.width))
    console.print(_legend(rows), style="dim")
    if svg is not None:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            picture = Console(record=True, width=_PICTURE_WIDTH, file=nowhere, highlight=False)
            picture.print(table(rows, _PICTURE_WIDTH))
            picture.print(_legend(rows), style="dim")
        # The format without its web fonts: a picture that loads nothing.
        plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        text = picture.export_svg(title="make demo", code_format=plain, unique_id="demo")
        svg.write_text(text, encoding="utf-8")


def _legend(rows: "list[Happened]") -> str:
    from safehold.guard.session.session import SessionPolicy

    delivered = sum(row.delivered_bytes for row in rows)
    scored = sum(row.scored_bytes for row in rows)
    return (
        "added: the guard's own time before anything may leave; streamed text also stays "
        f"{SessionPolicy().hold_tokens} tokens behind the model. Replies: {scored:,} bytes scored, "
        f"{delivered:,} delivered."
    )


def _wrong(rows: "list[Happened]") -> list[str]:
    return [
        f"{number} ({row.title}): {row.problem or f'stopped {row.place}, expected {row.expected}'}"
        for number, row in enumerate(rows, 1)
        if not row.as_expected
    ]


def _check(rows: "list[Happened]") -> None:
    wrong = _wrong(rows)
    if wrong:
        raise SafeholdError(f"{len(wrong)} of {len(rows)} exchanges went wrong: {'; '.join(wrong)}")


def _check_softly(rows: "list[Happened]", err: "Console") -> None:
    for line in _wrong(rows):
        err.print(f"unexpected: {line}", style="yellow", highlight=False)


def _point(main: "DemoGateway", err: "Console") -> None:
    """Say how to point the official SDKs at the gateway."""
    openai = f'OpenAI(base_url="{main.url}/v1", api_key="none")'
    anthropic = f'Anthropic(base_url="{main.url}", api_key="none")'
    ask = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hello"}]}
    err.print("\nThe gateway goes on serving the embedded model. Point an SDK at it:", style="bold")
    curl = f"curl {main.url}/v1/chat/completions -H 'content-type: application/json'"
    for line in (
        f"  from openai import OpenAI;       client = {openai}",
        f"  from anthropic import Anthropic; client = {anthropic}",
        f"  {curl} -d '{json.dumps(ask)}'",
        f"  safehold ledger --ledger {main.ledger} tail",
    ):
        err.print(line, highlight=False, soft_wrap=True, markup=False)
    err.print("One jailbreak to a new bundle, by the clock: safehold respond drill --short")
    err.print("Pages where people see and decide, over a played day: safehold console --demo")
    err.print("Ctrl-C ends it.")

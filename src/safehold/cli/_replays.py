"""Where `safehold bounty` replays: a gateway of yours, or one of its own before our target."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from safehold.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from safehold.detect.bounty.replay import Door

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")


class ReplayThrough(msgspec.Struct, frozen=True):
    """Which gateway a replay goes through."""

    gateway: str | None
    model: str
    digest: str
    bundle: Path | None
    keys: tuple[str, ...]
    sha256: str | None

    @asynccontextmanager
    async def open(self, domain: str) -> "AsyncIterator[tuple[Door, str]]":
        """Yield the gateway's door and the digest of what guards it.

        Raises:
            UsageError: neither or both gateways are named, or yours without a digest.
        """
        from safehold.detect.bounty.door import HttpDoor, own_gateway
        from safehold.detect.redteam.interface import MODEL
        from safehold.detect.redteam.questions import questions
        from safehold.detect.redteam.target import Complier
        from safehold.detect.redteam.target_server import serving
        from safehold.guard.gateway.bundles.loading import BundleLoader, RulesLoader
        from safehold.guard.gateway.bundles.swap import Loader

        if (self.gateway is None) is (self.bundle is None):
            raise UsageError("give either --upstream-gateway, or --bundle for one of our own")
        if self.gateway is not None:
            if not self.digest:
                raise UsageError("--upstream-gateway needs --digest: of the bundle that it serves")
            key = os.environ.get("SAFEHOLD_BOUNTY_KEY", "")
            yield HttpDoor(self.gateway, model=self.model, api_key=key), self.digest
            return
        loader: Loader = RulesLoader()
        if self.bundle is not None and self.bundle.is_dir():
            keys = self.keys or (() if self.sha256 else (_own_key(),))
            loader = BundleLoader(key_files=keys, sha256=self.sha256)
        async with (
            serving(Complier(questions(domain))) as target,
            own_gateway(target, loader=loader, bundle=self.bundle) as (url, digest),
        ):
            yield HttpDoor(url, model=MODEL), digest

    def run(self, domain: str, work: "Callable[[Door, str], Awaitable[Result]]") -> Result:
        """Open the gateway, do the work, and return its result."""

        async def whole() -> Result:
            async with self.open(domain) as (door, digest):
                return await work(door, digest)

        return asyncio.run(whole())


def _own_key() -> str:
    """Return the key that `safehold train` signs with by default: it is trusted, as in `serve`.

    Raises:
        ConfigError: There is none.
    """
    from safehold.guard.bundle.find import OWN_KEY

    own = OWN_KEY.expanduser()
    if not own.is_file():
        raise ConfigError(
            "a bundle needs trust: --bundle-key FILE or --bundle-sha256 DIGEST "
            f"(there is no key of your own at {own})"
        )
    return str(own)


def replay_options(command: Command) -> Command:
    """Add the options that choose a gateway; they come as one value, `asked`."""
    from safehold.detect.redteam.interface import MODEL

    @click.pass_context
    def collected(context: click.Context, /, **options: Any) -> Any:
        asked = ReplayThrough(
            gateway=options.pop("upstream_gateway"),
            model=options.pop("model"),
            digest=options.pop("digest"),
            bundle=options.pop("bundle"),
            keys=options.pop("bundle_key"),
            sha256=options.pop("bundle_sha256"),
        )
        return context.invoke(command, asked=asked, **options)

    collected.__name__, collected.__doc__ = command.__name__, command.__doc__
    for option in (
        click.option("--upstream-gateway", help="Base URL of your gateway (.../v1)."),
        click.option("--model", default=MODEL, show_default=True, help="Model to ask for there."),
        click.option("--digest", default="", help="Digest of what guards that gateway."),
        click.option(
            "--bundle",
            type=click.Path(exists=True, path_type=Path),
            help="Instead: a gateway of our own with this bundle or rules file.",
        ),
        click.option("--bundle-key", multiple=True, help="Public key that signed the bundle."),
        click.option("--bundle-sha256", help="Digest of the bundle's manifest."),
    ):
        collected = option(collected)
    return collected  # type: ignore[return-value]

"""`safehold egress hidden-bits`: how many bits a token of the served model could carry unseen."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click
import msgspec

from safehold.cli._reads import NamedPlace, read_rows, rows_file, toml_file
from safehold.cli._values import (
    KEPT_NUMBER,
    Address,
    Finite,
    HeaderKey,
    WholeNumber,
)
from safehold.errors import DataError, UsageError

if TYPE_CHECKING:
    from safehold.guard.served.interface import Said
    from safehold.guard.served.model import Retraced, Sampling
    from safehold.secure.egress.declare.plan import EgressPlan
    from safehold.secure.egress.explain.ledger import ExplainedRow
    from safehold.secure.egress.explain.tokens import HiddenBits, Rescored

_DAY_BITS = 8


class HiddenTurn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a sampled conversation."""

    role: str
    content: str


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reply that was drawn to be generated again, with all that its sampler was given."""

    account: str
    messages: tuple[HiddenTurn, ...]
    reply: str
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0


class HiddenTracer(Protocol):
    """A model that can generate again."""

    def retrace(self, said: "list[Said]", reply: str, sampling: "Sampling") -> "Retraced":
        """Return where a reply was given otherwise."""
        ...


class Measured(msgspec.Struct, frozen=True):
    """The upper bound for all samples, and for each account."""

    samples: int
    tokens: int
    disagreed: int
    upper_bits_per_token: float
    accounts: dict[str, float]
    alarms: tuple[str, ...] = ()


def read_samples(path: Path) -> Iterator[Sample]:
    """Read the lines of a file of samples; raises DataError where one is none."""
    return read_rows(path, Sample, "a sample")


def measure(samples: list[Sample], model: HiddenTracer, limit: float) -> Measured:
    """Generate every sample again; accounts above `limit` bits per token are alarms.

    Raises:
        DataError: There is no sample.
    """
    if not samples:
        raise DataError("expected at least one sample")
    traced = [(sample, _again(sample, model)) for sample in samples]
    accounts = {
        name: _bits([found for sample, found in traced if sample.account == name])
        for name in sorted({sample.account for sample in samples})
    }
    whole = _bits([found for _, found in traced])
    bits = {name: found.upper_bits_per_token for name, found in accounts.items()}
    return Measured(
        samples=len(samples),
        tokens=whole.disagreed.n,
        disagreed=whole.disagreed.events,
        upper_bits_per_token=whole.upper_bits_per_token,
        accounts=bits,
        alarms=tuple(name for name, value in bits.items() if value > limit),
    )


def _again(sample: Sample, model: HiddenTracer) -> "Rescored":
    from safehold.guard.served.interface import Said
    from safehold.guard.served.model import Sampling
    from safehold.secure.egress.explain.tokens import Rescored

    said = [Said(turn.role, turn.content) for turn in sample.messages]
    sampling = Sampling(temperature=sample.temperature, top_p=sample.top_p, seed=sample.seed)
    found = model.retrace(said, sample.reply, sampling)
    return Rescored(found.tokens, found.agreed, found.choices)


class _Known:
    """Answers with what was found before, in order."""

    def __init__(self, found: "list[Rescored]") -> None:
        self._found = found

    def rescore(self, row: "ExplainedRow") -> "Rescored | None":
        return self._found[row.seq]


def _bits(found: "list[Rescored]") -> "HiddenBits":
    from safehold.secure.egress.explain.ledger import START, ExplainedRow
    from safehold.secure.egress.explain.tokens import hidden_bits

    rows = [
        ExplainedRow("", "", number, START, 0.0, 0.0, 0, 1, "", tokens=one.tokens)
        for number, one in enumerate(found)
    ]
    most = max((choice for one in found for choice in one.choices), default=2)
    return hidden_bits(rows, _Known(found), most_choices=most)


def open_model(path: Path, dtype: str) -> HiddenTracer:
    """Load the served model; see HfModel."""
    from safehold.guard.served.model import HfModel

    model: HiddenTracer = HfModel(path, dtype=dtype)
    return model


class _Upstream:
    """An OpenAI-compatible server as the model."""

    def __init__(self, url: str, model: str, vocabulary: int, key: str) -> None:
        from safehold.secure.egress.explain.regenerate import UpstreamTracer

        self._tracer = UpstreamTracer(url, model, vocabulary=vocabulary, key=key)

    def retrace(self, said: "list[Said]", reply: str, sampling: "Sampling") -> "Retraced":
        from safehold.guard.served.model import Retraced
        from safehold.secure.egress.explain.regenerate import UpstreamSampling

        messages = [{"role": one.role, "content": one.content} for one in said]
        given = UpstreamSampling(sampling.seed, sampling.temperature, sampling.top_p)
        found = self._tracer.traced(messages, reply, given)
        return Retraced(found.tokens, found.agreed, found.choices)


def _days(plan: "EgressPlan", bits: float, tokens_a_day: int) -> str:
    """How long the whole of S * c takes by hidden bits alone."""
    from safehold.secure.egress.units import human_bytes

    size = bits * tokens_a_day / _DAY_BITS
    whole = plan.bound.stolen_bytes
    days = f"{whole / size:.4g} days" if size else "for ever"
    wanted = plan.bound.steal_days
    short = size * wanted > whole
    verdict = "NOT within the bound" if short else "within the bound"
    return (
        f"by hidden bits alone {human_bytes(whole)} take at least {days} "
        f"(wanted {wanted:g} d): {verdict}"
    )


def command(load: Callable[[Path, str], HiddenTracer] = open_model) -> click.Command:
    """Return the command; tests load a model of their own."""

    @click.command("hidden-bits")
    @click.argument("samples", type=rows_file())
    @click.option(
        "--model",
        type=NamedPlace(exists=True),
        default=None,
        help="Folder of the served model, to load it here.",
    )
    @click.option(
        "--upstream", type=Address(), default=None, help="Base URL of the model server (.../v1)."
    )
    @click.option("--model-name", default="", help="The model's name at --upstream.")
    @click.option(
        "--vocabulary",
        type=WholeNumber(2),
        default=262_144,
        show_default=True,
        help="Tokens that the model at --upstream knows.",
    )
    @click.option(
        "--api-key",
        type=HeaderKey(),
        envvar="SAFEHOLD_UPSTREAM_KEY",
        default="",
        help="Key of the server.",
    )
    @click.option(
        "--dtype",
        type=click.Choice(["bfloat16", "float32"]),
        default="bfloat16",
        help="The number format in which the model is served.",
    )
    @click.option(
        "--limit",
        type=Finite(0),
        default=1.0,
        show_default=True,
        help="Most bits a token that may stay unexplained; exit 1 above.",
    )
    @click.option("--tokens-a-day", type=KEPT_NUMBER, default=0, help="Of all accounts.")
    @click.option(
        "--plan", "plan_file", type=toml_file(), default=None, help="Whose bound to prove."
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    def hidden_bits_(
        samples: Path,
        model: Path | None,
        upstream: str | None,
        model_name: str,
        vocabulary: int,
        api_key: str,
        dtype: str,
        limit: float,
        tokens_a_day: int,
        plan_file: Path | None,
        as_json: bool,
    ) -> None:
        """Generate sampled replies again and bound the bits that their tokens could hide.

        SAMPLES has a JSON object a line: account, messages, reply, seed, temperature, top_p. The
        model is the served one: loaded here (--model, with the dtype it is served with), or at an
        --upstream that takes a seed and gives log-probabilities. Exits with 1 when an account is
        above --limit bits per token.

        \b
        Examples:
          safehold egress hidden-bits samples.jsonl --model models/served
          safehold egress hidden-bits samples.jsonl --model m.gguf --tokens-a-day 20000000 --json
          safehold egress hidden-bits samples.jsonl --upstream http://127.0.0.1:8000/v1 \\
              --model-name served --plan egress-plan.toml --tokens-a-day 20000000
        """
        if (model is None) == (upstream is None):
            raise UsageError("expected one of --model and --upstream")
        if plan_file is not None and not tokens_a_day:
            raise UsageError("--plan needs --tokens-a-day: of all accounts together")
        tracer = (
            load(model, dtype)
            if model is not None
            else _Upstream(upstream or "", model_name, vocabulary, api_key)
        )
        found = measure(list(read_samples(samples)), tracer, limit)
        if as_json:
            click.echo(msgspec.json.encode(found).decode())
        else:
            click.echo(
                f"{found.samples} replies, {found.tokens} tokens, {found.disagreed} given "
                f"otherwise: at most {found.upper_bits_per_token:.3f} bits per token (95 %)"
            )
            for name in found.alarms:
                click.echo(f"alarm: {name or 'no account'}: {found.accounts[name]:.3f} bits")
            if tokens_a_day:
                size = found.upper_bits_per_token * tokens_a_day / _DAY_BITS
                click.echo(f"at {tokens_a_day} tokens a day: at most {size / 1e6:.1f} MB a day")
            if plan_file is not None:
                from safehold.secure.egress.declare.plan import load_plan

                click.echo(_days(load_plan(plan_file), found.upper_bits_per_token, tokens_a_day))
        if found.alarms:
            raise SystemExit(1)

    return hidden_bits_

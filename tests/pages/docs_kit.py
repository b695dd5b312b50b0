"""What readers of the pages have already: `docs_kit.py THING WORD...`, called by the sessions.

bundle FOLDER KEY    a small signed bundle and the public key of who signed it
mine FOLDER          the same, signed by the reader's own key, which their commands trust
ledger FILE          a gateway's ledger: three exchanges of two callers, one blocked, one open
upstream FILE        a model that answers everything, until it is stopped; its address
generator FILE       a model that writes training text, until it is stopped; its address
programme KEY DIGEST the bounty's terms, with triage's public key and the questions' digest
template FILE        a dress of an attack, to be shared with partners
labelled FOLDER      text that somebody labelled
weights FOLDER       the embedded model, as one GGUF file
stock FOLDER         the stock bundle, signed by the reader's own key
less FROM TO         thirty replies of each side of a dataset, as a dataset
tiny FOLDER          a Hugging Face model of random weights
probed MODEL BUNDLE  such a model, and a bundle with a probe that listens to it
samples MODEL FILE   such a model, and replies that it gave under a seed
teller SAMPLES FILE  a server that gives those replies again, with log-probabilities
postgres FILE        a PostgreSQL server, until it is stopped; its address
month FILE           a ledger of two thousand exchanges
enclave              a founded log in trust-log: the reader is dev-one; ada is the reader too
judged WHO...        everything that these persons may judge, is judged as permitted
evaluated TO BUNDLE  what `safehold eval` wrote of a bundle on data/: it stopped the one item
"""

import http.server
import json
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import yaml
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from safehold.canonical import sha256_hex
from safehold.cli import safehold as safehold_command
from safehold.guard.bundle.interface import MANIFEST, SIGNATURE, Manifest
from safehold.guard.bundle.signing import load_or_make_key
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.bundle.write import write_bundle
from safehold.guard.gateway.upstreams.embedded import find_weights
from safehold.improve.evaluation.cache import run_key
from safehold.improve.evaluation.interface import EvaluationReport, ItemScores, Score
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.interface import Example, Side, Split
from safehold.testing.bounty import CLEAN_CHAT, UNIVERSAL
from safehold.testing.bundles import write_tiny
from safehold.testing.generator import GeneratorServer, generating
from safehold.testing.intel import SOURCE
from safehold.testing.monitoring import fill
from safehold.testing.postgres import EmbeddedPostgres
from safehold.testing.released import RELEASE_RULES
from safehold.testing.trust import GOVERNING, POLICY, Enclave, SoftSsh
from safehold.testing.upstream import MockUpstream, says
from safehold.trust.people.sshsig import private_key_text

CLASS_RULE = """
[[rule]]
operation = "class.switch-off"
thresholds = [{ team = "t-development", count = 2 }]
max_duration_s = 604800
keys = ["ssh"]
"""


def bundle(folder: str, public: str) -> None:
    """Write the tiny bundle, signed."""
    key = Ed25519PrivateKey.generate()
    write_tiny(Path(folder), key)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path(public).write_bytes(pem)


def mine(folder: str) -> None:
    """Write the tiny bundle, signed by the default key of this home."""
    path = Path.home() / ".config" / "safehold" / "bundle-key.pem"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tiny(Path(folder), load_or_make_key(path))


def ledger(file: str) -> None:
    """Keep four exchanges."""
    asked = [("laptop", f"how do kettles whistle, part {n}", n == 2) for n in range(4)]
    fill(file, asked)


def upstream(file: str) -> None:
    """Serve a model until SIGTERM; its address is written to the file."""
    with MockUpstream(says("Kettles whistle when steam leaves.")) as served:
        Path(file).write_text(served.url)
        signal.sigwait({signal.SIGTERM})


def generator(file: str) -> None:
    """Serve a model that writes training text until SIGTERM."""
    with generating(GeneratorServer()) as served:
        Path(file).write_text(served.url)
        signal.sigwait({signal.SIGTERM})


def programme(key: str, digest: str) -> None:
    """Write programme.yaml and the finding of a submitter."""
    value = {
        "name": "Example bounty",
        "version": 1,
        "contact": "mailto:security@example.org",
        "policy_url": "https://example.org/bounty",
        "triage_key": key,
        "questions": digest,
        "scope": ["Universal jailbreaks of the guarded chat surface"],
        "clean_chat": CLEAN_CHAT,
        "payouts": [{"band": "low", "least_cleared": 1, "amount": 100}],
        "currency": "EUR",
        "safe_harbour": "We do not pursue research within these terms.",
    }
    Path("programme.yaml").write_text(yaml.safe_dump(value))
    turns = [{"role": "user", "text": UNIVERSAL}]
    finding = {"title": "The fireside", "handle": "ada", "turns": turns}
    Path("finding.json").write_text(json.dumps(finding))


def template(file: str) -> None:
    """Write the dress of an attack."""
    Path(file).write_text(SOURCE)


def labelled(folder: str) -> None:
    """Write eight labelled texts."""
    rows = [
        {"text": f"Mash the malt, boil the wort with hops, pitch yeast, part {n}.", "label": label}
        if label == "restricted"
        else {"text": f"The museum has {n} old posters.", "label": label}
        for n in range(4)
        for label in ("restricted", "benign")
    ]
    Path(folder).mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (Path(folder) / "texts.jsonl").write_text(lines)


def weights(folder: str) -> None:
    """Copy the embedded model."""
    Path(folder).mkdir()
    shutil.copy(find_weights(), Path(folder) / "model.gguf")


def stock(folder: str) -> None:
    """Write the stock bundle under the reader's signature."""
    shipped, _ = stock_bundle()
    held = {one.name: one.read_bytes() for one in shipped.iterdir()}
    manifest = msgspec.json.decode(held.pop(MANIFEST), type=Manifest)
    held.pop(SIGNATURE, None)
    path = Path.home() / ".config" / "safehold" / "bundle-key.pem"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(Path(folder), manifest, held, load_or_make_key(path))


def less(whole: str, folder: str) -> None:
    """Keep the first replies of each split and side."""
    most = {Split.TRAIN: 8, Split.CALIBRATE: 16, Split.TEST: 6}
    kept: dict[tuple[Split, Side], list[Example]] = {}
    for one in dataset.read(Path(whole)):
        so_far = kept.setdefault((one.split, one.side), [])
        if one.reply and len(so_far) < most[one.split]:
            so_far.append(one)
    told = dataset.manifest_of(Path(whole))
    some = [one for those in kept.values() for one in those]
    dataset.write(Path(folder), told.plan, some, base=len(some), dropped=0)


def tiny(folder: str) -> None:
    """Write a small model that writes nonsense."""
    from safehold.testing.models import tiny_model  # noqa: PLC0415 - torch, for three pages

    tiny_model(Path(folder))


def probed(folder: str, bundle: str) -> None:
    """Write a small model and a bundle that is bound to it, signed by the reader."""
    from safehold.guard.served.model import HfModel  # noqa: PLC0415 - torch
    from safehold.testing.models import write_probed  # noqa: PLC0415 - torch

    tiny(folder)
    path = Path.home() / ".config" / "safehold" / "bundle-key.pem"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = HfModel(Path(folder), dtype="bfloat16")
    write_probed(Path(bundle), model, load_or_make_key(path))


def _letters(folder: Path) -> None:
    """Make a small model write letters and signs alone: bytes that are no text don't come back."""
    from safetensors.numpy import load_file, save_file  # noqa: PLC0415 - with torch

    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    plain = [index for piece, index in vocabulary.items() if "!" <= piece <= "~"]
    weights = load_file(folder / "model.safetensors")
    head = weights["lm_head.weight"]
    kept = head[plain].copy()
    head[:] = 0
    head[plain] = kept
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def samples(folder: str, file: str) -> None:
    """Let a small model reply, and keep what it said."""
    from safehold.guard.served.interface import Said  # noqa: PLC0415 - torch
    from safehold.guard.served.model import HfModel, Sampling  # noqa: PLC0415 - torch

    tiny(folder)
    _letters(Path(folder))
    model = HfModel(Path(folder))
    lines = []
    for number in range(8):
        asked = f"part {number}"
        drawn = model.write([Said("user", asked)], Sampling(most=200, seed=number), None)
        turns = [{"role": "user", "content": asked}]
        reply = "".join(one.text for one in drawn)
        lines.append({"account": "laptop", "messages": turns, "reply": reply, "seed": number})
    Path(file).write_text("".join(json.dumps(one) + "\n" for one in lines))


def teller(samples_file: str, file: str) -> None:
    """Go on with each sample's reply, a character a token, until SIGTERM."""
    told = {}
    for line in Path(samples_file).read_text().splitlines():
        one = json.loads(line)
        told[one["messages"][-1]["content"]] = one["reply"]

    class Again(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            turns = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
            begun = turns[-1]["content"] if turns[-1]["role"] == "assistant" else ""
            asked = next(turn["content"] for turn in turns if turn["role"] == "user")
            content = [
                {"token": one, "top_logprobs": [{"token": one, "logprob": 0.0}]}
                for one in told[asked][len(begun) :]
            ]
            body = json.dumps({"choices": [{"logprobs": {"content": content}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http.server.HTTPServer(("127.0.0.1", 0), Again) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        Path(file).write_text(f"http://127.0.0.1:{served.server_port}/v1")
        signal.sigwait({signal.SIGTERM})
        served.shutdown()


def postgres(file: str) -> None:
    """Serve a database until SIGTERM; a socket's path must be short."""
    with (
        tempfile.TemporaryDirectory(prefix="shpg-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        Path(file).write_text(server.url)
        signal.sigwait({signal.SIGTERM})


def month(file: str) -> None:
    """Keep what two accounts asked in a month."""
    who = ("laptop", "desk")
    asked = [(who[n % 2], f"Write {n} lines about the weather in {n}.", False) for n in range(2000)]
    fill(file, asked)


def traffic(file: str) -> None:
    """Write four hundred harmless requests, and forty near the subject."""
    rows = [f"Please write {n} lines about the weather in {n + 900}." for n in range(2000)]
    Path(file).write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


def enclave() -> None:
    """Found an enclave whose people's private keys lie here, under their names."""
    policy = POLICY + GOVERNING + RELEASE_RULES + CLASS_RULE
    made = Enclave(Path("trust-log"), policy=policy, now=int(time.time()))
    keys = Path("trust-log.keys")
    keys.mkdir(mode=0o700)
    for name, key in (("log", made.log_key), ("emitter", made.emitter)):
        _secret(keys / f"{name}.key", key.text().encode())
    Path(".ssh").mkdir(mode=0o700)
    for name, soft in made.keys.items():
        assert isinstance(soft, SoftSsh)
        public = f"{getattr(soft.key, 'public', '')}\n"
        places = [name, "ada", ".ssh/id_ed25519"] if name == "dev-one" else [name]
        for place in places:
            _secret(Path(place), private_key_text(soft.private))
            Path(f"{place}.pub").write_text(public)
    Path("log.json").write_bytes(Path("trust-log/log.json").read_bytes())


def _secret(path: Path, data: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(data)


def judged(*persons: str) -> None:
    """Judge all that is left, by the command line's own code in one process, not three an item."""

    def typed(*words: str) -> str:
        done = CliRunner().invoke(safehold_command, ["review", *words], catch_exceptions=False)
        if done.exit_code:
            raise SystemExit(f"review {' '.join(words)}: {done.output}")
        return done.output

    for who in persons:
        while (item := re.search(r'"item":(\d+)', typed("next", who))) is not None:
            typed("show", item[1], who, "--reason", "look")
            typed("verdict", item[1], who, "permitted")


def evaluated(folder: str, bundle: str) -> None:
    """Write the report and the one score."""
    golden = Path("data/golden.jsonl")
    digest = sha256_hex(golden.read_bytes())
    report = EvaluationReport(
        safehold="0", bundle="b", bundle_digest=bundle, constitution="homebrewing",
        code_digest="c" * 64, files={golden.name: digest}, skipped=(), items=1, headline=(),
        slices=(), categories=(), sources=(), separations=(), stops={},
    )  # fmt: skip
    score = ItemScores(Score(stage1=0.0, final=None, blocked=True, escalations=0), None)
    line = {"run": run_key(bundle, digest, "c" * 64, "whole"), "item": "a", "scores": score}
    Path(folder).mkdir()
    (Path(folder) / "failures.jsonl").touch()
    (Path(folder) / "report.json").write_bytes(msgspec.json.encode(report))
    (Path(folder) / "scores.jsonl").write_bytes(msgspec.json.encode(line) + b"\n")


THINGS: dict[str, Callable[..., None]] = (
    {
        one.__name__: one
        for one in (bundle, mine, ledger, upstream, generator, programme, template, labelled)
    }
    | {one.__name__: one for one in (weights, enclave, evaluated, traffic, judged)}
    | {one.__name__: one for one in (tiny, probed, samples, teller, postgres, month, stock, less)}
)

if __name__ == "__main__":
    THINGS[sys.argv[1]](*sys.argv[2:])

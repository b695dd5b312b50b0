"""`safehold change`, typed as a user types it: from a draft to drift."""

import json
import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from click.testing import CliRunner, Result

import safehold as safehold_package
from safehold.canonical import canonical, sha256_hex
from safehold.cli import safehold
from safehold.cli._change_source import vouch
from safehold.errors import SafeholdError
from safehold.improve.evaluation.cache import run_key
from safehold.improve.evaluation.interface import EvaluationReport, ItemScores, Score
from safehold.secure.change.provenance import BuiltFile, provenance
from safehold.testing.released import RELEASE_RULES, ReleaseChannel
from safehold.testing.trust import GOVERNING, POLICY, Enclave, SoftSsh, person_id
from safehold.trust.people.sshsig import private_key_text
from safehold.trust.release.interface import parse_release

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")

RULES = '{"rules": [{"id": "r", "clause": "c", "pattern": "elephant", "example": "elephant"}]}'
KINDS = ("rules=rules.yaml", "gateway=safehold.yaml")


class Shop:
    """A folder with an enclave's log and keys, one gateway's files, and a way to type."""

    def __init__(self, root: Path) -> None:
        self.root = root
        policy = POLICY + GOVERNING + RELEASE_RULES
        self.enclave = Enclave(root / "log", policy=policy, now=int(time.time()))
        keys = root / "log.keys"
        keys.mkdir()
        for name, key in (("log", self.enclave.log_key), ("emitter", self.enclave.emitter)):
            (keys / f"{name}.key").write_text(key.text())
            (keys / f"{name}.key").chmod(0o600)
        for name, soft in self.enclave.keys.items():
            assert isinstance(soft, SoftSsh)
            (root / name).write_bytes(private_key_text(soft.private))
            (root / name).chmod(0o600)
            (root / f"{name}.pub").write_text(getattr(soft.key, "public", "") + "\n")
        self.channel = ReleaseChannel(self.enclave, root / "releases")
        members = "".join(
            f'{name} = "{getattr(self.channel.settings, name)}"\n'
            for name in ("log", "log_keys", "channel", "documents", "memory")
        )
        (root / "releases.toml").write_text(members)
        (root / "rules.yaml").write_text(RULES)
        (root / "safehold.yaml").write_text("default:\n  hold_tokens: 16\n")

    def run(self, *words: str) -> Result:
        """Run one command."""
        env = {
            "SAFEHOLD_LOG": str(self.root / "log"),
            "SAFEHOLD_RELEASES": str(self.root / "releases.toml"),
        }
        return CliRunner().invoke(safehold, list(words), env=env, catch_exceptions=True)

    def ok(self, *words: str) -> str:
        """Run one command that must succeed."""
        done = self.run(*words)
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.stdout.strip()

    def refused(self, *words: str) -> str:
        """Run one command that must fail with one clear line."""
        done = self.run(*words)
        assert isinstance(done.exception, SafeholdError), (words, done.output)
        assert "\n" not in str(done.exception)
        return str(done.exception)

    def path(self, name: str) -> str:
        """Return a file of the folder."""
        return str(self.root / name)

    def artefacts(self) -> list[str]:
        """Return the options that name both artefacts."""
        named = [one.replace("=", f"={self.root}/") for one in KINDS]
        return [word for one in named for word in ("--artefact", one)]

    def draft(self, name: str, previous: str = "") -> str:
        """Write the next release, and return what was said."""
        before = ["--previous", self.path(previous)] if previous else []
        return self.ok(
            *("change", "draft", self.path(name), "--channel", "gateway-1"),
            *before,
            *self.artefacts(),
        )

    def publish(self, name: str, previous: str = "", *, by: tuple[str, ...]) -> str:
        """Ask and approve, and return the request."""
        before = ["--previous", self.path(previous)] if previous else []
        request = self.ok(
            *("change", "publish", self.path(name), *before),
            *("--documents", self.path("releases/documents")),
            *("--ssh-key", self.path("dev-one")),
        )
        for one in by:
            self.ok("grant", "approve", request, "--yes", "--ssh-key", self.path(one))
        return request


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop with a first release in force."""
    made = Shop(tmp_path)
    assert "needs release.weaken" in made.draft("one.json")
    made.publish("one.json", by=("dev-two", "dev-three", "sec-one"))
    return made


def test_a_release_from_draft_to_drift(shop: Shop) -> None:
    """A stricter setting needs two; then the status names it, and the disk agrees."""
    (shop.root / "safehold.yaml").write_text("default:\n  hold_tokens: 64\n")
    drifted = shop.run("change", "drift", *shop.artefacts())
    assert drifted.exit_code == 1
    assert "gateway safehold.yaml: the disk has another one" in drifted.stderr
    assert "needs release.publish" in shop.draft("two.json", "one.json")
    shop.publish("two.json", "one.json", by=("dev-two", "dev-three"))
    told = json.loads(shop.ok("change", "status", "--json"))
    assert (told["version"], told["operation"]) == (2, "release.publish")
    assert "no drift" in shop.ok("change", "drift", *shop.artefacts())
    assert "release 2 of gateway-1" in shop.ok("change", "status")


def test_a_looser_setting_needs_the_higher_quorum(shop: Shop) -> None:
    """What the request needs is computed: the two who carry a stricter one are not enough."""
    (shop.root / "safehold.yaml").write_text("default:\n  shadow: true\n  hold_tokens: 16\n")
    said = shop.draft("two.json", "one.json")
    assert "weaker" in said
    assert "shadow" in said
    assert "needs release.weaken" in said
    request = shop.publish("two.json", "one.json", by=("dev-two", "dev-three"))
    assert "granted" not in shop.ok("grant", "show", request)
    assert json.loads(shop.ok("change", "status", "--json"))["version"] == 1
    assert "weakens nothing" in shop.refused(
        *("change", "publish", shop.path("two.json"), "--previous", shop.path("one.json")),
        *("--documents", shop.path("releases/documents"), "--emergency"),
        *("--ssh-key", shop.path("dev-one")),
    )


def test_a_release_that_does_not_follow_is_refused_at_once(shop: Shop) -> None:
    """A release is asked for after the one it names, and of nothing else."""
    shop.draft("two.json", "one.json")
    assert "follows" in shop.refused(
        *("change", "publish", shop.path("two.json")),
        *("--documents", shop.path("releases/documents"), "--ssh-key", shop.path("dev-one")),
    )


def test_wrong_words_are_one_clear_line(shop: Shop) -> None:
    """An unknown kind, a lost file, a second memory."""
    begin = ("change", "draft", shop.path("x.json"), "--channel", "gateway-1", "--artefact")
    assert "KIND=PATH" in shop.refused(*begin, "firewall=x")
    assert "can't be read" in shop.refused(*begin, "bundle=nowhere")
    memory = ("change", "memory", shop.path("seen.json"), "--channel", "gateway-1", "--log-keys")
    shop.ok(*memory, shop.path("log/log.json"))
    assert "already" in shop.refused(*memory, shop.path("log/log.json"))
    assert "BASE..TIP" in shop.refused("change", "verify-git", "main")


def test_two_vouch_for_a_file_and_a_release_names_it(shop: Shop) -> None:
    """A statement gets two signatures one after the other; one is not enough."""
    wheel = shop.root / "safehold-1.whl"
    wheel.write_bytes(b"wheel")
    told = provenance(
        (BuiltFile(wheel.name, sha256_hex(b"wheel")),),
        source="git+https://example.org/safehold",
        commit="c" * 40,
        builder="https://example.org/ana",
        parameters={},
        dependencies={},
    )
    (shop.root / "told.json").write_bytes(canonical(told))
    made = shop.path("wheel.provenance")
    words = ("change", "vouch", shop.path("told.json"), "--out", made, "--ssh-key")
    shop.ok(*words, shop.path("dev-one"))
    assert "2 persons" in shop.refused("change", "vouched", made, str(wheel))
    shop.ok(*words, shop.path("sec-one"))
    assert "rebuilt by" in shop.ok("change", "vouched", made, str(wheel))
    said = shop.ok(
        *("change", "draft", shop.path("p.json"), "--channel", "product", "--artefact"),
        *(f"product={wheel}", "--provenance", f"{wheel.name}={made}", "--json"),
    )
    assert json.loads(said)["needs"] == "release.weaken"
    assert parse_release((shop.root / "p.json").read_bytes()).provenance
    wheel.write_bytes(b"evil")
    assert "another file" in shop.refused("change", "vouched", made, str(wheel))


def test_of_two_who_vouch_at_the_same_moment_both_have_vouched(shop: Shop) -> None:
    """Four persons sign one envelope that is not there yet: it holds four signatures."""
    told = provenance(
        (BuiltFile("a.whl", sha256_hex(b"a")),),
        source="git+https://example.org/safehold",
        commit="c" * 40,
        builder="https://example.org/ana",
        parameters={},
        dependencies={},
    )
    (shop.root / "told.json").write_bytes(canonical(told))
    made = shop.path("a.provenance")
    call = vouch.callback
    assert call is not None
    threads = [
        Thread(
            target=call,
            kwargs={
                "statement": shop.root / "told.json",
                "out": Path(made),
                "ssh_key": shop.root / name,
            },
        )
        for name in ("dev-one", "dev-two", "sec-one", "sec-two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(Path(made).read_bytes())["signatures"]) == 4


class _Status(BaseHTTPRequestHandler):
    told: bytes = b"{}"

    def do_GET(self) -> None:
        """Answer with what runs."""
        self.send_response(200 if self.headers["authorization"] == "Bearer key" else 401)
        self.end_headers()
        self.wfile.write(self.told)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    """Return the address of something that answers like a gateway's admin page."""
    with HTTPServer(("127.0.0.1", 0), _Status) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_runs_is_compared_with_what_is_released(shop: Shop, gateway: str) -> None:
    """The same digests are no drift; another one, and a gateway that does not answer, are."""
    release = json.loads(shop.ok("change", "status", "--json"))
    digests = {kind: digest for kind, _, digest in release["artefacts"]}
    (shop.root / "admin.key").touch(mode=0o600)
    (shop.root / "admin.key").write_text("key\n")
    words = ("change", "drift", "--gateway", gateway, "--admin-key-file", shop.path("admin.key"))
    _Status.told = json.dumps({"bundle": digests["rules"], "settings": digests["gateway"]}).encode()
    assert "no drift" in shop.ok(*words)
    _Status.told = json.dumps({"bundle": "0" * 64, "settings": digests["gateway"]}).encode()
    found = shop.run(*words, "--record")
    assert found.exit_code == 1
    assert "rules rules.yaml: another one runs than was released" in found.stderr
    silent = shop.run("change", "drift", "--gateway", gateway)
    assert silent.exit_code == 1
    assert "could not be asked" in silent.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("draft", "show", "publish", "memory", "status", "drift", "compare", "verify-git"),
        *("review", "rebuild", "rebuild-bundle", "vouch", "vouched", "sbom"),
    ],
)
def test_every_change_command_has_help_with_an_example(name: str) -> None:
    """`--help` works without any extra, and shows how to type it."""
    done = CliRunner().invoke(safehold, ["change", name, "--help"])
    assert done.exit_code == 0
    assert f"safehold change {name}" in done.output


def test_a_release_is_exported_for_tuf_clients_by_two_persons(shop: Shop) -> None:
    """Root, targets, two signatures each, and the repository; one person alone writes none."""
    ids = [word for name in ("dev-two", "sec-one") for word in ("--person", person_id(name))]
    desk = ("--desk-key", shop.path("desk.pem"))
    shop.ok("change", "tuf", "root", *ids, *desk, "--out", shop.path("root.json"))
    shop.ok(
        *("change", "tuf", "targets", shop.path("one.json")),
        *("--out", shop.path("targets.json")),
    )
    signatures: list[str] = []
    for file in ("root.json", "targets.json"):
        for name in ("dev-two", "sec-one"):
            words = ("change", "tuf", "sign", shop.path(file), "--ssh-key", shop.path(name))
            signatures += ["--signature", shop.ok(*words).splitlines()[-1].removeprefix("signed: ")]
    write = (
        *("change", "tuf", "write", shop.path("repo"), shop.path("one.json"), *desk),
        *("--root", shop.path("root.json"), "--targets", shop.path("targets.json")),
    )
    assert "2 persons" in shop.refused(*write, *signatures[:6])
    assert "fresh" in shop.ok(*write, *signatures)
    assert (Path(shop.path("repo")) / "metadata" / "timestamp.json").exists()


def test_a_product_that_two_rebuilt_needs_the_lower_quorum_and_one_that_one_rebuilt_more(
    shop: Shop,
) -> None:
    """Provenance is verified, at the request and by whoever loads; a named digest is not enough."""
    wheel = shop.root / "safehold-1.whl"
    channel = ("--channel", "gateway-1")
    product = ("--artefact", f"product={wheel}")

    def draft(version: int, *more: str) -> str:
        wheel.write_bytes(f"wheel {version}".encode())
        name = f"product-{version}.json"
        words = ("change", "draft", shop.path(name), *channel, *product)
        shop.ok(*words, "--previous", shop.path(previous), *more)
        return name

    def vouched(version: int, *names: str) -> str:
        wheel.write_bytes(f"wheel {version}".encode())
        told = provenance(
            (BuiltFile(wheel.name, sha256_hex(wheel.read_bytes())),),
            source="git+https://example.org/safehold",
            commit="c" * 40,
            builder="https://example.org/ana",
            parameters={},
            dependencies={},
        )
        (shop.root / "told.json").write_bytes(canonical(told))
        made = shop.path(f"wheel-{version}.provenance")
        for name in names:
            words = ("change", "vouch", shop.path("told.json"), "--out", made)
            shop.ok(*words, "--ssh-key", shop.path(name))
        return made

    def publish(name: str, made: str) -> str:
        request = shop.ok(
            *("change", "publish", shop.path(name), "--previous", shop.path(previous)),
            *("--documents", shop.path("releases/documents"), "--envelope", made),
            *("--ssh-key", shop.path("dev-one")),
        )
        shown = json.loads(shop.ok("grant", "show", request, "--json"))
        operation: str = shown["request"]["operation"]
        for one in ("dev-two", "dev-three", "sec-one")[: 2 + (operation == "release.weaken")]:
            shop.ok("grant", "approve", request, "--yes", "--ssh-key", shop.path(one))
        return operation

    previous = "one.json"
    made = vouched(2, "dev-two")
    second = draft(2, "--provenance", f"{wheel.name}={made}")
    assert publish(second, made) == "release.weaken"  # its rules are gone, and one rebuilt it
    previous = second
    made = vouched(3, "dev-two")
    third = draft(3, "--provenance", f"{wheel.name}={made}")
    assert publish(third, made) == "release.weaken"
    previous = third
    made = vouched(4, "dev-two", "sec-one")
    fourth = draft(4, "--provenance", f"{wheel.name}={made}")
    assert publish(fourth, made) == "release.publish"
    assert "release 4" in shop.ok("change", "status")
    digest = sha256_hex(Path(made).read_bytes())
    envelope = Path(shop.path(f"releases/documents/{digest}.provenance"))
    fresh = shop.path("fresh.json")
    memory = ("change", "memory", fresh, *channel, "--log-keys", shop.path("log/log.json"))
    shop.ok(*memory)
    settings = Path(shop.path("releases.toml"))
    settings.write_text(settings.read_text().replace(shop.channel.settings.memory, fresh))
    envelope.rename(envelope.with_suffix(".away"))
    assert "weakens" in shop.refused("change", "status")
    envelope.with_suffix(".away").rename(envelope)
    assert "release 4" in shop.ok("change", "status")
    envelope.unlink()
    assert "release 4" in shop.ok("change", "status")  # it was accepted before


def test_a_retrained_bundle_with_a_comparison_of_two_needs_the_lower_quorum(shop: Shop) -> None:
    """Compare two evaluations, have two sign, draft, publish; one lost item needs more."""
    golden = shop.root / "golden.jsonl"
    golden.write_text('{"text": "a"}\n')
    digests = {}
    for name in ("old", "new"):
        (shop.root / name / "bundle").mkdir(parents=True)
        manifest = shop.root / name / "bundle" / "manifest.json"
        manifest.write_text(f'{{"bundle": "{name}"}}')
        digests[name] = sha256_hex(manifest.read_bytes())
    channel = ("--channel", "gateway-1", "--artefact", f"golden-set={golden}", "--artefact")
    old, new = (f"bundle={shop.root}/{name}/bundle" for name in ("old", "new"))
    shop.ok("change", "draft", shop.path("g.json"), "--previous", shop.path("one.json"),
            *channel, old)  # fmt: skip
    shop.publish("g.json", "one.json", by=("dev-two", "dev-three", "sec-one"))
    folders = {}
    for lost in (False, True):
        for name in ("old", "new"):
            folders[name] = _evaluated(
                shop.root / f"eval-{name}-{lost}",
                digests[name],
                golden,
                stops=not (lost and name == "new"),
            )
        told, made = shop.path(f"told-{lost}.json"), shop.path(f"signed-{lost}.json")
        said = shop.ok("change", "compare", str(folders["old"]), str(folders["new"]), "--out", told)
        assert f"{int(lost)} no longer stopped" in said
        shop.ok("change", "vouch", told, "--out", made, "--ssh-key", shop.path("dev-one"))
        one_signed = Path(shop.path(f"one-signed-{lost}.json"))
        one_signed.write_bytes(Path(made).read_bytes())
        shop.ok("change", "vouch", told, "--out", made, "--ssh-key", shop.path("sec-one"))
        for signed, operation in (
            (str(one_signed), "release.weaken"),
            (made, "release.weaken" if lost else "release.publish"),
        ):
            shop.ok("change", "draft", shop.path("n.json"), "--previous", shop.path("g.json"),
                    *channel, new, "--comparison", signed)  # fmt: skip
            request = shop.ok(
                *("change", "publish", shop.path("n.json"), "--previous", shop.path("g.json")),
                *("--documents", shop.path("releases/documents"), "--envelope", signed),
                *("--ssh-key", shop.path("dev-one")),
            )
            assert operation in shop.ok("grant", "show", request), (lost, signed)
    bad = ("change", "draft", shop.path("x.json"), "--previous", shop.path("g.json"), *channel, new)
    assert "statement" in shop.refused(*bad, "--comparison", shop.path("told-True.json"))


def _evaluated(folder: Path, bundle: str, golden: Path, *, stops: bool) -> Path:
    """Write what `safehold eval` writes of one item, of its prompt alone."""
    digest = sha256_hex(golden.read_bytes())
    folder.mkdir()
    report = EvaluationReport(
        safehold="0", bundle="b", bundle_digest=bundle, constitution="homebrewing",
        code_digest="c" * 64, files={golden.name: digest}, skipped=(), items=1, headline=(),
        slices=(), categories=(), sources=(), separations=(), stops={},
    )  # fmt: skip
    (folder / "report.json").write_bytes(msgspec.json.encode(report))
    score = ItemScores(Score(stage1=0.0, final=None, blocked=stops, escalations=0), None)
    line = {"run": run_key(bundle, digest, "c" * 64, "whole"), "item": "a", "scores": score}
    (folder / "scores.jsonl").write_bytes(msgspec.json.encode(line) + b"\n")
    (folder / "failures.jsonl").write_bytes(b"")
    return folder


def test_the_stock_bundle_is_made_again_bit_for_bit_and_two_vouch_for_it(shop: Shop) -> None:
    """From the committed record: the same bytes in both places and as shipped; two sign it."""
    root = Path(safehold_package.__file__).parents[2]
    stock = root / "src/safehold/guard/bundle/shipped/homebrewing"
    words = (
        *("change", "rebuild-bundle", str(stock), "--out", shop.path("again")),
        *("--from-record", str(root / "scripts/stock-calibration.json")),
        *("--source", "git+https://example.org/safehold", "--commit", "c" * 40),
        *("--builder", "https://example.org/ana", "--json"),
    )
    said = json.loads(shop.ok(*words))
    assert (said["same"], said["unlike"]) == (True, [])
    assert said["sha256"] == sha256_hex((stock / "manifest.json").read_bytes())
    told, made = shop.path("again.provenance.json"), shop.path("stock.provenance")
    shop.ok("change", "vouch", told, "--out", made, "--ssh-key", shop.path("dev-one"))
    assert "2 persons" in shop.refused("change", "vouched", made, str(stock))
    shop.ok("change", "vouch", told, "--out", made, "--ssh-key", shop.path("sec-one"))
    assert "rebuilt by" in shop.ok("change", "vouched", made, str(stock))
    other = shop.root / "homebrewing"
    shutil.copytree(stock, other)
    (other / "manifest.json").write_bytes((other / "manifest.json").read_bytes() + b"\n")
    assert "another file" in shop.refused("change", "vouched", made, str(other))
    (other / "manifest.json").write_bytes((stock / "manifest.json").read_bytes())
    golden = (other / "golden.jsonl").read_bytes()
    (other / "golden.jsonl").write_bytes(golden.splitlines(keepends=True)[0])
    bad = [str(other) if one == str(stock) else one for one in words]
    bad[bad.index(shop.path("again"))] = shop.path("bad")
    assert shop.run(*bad).exit_code != 0

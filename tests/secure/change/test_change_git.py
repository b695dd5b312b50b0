"""A configuration repository: what is unsigned, unreviewed or smuggled is not verified."""

import datetime as dt
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from safehold.secure.change.git_policy import POLICY_PATH, ChangeError, load_git_policy
from safehold.secure.change.git_verify import (
    GIT_NAMESPACE,
    NOTES,
    REVIEW_NAMESPACE,
    Git,
    review_message,
    summary,
    verify_range,
)
from safehold.testing.trust import SoftSsh, ssh_public_of
from safehold.trust.people.sshsig import armour, private_key_text, sign_sshsig

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
TODAY = dt.date(2027, 1, 15)
PEOPLE = {
    "ana": ("t-dev", "2028-01-01"),
    "bo": ("t-dev", "2028-01-01"),
    "cy": ("t-sec", "2028-01-01"),
    "old": ("t-sec", "2027-01-14"),
}
RULES = """
[[rule]]
paths = ["*"]
thresholds = [{ team = "t-dev", count = 1 }]

[[rule]]
paths = [".safehold/*", "gateway/*"]
thresholds = [{ team = "t-dev", count = 1 }, { team = "t-sec", count = 1 }]
"""


class Repository:
    """A repository with soft keys, real git and real signatures."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys = {name: SoftSsh(name.encode()) for name in (*PEOPLE, "mallory")}
        root.mkdir()
        for name, key in self.keys.items():
            (root.parent / name).write_bytes(private_key_text(key.private))
            (root.parent / name).chmod(0o600)
            (root.parent / f"{name}.pub").write_text(ssh_public_of(key) + "\n")
        self.run("init", "-q", "-b", "main")
        self.write(POLICY_PATH, self.policy())
        self.write("gateway/safehold.yaml", "hold: 16\n")
        self.base = self.commit("ana", "begin")
        self.git = Git(root)

    def policy(self, extra: str = "", rules: str = RULES) -> str:
        """Return the text of the policy."""
        people = "".join(
            f'[[person]]\nid = "{name}"\nname = "{name}"\nteams = ["{team}"]\n'
            f'keys = [{{ public = "{ssh_public_of(self.keys[name])}", until = {until} }}]\n'
            for name, (team, until) in PEOPLE.items()
        )
        return people + extra + rules

    def run(self, *words: str) -> str:
        """Run git."""
        env = os.environ | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "x",
            "GIT_AUTHOR_EMAIL": "x@y",
            "GIT_COMMITTER_NAME": "x",
            "GIT_COMMITTER_EMAIL": "x@y",
        }
        done = subprocess.run(
            ["git", "-C", str(self.root), *words], check=True, capture_output=True, env=env
        )
        return done.stdout.decode().strip()

    def write(self, path: str, text: str) -> None:
        """Write a file of the work tree."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def signing(self, who: str) -> tuple[str, ...]:
        """Return the options that make git sign as somebody."""
        key = self.root.parent / who
        return ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}")

    def commit(self, who: str | None, message: str = "change") -> str:
        """Commit everything, signed by somebody or by nobody."""
        self.run("add", "-A")
        if who is None:
            self.run("commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", message)
        else:
            self.run(*self.signing(who), "commit", "-q", "--allow-empty", "-S", "-m", message)
        return self.run("rev-parse", "HEAD")

    def review(self, who: str, commit: str, *, of: str = "", namespace: str = "") -> None:
        """Add a signed review to the notes (of another commit: a review moved over)."""
        message = review_message(self.git.commit(of or commit))
        name = namespace or REVIEW_NAMESPACE
        signature = armour(sign_sshsig(self.keys[who].private, message, namespace=name))
        self.run("notes", f"--ref={NOTES}", "append", "-m", signature, commit)

    def change(self, who: str, *reviewers: str, path: str = "gateway/safehold.yaml") -> str:
        """Commit a change of a path, and have it reviewed."""
        self.write(path, f"hold: {len(self.run('rev-list', '--all').split())}\n")
        made = self.commit(who)
        for one in reviewers:
            self.review(one, made)
        return made

    def verify(self, tip: str = "HEAD", base: str = "") -> int:
        """Verify, and return how many commits held."""
        return len(verify_range(self.git, base or self.base, tip, today=TODAY))


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A repository whose first commit is the anchor."""
    return Repository(tmp_path / "repo")


def test_signed_and_reviewed_commits_hold(repo: Repository) -> None:
    """Two persons review a gateway change, one a note; authors and reviewers are named."""
    first = repo.change("ana", "bo", "cy")
    second = repo.change("bo", "ana", path="README")
    found = verify_range(repo.git, repo.base, "HEAD", today=TODAY, allowed_base=repo.base)
    assert [one.oid for one in found] == [first, second]
    assert found[0].author == "ana"
    assert found[0].reviewers == ("bo", "cy")
    assert found[1].paths == ("README",)
    told = summary("git+https://example.org/config", found, second, "2027-01-15T00:00:00Z")
    assert told["predicateType"] == "https://slsa.dev/verification_summary/v1"


def test_an_unsigned_commit_is_refused(repo: Repository) -> None:
    """No signature, no matter who reviewed."""
    repo.write("README", "x")
    made = repo.commit(None)
    for name in ("ana", "bo", "cy"):
        with pytest.raises(ChangeError, match="one signature"):
            repo.review(name, made)
    with pytest.raises(ChangeError, match="one signature"):
        repo.verify()


def test_a_strangers_commit_is_refused(repo: Repository) -> None:
    """A good signature by nobody of the policy."""
    repo.change("mallory", "bo", "cy")
    with pytest.raises(ChangeError, match="no person's"):
        repo.verify()


def test_an_own_review_is_refused(repo: Repository) -> None:
    """The author's review counts nothing, beside another's or alone."""
    repo.change("ana", "ana", "cy")
    with pytest.raises(ChangeError, match="own commit"):
        repo.verify()


def test_one_reviewer_twice_is_one(repo: Repository) -> None:
    """Two reviews of one person fill one place."""
    repo.change("ana", "bo", "bo")
    with pytest.raises(ChangeError, match="1 of t-sec"):
        repo.verify()


def test_a_review_of_another_tree_is_refused(repo: Repository) -> None:
    """Reviews that were signed for a harmless commit are moved to another one."""
    harmless = repo.change("ana", path="README")
    repo.review("bo", harmless)
    evil = repo.change("ana")
    repo.review("bo", evil, of=harmless)
    repo.review("cy", evil, of=harmless)
    with pytest.raises(ChangeError, match="does not verify"):
        repo.verify()


@pytest.mark.parametrize("namespace", [GIT_NAMESPACE, "safehold-act", "file"])
def test_a_signature_for_another_purpose_is_no_review(repo: Repository, namespace: str) -> None:
    """A signed commit, a grant's approval or a signed file is none."""
    made = repo.change("ana", "bo")
    repo.review("cy", made, namespace=namespace)
    with pytest.raises(ChangeError, match="namespace"):
        repo.verify()


def test_missing_notes_are_refused(repo: Repository) -> None:
    """Notes do not travel by themselves: a clone without them verifies nothing."""
    repo.change("ana", "bo", "cy")
    repo.run("update-ref", "-d", NOTES)
    with pytest.raises(ChangeError, match="got 0 that count"):
        repo.verify()


def test_a_smuggled_merge_is_refused(repo: Repository) -> None:
    """A merge that takes a stale side, or adds what neither side has, answers for all of it."""
    fix = repo.change("ana", "bo", "cy")
    repo.run("checkout", "-q", "-b", "side", repo.base)
    side = repo.change("bo", "ana", path="README")
    repo.run("checkout", "-q", "main")
    repo.run(*repo.signing("ana"), "merge", "-q", "--no-ff", "-s", "ours", "--no-commit", side)
    repo.write("gateway/safehold.yaml", "hold: 16\n")
    repo.run("add", "-A")
    merge = repo.commit("ana", "merge")
    repo.review("bo", merge)
    with pytest.raises(ChangeError, match=r"gateway/safehold.yaml"):
        repo.verify()
    repo.review("cy", merge)
    assert repo.verify() == 3
    assert repo.verify(base=fix) == 2


def test_an_unreviewed_commit_behind_a_good_merge_is_refused(repo: Repository) -> None:
    """What a merge brings is verified commit by commit."""
    repo.run("checkout", "-q", "-b", "side")
    repo.change("bo", path="evil")
    repo.run("checkout", "-q", "main")
    repo.run(*repo.signing("ana"), "merge", "-q", "--no-ff", "-S", "-m", "merge", "side")
    merge = repo.run("rev-parse", "HEAD")
    for name in ("bo", "cy"):
        repo.review(name, merge)
    with pytest.raises(ChangeError, match="evil"):
        repo.verify()


def test_a_history_from_elsewhere_is_refused(repo: Repository) -> None:
    """A merge of an unrelated root brings a commit without a verified parent."""
    repo.run("checkout", "-q", "--orphan", "other")
    repo.write("README", "other")
    repo.commit("bo", "root")
    repo.run("checkout", "-q", "main")
    words = ("merge", "-q", "--no-ff", "-S", "--allow-unrelated-histories", "-s", "ours")
    repo.run(*repo.signing("ana"), *words, "-m", "merge", "other")
    with pytest.raises(ChangeError, match="verified parent"):
        repo.verify()


def test_a_policy_changed_in_the_same_range_does_not_judge_itself(repo: Repository) -> None:
    """Who adds a friend to the policy needs the reviews of the policy before."""
    friend = (
        f'[[person]]\nid = "mallory"\nname = "mallory"\nteams = ["t-dev", "t-sec"]\n'
        f'keys = [{{ public = "{ssh_public_of(repo.keys["mallory"])}", until = 2030-01-01 }}]\n'
    )
    repo.write(POLICY_PATH, repo.policy(friend))
    made = repo.commit("ana", "friend")
    repo.review("mallory", made)
    repo.review("bo", made)
    with pytest.raises(ChangeError, match="1 of t-sec"):
        repo.verify()
    repo.review("cy", made)
    assert repo.verify() == 1
    # From the next commit on the friend counts.
    repo.change("ana", "bo", "mallory")
    assert repo.verify() == 2


def test_an_expired_key_is_refused(repo: Repository) -> None:
    """By the verifier's day: a commit's date is what its author wrote. The last day counts."""
    repo.change("ana", "bo", "old")
    with pytest.raises(ChangeError, match="expired"):
        repo.verify()
    last = dt.date(2027, 1, 14)
    assert len(verify_range(repo.git, repo.base, "HEAD", today=last)) == 1


def test_a_force_push_is_refused(repo: Repository) -> None:
    """What was verified once stays in the history; the range begins where the last one ended."""
    first = repo.change("ana", "bo", "cy")
    repo.run("checkout", "-q", "-B", "main", repo.base)
    repo.change("bo", "ana", "cy")
    with pytest.raises(ChangeError, match="rewritten"):
        repo.verify(base=first)
    with pytest.raises(ChangeError, match="go on from"):
        verify_range(repo.git, repo.base, "HEAD", today=TODAY, allowed_base=first)


def test_replacement_objects_do_not_hide_a_commit(repo: Repository) -> None:
    """`git replace` shows a reviewed commit where another one is."""
    evil = repo.change("ana")
    repo.run("checkout", "-q", "-b", "good", repo.base)
    good = repo.change("ana", "bo", "cy")
    repo.run("checkout", "-q", "main")
    repo.run("replace", evil, good)
    with pytest.raises(ChangeError, match="got 0 that count"):
        repo.verify("main")


def test_a_path_without_a_rule_is_refused(repo: Repository) -> None:
    """What no rule names, nobody may change."""
    narrow = RULES.replace('paths = ["*"]', 'paths = ["README"]')
    repo.write(POLICY_PATH, repo.policy(rules=narrow))
    made = repo.commit("ana")
    for name in ("bo", "cy"):
        repo.review(name, made)
    repo.change("ana", "bo", "cy", path="elsewhere")
    with pytest.raises(ChangeError, match="elsewhere: expected a rule"):
        repo.verify()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('team = "t-dev", count = 1 }, { team = "t-sec", count = 1', 'team = "t-sec", count = 1'),
        ('id = "bo"', 'id = "ana"'),
        ("until = 2027-01-14", 'until = "soon"'),
        ("[[rule]]", "[[rules]]"),
    ],
)
def test_an_unsafe_policy_is_refused(repo: Repository, old: str, new: str) -> None:
    """One review of itself, a person twice, a key without an end, an unknown member."""
    text = repo.policy()
    assert load_git_policy(text)
    with pytest.raises(ChangeError):
        load_git_policy(text.replace(old, new))


def test_git_itself_accepts_these_signatures(repo: Repository) -> None:
    """The judge from outside: `git verify-commit` with an allowed-signers file."""
    made = repo.change("ana")
    signers = repo.root.parent / "signers"
    signers.write_text(f'ana namespaces="git" {ssh_public_of(repo.keys["ana"])}\n')
    repo.run("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", made)

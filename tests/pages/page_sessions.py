"""The sessions: what each page's reader has, and what of a printed line is their own."""

from docs_sessions import Session

_CHECKED = (
    "--checked identity --checked use-case --checked conflicts --checked least --checked licence "
    "--checked people --checked security --checked sanctions"
)

PAGES = {
    "transparency-log": Session(
        own={
            "SHA256": "$(printf drill | sha256sum | cut -c1-64)",
            "prove trust-log 7": "prove trust-log 0",
            "show trust-log 7": "show trust-log 0",
            "verify COPY": "verify trust-log",
            "witness COPY": "witness trust-log",
            '"witness.example/w1+…"': '"$(grep witness.example w1.pub | tail -1)"',
            "--init witness.example/w1": "--init witness.example/w1 >w1.pub",
            "--at-least 1000": "--at-least 1",
        },
        after={
            "safehold log list": "witnesses",
            "safehold log add-key": "cp trust-log/log.json pinned-log.json",
        },
    ),
    "constitution": Session(
        until={"safehold constitution lint glue.yaml": 1},
        left={"safehold constitution neighbours": "your-own-class.md plays it with a model"},
    ),
    "ledger": Session(
        before="kit ledger safehold-ledger.db",
        own={"DECISION_ID": "d0"},
        left={
            "safehold ledger tail -f": "it ends when its reader ends it; tests/cli reads its lines",
            "safehold ledger --ledger postgresql": "tests/guard/ledger has a real PostgreSQL",
        },
    ),
    "review": Session(
        before="kit ledger safehold-ledger.db; safehold log init trust-log --origin example.org/r",
        own={"d-3f9c2a": "d0", "show 4": "show 1", "verdict 4": "verdict 1"},
        after={
            "safehold review verdict": """
safehold review open account laptop --by ann
# Which item comes first is drawn, and which of them two must judge: all that is left is judged.
for who in bea cid; do
  while item=$(safehold review next $who | sed -nE 's/.*"item":([0-9]+).*/\\1/p'); [ -n "$item" ]
  do
    safehold review show "$item" $who --reason look
    safehold review verdict "$item" $who permitted
  done
done
"""
        },
        left={
            "safehold review draw": "it needs a scanned month; tests/soak plays it",
            "safehold review estimate": "the same",
        },
    ),
    "gateway": Session(
        before="model; administered",
        own={"http://127.0.0.1:8000/v1": "$MODEL"},
        left={
            "safehold serve --upstream hf:": "gigabytes; tests/improve/probes has a small one",
            "safehold serve --upstream https://api": "nothing is asked of a vendor by a test",
        },
    ),
    "trust": Session(
        before="people; application",
        own={
            "--checked identity … --constitution": f"{_CHECKED} --constitution",
            "p-0123456789abcdef": "$(safehold people list | grep Ada | cut -d' ' -f1)",
        },
        others={"safehold grant approve": "ben"},
        after={
            "safehold grant approve": """
(HOME=$PWD/cleo; echo y | safehold grant approve $ID --ssh-key ~/.ssh/id_ed25519)
""",
            "safehold exemption tell": "safehold ledger --ledger safehold-ledger.db migrate",
            "safehold people sign": """
for who in ben cleo; do
    (HOME=$PWD/$who; safehold people sign founding.json --ssh-key ~/.ssh/id_ed25519)
done
""",
        },
    ),
    "endpoint": Session(
        before="""
mkdir opt; printf '#!/bin/sh\n' >opt/tool; chmod 755 opt/tool
""",
        own={
            "keygen platform platform.key": "keygen platform platform.key | tee platform.pub",
            "--signer platform.key": "--signer platform.key --root opt",
            "llama-server --model model.gguf": "/bin/true",
        },
        after={
            "safehold endpoint scan": "policy",
        },
        left={
            "safehold endpoint guard --policy endpoint.toml": "it would guard the whole machine",
        },
    ),
    "console": Session(
        before="""
openssl rand -hex 16 >admin.key; chmod 600 admin.key; kit enclave; kit ledger safehold-ledger.db
""",
        own={"--admin-key-file admin.key": '--admin-key-file admin.key --port "$(free_port)"'},
        left={"safehold console --demo": "tests/soak/test_soak_console_demo.py plays it whole"},
    ),
    "weights": Session(
        before="""
kit enclave; kit weights model
printf 'kind = "unsafe-local"\nfolder = "keys"\n' >hsm.toml
""",
        own={
            "SHA256": "$(printf loader | sha256sum | cut -c1-64)",
            "--ssh-key ada": "--ssh-key ada | tee id.txt",
            "approve ID": "approve $(tail -1 id.txt) --yes",
            "--ssh-key ben": "--ssh-key dev-two",
        },
        left={
            "safehold serve --bundle": "tests/secure/weights/test_weights_end_to_end.py, with keyd",
            "safehold weights load": "the same",
        },
    ),
}

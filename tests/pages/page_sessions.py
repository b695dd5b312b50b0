"""The sessions: what each page's reader has, and what of a printed line is their own."""

import os

from docs_sessions import Session
from left_lines import LEFT

_CHECKED = (
    "--checked identity --checked use-case --checked conflicts --checked least --checked licence "
    "--checked people --checked security --checked sanctions"
)

PAGES = {
    "transparency-log": Session(own={"SHA256": "$(printf drill | sha256sum | cut -c1-64)"}),
    "constitution": Session(
        before="generator",
        own={"--generator URL": "--generator $GENERATOR"},
        until={"safehold constitution lint glue.yaml": 1},
    ),
    "ledger": Session(
        before="kit ledger safehold-ledger.db; kept DATABASE postgres",
        own={
            "safehold ledger tail -f": "lines 4 safehold ledger tail -f",
            "DECISION_ID": "d0",
            "postgresql://safehold@db/safehold": '"$DATABASE"',
        },
    ),
    "review": Session(
        before="kit ledger safehold-ledger.db; safehold log init trust-log --origin example.org/r; "
        "safehold monitor scan --scanner session",
        own={"d-3f9c2a": "d0", "show 4": "show 1", "verdict 4": "verdict 1"},
        after={
            # What comes first, and which two must judge, is drawn: all that is left is judged.
            "safehold review verdict": "safehold review open account laptop --by ann; "
            "judged bea cid",
            "safehold review draw": "judged bea cid",
        },
    ),
    "gateway": Session(
        before="model; administered; kit probed models/mine bundles/probed",
        own={"http://127.0.0.1:8000/v1": "$MODEL"},
        left=LEFT["gateway"],
    ),
    "classes": Session(
        before="model; kit enclave; kit mine bundles/mine; kit mine bundles/soap",
        own={
            "--ticket OPS-1 --ssh-key ~/.ssh/id_ed25519": "--ticket OPS-1 "
            "--ssh-key ~/.ssh/id_ed25519 | tee id.txt",
            "approve REQUEST --ssh-key ~/.ssh/id_ed25519": 'approve "$(tail -1 id.txt)" --yes '
            "--ssh-key dev-two",
            "--bundle bundles/mine": '--port "$(free_port)" --bundle bundles/mine',
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
        left=LEFT["endpoint"],
    ),
    "console": Session(
        before="""
openssl rand -hex 16 >admin.key; chmod 600 admin.key; kit enclave; kit ledger safehold-ledger.db
""",
        own={"--admin-key-file admin.key": '--admin-key-file admin.key --port "$(free_port)"'},
        left=LEFT["console"],
    ),
    "weights": Session(
        before="""
kit enclave; kit weights model; loaders
printf 'kind = "unsafe-local"\nfolder = "keys"\n' >hsm.toml
""",
        own={
            "SHA256": "$WORKLOAD",
            "--ssh-key ada": "--ssh-key ada | tee id.txt; ID=$(tail -1 id.txt)",
            "approve ID": "approve $ID --yes",
            "--ssh-key ben": "--ssh-key dev-two",
            "--grant ID": "--grant $ID",
            "serve --bundle": 'serve --port "$(free_port)" --bundle',
            "llama-server --model": "wc -c",
        }
        if os.geteuid() == 0
        else {
            "SHA256": "$WORKLOAD",
            "--ssh-key ada": "--ssh-key ada | tee id.txt; ID=$(tail -1 id.txt)",
            "approve ID": "approve $ID --yes",
            "--ssh-key ben": "--ssh-key dev-two",
        },
        after={
            "safehold grant approve": """
for who in dev-three sec-one; do safehold grant approve $ID --yes --ssh-key $who; done
[ "$(id -u)" -ne 0 ] || key_service
""",
        },
        left=LEFT.get("weights", {}),
    ),
}

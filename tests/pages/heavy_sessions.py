"""Sessions that train or attack for minutes: `make soak` plays them."""

from docs_sessions import Session

_CLASS = 'cp "$ROOT/examples/classes/bicycle-repair.yaml" mine.yaml; generator; '

HEAVY: dict[str, Session] = {
    "bounty": Session(
        before="safehold log init trust-log --origin example.org/b; kit bundle bundle bundle.pub",
        own={
            "new-key triage.key": "new-key triage.key | tee key.txt",
            "--out questions.json": "--out questions.json | tee digest.txt",
        },
        after={
            "safehold bounty freeze": 'kit programme "$(cat key.txt)" "$(cat digest.txt)"',
        },
    ),
    "redteam": Session(
        before="kit bundle bundle bundle.pub",
        own={
            "--out attacks.jsonl": "--out attacks.jsonl --attempts 30",
            "--attempts 300": "--attempts 10",
            "safehold redteam universal": "safehold redteam universal --dresses 2",
            "--tries 50": "--tries 1",
            "--port 9100": '--port "$(free_port)"',
        },
    ),
    "evaluation": Session(
        before="kit mine bundles/mine; kit mine bundles/b; kit labelled labelled",
        own={"safehold eval homebrewing": "safehold eval bundles/b"},
    ),
    "guard": Session(
        before="""
kit labelled labelled; model; kit tiny models/mine; kit month safehold-ledger.db
safehold synth --out early/ --size small; kit less early some; kit stock bundles/mine
kit traffic week.jsonl; export SAFEHOLD_EVAL_DATA=$PWD/labelled
""",
        own={
            "--data data/ --probe": "--data some/ --alpha 0.2 --probe",
            "safehold-ledger.db --contamination 0.001 --out bundles/ours": "safehold-ledger.db "
            "--contamination 0.001 --out bundles/ledgers",
            "synth --out data/": "synth --out data/ --size small",
            "train --data data/ --out bundles/mine": "train --data data/ --out bundles/new "
            "--stage1-only",
            "eval bundles/mine --data": "eval bundles/new --data",
            "http://127.0.0.1:8000/v1 --bundle bundles/mine": "$MODEL --bundle bundles/new",
        },
    ),
    "synthesis": Session(
        before=_CLASS + "books",
        own={"http://127.0.0.1:8000/v1": "$GENERATOR", "my-books/": "books/"},
    ),
    "response": Session(
        own={
            "--accounts 10 --accounts 1000 --seeds 10 --queries 600": "--seeds 1 --queries 4 "
            "--found-after 2",
        },
    ),
    "README": Session(
        before=_CLASS + "model; kit labelled labelled",
        own={
            "http://127.0.0.1:8000/v1 --out": "$GENERATOR --size small --out",
            "--upstream http://127.0.0.1:8000/v1": "--upstream $MODEL",
            "--out bundles/mine": "--out bundles/mine --stage1-only",
            "--out attacks.jsonl": "--out attacks.jsonl --attempts 30",
        },
    ),
    "egress": Session(
        before="way_out; model; kit samples models/served samples.jsonl; "
        "kept TELLER teller samples.jsonl",
        own={
            "http://127.0.0.1:8000/v1": "$TELLER",
            "--seconds 3600": "--seconds 1",
            "--register egress.toml --plan box-plan.toml": "--register box.toml "
            "--plan box-plan.toml --state box --netns box",
            "run --senders senders.toml": "run --senders senders.toml --ticks 2 --interval 0.2",
            "--plan box-plan.toml --counts": "--register box.toml --state box --netns box "
            "--ticks 2 --interval 0.2 --plan box-plan.toml --counts",
            "--counts host.json": "--ticks 2 --interval 0.2 --counts host.json",
        },
        until={"safehold egress run": 0},
        after={"safehold egress explain": "box"},
        alone=True,
    ),
    "change": Session(
        before="kit enclave; first_release",
        own={
            "bundle=bundle/": "bundle=bundle/ --artefact product=safehold.whl",
            "grant approve $ID --ssh-key ~/.ssh/id_ed25519": "grant approve $ID --yes "
            "--ssh-key dev-two",
            "--person ID --person ID": "--person $ONE --person $TWO",
            "release.json": "next.json",
            "safehold change tuf sign root.json --ssh-key ~/.ssh/id_ed25519": "both_sign",
            "--signature …": "$SIGNATURES",
        },
        after={
            # A release that lost nothing needs two, and nobody of security.
            "safehold grant approve": """
[[ $(safehold grant show $ID) == *release.publish* ]]
safehold grant approve $ID --yes --ssh-key dev-three
""",
            "safehold change vouch": "safehold change vouch comparison.json "
            "--out comparison.signed --ssh-key sec-one",
        },
    ),
    "intelligence": Session(
        before="""
safehold log init trust-log --origin example.org/i; kit template template.txt
printf 'organisation: Example lab\ngroup: example-group\n' >intel.yaml
openssl req -x509 -newkey ed25519 -nodes -keyout server.key -out server.pem -days 2 \
    -subj /CN=localhost 2>/dev/null
chmod 600 server.key; kit mine bundle; kit ledger safehold-ledger.db
""",
        own={
            "--host 0.0.0.0": '--host 0.0.0.0 --port "$(free_port)"',
            "promote 4": 'promote "$NUMBER"',
            "candidates/4.json": "candidates/$NUMBER.json",
        },
        after={
            "safehold intel new-key": "partner",
            "safehold intel show": "NUMBER=$(quarantined indicator)",
        },
    ),
}

ELSEWHERE = {
    "your-own-class": "tests/soak/test_soak_own_class.py",
}
"""Pages that a test of their own plays."""

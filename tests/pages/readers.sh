# What every reader of a page has: sourced by each session, in a folder of the reader's own.
set -euo pipefail

# What a session starts ends with it.
STARTED= PLACES=
started() { STARTED+=" $1"; trap ended EXIT; }
ended() { kill $STARTED 2>/dev/null || true; wait $STARTED 2>/dev/null || true; rm -rf $PLACES; }

# A server is started, seen to be up, ended by SIGTERM, and its end is judged.
serves() {
    "$@" >served.log 2>&1 & local it=$! end=0
    for _ in $(seq 1200); do
        if grep -Eq 'https?://|ready|watching|listening|guarding|holds' served.log; then break; fi
        if ! kill -0 $it 2>/dev/null; then
            wait $it || end=$?
            cat served.log >&2
            return $((end + 100))
        fi
        sleep 0.1
    done
    sleep 0.2; kill -TERM $it; wait $it || end=$?
    if [ $end -ne 0 ] && [ $end -ne 143 ]; then cat served.log >&2; return $end; fi
}

# A command whose exit status says something: `exits 1 safehold grant status`.
exits() {
    local want=$1 end=0
    shift; "$@" || end=$?
    [ $end -eq "$want" ] || { echo "exit $end, expected $want" >&2; return 1; }
}

# A command that goes on until its reader ends it: `lines 4 safehold ledger tail -f`.
lines() {
    local want=$1 end=0
    shift; "$@" >lines.log & local it=$!
    for _ in $(seq 1200); do
        if [ "$(wc -l <lines.log)" -ge "$want" ]; then break; fi
        kill -0 $it 2>/dev/null || return 1
        sleep 0.1
    done
    kill -TERM $it; wait $it || end=$?
    [ "$(wc -l <lines.log)" -ge "$want" ] && { [ $end -eq 0 ] || [ $end -eq 143 ]; }
}

kit() { python "$ROOT/tests/pages/docs_kit.py" "$@"; }

# A model that answers, at an address of its own until the session ends: then $MODEL.
model() {
    python "$ROOT/tests/pages/docs_kit.py" upstream model.url & started $!
    while [ ! -s model.url ]; do sleep 0.1; done
    MODEL=$(cat model.url)
}

# A server of the kit's, whose address is then in a variable: `kept DATABASE postgres`.
kept() {
    local name=$1
    shift; rm -f "$name.url"
    python "$ROOT/tests/pages/docs_kit.py" "$@" "$name.url" & started $!
    while [ ! -s "$name.url" ]; do sleep 0.1; done
    printf -v "$name" %s "$(cat "$name.url")"
}

# Where the key service and the loader live, and what the loader is: then $WORKLOAD.
loaders() {
    place=$(mktemp -d /tmp/shw-XXXXXX); PLACES+=" $place"; chmod 755 "$place"
    local ours
    ours=$(python -c 'import safehold, pathlib; print(pathlib.Path(safehold.__file__).parent)')
    cp -r "$ours/secure" "$place/code"
    find "$place/code" -name __pycache__ -prune -exec rm -rf {} +
    WORKLOAD=$(safehold keyd workload --exe "$(readlink -f "$(which python)")" --code "$place/code")
    printf 'rules:\n  - {id: mark, clause: c/m, pattern: "purple elephant", example: "purple elephant"}\n' \
        >rules.yaml
}

# The key service, under a user of its own, whose the log and the keys are now.
key_service() {
    local who=64001 host program; program=$(command -v python)
    host=$(python -c '
from safehold.secure.weights.keyd.host import measure_host
print(measure_host().sha256)')
    safehold keyd memory "$place/memory"
    mkdir "$place/run" "$place/public"
    cp -r trust-log "$place/log"; cp -r keys "$place/keys"; cp hsm.toml "$place/provider.toml"
    cp trust-log.keys/log.key trust-log.keys/emitter.key log.json "$place"
    cp publisher/*.pub.pem "$place/public"
    cat >"$place/keyd.toml" <<END
socket = "run/keyd.sock"
log = "log"
log_keys = "log.json"
log_key = "log.key"
emitter_key = "emitter.key"
memory = "memory"
publisher = "public"
providers = ["provider.toml"]
host = "gpu-1"
host_sha256 = "$host"
loaders = [0]
code = ["$place/code"]
socket_mode = 0o600
END
    for one in log keys memory run log.key emitter.key; do chown -R $who:$who "$place/$one"; done
    (cd "$place" && exec setpriv --reuid=$who --regid=$who --clear-groups --inh-caps=+sys_ptrace \
        --ambient-caps=+sys_ptrace "$program" -m safehold keyd run --config keyd.toml) >keyd.log 2>&1 &
    started $!
    until grep -q listens keyd.log; do
        kill -0 $! || { cat keyd.log >&2; return 1; }
        sleep 0.1
    done
    export SAFEHOLD_KEYD=$place/run/keyd.sock
}

# Three people with SSH keys: ada is who reads, ben and cleo have homes of their own.
people() {
    for who in . ben cleo; do
        mkdir -p $who/.ssh; ssh-keygen -q -t ed25519 -N '' -C $who -f $who/.ssh/id_ed25519
    done
    for key in dora spare; do ssh-keygen -q -t ed25519 -N '' -C $key -f .ssh/$key; done
    cp .ssh/id_ed25519.pub ada.pub
    cp ben/.ssh/id_ed25519.pub ben.pub
    cp cleo/.ssh/id_ed25519.pub cleo.pub
}

# Somebody's application for an exemption, with what it names.
application() {
    echo loader >loader
    printf '#!/bin/sh\ncat >>mail.txt\n' >mail-applicant; chmod +x mail-applicant
    echo licence >licence.pdf; echo letter >letter.pdf
    cat >application.toml <<'END'
who = "A. Applicant"
contact = "applicant@example.org"
institution = "Example School"
why = "A licensed brewing course, 20 students"
use_case = "brewing-school"
[[evidence]]
kind = "licence"
file = "licence.pdf"
[[evidence]]
kind = "letter"
file = "letter.pdf"
END
}

# Two more witnesses of the log, which sign what they see.
witnesses() {
    for n in 3 4; do
        safehold log witness trust-log --state w$n --init witness.example/w$n >w$n.pub
        safehold log add-key trust-log "$(grep witness.example w$n.pub | tail -1)"
    done
    cp trust-log/log.json pinned-log.json
    for n in 3 4; do
        safehold log witness trust-log --state w$n --log-keys pinned-log.json --attach
    done
}

# A model that writes training text: then $GENERATOR.
generator() {
    python "$ROOT/tests/pages/docs_kit.py" generator generator.url & started $!
    while [ ! -s generator.url ]; do sleep 0.1; done
    GENERATOR=$(cat generator.url)
}

# A port of this machine that nobody has now.
free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Another lab, which serves what it found and takes what we tell; intel.yaml knows it.
partner() {
    mkdir other; local port; port=$(free_port)
    printf 'organisation: Other lab\ngroup: example-group\n' >other/intel.yaml
    local there="--config other/intel.yaml --intel other/i.db --log other/log"
    safehold log init other/log --origin example.org/other >/dev/null
    safehold intel $there add other-dress --text template.txt --group-key group.key \
        --band high --seen 2026-W46:1
    THEIR_PASSWORD=$(safehold intel $there new-client us --clients other/clients.yaml | tail -1)
    export THEIR_PASSWORD
    safehold intel $there serve --port "$port" --clients other/clients.yaml >other/said &
    started $!
    until [ "$(wc -l <other/said)" -ge 2 ]; do sleep 0.1; done
    printf 'organisation: Example lab\ngroup: example-group\nfeeds:\n' >intel.yaml
    local names=(partners partners-inbox) at=0 line
    while read -r line && [ $at -lt 2 ]; do
        printf "  - {name: %s, api_root: 'http://127.0.0.1:%s/taxii2/root/', collection: %s, " \
            "${names[$at]}" "$port" "${line##*: }" >>intel.yaml
        printf 'user: us, password_env: THEIR_PASSWORD}\n' >>intel.yaml
        at=$((at + 1))
    done <other/said
    for _ in $(seq 300); do
        if (exec 3<>/dev/tcp/127.0.0.1/"$port") 2>/dev/null; then return; fi
        sleep 0.1
    done
}

# The number of an object of a type in quarantine.
quarantined() {
    safehold intel show | python -c '
import json, sys
found = json.load(sys.stdin)["quarantine"]
print(next(one["number"] for one in found if one["id"].startswith(sys.argv[1])))' "$1"
}

# A policy of the endpoint that takes what the inventory lists.
policy() {
    cat >endpoint.toml <<END
version = 1
mode = "enforce"
host = "gpu-1"

[[inventory]]
file = "inventory.jsonl"
signer = "platform"
key = "$(tail -1 platform.pub)"

[[allow]]
name = "system"
kinds = ["elf", "library", "script"]
path = ["/usr/**"]
owner = "platform"
reason = "the operating system"
ticket = "OPS-1"
END
}

# A release in force for the channel gw, and what has changed since.
first_release() {
    printf 'default:\n  hold_tokens: 16\n' >safehold.yaml
    echo wheel >safehold.whl
    kit bundle bundle bundle.pub
    mkdir data; echo '{"text": "a"}' >data/golden.jsonl
    local parts=(--artefact gateway=safehold.yaml --artefact bundle=bundle/)
    parts+=(--artefact golden-set=data/)
    parts+=(--artefact product=safehold.whl)
    safehold change draft now.json --channel gw "${parts[@]}"
    local first who
    first=$(safehold change publish now.json --documents releases/ --ssh-key dev-one)
    for who in dev-two dev-three sec-one; do
        safehold grant approve "$first" --yes --ssh-key $who
    done
    cp log.json pinned.json
    cat >releases.toml <<'END'
log = "trust-log"
log_keys = "pinned.json"
channel = "gw"
documents = "releases"
memory = "releases.memory"
END
    safehold change memory releases.memory --channel gw --log-keys pinned.json
    rm -rf bundle; kit bundle bundle bundle.pub
    safehold change draft sketch.json --channel gw --previous now.json "${parts[@]}"
    kit evaluated eval-old "$(digest_of now.json)"
    kit evaluated eval-new "$(digest_of sketch.json)"
    read -r ONE TWO < <(python -c '
from safehold.testing.trust import person_id
print(person_id("dev-one"), person_id("sec-one"))')
}

digest_of() {
    python -c '
import json, sys
print(next(one["sha256"] for one in json.load(open(sys.argv[1]))["artefacts"]
           if one["kind"] == "bundle"))' "$1"
}

# Each of the two persons signs root and targets.
both_sign() {
    SIGNATURES=
    local file who said
    for file in root.json targets.json; do
        for who in dev-one sec-one; do
            said=$(safehold change tuf sign $file --ssh-key $who | tail -1)
            SIGNATURES+="--signature ${said#signed: } "
        done
    done
}

# A way out that leads nowhere, in a network of this session's own; the host's state is hidden.
way_out() {
    mkdir -p /var/lib; mount -t tmpfs none /var/lib; mkdir -p /var/lib/safehold
    ip link set lo up
    cp /etc/passwd passwd
    for name in vllm otel resolve; do
        grep -q "^$name:" passwd || echo "$name:x:$((64100 + RANDOM % 900)):65534::/:/bin/false" >>passwd
    done
    mount --bind passwd /etc/passwd
    local name
    for name in eth0 in0 out0; do
        ip link add $name type veth peer name far-$name
        ip link set $name up; ip link set far-$name up
    done
    ip addr add 10.9.0.1/24 dev eth0
    safehold egress sender-key other.pem
    cat >senders.toml <<'END'
version = 1
[[sender]]
name = "gateway-1"
rows = "explained.jsonl"
flows = ["replies"]
public_key = "other.pub.pem"
END
}

# The box's plan, its rows, and the keys of both sides.
box() {
    cat >box-plan.toml <<'END'
version = 1
weights = { size = "1 TB" }
[link]
interfaces = ["out0"]
rate = "200 Mbit/s"
[box]
inside = "in0"
addresses = ["10.1.0.1"]
END
    sed 's/^source = .*/source = { uid = 0 }/' egress.toml >box.toml
    mkdir -p /run/netns; mount -t tmpfs none /run/netns; ip netns add box
    local name
    for name in in0 out0; do ip link set $name netns box; ip -n box link set $name up; done
    safehold egress sender-key host.pem
    safehold egress sender-key box.pem
    printf 'default:\n  hold_tokens: 16\nupstream: {url: %s}\n' "$MODEL" >safehold.yaml
}

# A seed book of the reader's own, for the class of the examples.
books() {
    mkdir -p books
    cat >books/wheels.yaml <<'END'
clause: bicycle-mending
side: restricted
asks:
  - How far does the axle nut of a rear wheel get turned when the bearing has play?
  - In which order are the spokes of a buckled wheel tightened, and by how much?
END
}

# A gateway of one's own that runs until the session ends, with an admin key in admin.key.
administered() {
    local said port; port=$(free_port)
    said=$(safehold init --new-key ops --admin)
    (umask 077; grep -o 'sk-safehold-[A-Za-z0-9_-]*' <<<"$said" | head -1 >admin.key)
    {
        printf 'ledger: %s\nhost: 127.0.0.1\nport: %s\nupstream: {url: %s}\nkeys:\n' \
            "$PWD/administered.db" "$port" "$MODEL"
        grep '^ *- ' <<<"$said"
    } >administered.yaml
    safehold serve --config administered.yaml >administered.log 2>&1 & started $!
    export SAFEHOLD_GATEWAY=http://127.0.0.1:$port
    python - "$SAFEHOLD_GATEWAY/readyz" <<'END'
import sys, time, urllib.request
for _ in range(600):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=60).read()
        break
    except OSError:
        time.sleep(0.2)
else:
    sys.exit("the gateway is not ready")
END
}

# Persons judge what the desk hands out until there is nothing left: `judged bea cid`.
judged() { kit judged "$@"; }

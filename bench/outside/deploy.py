"""Judges of deploy/: hadolint, the schemas of Kubernetes, and nginx itself."""

import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = ("1.31", "1.34")


def kubernetes() -> None:
    """Validate every manifest, strictly, by two releases' schemas."""
    manifests = list(yaml.safe_load_all((DEPLOY / "kubernetes/gateway.yaml").read_text()))
    for release in KUBERNETES:
        for manifest in manifests:
            kubernetes_validate.validate(manifest, release, strict=True)
    print(f"kubernetes: {len(manifests)} manifests valid in {' and '.join(KUBERNETES)}")


def container() -> None:
    """Lint the container file."""
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else "hadolint"
    subprocess.run([hadolint, str(DEPLOY / "container/Containerfile")], check=True)
    print("container: hadolint has nothing to say")


def nginx() -> None:
    """Have nginx read the example, with a throw-away certificate."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        make += ["-subj", "/CN=models.example", "-keyout", f"{name}/models.key"]
        subprocess.run([*make, "-out", f"{name}/models.pem"], check=True, capture_output=True)
        given = (DEPLOY / "nginx/safehold.conf").read_text().replace("/etc/nginx/tls", name)
        head = f"pid {name}/pid;\nerror_log stderr;\nevents {{}}\n"
        (folder / "nginx.conf").write_text(f"{head}http {{\naccess_log off;\n{given}\n}}\n")
        subprocess.run(["nginx", "-t", "-q", "-p", name, "-c", f"{name}/nginx.conf"], check=True)
    print("nginx: the example is read")


if __name__ == "__main__":
    kubernetes()
    container()
    nginx()

"""Only http and https addresses are asked."""

from pathlib import Path

import pytest

from safehold.errors import UsageError
from safehold.http_ask import ask


@pytest.mark.parametrize("scheme", ["file", "ftp", "data", "FILE", ""])
def test_another_scheme_is_refused_before_anything_is_opened(scheme: str, tmp_path: Path) -> None:
    """A file of our own disk is no answer of a gateway."""
    (tmp_path / "status").write_text("{}")
    with pytest.raises(UsageError, match="expected an http or https address"):
        ask(f"{scheme}://{tmp_path}/status", timeout_s=1)


def test_an_http_address_is_asked() -> None:
    """The twin: nobody listens there, and that is what the error says."""
    with pytest.raises(OSError, match="refused"):
        ask("http://127.0.0.1:9/status", timeout_s=5)

"""Keys inside AWS KMS, by its own client."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from safehold.secure.weights.interface import ProviderError, WrongKeyError

_WRONG = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_WAIT_DAYS = 7  # the shortest that KMS allows


_WHY: tuple[tuple[tuple[type[BotoCoreError], ...], str], ...] = (
    ((aws.NoCredentialsError, aws.PartialCredentialsError), "no whole credentials were found"),
    ((aws.CredentialRetrievalError, aws.TokenRetrievalError), "no credentials could be fetched"),
    ((aws.NoRegionError, aws.InvalidRegionError), "there is no such region"),
    ((aws.ConnectTimeoutError, aws.ReadTimeoutError), "no answer in time"),
    ((aws.EndpointConnectionError,), "nobody listens at its address"),
    ((aws.ProxyConnectionError,), "the proxy can't be reached"),
    ((aws.SSLError,), "its certificate is not trusted here"),
    ((aws.ConnectionClosedError,), "it hung up without an answer"),
    ((aws.ParamValidationError,), "it takes no such key or context"),
)


def _why(error: BotoCoreError) -> str:
    return next((said for kinds, said in _WHY if isinstance(error, kinds)), "the call failed")


class KmsProvider:
    """Symmetric KMS keys; the context is the encryption context, so CloudTrail shows it.

    Credentials are found by boto3 in its usual places.

    Args:
        region: The AWS region.
        endpoint: Another address of the service (tests, VPC endpoints).
        timeout_s: For each call.
    """

    kind = "aws-kms"

    def __init__(
        self, region: str, *, endpoint: str | None = None, timeout_s: float = 10.0
    ) -> None:
        self._client = boto3.client(
            "kms",
            region_name=region,
            endpoint_url=endpoint,
            config=Config(
                connect_timeout=timeout_s, read_timeout=timeout_s, retries={"max_attempts": 2}
            ),
        )

    @contextmanager
    def _calls(self) -> Iterator[Any]:
        try:
            yield self._client
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in _WRONG:
                raise WrongKeyError("aws-kms: the key does not open this wrapped key") from error
            raise ProviderError(f"aws-kms: it refused ({code})") from error
        except BotoCoreError as error:
            raise ProviderError(f"aws-kms: out of reach ({_why(error)})") from error

    def create(self, name: str) -> str:
        """Make a key and return its id."""
        with self._calls() as kms:
            answer = kms.create_key(
                Description=name,
                KeySpec="SYMMETRIC_DEFAULT",
                KeyUsage="ENCRYPT_DECRYPT",
                Tags=[{"TagKey": "safehold", "TagValue": name}],
            )
            return str(answer["KeyMetadata"]["KeyId"])

    def wrap(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        """Encrypt inside the service."""
        with self._calls() as kms:
            answer = kms.encrypt(KeyId=reference, Plaintext=key, EncryptionContext=dict(context))
            return base64.b64encode(answer["CiphertextBlob"]).decode()

    def unwrap(self, reference: str, blob: str, context: Mapping[str, str]) -> bytes:
        """Decrypt inside the service.

        Raises:
            WrongKeyError: another key or context.
        """
        try:
            data = base64.b64decode(blob, validate=True)
        except binascii.Error as error:
            raise ProviderError("expected a wrapped key in base64") from error
        with self._calls() as kms:
            # The service refuses such a key too; asking first makes the refusal a clear one.
            state = kms.describe_key(KeyId=reference)["KeyMetadata"]["KeyState"]
            if state != "Enabled":
                raise ProviderError(f"aws-kms: expected an enabled key, it is {state}")
            answer = kms.decrypt(
                KeyId=reference, CiphertextBlob=data, EncryptionContext=dict(context)
            )
            return bytes(answer["Plaintext"])

    def destroy(self, reference: str) -> str:
        """Disable the key at once and schedule its deletion for the earliest day."""
        with self._calls() as kms:
            kms.disable_key(KeyId=reference)
            answer = kms.schedule_key_deletion(KeyId=reference, PendingWindowInDays=_WAIT_DAYS)
            state = kms.describe_key(KeyId=reference)["KeyMetadata"]["KeyState"]
            if state != "PendingDeletion":
                raise ProviderError(f"aws-kms: expected a pending deletion, the key is {state}")
        return (
            f"key {reference} disabled now, deleted on {answer['DeletionDate']:%Y-%m-%d}; "
            "until then an administrator of the account could cancel"
        )

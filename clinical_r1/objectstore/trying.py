"""One operation on an S3 endpoint: tried again while the endpoint is away, put into one sentence where it says no."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError

from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Conflict, NotFound, StoreFull, StoreRefused, StoreUnavailable
from clinical_r1.objectstore.settings import StoreSettings

_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
# Busy or starting: the same request may well succeed later.
_PASSING = {
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "XMinioServerNotInitialized",
    "NoSuchUpload",  # the parts of a large object that a restart forgot: the file is sent anew
}
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
T = TypeVar("T")


def keep_trying(operation: Callable[[], T], settings: StoreSettings, bucket: str, place: str) -> T:
    """Run `operation` until it ends or `settings.patience` seconds are over. Raises the kinds of failures.py."""
    deadline = time.monotonic() + settings.patience
    wait = _FIRST_WAIT
    while True:
        try:
            return operation()
        except S3Error as error:
            if error.code not in _PASSING:
                raise explain(error, settings, bucket, place) from None
            last = str(error.code)
        except ServerError as error:
            last = f"HTTP {error.status_code}"
        except InvalidResponseError as error:
            status = re.search(r"code: (\d+)", str(error))
            last = f"HTTP {status[1]}" if status else "no status"
            if not last.startswith("HTTP 5"):  # those come from a proxy in front while the store restarts
                raise StoreUnavailable(
                    f"object store {settings.endpoint}: the answer is not S3's ({last}): is this the S3 port of the "
                    "store, and http or https as it wants?"
                ) from None
        except urllib3.exceptions.SSLError:
            raise StoreRefused(
                f"object store {settings.endpoint}: its certificate is not trusted: set AWS_CA_BUNDLE to the PEM file "
                "of the authority that signed it (or use http where the store has no TLS)"
            ) from None
        except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            last = type(error).__name__
        if time.monotonic() + wait > deadline:
            raise StoreUnavailable(
                f"object store {settings.endpoint}: no usable answer for {settings.patience:g} s ({last}): is it up, "
                "and does a NetworkPolicy let us through? The same command goes on where this one stopped"
            )
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def explain(error: S3Error, settings: StoreSettings, bucket: str, place: str) -> UserError:
    """The sentence for an S3 error code, with what to do."""
    code, store = error.code or "unknown", f"object store {settings.endpoint}"
    user = settings.keys()[0]
    if code == "AccessDenied" and "not valid yet" in (error.message or ""):
        code = "RequestTimeTooSkewed"  # how a signed URL from the future is refused
    if code in ("NoSuchKey", "NoSuchObject", "ResourceNotFound"):
        return NotFound(f"{place}: no such object")
    if code == "PreconditionFailed":
        return Conflict(f"{place}: another writer came first")
    if code in _FULL:
        return StoreFull(f"{store}: no space left for {place}: free some, or grow the volume or the quota")
    sentences = {
        "NoSuchBucket": f"bucket '{bucket}' does not exist: create it, or correct the URI",
        "InvalidAccessKeyId": f"access key '{user}' is unknown there: correct AWS_ACCESS_KEY_ID or the Secret",
        "SignatureDoesNotMatch": f"the secret key of '{user}' is wrong: correct AWS_SECRET_ACCESS_KEY or the Secret",
        "RequestTimeTooSkewed": "this machine's clock and the store's differ by more than 15 minutes: set both by NTP",
        "AccessDenied": f"'{user}' has no right for this on {place}: add it to the key's policy",
        "AuthorizationHeaderMalformed": f"region '{settings.region}' is not the store's: correct AWS_REGION",
        "XAmzContentSHA256Mismatch": f"{place} arrived with other bytes than were hashed: did something write to the "
        "file meanwhile, or does a proxy change uploads? Send it again",
        "EntityTooLarge": f"{place} is larger than the store takes in one object",
    }
    return StoreRefused(f"{store}: {sentences.get(code, f'{code} for {place}')}")

"""Makes the bucket, its lifecycle rules and, on a MinIO of ours, one user and policy a prefix. Safe to run again.

python setup.py PLAN SECRETS: PLAN holds plan.json and policy-<user>.json, SECRETS one mounted Secret for each user and
for root.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.credentials import StaticProvider
from minio.error import MinioAdminException, S3Error, ServerError
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.minioadmin import MinioAdmin

OURS = "clinical-r1-"
"""Lifecycle rules that start so are ours; others are left alone."""

_KEYS = "the keys of this job are not the store's; correct the Secret (with MinIO: the root Secret it was started with)"
FIXES = {
    "AccessDenied": "these keys may not do that, or are wrong; correct Secret or policy, or let your storage team "
    "do it and set objectStore.setup.createBucket=false or objectStore.setup.lifecycle=false",
    "SignatureDoesNotMatch": _KEYS,
    "InvalidAccessKeyId": _KEYS,
    "RequestTimeTooSkewed": "the clocks of node and store differ; set them right",
}


class SetupError(Exception):
    """A sentence for the job's log."""


def keys(folder: Path) -> tuple[str, str]:
    """Access key and secret key of a mounted Secret."""
    try:
        access, secret = ((folder / n).read_text().strip() for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    except OSError:
        raise SetupError(f"{folder}: AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is missing in this Secret") from None
    return access, secret


def patiently(what: str, seconds: float, work: Callable[[], Any]) -> Any:
    """Try until the store answers; what it refuses is not tried again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except (urllib3.exceptions.HTTPError, ServerError) as problem:
            why = type(problem).__name__
        except S3Error as problem:
            if problem.code not in ("XMinioServerNotInitialized", "SlowDown", "ServiceUnavailable", "InternalError"):
                raise SetupError(f"{what}: the store says {problem.code}: {FIXES.get(str(problem.code), '')}") from None
            why = str(problem.code)
        except MinioAdminException as problem:
            if "XMinioServerNotInitialized" not in str(problem) and "XMinioIAMNotInitialized" not in str(problem):
                raise SetupError(f"{what}: the store says {problem}") from None
            why = "starting"
        if time.monotonic() > deadline:
            raise SetupError(f"{what}: no answer from the store within {seconds:.0f} s (last: {why})")
        print(f"{what}: the store does not answer yet ({why})", flush=True)
        time.sleep(2)


def bucket_exists(client: Minio, bucket: str) -> bool:
    """By a listing below a prefix: the users of an external store may not ask for the bucket as a whole."""
    try:
        next(client.list_objects(bucket, prefix="pipelines/"), None)
    except S3Error as problem:
        if problem.code != "NoSuchBucket":
            raise
        return False
    return True


def lifecycle(client: Minio, bucket: str, days: dict[str, int]) -> list[str]:
    """Set our rules, keep foreign ones; returns what is deleted after how long."""
    try:
        found = client.get_bucket_lifecycle(bucket)
    except S3Error as problem:
        if problem.code != "NoSuchLifecycleConfiguration":
            raise
        found = None
    rules = [rule for rule in (found.rules if found else []) if not (rule.rule_id or "").startswith(OURS)]
    wanted = {prefix: int(age) for prefix, age in days.items() if int(age) > 0}
    for prefix, age in wanted.items():
        expiration = Expiration(days=age)
        rules.append(
            Rule(ENABLED, rule_filter=Filter(prefix=f"{prefix}/"), rule_id=OURS + prefix, expiration=expiration)
        )
    if rules:
        client.set_bucket_lifecycle(bucket, LifecycleConfig(rules))
    elif found:
        client.delete_bucket_lifecycle(bucket)
    return [f"{prefix}/ after {age} days" for prefix, age in wanted.items()]


def main(plan_folder: Path, secrets: Path) -> int:
    """The exit code."""
    plan = json.loads((plan_folder / "plan.json").read_text())
    patience = float(os.environ.get("PATIENCE_SECONDS", "240"))
    scheme, _, host = plan["endpoint"].partition("://")
    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5, read=30),
        retries=False,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or None,
    )
    root = StaticProvider(*keys(secrets / "root"))
    bucket = plan["bucket"]
    client = Minio(host, credentials=root, secure=scheme == "https", region=plan["region"], http_client=http)
    there = patiently(f"bucket {bucket}", patience, lambda: bucket_exists(client, bucket))
    if not there:
        if not plan["create_bucket"]:
            raise SetupError(f"bucket {bucket}: is missing, and objectStore.setup.createBucket is false: have it made")
        patiently(f"bucket {bucket}", patience, lambda: client.make_bucket(bucket))
    print(f"bucket {bucket}: {'there' if there else 'made'}", flush=True)
    if plan["lifecycle"]:
        done = patiently("lifecycle", patience, lambda: lifecycle(client, bucket, plan["lifecycle"]))
        print(f"lifecycle: deleted are {', '.join(done) if done else 'no objects'}", flush=True)
    if plan["users"]:
        admin = MinioAdmin(
            endpoint=host, credentials=root, region=plan["region"], secure=scheme == "https", http_client=http
        )
        for user in plan["users"]:
            patiently(f"user {user}", patience, lambda user=user: add_user(admin, plan, plan_folder, secrets, user))
            print(f"user {user}: may do what policy-{user}.json says", flush=True)
    return 0


def add_user(admin: MinioAdmin, plan: dict[str, Any], plan_folder: Path, secrets: Path, user: str) -> None:
    """A user with the keys of its Secret and exactly its own policy."""
    policy = f"{plan['policy_prefix']}-{user}"
    admin.policy_add(policy, policy_file=str(plan_folder / f"policy-{user}.json"))
    access, secret = keys(secrets / user)
    admin.user_add(access, secret)
    admin.policy_set(policy, user=access)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
    except SetupError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)

"""Where the object store is and who we are there; from the environment, in the names that AWS tools read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from clinical_r1.errors import UserError
from clinical_r1.schema import first_problem
from clinical_r1.strict import Strict

SECRET_DIR = "CLINICAL_R1_STORE_SECRET_DIR"
# Where the steps of a pipeline see the store's Secret and the authority; kfp takes no variable from a run parameter.
MOUNTED_SECRET, MOUNTED_CA = Path("/etc/clinical-r1/store"), Path("/etc/clinical-r1/ca")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
# A mounted Secret: KServe's and AWS' names, and those of Kubeflow's mlpipeline-minio-artifact.
_FILES = {"access_key": ("AWS_ACCESS_KEY_ID", "accesskey"), "secret_key": ("AWS_SECRET_ACCESS_KEY", "secretkey")}


class StoreSettings(Strict):
    """How to reach an S3 endpoint.

    Environment: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (http:// or https://), AWS_REGION, AWS_CA_BUNDLE, and the keys
    as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), or as the files of a mounted Secret in the
    folder CLINICAL_R1_STORE_SECRET_DIR. Files are read at each request: a rotated Secret needs no restart.
    """

    endpoint: str
    """https://minio.storage.svc:9000; plain http only where the network is trusted."""
    access_key: str = ""
    """Not read where `secret_dir` is given."""
    secret_key: str = Field(default="", repr=False)
    """Never printed."""
    session_token: str = Field(default="", repr=False)
    """Of temporary credentials."""
    secret_dir: Path | None = None
    """Folder of a mounted Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or accesskey and secretkey."""
    region: str = "us-east-1"
    """MinIO takes any."""
    ca_bundle: Path | None = None
    """PEM file of the authorities to trust, where the endpoint's certificate is your own."""
    patience: float = Field(default=60.0, ge=0)
    """Seconds to keep trying while the endpoint does not answer or says that it is busy (a restart)."""

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ValueError("must be http://HOST:PORT or https://HOST:PORT without a path")
        return value.rstrip("/")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment; UserError names the variable that is missing or wrong."""
        endpoint = next((environment[name] for name in _ENDPOINTS if environment.get(name)), "")
        if not endpoint:
            raise UserError(
                "object store: AWS_ENDPOINT_URL is not set: give the S3 endpoint, such as https://minio.storage.svc:9000"
            )
        authority = MOUNTED_CA / (environment.get("CLINICAL_R1_CA_KEY") or "ca.crt")
        given = {
            "access_key": environment.get("AWS_ACCESS_KEY_ID", ""),
            "secret_key": environment.get("AWS_SECRET_ACCESS_KEY", ""),
            "session_token": environment.get("AWS_SESSION_TOKEN", ""),
            "secret_dir": environment.get(SECRET_DIR) or (MOUNTED_SECRET if MOUNTED_SECRET.is_dir() else None),
            "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
            "ca_bundle": environment.get("AWS_CA_BUNDLE") or (authority if authority.is_file() else None),
        }
        if given["secret_dir"] is None and not (given["access_key"] and given["secret_key"]):
            raise UserError(
                f"object store {endpoint}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                f"{SECRET_DIR} to the folder of a mounted Secret"
            )
        try:
            return cls.model_validate({"endpoint": endpoint} | given)
        except ValidationError as error:
            raise UserError(f"object store: AWS_ENDPOINT_URL={endpoint}: {first_problem(error)}") from None

    def keys(self) -> tuple[str, str]:
        """(access key, secret key), from the Secret's files where there is one. Raises UserError."""
        if self.secret_dir is None:
            return self.access_key, self.secret_key
        access, secret = (self._file(self.secret_dir, names) for names in _FILES.values())
        return access, secret

    @staticmethod
    def _file(folder: Path, names: tuple[str, ...]) -> str:
        for name in names:
            try:
                return (folder / name).read_text(encoding="utf-8").strip()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UserError(f"object store credentials: {folder / name}: {error.strerror}") from None
        raise UserError(f"object store credentials: {folder}: no file {' or '.join(names)}: is the Secret mounted?")

"""One bucket of S3-compatible storage: files go there in parts, so that an upload goes on where it broke off, and what is
there is compared with what was sent. boto3 is loaded here only, when it is needed."""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

from ..core.model import Bucket
from .failing import Failed, Stopped, words_of
from .sums import Part, Sums, in_base64

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
READ_BYTES = 1024 * 1024
REGION = "us-east-1"
MISSING = "boto3 is not installed: pip install 'nextdeploy[s3]'"
_REFUSED = {
    "InvalidAccessKeyId": "it does not know our `access_key`",
    "SignatureDoesNotMatch": "our `secret_key` is wrong",
    "AccessDenied": "our keys are not allowed to do this",
    "Forbidden": "it refuses our keys",
    "403": "it refuses our keys",
    "401": "it refuses our keys",
    "InvalidToken": "it refuses our keys",
    "ExpiredToken": "our keys have expired",
    "NoSuchBucket": "there is no such bucket",
    "PermanentRedirect": "the bucket is in another region, or elsewhere",
    "301": "the bucket is in another region, or elsewhere",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "IllegalLocationConstraintException": "the bucket is in another region",
    "RequestTimeTooSkewed": "its clock and ours are too far apart",
    "InvalidBucketName": "the bucket's name is not valid",
}


_PASSING = frozenset(("RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"))
_UNFIT = frozenset(
    (
        "NoSuchUpload",
        "InvalidPart",
        "InvalidPartOrder",
        "EntityTooSmall",
        "InvalidRequest",
        "InvalidArgument",
        "MalformedXML",
    )
)
"""What is there of an upload cannot be made whole: it begins anew."""
_UNLISTED = (403, 405, 501)
"""The storage lists nothing, or not for us."""
_MD5 = re.compile(r"[0-9a-f]{32}(?:-\d+)?")


class Refused(Failed):
    """The storage's answer is no. ``code`` is its own word for why."""

    def __init__(self, code: str, status: int) -> None:
        words = _REFUSED.get(code)
        final = 400 <= status < 500 and status not in (408, 409, 429) and code not in _PASSING | _UNFIT
        slow = words is not None or final
        super().__init__(f"{words} ({code})" if words else f"it answers {status} ({code})", slow=slow)
        self.code = code
        self.status = status


class Storage:
    """``Failed`` and ``Stopped`` come out of everything."""

    def __init__(self, bucket: Bucket, stop: threading.Event) -> None:
        self._bucket = bucket
        self._stop = stop
        self._client: Any = None
        self._uploads: dict[str, str] = {}
        """Unfinished ones by key, for where nobody lets us list them."""

    def connect(self) -> None:
        try:
            import boto3.session
            import botocore.config
            import botocore.exceptions
        except ImportError as error:
            raise Failed(MISSING, slow=True) from error
        self._refusals, self._failures = botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
        self._without_keys = (
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.PartialCredentialsError,
            botocore.exceptions.CredentialRetrievalError,
        )
        self._late = (botocore.exceptions.ConnectTimeoutError, botocore.exceptions.ReadTimeoutError)
        own = self._bucket
        config = botocore.config.Config(
            signature_version="s3v4",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"} if own.endpoint else None,
            # checksums are given where they are wanted; others confuse servers that are not Amazon's
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            session = boto3.session.Session(
                aws_access_key_id=own.access_key or None,
                aws_secret_access_key=own.secret_key or None,
                region_name=own.region or REGION,
            )
            self._client = session.client("s3", endpoint_url=own.endpoint, config=config)
        except (self._failures, ValueError) as error:
            raise Failed(f"the configuration makes no sense ({type(error).__name__})", slow=True) from error

    def _ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        if self._stop.is_set():
            raise Stopped
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._bucket.bucket, **parameters)
            return answer
        except self._refusals as error:
            code = str(error.response.get("Error", {}).get("Code", "?"))[:60]
            raise Refused(code, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) from None
        except self._without_keys:
            raise Failed("there are no keys: neither in the configuration nor on this machine", slow=True) from None
        except self._late as error:
            raise Failed("it does not answer in time") from error
        except (self._failures, OSError, ValueError) as error:
            raise Failed(words_of(error, f"the connection broke ({type(error).__name__})")) from error

    # -- what is there -----------------------------------------------------------------------------

    def head(self, key: str, *, sent: bool = False) -> dict[str, Any] | None:
        """None: there is no such object. Keys that may not list a bucket are refused what is not there: only of an object
        that was ``sent`` that is a failure."""
        try:
            return self._ask("head_object", Key=key, ChecksumMode="ENABLED")
        except Refused as refusal:
            if refusal.status == 404 or (refusal.status == 403 and not sent):
                return None
            raise

    def has(self, key: str, sums: Sums, head: dict[str, Any] | None) -> bool:
        """Whether the object is this file, by its size, its SHA-256 if the storage has one, and its ETag where that is an
        MD5. Where these do not tell, or not the same, the object is read back."""
        if head is None or head.get("ContentLength") != sums.size:
            return False
        etag = str(head.get("ETag", "")).strip('"')
        encrypted = head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
        told = [] if encrypted or not _MD5.fullmatch(etag) else [etag == sums.etag]
        if head.get("ChecksumSHA256"):
            told.append(head["ChecksumSHA256"].partition("-")[0] == sums.checksum)
        return (bool(told) and all(told)) or self._read_back(key) == sums.sha256

    def _read_back(self, key: str) -> bytes | None:
        try:
            body = self._ask("get_object", Key=key)["Body"]
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise
        digest = hashlib.sha256()
        try:
            with body:
                for data in body.iter_chunks(READ_BYTES):
                    digest.update(data)
                    if self._stop.is_set():
                        raise Stopped
        except (self._failures, OSError) as error:
            raise Failed(words_of(error, "the connection broke")) from error
        return digest.digest()

    # -- sending -----------------------------------------------------------------------------------

    def send(self, key: str, file: int, sums: Sums) -> None:
        """Bytes of an open file. ``OSError`` if they cannot be read."""
        about = {"Metadata": {"sha256": sums.sha256.hex()}, "ContentType": "application/octet-stream"}
        if len(sums.parts) == 1:
            body = os.pread(file, sums.size, 0)
            self._ask("put_object", Key=key, Body=io.BytesIO(body), **about, **_checked(sums.parts[0]))
            return
        try:
            self._send_parts(key, file, sums, about)
        except Refused as refusal:
            if refusal.code in _UNFIT:
                self._abort(key, self._uploads.pop(key, ""))
            raise

    def _send_parts(self, key: str, file: int, sums: Sums, about: dict[str, Any]) -> None:
        upload, there = self._resumed(key)
        if not upload:
            begun = self._ask("create_multipart_upload", Key=key, ChecksumAlgorithm="SHA256", **about)
            upload = self._uploads[key] = begun["UploadId"]
        done: list[dict[str, Any]] = []
        for number, part in enumerate(sums.parts, 1):
            etag = _fitting(there.get(number), part)
            if not etag:
                body = io.BytesIO(os.pread(file, part.size, part.offset))
                own = {"Key": key, "UploadId": upload, "PartNumber": number}
                etag = self._ask("upload_part", Body=body, **own, **_checked(part))["ETag"]
            done.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": in_base64(part.sha256)})
        self._ask("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": done})
        self._uploads.pop(key, None)

    def _resumed(self, key: str) -> tuple[str, dict[int, dict[str, Any]]]:
        """The unfinished upload of this object, and its parts by number. Other tries of the same are given up."""
        found = self._unfinished(key)
        for upload in found[1:]:
            self._abort(key, upload)
        if not found:
            return "", {}
        self._uploads[key] = found[0]
        try:
            parts = {int(part["PartNumber"]): part for part in self._listed_parts(key, found[0])}
        except Refused as refusal:
            if refusal.status == 404:
                self._uploads.pop(key)
                return "", {}
            if refusal.status not in _UNLISTED:
                raise
            parts = {}
        return found[0], parts

    def _unfinished(self, key: str) -> list[str]:
        """Newest first."""
        try:
            rows = self._ask("list_multipart_uploads", Prefix=key).get("Uploads", [])
        except Refused as refusal:
            if refusal.status not in _UNLISTED:
                raise
            return [self._uploads[key]] if key in self._uploads else []
        own = [row for row in rows if row["Key"] == key]
        return [row["UploadId"] for row in sorted(own, key=lambda row: str(row.get("Initiated", "")), reverse=True)]

    def _listed_parts(self, key: str, upload: str) -> Iterator[dict[str, Any]]:
        marker = 0
        while True:
            page = self._ask("list_parts", Key=key, UploadId=upload, PartNumberMarker=marker)
            yield from page.get("Parts", [])
            following = int(page.get("NextPartNumberMarker") or 0)
            if not page.get("IsTruncated") or following <= marker:
                return
            marker = following

    def _abort(self, key: str, upload: str) -> None:
        """Whether it works or not: the bucket's own rules clean up, too."""
        if not upload:
            return
        try:
            self._ask("abort_multipart_upload", Key=key, UploadId=upload)
        except Failed:
            return


def _checked(part: Part) -> dict[str, str]:
    """So that the storage takes these bytes and no others."""
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": in_base64(part.sha256)}


def _fitting(there: dict[str, Any] | None, part: Part) -> str:
    """The ETag of a part that is there already, if it is the right one."""
    if there is None or there.get("Size") != part.size:
        return ""
    etag, checksum = str(there.get("ETag", "")), there.get("ChecksumSHA256")
    right = checksum == in_base64(part.sha256) if checksum else etag.strip('"') == part.md5.hex()
    return etag if right else ""

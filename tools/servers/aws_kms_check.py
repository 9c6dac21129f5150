"""Holds aws_kms_layer.py to boto3, the provider's own client. Run by `tools/servers/aws_kms.py --check`."""

import json
import os
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

LAYER = os.environ["KEYFOLD_TEST_AWS"]
REGION = "eu-central-1"
passed = 0


def check(holds, what):
    global passed
    assert holds, what
    passed += 1


def kms(profile):
    once = Config(retries={"total_max_attempts": 1})
    return boto3.Session(profile_name=profile, region_name=REGION).client("kms", endpoint_url=LAYER, config=once)


def admin(operation, **asked):
    request = urllib.request.Request(LAYER, json.dumps(asked).encode(), {
        "x-amz-target": f"TrentService.{operation}", "x-test-admin": REGION, "content-type": "application/x-amz-json-1.1"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return json.load(answer)


def refused(code, call, **asked):
    try:
        call(**asked)
    except ClientError as error:
        check(error.response["Error"]["Code"] == code, f"{error} where {code} was expected")
    else:
        check(False, f"accepted where {code} was expected")


def main():
    arn = admin("CreateKey")["KeyMetadata"]["Arn"]
    service, context = kms("service"), {"kf:env": "test"}
    blob = service.encrypt(KeyId=arn, Plaintext=b"payload", EncryptionContext=context)
    check(blob["KeyId"] == arn, "who encrypts is told the ARN")
    blob = blob["CiphertextBlob"]
    opened = service.decrypt(KeyId=arn, CiphertextBlob=blob, EncryptionContext=context)
    check((opened["Plaintext"], opened["KeyId"]) == (b"payload", arn), "what was encrypted opens")
    refused("InvalidCiphertextException", service.decrypt, KeyId=arn, CiphertextBlob=blob)
    refused("InvalidCiphertextException", service.decrypt, KeyId=arn, CiphertextBlob=b"garbage" * 9, EncryptionContext=context)
    refused("AccessDeniedException", service.describe_key, KeyId=arn)
    refused("AccessDeniedException", kms("reader").encrypt, KeyId=arn, Plaintext=b"x")
    refused("InvalidSignatureException", kms("forger").encrypt, KeyId=arn, Plaintext=b"x")
    refused("UnrecognizedClientException", kms("stranger").encrypt, KeyId=arn, Plaintext=b"x")
    refused("ExpiredTokenException", kms("expired").encrypt, KeyId=arn, Plaintext=b"x")
    refused("NotFoundException", service.encrypt, KeyId=arn[:-4] + "0000", Plaintext=b"x")
    other = admin("CreateKey")["KeyMetadata"]["Arn"]
    refused("IncorrectKeyException", service.decrypt, KeyId=other, CiphertextBlob=blob, EncryptionContext=context)
    admin("DisableKey", KeyId=arn)
    refused("DisabledException", service.decrypt, KeyId=arn, CiphertextBlob=blob, EncryptionContext=context)
    admin("ScheduleKeyDeletion", KeyId=other, PendingWindowInDays=7)
    refused("KMSInvalidStateException", service.encrypt, KeyId=other, Plaintext=b"x")
    print(f"moto behind our strictness layer, held to boto3 {boto3.__version__}")
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()

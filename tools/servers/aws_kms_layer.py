"""AWS KMS as a service sees it, over moto. Run by aws_kms.py with the Python of its virtual environment.

moto knows keys, aliases and replicas, but not what a service is told when it does something wrong. The layer adds that:
signatures (SigV4) and what each identity may do; the states of keys; wrapped keys that name their key and its material,
so that another key, another context and a damaged byte are told apart as AWS does; multi-Region keys; rotated material.
"""

import base64
import configparser
import datetime
import hmac
import io
import json
import re
import secrets
import struct
import sys
import threading
import uuid

from aws_kms import IDENTITIES

ACCOUNT = "123456789012"


class Refused(Exception):
    """What AWS KMS answers: a code and a text, always with status 400."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


class Layer:
    """The WSGI application between a client and moto."""

    def __init__(self, moto, faults, credentials):
        self.moto, self.faults, self.calls, self.lock = moto, faults, 0, threading.Lock()
        # Key ID: its materials, oldest first. The replicas of a multi-Region key have one ID and so share them.
        self.materials = {}
        profiles = configparser.ConfigParser()
        profiles.read(credentials)
        self.identities = {
            profiles[name]["aws_access_key_id"]: (name, profiles[name]["aws_secret_access_key"],
                                                  profiles[name].get("aws_session_token"))
            for name in IDENTITIES}

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/_test/calls":
            return self.answer(start_response, "200 OK", {"calls": self.calls})
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if service != "TrentService":
            return self.moto(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self.lock:
            self.calls += "HTTP_X_TEST_ADMIN" not in environ
        try:
            region = self.admit(environ, operation, body)
            own = {"Encrypt": self.encrypt, "Decrypt": self.decrypt, "RotateKeyOnDemand": self.rotate}.get(operation)
            if own:
                return self.answer(start_response, "200 OK", own(region, json.loads(body)))
        except Refused as why:
            return self.answer(start_response, "400 Bad Request", {"__type": why.code, "message": why.message})
        # Half of moto's operations want the ID of a key and not its ARN.
        body = re.sub(rb'"KeyId": ?"arn:[^"]*:key/', b'"KeyId": "', body)
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
        # By which moto finds service and region.
        environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential=ADMIN/20260101/{region}/kms/aws4_request, Signature=0"
        return self.moto(environ, start_response)

    @staticmethod
    def answer(start_response, status, value):
        body = json.dumps(value).encode()
        start_response(status, [("content-type", "application/x-amz-json-1.1"), ("content-length", str(len(body))),
                                ("x-amzn-requestid", str(uuid.uuid4()))])
        return [body]

    # Who asks.

    def admit(self, environ, operation, body):
        """The region, if the identity may do the operation."""
        if "HTTP_X_TEST_ADMIN" in environ:
            return environ["HTTP_X_TEST_ADMIN"]
        pattern = (r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/kms/aws4_request, "
                   r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})")
        match = re.fullmatch(pattern, environ.get("HTTP_AUTHORIZATION", ""))
        if not match:
            raise Refused("MissingAuthenticationTokenException", "Missing Authentication Token")
        access_key, _, region, signed, signature = match.groups()
        if access_key not in self.identities:
            raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
        name, secret, token = self.identities[access_key]
        if environ.get("HTTP_X_AMZ_SECURITY_TOKEN") != token:
            raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
        self.check_time(environ.get("HTTP_X_AMZ_DATE", ""))
        # Who comes by microburst has signed for its address.
        hosts = [environ.get("HTTP_HOST", ""), f"127.0.0.1:{self.faults}"]
        if not any(hmac.compare_digest(signature, self.sign(environ, body, region, signed, access_key, secret, host))
                   for host in hosts):
            raise Refused("InvalidSignatureException", "The request signature we calculated does not match the signature you "
                          "provided. Check your AWS Secret Access Key and signing method.")
        if name == "expired":
            raise Refused("ExpiredTokenException", "The security token included in the request is expired")
        if operation not in IDENTITIES[name]:
            raise Refused("AccessDeniedException", f"User: arn:aws:iam::{ACCOUNT}:user/{name} is not authorized to perform: "
                          f"kms:{operation} because no identity-based policy allows the kms:{operation} action")
        return region

    @staticmethod
    def check_time(text):
        try:
            asked = datetime.datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        except ValueError:
            raise Refused("IncompleteSignature", "Date must be in ISO-8601 'basic format'.") from None
        now = datetime.datetime.now(datetime.timezone.utc)
        if abs(now - asked) > datetime.timedelta(minutes=5):
            what = "Signature expired" if asked < now else "Signature not yet current"
            raise Refused("InvalidSignatureException", f"{what}: {text} is too far from {now:%Y%m%dT%H%M%SZ} (5 min.)")

    @staticmethod
    def sign(environ, body, region, signed, access_key, secret, host):
        """The signature that the client should have made, by the provider's own code."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        def header(name):
            if name == "host":
                return host
            variable = name.upper().replace("-", "_")
            return environ.get(variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}", "")

        request = AWSRequest("POST", f"http://{host}/", headers={name: header(name) for name in signed.split(";")}, data=body)
        request.context["timestamp"] = environ.get("HTTP_X_AMZ_DATE", "")
        auth = SigV4Auth(Credentials(access_key, secret), "kms", region)
        return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)

    # What it does with a key.

    @staticmethod
    def key(region, name):
        """moto's key, if it is of this region."""
        from moto.kms.models import kms_backends
        backend = kms_backends[ACCOUNT][region]
        if name.startswith("arn:") and name.split(":")[3:5] != [region, ACCOUNT]:
            raise Refused("NotFoundException", f"Invalid arn {name.split(':')[3]}")
        try:
            key = backend.keys.get(backend.any_id_to_key_id(name))
        except AttributeError:
            # moto's own way with an alias of nothing.
            key = None
        if key is None:
            raise Refused("NotFoundException", f"Key '{name}' does not exist")
        return key

    @staticmethod
    def usable(key):
        if key.key_state == "Disabled":
            raise Refused("DisabledException", f"{key.arn} is disabled.")
        if key.key_state != "Enabled":
            what = "pending deletion" if key.key_state == "PendingDeletion" else f"in state {key.key_state}"
            raise Refused("KMSInvalidStateException", f"{key.arn} is {what}.")
        if key.key_spec != "SYMMETRIC_DEFAULT" or key.key_usage not in (None, "ENCRYPT_DECRYPT"):
            raise Refused("InvalidKeyUsageException", f"{key.arn} key usage is {key.key_usage} which is not valid.")

    @staticmethod
    def decoded(asked, name, most):
        value = base64.b64decode(asked.get(name, ""), validate=True)
        if not 1 <= len(value) <= most:
            raise Refused("ValidationException", f"1 validation error detected: Value at '{name}' failed to satisfy constraint: "
                          f"Member must have length between 1 and {most}")
        return value

    @staticmethod
    def cipher(key_id, material, asked):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        context = sorted(asked.get("EncryptionContext", {}).items())
        return AESGCM(material), json.dumps([key_id, context]).encode()

    def encrypt(self, region, asked):
        key = self.key(region, asked["KeyId"])
        self.usable(key)
        plaintext = self.decoded(asked, "Plaintext", 4096)
        materials = self.materials.setdefault(key.id, [secrets.token_bytes(32)])
        cipher, data = self.cipher(key.id, materials[-1], asked)
        nonce, name = secrets.token_bytes(12), key.id.encode()
        head = b"KMSx" + struct.pack(">BH", len(name), len(materials) - 1) + name
        blob = head + nonce + cipher.encrypt(nonce, plaintext, head + data)
        return {"CiphertextBlob": base64.b64encode(blob).decode(), "KeyId": key.arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}

    def decrypt(self, region, asked):
        from cryptography.exceptions import InvalidTag
        invalid = Refused("InvalidCiphertextException", "")
        blob = self.decoded(asked, "CiphertextBlob", 6144)
        if len(blob) < 7 or blob[:4] != b"KMSx":
            raise invalid
        length, number = struct.unpack(">BH", blob[4:7])
        head, rest = blob[:7 + length], blob[7 + length:]
        key_id = head[7:].decode("ascii", "replace")
        if key_id not in self.materials or number >= len(self.materials[key_id]):
            raise invalid
        key = self.key(region, asked.get("KeyId", key_id))
        if key.id != key_id:
            raise Refused("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
        self.usable(key)
        cipher, data = self.cipher(key_id, self.materials[key_id][number], asked)
        try:
            plaintext = cipher.decrypt(rest[:12], rest[12:], head + data)
        except (InvalidTag, ValueError):
            raise invalid from None
        return {"Plaintext": base64.b64encode(plaintext).decode(), "KeyId": key.arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}

    def rotate(self, region, asked):
        key = self.key(region, asked["KeyId"])
        self.usable(key)
        self.materials.setdefault(key.id, [secrets.token_bytes(32)]).append(secrets.token_bytes(32))
        return {"KeyId": key.arn}


def layer(port, faults, credentials):
    """Runs the server; by the virtual environment's Python."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, run_simple

    class Handler(WSGIRequestHandler):
        # Head and body in one packet each would wait for one another otherwise.
        protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, -1

        def log_request(self, *_):
            pass

    app = Layer(DomainDispatcherApplication(create_backend_app), faults, credentials)
    run_simple("127.0.0.1", int(port), app, threaded=True, request_handler=Handler)


if __name__ == "__main__":
    layer(*sys.argv[1:])

"""A fake of the Cloud KMS v1 REST API: symmetric keys, versions and their states, AAD, CRC32C, bearer tokens, permissions.

google_kms.py starts it with the Python of its virtual environment; google_kms_check.py holds it to Google's own client.
Tests speak to `/fake/…`, which Google does not have:

    POST /fake/key      {}                                    a new key with one version; answers {"name"}
    POST /fake/token    {"permissions": [...]}                a new access token; answers {"token"}
    POST /fake/revoke   {"token"}                             Google does not accept it any more
    POST /fake/account  {"permissions": [...]}                a new service account; answers its key file
    POST /fake/fault    {"key", "times", "reply"}             the next answers are {"http_status", "http_headers", "http_body"}
    POST /fake/fault    {"key", "times", "merge"}             the next answers have other members; null leaves one out
    POST /fake/everything {}                                  an access token that may do everything; answers {"token"}
    POST /fake/seen     {"key" or "account" or neither}       answers {"count"}: how many requests for it, or for anything
"""

import base64
import json
import re
import secrets
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# google.rpc.Code, with the HTTP status of each.
STATUSES = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403,
            "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429}
ENCRYPT, DECRYPT = "cloudkms.cryptoKeyVersions.useToEncrypt", "cloudkms.cryptoKeyVersions.useToDecrypt"
# What Google's client needs in the check: `admin` stands for all that makes and changes keys.
EVERYTHING = [ENCRYPT, DECRYPT, "admin"]
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
MAX_LEN = 64 * 1024
LOCK = threading.Lock()


def crc_table():
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        yield number


TABLE = list(crc_table())


def crc32c(data):
    """CRC-32C (Castagnoli), bit by bit as RFC 3720 has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def b64(data):
    return base64.b64encode(data).decode()


def unb64(text):
    """Both alphabets, padded or not, as Google's JSON reader takes them."""
    return base64.b64decode(text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4), validate=True)


class Refused(Exception):
    """An answer other than 200, as google.rpc.Status."""

    def __init__(self, code, message, details=()):
        super().__init__(message)
        self.body = {"error": {"code": STATUSES[code], "message": message, "status": code}}
        if details:
            self.body["error"]["details"] = list(details)


class Version:
    def __init__(self, name):
        self.name, self.state, self.made = name, "ENABLED", time.time()
        # Google's ciphertexts begin with something that names the version as well; ours is random.
        self.key, self.prefix = AESGCM.generate_key(256), secrets.token_bytes(8)

    def shown(self):
        return {"name": self.name, "state": self.state, "protectionLevel": "SOFTWARE",
                "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "createTime": stamp(self.made)}

    def check(self):
        if self.state != "ENABLED":
            what = {"@type": "type.googleapis.com/google.rpc.PreconditionFailure",
                    "violations": [{"type": f"KEY_{self.state}", "subject": self.name}]}
            raise Refused("FAILED_PRECONDITION", f"{self.name} is not enabled, current state is: {self.state}.", [what])


class Key:
    def __init__(self, name):
        self.name, self.made, self.versions, self.faults, self.requests = name, time.time(), [], [], 0
        self.primary = self.new_version()

    def new_version(self):
        self.versions.append(Version(f"{self.name}/cryptoKeyVersions/{len(self.versions) + 1}"))
        return self.versions[-1]

    def version(self, number):
        if not 1 <= int(number) <= len(self.versions):
            raise Refused("NOT_FOUND", f"CryptoKeyVersion {self.name}/cryptoKeyVersions/{number} not found.")
        return self.versions[int(number) - 1]

    def shown(self):
        return {"name": self.name, "primary": self.primary.shown(), "purpose": "ENCRYPT_DECRYPT", "createTime": stamp(self.made),
                "versionTemplate": {"protectionLevel": "SOFTWARE", "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION"}}


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


RINGS, KEYS, TOKENS, ACCOUNTS, LOGINS, TOTAL = set(), {}, {}, {}, Counter(), Counter()


def checked(body, name):
    """The bytes of a field, held to the checksum that came with it, and whether there was one."""
    try:
        data = unb64(body.get(name, ""))
    except ValueError:
        raise Refused("INVALID_ARGUMENT", f"Invalid value at '{name}' (TYPE_BYTES), Base64 decoding failed") from None
    if len(data) > MAX_LEN:
        raise Refused("INVALID_ARGUMENT", f"The {name} is longer than {MAX_LEN} bytes.")
    given = body.get(f"{name}Crc32c")
    if given is not None and int(given) != crc32c(data):
        snake = re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)
        raise Refused("INVALID_ARGUMENT", f"The checksum in field {snake}_crc32c did not match the data in field {snake}.")
    return data, given is not None


def encrypt(key, number, body):
    plaintext, has_first = checked(body, "plaintext")
    aad, has_second = checked(body, "additionalAuthenticatedData")
    version = key.version(number) if number else key.primary
    version.check()
    nonce = secrets.token_bytes(12)
    ciphertext = version.prefix + nonce + AESGCM(version.key).encrypt(nonce, plaintext, aad)
    # What is false is left out, as in every JSON of Google's.
    verified = {"verifiedPlaintextCrc32c": has_first, "verifiedAdditionalAuthenticatedDataCrc32c": has_second}
    return {"name": version.name, "ciphertext": b64(ciphertext), "ciphertextCrc32c": str(crc32c(ciphertext)),
            "protectionLevel": "SOFTWARE", **{name: True for name, said in verified.items() if said}}


def decrypt(key, body):
    ciphertext, _ = checked(body, "ciphertext")
    aad, _ = checked(body, "additionalAuthenticatedData")
    every = [version for other in KEYS.values() for version in other.versions]
    version = next((version for version in every if ciphertext[:8] == version.prefix), None)
    if version and not version.name.startswith(key.name + "/"):
        raise Refused("INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
    if version:
        version.check()
    try:
        plaintext = AESGCM(version.key).decrypt(ciphertext[8:20], ciphertext[20:], aad)
    except (AttributeError, InvalidTag, ValueError):
        raise Refused("INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.") from None
    answer = {"plaintext": b64(plaintext), "plaintextCrc32c": str(crc32c(plaintext)), "protectionLevel": "SOFTWARE"}
    return {**answer, "usedPrimary": True} if version is key.primary else answer


def permitted(token, permission, name):
    if token not in TOKENS:
        raise Refused("UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
                      "cookie or other valid authentication credential.")
    if permission not in TOKENS[token]:
        what = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "IAM_PERMISSION_DENIED",
                "domain": "cloudkms.googleapis.com", "metadata": {"permission": permission, "resource": name}}
        raise Refused("PERMISSION_DENIED", f"Permission '{permission}' denied on resource '{name}' (or it may not exist).", [what])


def cloud_kms(method, path, query, body, token):
    """The API. Names and verbs are those of the discovery document."""
    if found := re.fullmatch(r"(projects/[^/]+/locations/[^/]+)/keyRings", path):
        permitted(token, "admin", path)
        name = f"{found[1]}/keyRings/{query['keyRingId'][0]}"
        if name in RINGS:
            raise Refused("ALREADY_EXISTS", f"KeyRing {name} already exists.")
        RINGS.add(name)
        return {"name": name, "createTime": stamp(time.time())}
    if (found := re.fullmatch(r"(projects/.+/keyRings/[^/]+)/cryptoKeys", path)) and method == "POST":
        permitted(token, "admin", path)
        if found[1] not in RINGS:
            raise Refused("NOT_FOUND", f"KeyRing {found[1]} not found.")
        key = Key(f"{found[1]}/cryptoKeys/{query['cryptoKeyId'][0]}")
        return KEYS.setdefault(key.name, key).shown()
    found = re.fullmatch(r"(projects/.+/cryptoKeys/[^/:]+)(/cryptoKeyVersions(?:/(\d+))?)?(?::(\w+))?", path)
    if not found:
        raise Refused("NOT_FOUND", "Method not found.")
    name, versions, number, verb = found.groups()
    permitted(token, {"encrypt": ENCRYPT, "decrypt": DECRYPT}.get(verb, "admin"), path.split(":")[0])
    if name not in KEYS:
        raise Refused("NOT_FOUND", f"CryptoKey {name} not found.")
    key = KEYS[name]
    key.requests += 1
    if (fault := key.faults[0] if key.faults else None) and "reply" in fault:
        key.faults.pop(0)
        return fault["reply"]
    answer = resource(key, method, versions, number, verb, body)
    if fault:
        key.faults.pop(0)
        answer = {name: value for name, value in {**answer, **fault["merge"]}.items() if value is not None}
    return answer


def resource(key, method, versions, number, verb, body):
    """What a method of a key or version does."""
    if verb == "encrypt":
        return encrypt(key, number, body)
    if verb == "decrypt" and not versions:
        return decrypt(key, body)
    if verb == "updatePrimaryVersion":
        key.primary = key.version(body["cryptoKeyVersionId"])
        return key.shown()
    if versions and not number:
        if method == "POST":
            return key.new_version().shown()
        return {"cryptoKeyVersions": [version.shown() for version in key.versions], "totalSize": len(key.versions)}
    if number:
        version = key.version(number)
        if verb == "destroy":
            version.state = "DESTROY_SCHEDULED"
        elif verb == "restore":
            version.state = "DISABLED"
        elif method == "PATCH":
            version.state = {1: "ENABLED", 2: "DISABLED"}.get(body["state"], body["state"])
        return version.shown()
    return key.shown()


def new_token(permissions):
    token = "ya29.fake-" + secrets.token_urlsafe(24)
    TOKENS[token] = permissions
    return token


def exchange(form):
    """The token service: an assertion of a service account for an access token."""
    try:
        if form["grant_type"] != [GRANT]:
            raise KeyError
        signed, _, signature = form["assertion"][0].rpartition(".")
        claims = json.loads(unb64(signed.split(".")[1]))
        LOGINS[claims["iss"]] += 1
        public, permissions = ACCOUNTS[claims["iss"]]
        public.verify(unb64(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        if not claims["iat"] <= time.time() + 60 or not time.time() < claims["exp"] or "cloud" not in claims["scope"]:
            raise KeyError
    except (KeyError, IndexError, ValueError, InvalidSignature):
        # As a careless proxy would, it repeats what it was sent.
        return 400, {"error": "invalid_grant", "error_description": f"Invalid JWT: {form.get('assertion')}"}
    return 200, {"access_token": new_token(permissions), "expires_in": 3599, "token_type": "Bearer"}


def control(what, body, address):
    """What tests ask of the fake itself."""
    if what == "key":
        ring = "projects/clinic/locations/europe-west3/keyRings/patients"
        key = Key(f"{ring}/cryptoKeys/kek-{secrets.token_hex(4)}")
        RINGS.add(ring)
        KEYS[key.name] = key
        return {"name": key.name}
    if what == "token":
        return {"token": new_token(body["permissions"])}
    if what == "revoke":
        TOKENS.pop(body["token"], None)
        return {}
    if what == "account":
        private = rsa.generate_private_key(65537, 2048)
        email = f"kek-{secrets.token_hex(4)}@clinic.iam.gserviceaccount.com"
        ACCOUNTS[email] = (private.public_key(), body["permissions"])
        pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return {"type": "service_account", "project_id": "clinic", "private_key_id": secrets.token_hex(20),
                "private_key": pem.decode(), "client_email": email, "client_id": "1", "token_uri": f"http://{address}/token"}
    if what == "fault":
        KEYS[body["key"]].faults += [body] * body["times"]
        return {}
    if what == "seen":
        if "key" in body:
            return {"count": KEYS[body["key"]].requests}
        return {"count": LOGINS[body["account"]] if "account" in body else TOTAL["requests"]}
    if what == "everything":
        return {"token": new_token(EVERYTHING)}
    raise Refused("NOT_FOUND", "no such control")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body leave together: else each answer waits for the acknowledgement of its first half.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Silent."""

    def serve(self):
        text = self.rfile.read(int(self.headers.get("content-length") or 0))
        where = urlsplit(self.path)
        status, headers = 200, {}
        try:
            with LOCK:
                TOTAL["requests"] += not where.path.startswith("/fake/")
                if where.path == "/token":
                    status, answer = exchange(parse_qs(text.decode()))
                else:
                    body = json.loads(text) if text else {}
                    if where.path.startswith("/fake/"):
                        answer = control(where.path[6:], body, self.headers["host"])
                    else:
                        token = self.headers.get("authorization", "").removeprefix("Bearer ")
                        answer = cloud_kms(self.command, where.path.removeprefix("/v1/"), parse_qs(where.query), body, token)
        except Refused as refused:
            answer = refused.body
            status = answer["error"]["code"]
        if "http_status" in answer:
            status, headers, answer = answer["http_status"], answer.get("http_headers", {}), answer["http_body"]
        out = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=UTF-8")
        self.send_header("content-length", str(len(out)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(out)
        self.wfile.flush()

    do_GET = do_POST = do_PATCH = serve


class Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()

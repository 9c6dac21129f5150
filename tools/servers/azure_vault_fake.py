"""A fake of Azure Key Vault and Managed HSM: keys, their versions and states, wrapping, bearer tokens, roles.

azure_vault.py starts it with the Python of its virtual environment; azure_vault_check.py holds it to Microsoft's own client.

One port speaks HTTPS and is the vault, its keys under `/keys`, and the authority that gives tokens (client secret, federated
token). The other speaks HTTP: the managed identity of the machine, and `POST /_test/…` for what tests want to happen.
"""

import base64
import json
import re
import secrets
import ssl
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from azure_vault import TENANT

RESOURCE = "https://vault.azure.net"


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status, code, message, inner=None, headers=()):
        super().__init__(message)
        self.status, self.headers = status, dict(headers)
        self.error = {"code": code, "message": message, **({"innererror": {"code": inner}} if inner else {})}


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise Refused(400, "BadParameter", "Property value is not a base64url string.")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Vault:
    """Keys, tokens, and what tests want to happen."""

    def __init__(self, base, secret):
        self.base, self.secret, self.lock = base, secret, threading.Lock()
        # Name: versions, oldest first. Token: who has it, until when.
        self.keys, self.tokens = {}, {}
        self.calls, self.lifetime = 0, 3600
        # Key: how many requests are too many.
        self.throttled = {}

    # Tokens. An identity is the name of a role, or that and a suffix: `service-2`.

    def token(self, identity):
        token = "eyJ." + secrets.token_urlsafe(48)
        self.tokens[token] = (identity, time.time() + self.lifetime)
        return {"token_type": "Bearer", "access_token": token, "expires_in": self.lifetime,
                "expires_on": str(int(time.time() + self.lifetime)), "resource": RESOURCE}

    def authority(self, form):
        """The OAuth 2.0 token endpoint."""
        given = form.get("client_secret") or form.get("client_assertion")
        if given != self.secret or form.get("grant_type") != "client_credentials":
            return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
        if form.get("scope") != f"{RESOURCE}/.default":
            return 400, {"error": "invalid_scope", "error_description": "AADSTS70011"}
        return 200, self.token(form["client_id"])

    def admit(self, headers):
        scheme, _, token = headers.get("authorization", "").partition(" ")
        identity, end = self.tokens.get(token, (None, 0))
        if scheme != "Bearer" or time.time() >= end:
            why = "AKV10022: Invalid token." if token else "AKV10000: Request is missing a Bearer or PoP token."
            challenge = f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="{RESOURCE}"'
            raise Refused(401, "Unauthorized", why, headers={"www-authenticate": challenge})
        return identity

    # Keys.

    def create(self, name, kind):
        from cryptography.hazmat.primitives.asymmetric import rsa
        key = secrets.token_bytes(32) if kind == "oct-HSM" else rsa.generate_private_key(65537, 2048)
        version = {"version": uuid.uuid4().hex, "key": key, "enabled": True, "kty": kind}
        self.keys.setdefault(name.lower(), []).append(version)
        return version

    def bundle(self, name, version):
        jwk = {"kid": f"{self.base}/keys/{name}/{version['version']}", "kty": version["kty"], "key_ops": ["wrapKey", "unwrapKey"]}
        if version["kty"] == "RSA":
            numbers = version["key"].public_key().public_numbers()
            jwk |= {"n": encode(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
        return {"key": jwk, "attributes": {"enabled": version["enabled"], "created": 1, "updated": 1}}

    def find(self, name, wanted):
        versions = self.keys.get(name.lower(), [])
        found = [version for version in versions if wanted in ("", version["version"])]
        if not found:
            raise Refused(404, "KeyNotFound", f"A key with (name/id) {name}/{wanted} was not found in this key vault. If you "
                          "recently deleted this key you may be able to recover it using the correct recovery command.")
        return found[-1]

    def answer(self, method, path, headers, asked):
        """An answer of the vault itself."""
        with self.lock:
            self.calls += 1
        identity = self.admit(headers)
        parts = path.strip("/").split("/")
        if parts[0] != "keys" or len(parts) < 2:
            raise Refused(404, "NotFound", "No such resource.")
        name, operation = parts[1], parts[-1] if method == "POST" else ""
        if self.throttled.get(name, 0) > 0:
            self.throttled[name] -= 1
            raise Refused(429, "Throttled", "Request was not processed because too many requests were received. Reason: "
                          "VaultRequestTypeLimitReached", headers={"retry-after": "1"})
        may = {"service": {"wrapkey", "unwrapkey"}, "admin": {"create", "wrapkey", "unwrapkey", ""}}
        may = may.get(identity.partition("-")[0], set())
        if operation not in may:
            raise Refused(403, "Forbidden", "Caller is not authorized to perform action on resource.\r\nAction: "
                          f"'Microsoft.KeyVault/vaults/keys/{operation}/action'", "ForbiddenByRbac")
        if operation == "create":
            return self.bundle(name, self.create(name, asked.get("kty", "RSA")))
        version = self.find(name, parts[2] if len(parts) > (3 if operation else 2) else "")
        if not operation:
            return self.bundle(name, version)
        if not version["enabled"]:
            raise Refused(403, "Forbidden", f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled")
        value = (self.wrap if operation == "wrapkey" else self.unwrap)(version, asked.get("alg"), decode(asked.get("value")))
        return {"kid": f"{self.base}/keys/{name}/{version['version']}", "value": encode(value)}

    @staticmethod
    def padding(version, algorithm):
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256
        if version["kty"] == "oct-HSM" and algorithm == "A256KW":
            return None
        if version["kty"] == "RSA" and algorithm == "RSA-OAEP-256":
            return padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
        raise Refused(400, "BadParameter", f"Key and algorithm combination is invalid: {algorithm}")

    def wrap(self, version, algorithm, value):
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap
        padding = self.padding(version, algorithm)
        return version["key"].public_key().encrypt(value, padding) if padding else aes_key_wrap(version["key"], value)

    def unwrap(self, version, algorithm, value):
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
        padding = self.padding(version, algorithm)
        try:
            return version["key"].decrypt(value, padding) if padding else aes_key_unwrap(version["key"], value)
        except (InvalidUnwrap, ValueError):
            raise Refused(400, "BadParameter", "The parameter is incorrect.\r\n") from None

    def wish(self, path, asked):
        """What a test wants to happen."""
        what = path.rpartition("/")[2]
        if what == "create":
            return self.bundle(asked["name"], self.create(asked["name"], asked.get("kty", "RSA")))
        if what == "enable":
            self.find(asked["name"], asked.get("version", ""))["enabled"] = asked["enabled"]
        elif what == "delete":
            self.keys.pop(asked["name"].lower())
        elif what == "throttle":
            self.throttled[asked["name"]] = asked["requests"]
        elif what == "expire":
            self.tokens = {token: of for token, of in self.tokens.items() if of[0] != asked["identity"]}
        elif what == "token":
            return self.token(asked["identity"])
        return {"calls": self.calls}


class Handler(BaseHTTPRequestHandler):
    """Head and body leave in one piece: in two, each would wait for the other's acknowledgement."""

    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True
    vault = None

    def log_message(self, *_):
        pass

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        headers = {"x-ms-request-id": str(uuid.uuid4())}
        try:
            status, value = self.route(path, dict(urllib.parse.parse_qsl(query)), body)
        except Refused as why:
            status, value = why.status, {"error": why.error}
            headers |= why.headers
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {**headers, "content-type": "application/json", "content-length": len(data)}.items():
            self.send_header(name, str(text))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_POST = handle_one


class Secure(Handler):
    def route(self, path, query, body):
        if path.endswith("/oauth2/v2.0/token"):
            return self.vault.authority(dict(urllib.parse.parse_qsl(body.decode())))
        if "/.well-known/openid-configuration" in path or path.endswith("/discovery/instance"):
            return 404, {}
        return 200, self.vault.answer(self.command, path, self.headers, json.loads(body or b"{}"))


class Control(Handler):
    def route(self, path, query, body):
        if path == "/msi/token":
            if self.headers.get("x-identity-header") != "identity-header-canary" or query.get("resource") != RESOURCE:
                return 400, {"error": "invalid_request"}
            return 200, self.vault.token("service")
        return 200, self.vault.wish(path, json.loads(body or b"{}"))


def vault(port, control, folder):
    """Runs the server."""
    folder = Path(folder)
    Handler.vault = Vault(f"https://127.0.0.1:{port}", (folder / "client-secret").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    secure = ThreadingHTTPServer(("127.0.0.1", int(port)), Secure)
    # Handshakes in the threads of the connections.
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(control)), Control).serve_forever()


if __name__ == "__main__":
    vault(*sys.argv[1:])

"""Holds google_kms_fake.py to Google: its own Python client must take the fake for Cloud KMS, and every member of every
request and answer must stand in the discovery document of the API, with that type. Run by `tools/servers/google_kms.py --check`."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import googleapiclient
from google.api_core import exceptions
from google.auth.credentials import Credentials
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceRestTransport

FAKE = os.environ["KEYFOLD_TEST_GOOGLE_KMS"]
DOCUMENT = json.loads((Path(googleapiclient.__file__).parent / "discovery_cache/documents/cloudkms.v1.json").read_text())
PARENT = "projects/clinic/locations/global"
KIND = {"string": str, "boolean": bool, "integer": int, "object": dict, "array": list}
# What kms-adapters/src/gcp/mod.rs sends and reads.
OURS = {"EncryptRequest": ["plaintext", "plaintextCrc32c", "additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c"],
        "EncryptResponse": ["name", "ciphertext", "ciphertextCrc32c", "verifiedPlaintextCrc32c",
                            "verifiedAdditionalAuthenticatedDataCrc32c"],
        "DecryptRequest": ["ciphertext", "ciphertextCrc32c", "additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c"],
        "DecryptResponse": ["plaintext", "plaintextCrc32c"]}
EXHAUSTED = {"http_status": 429, "http_body": {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}}}
passed = 0


def check(holds, what):
    global passed
    assert holds, what
    passed += 1


class Token(Credentials):
    """An access token that is there already."""

    def __init__(self, token):
        super().__init__()
        self.token = token

    def refresh(self, request):
        """Stays as it is: a refused token is asked about once more, and refused again."""


def client(token):
    transport = KeyManagementServiceRestTransport(host=FAKE.removeprefix("http://"), url_scheme="http", credentials=Token(token))
    return kms_v1.KeyManagementServiceClient(transport=transport)


def post(path, body, token=None):
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(f"{FAKE}/{path}", json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def fits(value, schema, where):
    """Every member is one of the schema's, with its type."""
    known = DOCUMENT["schemas"][schema]["properties"]
    for name, member in value.items():
        check(name in known, f"{where}: Google has no {name} in {schema}")
        kind = known[name]
        check(isinstance(member, KIND[kind.get("type", "object")]), f"{where}: {name} is not a {kind}")
        if "enum" in kind:
            check(member in kind["enum"], f"{where}: Google has no {member} as {name}")
        if "$ref" in kind:
            fits(member, kind["$ref"], where)
        for item in member if isinstance(member, list) and "$ref" in kind.get("items", {}) else []:
            fits(item, kind["items"]["$ref"], where)


def google_client(token):
    """Google's client, from the making of a key to its end."""
    kms = client(token)
    ring = kms.create_key_ring(request={"parent": PARENT, "key_ring_id": "check", "key_ring": {}})
    key = kms.create_crypto_key(request={"parent": ring.name, "crypto_key_id": "kek", "crypto_key": {"purpose": 1}})
    check(key.primary.state.name == "ENABLED", "a new key is enabled")
    aad, plaintext = b"context", bytes(range(64))
    plain = {"name": key.name, "plaintext": plaintext, "additional_authenticated_data": aad}
    sealed = kms.encrypt(request=plain)
    check(not sealed.verified_plaintext_crc32c, "no checksum sent, none verified")
    zeros = kms.encrypt(request={**plain, "plaintext": bytes(32), "plaintext_crc32c": 0x8A9136AA})
    check(zeros.verified_plaintext_crc32c, "the checksum of 32 zeros is that of RFC 3720")
    opened = kms.decrypt(request={"name": key.name, "ciphertext": sealed.ciphertext, "additional_authenticated_data": aad})
    check(opened.plaintext == plaintext and opened.used_primary, "what was encrypted opens")

    def refused(kind, call, text=""):
        try:
            call()
        except exceptions.GoogleAPICallError as error:
            check(type(error) is kind and text in str(error), f"{error!r} where {kind.__name__} was expected")
        else:
            check(False, f"accepted where {kind.__name__} was expected")

    cipher = {"name": key.name, "ciphertext": sealed.ciphertext, "additional_authenticated_data": aad}
    broken = bytes([sealed.ciphertext[-1] ^ 1])
    refused(exceptions.BadRequest, lambda: kms.encrypt(request={**plain, "plaintext_crc32c": 1}), "plaintext_crc32c")
    refused(exceptions.BadRequest, lambda: kms.decrypt(request={**cipher, "additional_authenticated_data": b""}), "invalid")
    refused(exceptions.BadRequest, lambda: kms.decrypt(request={**cipher, "ciphertext": sealed.ciphertext[:-1] + broken}))
    other = kms.create_crypto_key(request={"parent": ring.name, "crypto_key_id": "other", "crypto_key": {"purpose": 1}})
    refused(exceptions.BadRequest, lambda: kms.decrypt(request={**cipher, "name": other.name}), "correct CryptoKey")
    refused(exceptions.NotFound, lambda: kms.get_crypto_key(name=f"{ring.name}/cryptoKeys/none"))
    nobody = client(post("fake/token", {"permissions": []})["token"])
    refused(exceptions.Forbidden, lambda: nobody.encrypt(request=plain), "useToEncrypt")
    refused(exceptions.Unauthorized, lambda: client("unknown").encrypt(request=plain))
    post("fake/fault", {"key": key.name, "times": 1, "reply": EXHAUSTED})
    refused(exceptions.TooManyRequests, lambda: kms.encrypt(request=plain, retry=None), "Quota exceeded")
    second = kms.create_crypto_key_version(request={"parent": key.name, "crypto_key_version": {}})
    kms.update_crypto_key_primary_version(request={"name": key.name, "crypto_key_version_id": "2"})
    check(kms.encrypt(request=plain).name == second.name, "the primary version encrypts")
    check(not kms.decrypt(request=cipher).used_primary, "older versions open")
    version = {"name": f"{key.name}/cryptoKeyVersions/1", "state": 2}
    disabled = kms.update_crypto_key_version(request={"crypto_key_version": version, "update_mask": {"paths": ["state"]}})
    check(disabled.state.name == "DISABLED", "a version can be disabled")
    refused(exceptions.BadRequest, lambda: kms.decrypt(request=cipher), "DISABLED")
    kms.destroy_crypto_key_version(name=version["name"])
    refused(exceptions.BadRequest, lambda: kms.decrypt(request=cipher), "DESTROY_SCHEDULED")
    check(kms.restore_crypto_key_version(name=version["name"]).state.name == "DISABLED", "a restored version is disabled")
    return key.name


def discovery(token, name):
    """Every member of request and answer is Google's."""
    for schema, members in OURS.items():
        known = DOCUMENT["schemas"][schema]["properties"]
        for member in members:
            check(member in known, f"Google has no {member} in {schema}")
            if member.endswith("Crc32c") and not member.startswith("verified"):
                check(known[member] | {"format": "int64", "type": "string"} == known[member], f"{member} is an int64 as a string")
    check(DOCUMENT["baseUrl"] == "https://cloudkms.googleapis.com/", "the endpoint")
    methods = DOCUMENT["resources"]["projects"]["resources"]["locations"]["resources"]["keyRings"]["resources"]["cryptoKeys"]["methods"]
    for verb in ("encrypt", "decrypt"):
        method = methods[verb]
        check((method["httpMethod"], method["path"]) == ("POST", "v1/{+name}:" + verb), f"the path of {verb}")
        check("https://www.googleapis.com/auth/cloudkms" in method["scopes"], f"the scope of {verb}")
    # The checksum of 32 zeros is that of RFC 3720.
    sealed = post(f"v1/{name}:encrypt", {"plaintext": "A" * 43 + "=", "plaintextCrc32c": "2324772522"}, token)
    check(sealed["verifiedPlaintextCrc32c"] is True, "a verified checksum is said to be")
    fits(sealed, "EncryptResponse", "encrypt")
    fits(post(f"v1/{name}:decrypt", {"ciphertext": sealed["ciphertext"]}, token), "DecryptResponse", "decrypt")
    request = urllib.request.Request(f"{FAKE}/v1/{name}", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        fits(json.load(answer), "CryptoKey", "get")


def main():
    token = post("fake/everything", {})["token"]
    discovery(token, google_client(token))
    print(f"own fake of Google Cloud KMS, held to google-cloud-kms {kms_v1.__version__} and discovery {DOCUMENT['revision']}")
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()

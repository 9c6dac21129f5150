"""Holds azure_vault_fake.py to azure-keyvault-keys, the provider's own client. Run by `tools/servers/azure_vault.py --check`."""

import json
import os
import time
import urllib.request

from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.keyvault.keys import KeyClient, __version__
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

VAULT, CONTROL = os.environ["KEYFOLD_TEST_AZURE"], os.environ["KEYFOLD_TEST_AZURE_CONTROL"]
SCOPE = "https://vault.azure.net/.default"
passed = 0


def check(holds, what):
    global passed
    assert holds, what
    passed += 1


def wish(what, **asked):
    request = urllib.request.Request(f"{CONTROL}/_test/{what}", json.dumps(asked).encode())
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return json.load(answer)


class Identity:
    """A token that is there already."""

    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **_):
        assert scopes == (SCOPE,), scopes
        return AccessToken(self.token, int(time.time()) + 3600)


def identity(name):
    return Identity(wish("token", identity=name)["access_token"])


def cryptography(key, who):
    return CryptographyClient(key, who, verify_challenge_resource=False, retry_total=0)


def refused(kind, code, call, *arguments):
    try:
        call(*arguments)
    except kind as error:
        check(error.error.code == code, f"{error.error.code} where {code} was expected")
        return error
    raise AssertionError(f"accepted where {code} was expected")


def main():
    os.environ["REQUESTS_CA_BUNDLE"] = os.environ["KEYFOLD_TEST_AZURE_CA"]
    admin = KeyClient(VAULT, identity("admin"), verify_challenge_resource=False, retry_total=0)
    key = admin.create_rsa_key("patients", size=2048)
    service = cryptography(key.id, identity("service"))
    algorithm = KeyWrapAlgorithm.rsa_oaep_256
    wrapped = service.wrap_key(algorithm, b"k" * 64)
    check(wrapped.key_id == key.id and len(wrapped.encrypted_key) == 256, "what is wrapped names its key and version")
    check(service.unwrap_key(algorithm, wrapped.encrypted_key).key == b"k" * 64, "what was wrapped opens")
    refused(HttpResponseError, "BadParameter", service.unwrap_key, algorithm, b"\1" * 256)
    refused(ResourceNotFoundError, "KeyNotFound", admin.get_key, "nobody-made-this")
    error = refused(HttpResponseError, "Forbidden", cryptography(key.id, identity("nobody")).wrap_key, algorithm, b"k" * 64)
    check(error.error.innererror["code"] == "ForbiddenByRbac", error.error.innererror)
    refused(ClientAuthenticationError, "Unauthorized", cryptography(key.id, Identity("stale")).wrap_key, algorithm, b"k" * 64)
    wish("enable", name="patients", enabled=False)
    error = refused(HttpResponseError, "Forbidden", service.unwrap_key, algorithm, wrapped.encrypted_key)
    check(error.error.innererror["code"] == "KeyDisabled", error.error.innererror)
    wish("throttle", name="patients", requests=1)
    refused(HttpResponseError, "Throttled", service.unwrap_key, algorithm, wrapped.encrypted_key)
    print(f"own fake of Azure Key Vault, held to azure-keyvault-keys {__version__}")
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()

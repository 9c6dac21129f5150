"""Azure Key Vault and Managed HSM for tests: a fake of our own, held to Microsoft's Python client, on free ports of the loopback.

    python3 tools/servers/azure_vault.py COMMAND...   runs COMMAND with KEYFOLD_TEST_AZURE, …_CONTROL, …_CA and …_SECRET set
    python3 tools/servers/azure_vault.py --serve      prints them, then obeys lines `stop` and `start`, until its input ends
    python3 tools/servers/azure_vault.py --check      holds the fake to azure-keyvault-keys, the provider's own client

Exits with 1 where no server can be had, otherwise as COMMAND does. It is ours because the emulators that others wrote
(azure-keyvault-emulator in Go, Lowkey Vault in Java) are not in the registries that we build from.
"""

import secrets
import shutil
import sys

import shared

TENANT = "11111111-2222-3333-4444-555555555555"


class Server(shared.Server):
    """Two ports: the vault, and what tests want of it."""

    name, provider, kind, variable = "azure_vault", "Azure Key Vault", "own fake", "KEYFOLD_TEST_AZURE"
    client = "azure_vault_check.py"

    def install(self):
        super().install()
        shared.need(lambda: shutil.which("openssl"), "openssl")

    @property
    def version(self):
        return f"{self.name}_fake.py, held to azure-keyvault-keys {shared.pinned(self.name, 'azure-keyvault-keys')}"

    @property
    def environment(self):
        return {
            "KEYFOLD_TEST_AZURE": f"https://127.0.0.1:{self.port}",
            "KEYFOLD_TEST_AZURE_CONTROL": f"http://127.0.0.1:{self.control}",
            "KEYFOLD_TEST_AZURE_CA": str(self.folder / "ca.crt"),
            "KEYFOLD_TEST_AZURE_SECRET": str(self.folder / "client-secret"),
            # For azure_identity, so that nobody outside of this machine is asked.
            "AZURE_AUTHORITY_HOST": f"https://127.0.0.1:{self.port}",
            "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "service",
            "AZURE_FEDERATED_TOKEN_FILE": str(self.folder / "federated-token"),
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{self.control}/msi/token", "IDENTITY_HEADER": "identity-header-canary",
        }

    def prepare(self):
        self.port, self.control = shared.free_port(), shared.free_port()
        shared.certificates(self.folder, self.run)
        secret = secrets.token_urlsafe(24)
        for name in ("client-secret", "federated-token"):
            self.folder.joinpath(name).touch(mode=0o600)
            self.folder.joinpath(name).write_text(secret)

    def start(self):
        self.serve([self.python, shared.HERE / "azure_vault_fake.py", self.port, self.control, self.folder],
                   lambda: shared.answers(f"http://127.0.0.1:{self.control}/_test/calls"))


if __name__ == "__main__":
    sys.exit(shared.main(Server, __doc__))

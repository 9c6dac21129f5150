"""AWS KMS for tests: moto (an emulator that others wrote) behind a strictness layer of ours, and microburst for faults; all
on free ports of the loopback.

    python3 tools/servers/aws_kms.py COMMAND...   runs COMMAND with KEYFOLD_TEST_AWS, …_FAULTS and …_CREDENTIALS set
    python3 tools/servers/aws_kms.py --serve      prints them, then obeys lines `stop` and `start`, until its input ends
    python3 tools/servers/aws_kms.py --check      holds the layer to boto3, the provider's own client

Exits with 1 where no server can be had, otherwise as COMMAND does.

Each profile of the credentials file is an identity. A request with the header `x-test-admin: REGION` is not signed and may do
everything. `GET /_test/calls` says how many requests of KMS came in, refused ones too.
"""

import secrets
import sys

import shared

# Profile: what it may do.
IDENTITIES = {
    "service": {"Encrypt", "Decrypt"},
    "reader": {"Decrypt"},
    "writer": {"Encrypt"},
    "operator": {"Encrypt", "Decrypt", "DescribeKey", "GetKeyRotationStatus"},
    "nobody": set(),
    "expired": {"Encrypt", "Decrypt"},
}


class Server(shared.Server):
    """Two ports: moto with the layer, microburst before it."""

    name, provider, kind, variable = "aws_kms", "AWS KMS", "third-party emulator", "KEYFOLD_TEST_AWS"
    client = "aws_kms_check.py"

    @property
    def version(self):
        moto, microburst, boto3 = (shared.pinned(self.name, package) for package in ("moto", "microburst", "boto3"))
        return f"moto {moto} and microburst {microburst}, behind our layer, held to boto3 {boto3}"

    @property
    def environment(self):
        return {
            "KEYFOLD_TEST_AWS": f"http://127.0.0.1:{self.port}",
            "KEYFOLD_TEST_AWS_FAULTS": f"http://127.0.0.1:{self.faults}",
            "KEYFOLD_TEST_AWS_CREDENTIALS": str(self.credentials),
            # For the chain of credentials. Nothing of the user's own, and nobody outside of this machine is asked.
            "AWS_SHARED_CREDENTIALS_FILE": str(self.credentials), "AWS_CONFIG_FILE": "/dev/null", "AWS_PROFILE": "service",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def prepare(self):
        self.port, self.faults, self.credentials = shared.free_port(), shared.free_port(), self.folder / "credentials"
        self._write_credentials()

    def _write_credentials(self):
        """A secret of its own for each identity, one that is wrong, and one of nobody."""
        def profile(name, access_key, secret, token=None):
            text = f"[{name}]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret}\n"
            return text + (f"aws_session_token = {token}\n" if token else "")

        def key():
            return "AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))

        access_key, token = key(), secrets.token_hex(40)
        parts = [profile("service", access_key, secrets.token_hex(20), token)]
        parts += [profile(name, key(), secrets.token_hex(20)) for name in IDENTITIES if name != "service"]
        parts += [profile("forger", access_key, secrets.token_hex(20), token), profile("stranger", key(), secrets.token_hex(20))]
        self.credentials.touch(mode=0o600)
        self.credentials.write_text("\n".join(parts))

    def start(self):
        moto = [self.python, shared.HERE / "aws_kms_layer.py", self.port, self.faults, self.credentials]
        self.serve(moto, lambda: shared.answers(f"http://127.0.0.1:{self.port}/_test/calls"), log="moto.log")
        burst = [self.python.parent / "microburst", "-u", f"http://127.0.0.1:{self.port}", "-p", self.faults]
        # Its first answer loads what it knows of AWS and takes seconds.
        self.serve(burst, lambda: shared.answers(f"http://127.0.0.1:{self.faults}/_test/calls"), log="microburst.log")


if __name__ == "__main__":
    sys.exit(shared.main(Server, __doc__))

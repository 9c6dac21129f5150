"""Google Cloud KMS for tests: a fake of our own, held to Google's Python client, on a free port of the loopback.

    python3 tools/servers/google_kms.py COMMAND...   runs COMMAND with KEYFOLD_TEST_GOOGLE_KMS set
    python3 tools/servers/google_kms.py --serve      prints it, then obeys lines `stop` and `start`, until its input ends
    python3 tools/servers/google_kms.py --check      holds the fake to Google's own client and discovery document

Exits with 1 where no server can be had, otherwise as COMMAND does.
"""

import sys

import shared


class Server(shared.Server):
    name, provider, kind, variable = "google_kms", "Google Cloud KMS", "own fake", "KEYFOLD_TEST_GOOGLE_KMS"
    client = "google_kms_check.py"

    @property
    def version(self):
        return f"{self.name}_fake.py, held to google-cloud-kms {shared.pinned(self.name, 'google-cloud-kms')}"

    @property
    def environment(self):
        return {"KEYFOLD_TEST_GOOGLE_KMS": f"http://127.0.0.1:{self.port}"}

    def prepare(self):
        self.port = shared.free_port()

    def start(self):
        self.serve([self.python, shared.HERE / "google_kms_fake.py", self.port],
                   lambda: shared.answers(f"http://127.0.0.1:{self.port}/"))


if __name__ == "__main__":
    sys.exit(shared.main(Server, __doc__))

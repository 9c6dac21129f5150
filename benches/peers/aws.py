"""AWS KMS for peers that speak with nothing else: the counting key service behind its protocol, without signatures and without TLS.

tools/servers/aws_kms.py, which the tests use, has no GenerateDataKey whose keys its Decrypt knows; this has little else.
"""

import base64
import json
import secrets
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from work import Kms

KEY = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000001"


def answer(kms: Kms, operation: str, asked: dict[str, Any]) -> bytes:
    """What AWS KMS answers to one request, as JSON."""
    said: dict[str, Any] = {"KeyId": KEY}
    if operation == "Decrypt":
        said["Plaintext"] = kms.unwrap(base64.b64decode(asked["CiphertextBlob"]))
    else:
        payload = secrets.token_bytes(32) if operation == "GenerateDataKey" else base64.b64decode(asked["Plaintext"])
        said["CiphertextBlob"] = kms.wrap(payload)
        if operation == "GenerateDataKey":
            said["Plaintext"] = payload
    return json.dumps({name: base64.b64encode(it).decode() if isinstance(it, bytes) else it for name, it in said.items()}).encode()


class Server:
    """The service over HTTP, in a process of its own, for a peer that holds the GIL while it waits. Its calls are counted in the folder."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"


def serve(kms: Kms) -> ThreadingHTTPServer:

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = answer(kms, self.headers["x-amz-target"].removeprefix("TrentService."), asked)
            with kms.served.open("ab") as file:
                file.write(b".")
            self.send_response(200)
            self.send_header("content-type", "application/x-amz-json-1.1")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


if __name__ == "__main__":
    server = serve(Kms(Path(sys.argv[1])))
    print(server.server_port, flush=True)
    # Until whoever started it closes our input, or is no more.
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever()

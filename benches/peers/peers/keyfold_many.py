"""keyfold from Python's own lists, which is what most peers get: `encrypt_many`, `decrypt_many`. No pyarrow."""

from typing import Any

import work
from peers import keyfold


class Peer(keyfold.Peer):
    packages = ["keyfold"]
    setting = "`encrypt_many` of a list, otherwise as above"

    def column(self, values: list[bytes]) -> Any:
        return values, self.bindings(len(values))

    def seal_column(self, column: Any) -> Any:
        return self.field.encrypt_many(column[0], rows=column[1])

    def open_column(self, sealed: Any, column: Any) -> Any:
        return self.field.decrypt_many(sealed, rows=column[1])

    def plain(self, opened: Any) -> list[bytes]:
        return work.Peer.plain(self, opened)

    def sealed_len(self, sealed: Any) -> int:
        return work.Peer.sealed_len(self, sealed)

"""A server of files that knows `Range`, as those do that stores are published by."""

import http.server
import re
from pathlib import Path
from typing import Any


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files, and parts of them where asked."""

    moved: list[int] = []  # noqa: RUF012  # of all requests

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        first, last = asked.groups() if asked else ("", "")
        part = content
        if asked:
            part = content[int(first) : int(last or len(content)) + 1] if first else content[-int(last) :]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        if "/c/" in self.path:
            self.moved.append(len(part))

    def log_message(self, *arguments: Any) -> None:
        pass

"""How many threads work at once."""

import threading
import time


class Crowd:
    """Work that counts how many do it at the same time."""

    def __init__(self) -> None:
        self.running, self.most, self._lock = 0, 0, threading.Lock()

    def work(self) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.01)
        with self._lock:
            self.running -= 1

"""What a terminal receives from a program."""

import os
import pty
import select
import subprocess
import time

__all__ = ["on_a_terminal"]


def on_a_terminal(command):
    """What a terminal receives from a command, and the exit code."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(list(map(str, command)), stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        received = b""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                try:
                    received += os.read(master, 65536)
                except OSError:  # the other side is closed
                    break
            elif process.poll() is not None:
                break
        process.wait(timeout=10)
    os.close(master)
    return received.decode(), process.returncode

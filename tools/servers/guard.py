"""Ends and removes what a process leaves behind when it is killed. Its input is a pipe from that process, so that it ends with
it: lines `+group ID`, `-group ID`, `+folder PATH`, `-folder PATH` say what is there. Started by shared.py."""

import os
import shutil
import signal
import sys
import time


def end_group(group, first=signal.SIGTERM, reap=lambda: None):
    """Ends all processes of `group`, by force if they do not end themselves."""
    for how, seconds in ((first, 5), (signal.SIGKILL, 2)):
        end = time.monotonic() + seconds
        try:
            os.killpg(group, how)
            while time.monotonic() < end:
                reap()
                os.killpg(group, 0)
                time.sleep(0.02)
        except ProcessLookupError:
            return


def main():
    left = {"group": set(), "folder": set()}
    for line in sys.stdin:
        what, value = line.rstrip("\n").split(" ", 1)
        change = left[what[1:]].add if what[0] == "+" else left[what[1:]].discard
        change(value)
    for group in left["group"]:
        end_group(int(group))
    for folder in left["folder"]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

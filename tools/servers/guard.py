"""Ends and removes what a process leaves behind when it is killed. Its input is a pipe from that process, so that it ends with
it: lines `+group ID`, `-group ID`, `+folder PATH`, `-folder PATH` say what is there. Started by shared.py."""

import os
import shutil
import signal
import sys
import time


def end_groups(groups, first=signal.SIGTERM, reap=lambda: None):
    """Ends all processes of `groups`, by force if they do not end themselves."""
    for how, seconds in ((first, 5), (signal.SIGKILL, 2)):
        groups = [group for group in groups if signalled(group, how)]
        end = time.monotonic() + seconds
        while groups and time.monotonic() < end:
            reap()
            groups = [group for group in groups if signalled(group, 0)]
            time.sleep(0.02)


def signalled(group, how):
    """Whether there was a process to send it to."""
    try:
        os.killpg(group, how)
    except ProcessLookupError:
        return False
    return True


def main():
    left = {"group": set(), "folder": set()}
    for line in sys.stdin:
        what, value = line.rstrip("\n").split(" ", 1)
        change = left[what[1:]].add if what[0] == "+" else left[what[1:]].discard
        change(value)
    end_groups([int(group) for group in left["group"]])
    for folder in left["folder"]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

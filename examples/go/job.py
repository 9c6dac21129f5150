"""A job over the results that the service in Go keeps: opens each value and seals a note for it, in a process of its own.

    python3 job.py      with the variables CONFIG, POLICY and DATABASE; needs the packages keyfold and psycopg
"""

import os
import sys

import keyfold
import psycopg


def main():
    ring = keyfold.Keyring.open(os.environ["CONFIG"], policies=[os.environ["POLICY"]])
    value, note = (ring.field(name, scope="laboratory") for name in ("result.value", "result.note"))
    with psycopg.connect(os.environ["DATABASE"]) as database:
        results = database.execute("SELECT id, value FROM results").fetchall()
        ids = [result[0] for result in results]
        values = value.decrypt_many([result[1] for result in results], rows=ids)
        notes = note.encrypt_many([f"Befund: {value} mg/dl, geprüft" for value in values], rows=ids)
        with database.cursor() as cursor:
            cursor.executemany("UPDATE results SET note = %s WHERE id = %s", list(zip(notes, ids, strict=True)))
    print(f"{len(ids)} notes")


if __name__ == "__main__":
    sys.exit(main())

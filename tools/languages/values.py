"""Does with the wheel what the programs `values` in other languages do: values.py seal|open CONFIG POLICY < INPUT > OUTPUT."""

import sys
from datetime import date

import keyfold

PARSE = {"text": str, "integer": int, "date": date.fromisoformat, "bytes": bytes.fromhex}


def spell(value):
    if value is None:
        return "null\t"
    name = next(name for name, kind in {"text": str, "integer": int, "date": date, "bytes": bytes}.items() if type(value) is kind)
    return f"{name}\t{value.hex() if name == 'bytes' else value}"


def main():
    do, config, policy = sys.argv[1:]
    lines = [line.split("\t", 1) for line in sys.stdin.buffer.read().decode().split("\n")[:-1]]
    field = keyfold.Keyring.open(config, policies=[policy]).field("value")
    if do == "seal":
        # Python seals no nulls: None is no value there.
        parts = [(row, *rest.split("\t", 1)) for row, rest in lines if not rest.startswith("null\t")]
        rows, values = [row for row, _, _ in parts], [PARSE[kind](text) for _, kind, text in parts]
        done = [keyfold.to_text(sealed) for sealed in field.encrypt_many(values, rows=rows)]
    else:
        rows = [row for row, _ in lines]
        done = [spell(value) for value in field.decrypt_many([sealed for _, sealed in lines], rows=rows)]
    sys.stdout.buffer.write("".join(f"{row}\t{text}\n" for row, text in zip(rows, done, strict=True)).encode())


if __name__ == "__main__":
    main()

"""Opens documents in JSON: a second implementation of docs/FORMAT.md §18.6, for the paths and policies of the vectors. Not for production."""
import datetime, json, re, tomllib
import decoder, document
from decoder import Refused, attempt, check

SPACE, SCALAR = re.compile(r"[ \t\r\n]*"), re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
STEP = re.compile(r"\.(\*)|\[(\*)\]|\.([A-Za-z_]\w*)")
URL = "urn:keyfold:document:v1"

class Node:  # where a value stands; of a string what it says; children by name or number, with the place where each begins
    def __init__(self, text, start):
        self.start, self.text, self.children, self.kind = start, None, [], text[start : start + 1]
        if self.kind == '"':
            self.text, self.end = string(text, start)
        elif self.kind and self.kind in "{[":
            self.end = self.fill(text, SPACE.match(text, start + 1).end())
        else:
            match = SCALAR.match(text, start)
            check(match, "InvalidInput")
            self.kind, self.end = match[0], match.end()

    def fill(self, text, at):
        closing = "}" if self.kind == "{" else "]"
        while text[at : at + 1] != closing or self.children:
            begin, name = at, len(self.children)
            if self.kind == "{":
                name, at = string(text, at)
                check(name not in [known for known, *_ in self.children], "InvalidInput")
                at = SPACE.match(text, at).end()
                check(text[at : at + 1] == ":", "InvalidInput")
                at = SPACE.match(text, at + 1).end()
            self.children.append((name, begin, Node(text, at)))
            at = SPACE.match(text, self.children[-1][2].end).end()
            check(text[at : at + 1] in (",", closing) and at < len(text), "InvalidInput")
            if text[at] == closing:
                break
            at = SPACE.match(text, at + 1).end()
        return at + 1

    def member(self, name):
        return next((child for known, _, child in self.children if known == name and self.kind == "{"), None)

    def strings(self):
        return [self] if self.text is not None else [node for *_, child in self.children for node in child.strings()]

def string(text, at):
    check(text[at : at + 1] == '"', "InvalidInput")
    found = attempt("InvalidInput", ValueError, json.decoder.scanstring, text, at + 1, True)
    check(not re.search("[\ud800-\udfff]", found[0]), "InvalidInput")
    return found

def parse(text):
    root = Node(text, SPACE.match(text).end())
    check(SPACE.match(text, root.end).end() == len(text), "InvalidInput")
    return root

def escaped(name):  # RFC 9535 §2.7
    special = {"'": r"\'", "\\": r"\\", "\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r"}
    return "".join(special.get(c, f"\\u{ord(c):04x}" if c < " " else c) for c in name)

def select(root, path):  # pairs of normalized path and node
    found = [("$", root)]
    for any_member, any_item, name in STEP.findall(path.removeprefix("$")):
        children = [(at, child) for at, node in found for child in node.children if any_member or any_item or child[0] == name and node.kind == "{"]
        found = [(at + (f"[{key}]" if isinstance(key, int) else f"['{escaped(key)}']"), node) for at, (key, _, node) in children]
    return found

def without(text, parent, at):  # child `at`, with the comma behind it, or else the one before it
    _, start, node = parent.children[at]
    comma = SPACE.match(text, node.end).end()
    if text[comma] == ",":
        return text[:start] + text[comma + 1 :]
    return (text[:start].rstrip(" \t\r\n").removesuffix(",") if at else text[:start]) + text[node.end :]

def without_member(text, root, name):
    return without(text, root, [known for known, *_ in root.children].index(name))

def of_member(node):
    parts = {name: child.text for name, _, child in node.children}
    check(node.kind == "{" and parts.get("document") is not None and parts.keys() <= {"document", "manifest"}, "Malformed")
    check(parts.get("manifest", "") is not None, "Malformed")
    return parts["document"], parts.get("manifest")

def of_entry(node):
    inner = node.member("extension")
    check(inner and inner.kind == "[" and len(node.children) == 2 and 1 <= len(inner.children) <= 2, "Malformed")
    texts = [{name: child.text for name, _, child in part.children} for *_, part in inner.children]
    for url, part in zip(["document", "manifest"], texts):
        check(part.keys() == {"url", "valueString"} and part["url"] == url and part["valueString"] is not None, "Malformed")
    return [part["valueString"] for part in texts] + [None] * (2 - len(texts))

def take_header(text, place):  # the header and manifest, and the text without them
    root = parse(text)
    member, extension = root.member("_keyfold"), root.member("extension") if place == "fhir-extension" else None
    items = [at for at, (*_, item) in enumerate(extension.children) if item.member("url") and item.member("url").text == URL] if extension and extension.kind == "[" else []
    check(len(items) + bool(member) <= 1, "Malformed")
    if member:
        return of_member(member), without_member(text, root, "_keyfold")
    if not items:
        return None, text
    header = of_entry(extension.children[items[0]][2])
    if len(extension.children) == 1:
        return header, without_member(text, root, "extension")
    # Of an item the comma before it goes first.
    if items[0]:
        node = extension.children[items[0]][2]
        return header, text[: node.start].rstrip(" \t\r\n").removesuffix(",") + text[node.end :]
    return header, without(text, extension, 0)

def shown(name, value):
    number = int.from_bytes(value, "big", signed=True)
    if name in ("text", "date"):
        return json.dumps(value.decode() if name == "text" else str(datetime.date(1970, 1, 1) + datetime.timedelta(number)), ensure_ascii=False)
    return {"null": "null", "boolean": "true" if number else "false", "integer": str(number)}.get(name) or value.decode()

def reveal(ring, policy, kind, text, context):  # one document
    for field in policy["fields"].values():
        for index in field.get("index", {}).values():
            if parse(text).member(index["column"]):
                text = without_member(text, parse(text), index["column"])
    header, text = take_header(text, kind.get("header", "member"))
    root, rule, bodies, beside, opened = parse(text), kind.get("manifest", "required"), [], [], []
    for name, field in policy["fields"].items():
        for path, node in (found for query in field["paths"] for found in select(root, query)):
            if field["mode"] == "document":
                bodies.append((node, {"field": name, "path": path, "body": node.text}))
                continue
            check(node.text is not None, "Malformed")
            rest = node.text.removeprefix(field["keep_prefix"])
            kind_of, value = ring.open(decoder.from_text(rest), name, partition="default", context=context)
            assert kind_of == "text"
            opened.append((node, node.text.removesuffix(rest) + value.decode()))
            beside.append((path, node.text))
    if header is None:
        check(not bodies, "Malformed")
        check(rule != "required", "PolicyRefused")
        return text
    covered = sum(node.text.startswith("kf1d.") for found, _ in bodies for node in found.strings())
    strays = sum(node.text.startswith("kf1d.") for node in root.strings()) - covered
    check(header[1] is not None or not strays, "PolicyRefused")
    row = None
    if kind["row_binding"] != "none":
        found = [node for _, node in select(root, kind["row_binding"])]
        check(len(found) == 1, "InvalidInput")
        row = next((value for node, value in opened if node is found[0]), found[0].text)
        row = found[0].kind if row is None and re.match("[-0-9]", found[0].kind) else row
        check(row, "InvalidInput")
        row = row.encode().hex()
    check(all(node.text is not None for node, _ in bodies), "Malformed")
    _, values = document.open_document(
        ring, header[0], [body for _, body in bodies], beside, header[1], rule, context=context, row=row, row_bound=row is not None
    )
    replaced = [(node, shown(*value)) for (node, _), value in zip(bodies, values)]
    replaced += [(node, json.dumps(value, ensure_ascii=False)) for node, value in opened]
    for node, value in sorted(replaced, key=lambda pair: -pair[0].start):
        text = text[: node.start] + value + text[node.end :]
    return text

def reveal_text(ring, policy, text, context):  # one text, with the documents inside of it
    root = parse(text)
    holding = [kind for kind in policy["documents"].values()
               if all(any(node.text == value for _, node in select(root, path)) for path, value in kind.get("only_if", {}).items())]
    kind = max(holding, key=lambda kind: len(kind.get("only_if", {})))
    for _, node in select(root, kind.get("root", "$"))[::-1]:
        text = text[: node.start] + reveal(ring, policy, kind, text[node.start : node.end], context) + text[node.end :] if node is not root else reveal(ring, policy, kind, text, context)
    return text

def run(ring, file):
    policies = {name: tomllib.loads(policy) for name, policy in file["policies"].items()}
    for case in file["cases"]:
        try:
            clear = reveal_text(ring, policies[case["policy"]], case["protected"], case["context"])
            found = "ok" if clear == case.get("clear") else f"another text, {clear}"
        except Refused as refused:
            found = str(refused)
        assert found == case["expect"], f"{case['id']} ({case['note']}): {found}, expected {case['expect']}"
    return len(file["cases"])

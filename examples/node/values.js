// Seals and opens the values of a file: node values.js seal|open CONFIG POLICY < INPUT > OUTPUT.
//
// A line of values is row, type and value, with tabs between them; bytes are in hexadecimal. A line of sealed values is row and
// sealed value in text form.

import { readFileSync, writeFileSync } from 'node:fs';
import { KeyfoldError, Keyring, Type, Value, fromText, toText } from './keyfold.js';

const parse = {
  text: (s) => Value.text(s),
  integer: (s) => Value.integer(s),
  date: (s) => Value.date(s),
  bytes: (s) => Value.bytes(Buffer.from(s, 'hex')),
  null: () => Value.null(),
};

function spell(value) {
  const kind = Object.keys(parse).find((name) => Type[name.toUpperCase()] === value.type);
  if (!kind) throw new Error(`a value of type ${value.type}`);
  return `${kind}\t${kind === 'bytes' ? value.bytes.toString('hex') : value.get() ?? ''}`;
}

/** The line up to the first tab, and what is behind it, which is nothing where no tab is. */
function cut(line) {
  const [before] = line.split('\t', 1);
  return [before, line.slice(before.length + 1)];
}

class Unreadable extends Error {}

/** Does `what` with each line; an error would have the line in its message, which may be a patient's. */
function each(lines, wanted, what) {
  return lines.map((line, i) => {
    try {
      return what(line);
    } catch {
      throw new Unreadable(`line ${i + 1} is not ${wanted}`);
    }
  });
}

const work = {
  seal: (field, rows, lines) => {
    const values = each(lines, 'row, type and value', (line) => {
      const [, kind, s] = /^(.*?)\t(.*)$/s.exec(line);
      return parse[kind](s);
    });
    return field.encryptColumn(values, rows).map(toText);
  },
  open: (field, rows, lines) => field.decryptColumn(each(lines, 'row and sealed value', fromText), rows).map(spell),
};

const [what, config, policy] = process.argv.slice(2);
if (!(what in work) || !policy) {
  console.error('node values.js seal|open CONFIG POLICY < INPUT > OUTPUT');
  process.exit(2);
}
try {
  const ring = Keyring.open(config, [policy]);
  const field = ring.field('value');
  const lines = readFileSync(0, 'utf8').split('\n').slice(0, -1).map(cut);
  const rows = lines.map(([row]) => row);
  const done = work[what](field, rows, lines.map(([, rest]) => rest));
  writeFileSync(1, rows.map((row, i) => `${row}\t${done[i]}\n`).join(''));
  field.close();
  ring.close();
} catch (error) {
  if (!(error instanceof Unreadable || error instanceof KeyfoldError)) throw error;
  console.error(error.code ? `${error.code} ${error.kind}: ${error.message}` : error.message);
  process.exit(1);
}

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { Field, KeyfoldError, Keyring, Value, fromText, init, toText } from './keyfold.js';

const folder = mkdtempSync(join(tmpdir(), 'keyfold-'));
const policy = join(folder, 'policy.toml');
const config = join(folder, 'ring', 'keyfold.toml');
writeFileSync(policy, `version = 1
[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
[fields.note]
row_binding = "none"
required_context = ["table"]
`);
init(join(folder, 'ring'), 'ring', 'test');
const ring = Keyring.open(config, [policy]);
const ssn = ring.field('patient.ssn');
after(() => rmSync(folder, { recursive: true }));

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc');

const code = (expected) => (error) => error instanceof KeyfoldError && error.code === expected;

test('one value', () => {
  const values = [
    Value.text('Zoë 病'), Value.text(''), Value.integer(-(2n ** 63n)), Value.integer(7), Value.date('2026-11-26'), Value.date('1969-12-31'),
    Value.null(), Value.bytes([0, 255]), Value.text('x'.repeat(2 ** 20)),
  ];
  for (const value of values) {
    const opened = ssn.decrypt(ssn.encrypt(value, 'p-17'), 'p-17');
    assert.equal(opened.isCurrent, true);
    assert.equal(opened.value.type, value.type);
    assert.deepEqual(opened.value.get(), value.get());
  }
  assert.deepEqual(values.slice(0, 7).map((value) => value.get()),
    ['Zoë 病', '', -(2n ** 63n), 7n, '2026-11-26', '1969-12-31', null]);
  assert.throws(() => Value.date('2026-02-30'), RangeError);
  assert.throws(() => Value.integer(2n ** 63n), RangeError);
});

test('errors', () => {
  const sealed = ssn.encrypt(Value.text('999-81-5679'), 'p-17');
  assert.throws(() => ssn.decrypt(sealed, 'p-18'), {
    name: 'KeyfoldError', code: 301, kind: 'DecryptionFailed', retryable: false, row: null, message: /./,
  });
  assert.throws(() => ssn.decrypt(sealed), code(100));
  assert.throws(() => Keyring.open('nowhere/keyfold.toml'), code(601));
  assert.throws(() => fromText('kf1.no'), code(200));
  assert.match(toText(sealed), /^kf1\./);
  assert.deepEqual(fromText(toText(sealed)), sealed);
  assert.throws(() => ring.field('note').encrypt(Value.null()), code(110));
  const note = ring.field('note', { scope: 'clinic-17', context: { table: 'notes' } });
  const inScope = note.encrypt(Value.text('a'));
  assert.throws(() => ring.field('note', { scope: 'clinic-17', context: { table: 'x' } }).decrypt(inScope), code(301));
  ring.rotate('clinic-17');
  assert.equal(note.decrypt(inScope).isCurrent, false);
});

test('a column', () => {
  const values = [Value.text('low'), Value.null(), Value.date('2026-11-26'), Value.text('')];
  const rows = ['r-1', 'r-2', 'r-3', 'r-4'];
  const sealed = ssn.encryptColumn(values, rows);
  const opened = ssn.decryptColumn(sealed, rows);
  assert.deepEqual(opened.map((value) => [value.type, value.get()]), values.map((value) => [value.type, value.get()]));
  sealed.forEach((one, i) => assert.deepEqual(ssn.decrypt(one, rows[i]).value.get(), values[i].get()));
  sealed[2][70] ^= 1;
  assert.throws(() => ssn.decryptColumn(sealed, rows), { code: 301, row: 2 });
  assert.deepEqual(ssn.encryptColumn([], []), []);
  assert.throws(() => ssn.encryptColumn(values, ['r-1']), code(100));
});

test('on threads of koffi', async () => {
  const one = async (i) => {
    const sealed = await ssn.encryptAsync(Value.integer(i), `p-${i}`);
    return (await ssn.decryptAsync(sealed, `p-${i}`)).value.get();
  };
  const all = Array.from({ length: 200 }, (_, i) => i);
  assert.deepEqual(await Promise.all(all.map(one)), all.map(BigInt));
  await assert.rejects(ssn.decryptAsync(Buffer.from('no'), 'p-1'), code(200));
});

test('in workers, which share the handle', async () => {
  const work = async (n) => {
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: { handle: ssn.handle, n } });
    return new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
  };
  assert.deepEqual(await Promise.all([1, 2, 3].map(work)), [500, 500, 500]);
});

test('closing', () => {
  const other = Keyring.open(config, [policy]);
  const [gone, left] = [other.field('patient.ssn'), other.field('patient.ssn')];
  gone.close();
  gone.close();
  assert.throws(() => gone.encrypt(Value.null(), 'p-17'), code(104));
  other.close();
  other.close();
  assert.throws(() => left.encrypt(Value.null(), 'p-17'), code(502));
});

test('the garbage collector leaves alone what a thread works with', async () => {
  const pending = Array.from({ length: 200 }, (_, i) => ring.field('patient.ssn').encryptAsync(Value.text('x'.repeat(2 ** 18)), `p-${i}`));
  for (let i = 0; i < 20; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  (await Promise.all(pending)).forEach((sealed, i) => assert.equal(ssn.decrypt(sealed, `p-${i}`).value.get().length, 2 ** 18));
});

test('the garbage collector releases what nobody closes, and nothing that is in use', async () => {
  const { kept, handle } = (() => {
    const other = Keyring.open(config, [policy]);
    return { kept: other.field('patient.ssn'), handle: other.field('patient.ssn').handle };
  })();
  const borrowed = Field.borrow(handle);
  for (let i = 0; i < 100; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
    try {
      borrowed.encrypt(Value.null(), 'p-17');
    } catch (error) {
      assert.equal(error.code, 104);
      kept.encrypt(Value.null(), 'p-17');
      return;
    }
  }
  assert.fail('the field is still there');
});

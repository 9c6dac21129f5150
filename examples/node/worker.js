// A worker that is given the handle of a field, which is good in every thread of the process: seals and opens, and says how often.

import { parentPort, workerData } from 'node:worker_threads';
import { Field, Value } from './keyfold.js';

const field = Field.borrow(workerData.handle);
let good = 0;
for (let i = 0; i < 500; i++) {
  const row = `p-${workerData.n}-${i}`;
  if (field.decrypt(field.encrypt(Value.text(row), row), row).value.get() === row) good++;
}
parentPort.postMessage(good);

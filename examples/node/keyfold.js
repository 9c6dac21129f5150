// Seals and opens fields with libkeyfold, by koffi. Copy it into your program; what functions do in detail stands in keyfold.h.
//
// Methods wait where they have to (for the key service or the store, when a key is first needed or due to be renewed), and the
// event loop with them; those whose names end in Async do so on a thread of koffi's, of which 256 may be waiting at a time.

import koffi from 'koffi';

const LIBRARY = process.env.KEYFOLD_LIBRARY ?? 'libkeyfold.so.0.1';

function load() {
  try {
    return koffi.load(LIBRARY);
  } catch (error) {
    throw new Error(`cannot load ${LIBRARY}: set LD_LIBRARY_PATH or KEYFOLD_LIBRARY`, { cause: error });
  }
}

const lib = load();

const OK = 0;
const NO_ROW = 2n ** 64n - 1n;
const MAX_NUMBER = 16;

// kf_error and the other structs of keyfold.h. Handles are numbers, and no addresses: koffi has them as BigInt.
koffi.struct('kf_error', {
  code: 'int32_t', is_retryable: 'bool', reserved: koffi.array('uint8_t', 3), row: 'uint64_t', text: koffi.array('char', 488, 'String'),
});
koffi.struct('kf_number', { integer: 'int64_t', real: 'double', nanoseconds: 'uint32_t', reserved: 'uint32_t' });
koffi.struct('kf_opened', {
  len: 'size_t', type: 'uint8_t', is_current: 'bool', is_compromised: 'bool', reserved: koffi.array('uint8_t', 5),
});
koffi.struct('kf_column', { data: 'const void *', data_len: 'size_t', offsets: 'const void *', rows: 'size_t' });
koffi.struct('kf_column_out', { data: 'void *', data_cap: 'size_t', offsets: 'void *', offsets_cap: 'size_t' });

const c = Object.fromEntries([
  'const char *kf_result_name(int32_t result)',
  'int kf_number_encode(uint8_t type, const kf_number *number, void *out, size_t cap, _Out_ size_t *len, _Out_ kf_error *error)',
  'int kf_number_decode(uint8_t type, const void *value, size_t len, _Out_ kf_number *number, _Out_ kf_error *error)',
  'int kf_init(const char *folder, size_t l1, const char *name, size_t l2, const char *environment, size_t l3, const char *kek, size_t l4, void *options, _Out_ kf_error *error)',
  'int kf_options_new(_Out_ void **options, _Out_ kf_error *error)',
  'int kf_options_add_policy(void *options, const char *path, size_t len, _Out_ kf_error *error)',
  'int kf_options_free(void *options)',
  'int kf_context_new(_Out_ void **context, _Out_ kf_error *error)',
  'int kf_context_add(void *context, const char *key, size_t key_len, const void *value, size_t value_len, _Out_ kf_error *error)',
  'int kf_context_free(void *context)',
  'int kf_keyring_open(const char *path, size_t len, void *options, _Out_ void **ring, _Out_ kf_error *error)',
  'int kf_keyring_rotate(void *ring, const char *scope, size_t len, void *key, _Out_ kf_error *error)',
  'int kf_keyring_close(void *ring)',
  'int kf_field_new(void *ring, const char *name, size_t l1, const char *scope, size_t l2, void *context, _Out_ void **field, _Out_ kf_error *error)',
  'int kf_field_free(void *field)',
  'int kf_sealed_len(void *field, size_t len, _Out_ size_t *sealed, _Out_ kf_error *error)',
  'size_t kf_opened_len_max(size_t len)',
  'int kf_encrypt(void *field, uint8_t type, const void *value, size_t len, const void *row, size_t row_len, void *out, size_t cap, _Out_ size_t *out_len, _Out_ kf_error *error)',
  'int kf_decrypt(void *field, const void *sealed, size_t len, const void *row, size_t row_len, void *out, size_t cap, _Out_ kf_opened *opened, _Out_ kf_error *error)',
  'int kf_sealed_column_len(void *field, const kf_column *values, _Out_ size_t *len, _Out_ kf_error *error)',
  'int kf_encrypt_column(void *field, const void *types, const kf_column *values, const kf_column *rows, const kf_column_out *out, _Out_ kf_error *error)',
  'size_t kf_opened_column_len_max(size_t len, size_t rows)',
  'int kf_decrypt_column(void *field, const kf_column *sealed, const kf_column *rows, void *types, size_t cap, const kf_column_out *out, void *opened, _Out_ kf_error *error)',
  'size_t kf_text_len(size_t len)',
  'size_t kf_text_sealed_len_max(size_t len)',
  'int kf_to_text(const void *sealed, size_t len, void *text, size_t cap, _Out_ size_t *text_len, _Out_ kf_error *error)',
  'int kf_from_text(const char *text, size_t len, void *sealed, size_t cap, _Out_ size_t *sealed_len, _Out_ kf_error *error)',
].map((prototype) => [/(kf_\w+)\(/.exec(prototype)[1], lib.func(prototype)]));

/** What every failing function throws. The message may be logged: it holds no value, key or context. */
export class KeyfoldError extends Error {
  constructor(code, { text, is_retryable: isRetryable = false, row = NO_ROW } = {}) {
    const kind = c.kf_result_name(code) ?? 'unknown';
    super(text ?? kind);
    this.name = 'KeyfoldError';
    /** Permanent, and the same in all languages. */
    this.code = code;
    /** The name of the code, such as "DecryptionFailed". */
    this.kind = kind;
    /** Whether the same call may succeed later without anybody changing anything. */
    this.retryable = isRetryable;
    /** The row of a column that it is about, or null. */
    this.row = BigInt(row) === NO_ROW ? null : Number(row);
  }
}

/** Calls a function whose last argument is a kf_error. */
function must(f, ...args) {
  const error = {};
  const result = f(...args, error);
  if (result !== OK) throw new KeyfoldError(result, error);
}

/**
 * The same on a thread of koffi's. What is passed must not be changed until the promise is settled. The function that koffi calls
 * then holds the arguments, and the async method that waits for it the object of the handle: the garbage collector takes neither.
 */
function mustAsync(f, ...args) {
  return new Promise((resolve, reject) => {
    const error = {};
    f.async(...args, error, (failed, result) => {
      if (failed) reject(failed);
      else if (result !== OK) reject(new KeyfoldError(result, error));
      else resolve(args);
    });
  });
}

/** A text as two arguments; null and undefined are NULL. */
const text = (s) => (s == null ? [null, 0] : [s, Buffer.byteLength(s)]);
/** Bytes as two arguments. Koffi passes where a Buffer is: nothing is copied. */
const bytes = (b) => (b == null ? [null, 0] : [b, b.length]);
const rowOf = (row) => bytes(row == null ? null : Buffer.from(row));

export const Type = Object.freeze({
  BYTES: 1, TEXT: 2, INTEGER: 3, DECIMAL: 4, FLOAT: 5, BOOLEAN: 6, DATE: 7, TIMESTAMP: 8, JSON: 9, NULL: 10,
});

/** A value: a type and bytes, which of text, JSON, decimals and bytes are what they say. */
export class Value {
  constructor(type, content) {
    this.type = type;
    this.bytes = content;
  }

  static text(s) { return new Value(Type.TEXT, Buffer.from(s)); }
  static bytes(b) { return new Value(Type.BYTES, Buffer.from(b)); }
  static null() { return new Value(Type.NULL, Buffer.alloc(0)); }
  /** Of a number or BigInt of 64 bits. */
  static integer(i) { return Value.#number(Type.INTEGER, BigInt(i)); }
  /** Of a text such as "2026-11-26": a Date is a point in time, and its day another one elsewhere. */
  static date(iso) {
    const milliseconds = /^\d{4}-\d\d-\d\d$/.test(iso) ? Date.parse(iso) : NaN;
    if (Number.isNaN(milliseconds) || new Date(milliseconds).toISOString().slice(0, 10) !== iso) throw new RangeError('not a date');
    return Value.#number(Type.DATE, BigInt(milliseconds / 86_400_000));
  }

  static #number(type, integer) {
    if (BigInt.asIntN(64, integer) !== integer) throw new RangeError('more than 64 bits');
    const out = Buffer.alloc(MAX_NUMBER);
    const length = [0];
    must(c.kf_number_encode, type, { integer, real: 0, nanoseconds: 0, reserved: 0 }, out, out.length, length);
    return new Value(type, out.subarray(0, Number(length[0])));
  }

  /** A string for text, decimals and JSON, a BigInt for integers, a string for dates, a Buffer for bytes, null for null. */
  get() {
    switch (this.type) {
      case Type.NULL: return null;
      case Type.BYTES: return this.bytes;
      case Type.TEXT: case Type.DECIMAL: case Type.JSON: return this.bytes.toString();
    }
    const number = {};
    must(c.kf_number_decode, this.type, ...bytes(this.bytes), number);
    switch (this.type) {
      case Type.INTEGER: return BigInt(number.integer);
      case Type.BOOLEAN: return BigInt(number.integer) === 1n;
      case Type.FLOAT: return number.real;
      case Type.DATE: return new Date(Number(number.integer) * 86_400_000).toISOString().slice(0, 10);
      default: return number;
    }
  }
}

/** Makes a keyring in a folder, with its key in a file: for one machine and for tests. */
export function init(folder, name, environment) {
  must(c.kf_init, ...text(folder), ...text(name), ...text(environment), null, 0, null);
}

/** A handle that is released by close() or, where nobody calls that, when the garbage collector finds its object. */
class Handle {
  static #left = new FinalizationRegistry(({ release, handle }) => release(handle));
  #release;

  constructor(handle, release) {
    this.handle = handle;
    this.#release = release;
    if (release) Handle.#left.register(this, { release, handle }, this);
  }

  /** Releases it. Doing so twice does nothing: a handle that was released is refused, and never one of something else. */
  close() {
    Handle.#left.unregister(this);
    this.#release?.(this.handle);
  }
}

/** An open keyring. One is enough for a process. */
export class Keyring extends Handle {
  static open(config, policies = []) {
    const options = [null];
    const ring = [null];
    must(c.kf_options_new, options);
    try {
      for (const policy of policies) must(c.kf_options_add_policy, options[0], ...text(policy));
      must(c.kf_keyring_open, ...text(config), options[0], ring);
    } finally {
      c.kf_options_free(options[0]);
    }
    return new Keyring(ring[0], c.kf_keyring_close);
  }

  /** Binds a field of the policy to a scope and a context, an object of texts or Buffers. Make it once per tenant or table. */
  field(name, { scope = null, context = {} } = {}) {
    const pairs = [null];
    const field = [null];
    must(c.kf_context_new, pairs);
    try {
      for (const [key, value] of Object.entries(context)) must(c.kf_context_add, pairs[0], ...text(key), ...bytes(Buffer.from(value)));
      must(c.kf_field_new, this.handle, ...text(name), ...text(scope), pairs[0], field);
    } finally {
      c.kf_context_free(pairs[0]);
    }
    return new Field(field[0], this);
  }

  /** Makes a new key that seals from now on; older ones still open. */
  rotate(scope = null) {
    must(c.kf_keyring_rotate, this.handle, ...text(scope), null);
  }
}

/** Byte strings of a column in Arrow's layout. */
class Column {
  constructor(data, offsets) {
    this.data = data;
    this.offsets = offsets;
  }

  static of(rows) {
    const offsets = new BigInt64Array(rows.length + 1);
    rows.forEach((row, i) => { offsets[i + 1] = offsets[i] + BigInt(row.length); });
    return new Column(Buffer.concat(rows), offsets);
  }

  static room(size, rows) { return new Column(Buffer.alloc(Number(size)), new BigInt64Array(rows + 1)); }
  get in() { return { data: this.data, data_len: this.data.length, offsets: this.offsets, rows: this.offsets.length - 1 }; }
  get out() { return { data: this.data, data_cap: this.data.length, offsets: this.offsets, offsets_cap: this.offsets.length }; }
  row(i) { return this.data.subarray(Number(this.offsets[i]), Number(this.offsets[i + 1])); }
  rows() { return Array.from({ length: this.offsets.length - 1 }, (_, i) => this.row(i)); }
}

const boundTo = (rows) => (rows == null ? null : Column.of(rows.map((row) => Buffer.from(row))).in);

/** A field of the policy. `row` is what a value is bound to: a text or Buffer, or nothing where the policy does not bind rows. */
export class Field extends Handle {
  // Without it the garbage collector could close the keyring under a field that is in use.
  #ring;

  constructor(handle, ring) {
    super(handle, ring && c.kf_field_free);
    this.#ring = ring;
  }

  /** In a worker: the field whose `handle` another thread has sent, and goes on owning. */
  static borrow(handle) { return new Field(handle, null); }

  #sealing(value, row) {
    const length = [0];
    must(c.kf_sealed_len, this.handle, value.bytes.length, length);
    const out = Buffer.alloc(Number(length[0]));
    return [out, length, [c.kf_encrypt, this.handle, value.type, ...bytes(value.bytes), ...rowOf(row), ...bytes(out), length]];
  }

  /** Seals a Value; returns a Buffer. */
  encrypt(value, row = null) {
    const [out, length, call] = this.#sealing(value, row);
    must(...call);
    return out.subarray(0, Number(length[0]));
  }

  async encryptAsync(value, row = null) {
    const [out, length, call] = this.#sealing(value, row);
    await mustAsync(...call);
    return out.subarray(0, Number(length[0]));
  }

  #opening(sealed, row) {
    const out = Buffer.alloc(Number(c.kf_opened_len_max(sealed.length)));
    const opened = {};
    return [out, opened, [c.kf_decrypt, this.handle, ...bytes(sealed), ...rowOf(row), ...bytes(out), opened]];
  }

  #opened(out, opened) {
    return { value: new Value(opened.type, out.subarray(0, Number(opened.len))), isCurrent: opened.is_current };
  }

  /** Opens a sealed value; returns { value, isCurrent }. What is not current should be encrypted again when convenient. */
  decrypt(sealed, row = null) {
    const [out, opened, call] = this.#opening(sealed, row);
    must(...call);
    return this.#opened(out, opened);
  }

  async decryptAsync(sealed, row = null) {
    const [out, opened, call] = this.#opening(sealed, row);
    await mustAsync(...call);
    return this.#opened(out, opened);
  }

  /** Seals many values in one call; returns Buffers. */
  encryptColumn(values, rows = null) {
    const column = Column.of(values.map((value) => value.bytes));
    const length = [0];
    must(c.kf_sealed_column_len, this.handle, column.in, length);
    const sealed = Column.room(length[0], values.length);
    must(c.kf_encrypt_column, this.handle, Buffer.from(values.map((value) => value.type)), column.in, boundTo(rows), sealed.out);
    return sealed.rows();
  }

  /** Opens many values in one call. One that does not open fails it, and the error's `row` says which. */
  decryptColumn(sealed, rows = null) {
    const column = Column.of(sealed);
    const opened = Column.room(c.kf_opened_column_len_max(column.data.length, sealed.length), sealed.length);
    const types = Buffer.alloc(sealed.length);
    must(c.kf_decrypt_column, this.handle, column.in, boundTo(rows), types, types.length, opened.out, null);
    return opened.rows().map((content, i) => new Value(types[i], content));
  }
}

/** The form of a sealed value for columns of text, JSON and CSV. */
export function toText(sealed) {
  const out = Buffer.alloc(Number(c.kf_text_len(sealed.length)));
  const length = [0];
  must(c.kf_to_text, ...bytes(sealed), ...bytes(out), length);
  return out.toString('latin1', 0, Number(length[0]));
}

/** The sealed value of a text form. */
export function fromText(s) {
  const [content, size] = text(s);
  const out = Buffer.alloc(Number(c.kf_text_sealed_len_max(size)));
  const length = [0];
  must(c.kf_from_text, content, size, ...bytes(out), length);
  return out.subarray(0, Number(length[0]));
}

// One file, however long, so that one file is what a program copies.
package keyfold;

import com.sun.jna.Memory;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;

/**
 * Seals and opens fields with libkeyfold, by JNA. Copy it into your program; what functions do in detail stands in keyfold.h.
 *
 * <p>Everything may be used from several threads. For 64-bit machines: {@code size_t} is a {@code long} here.
 */
public final class Keyfold {
    /** With its ABI, so that another one is not found rather than called wrongly. */
    static final String LIBRARY = "libkeyfold.so.0.1";

    private Keyfold() {}

    /**
     * The functions of keyfold.h, mapped directly: a call is one of JNI. A byte[] is where it is, or a copy, which nobody erases: what has
     * values in it is a Pointer.
     */
    private static final class C {
        static {
            Native.register(C.class, LIBRARY);
        }

        static native String kf_result_name(int result);

        static native int kf_number_encode(byte type, Pointer number, Pointer out, long cap, LongByReference len, byte[] error);

        static native int kf_number_decode(byte type, Pointer value, long len, Pointer number, byte[] error);

        static native int kf_init(
                byte[] folder, long folderLen, byte[] name, long nameLen, byte[] environment, long environmentLen, byte[] kek, long kekLen,
                Pointer options, byte[] error);

        static native int kf_options_new(PointerByReference options, byte[] error);

        static native int kf_options_add_policy(Pointer options, byte[] path, long len, byte[] error);

        static native int kf_options_free(Pointer options);

        static native int kf_context_new(PointerByReference context, byte[] error);

        static native int kf_context_add(Pointer context, byte[] key, long keyLen, byte[] value, long valueLen, byte[] error);

        static native int kf_context_free(Pointer context);

        static native int kf_keyring_open(byte[] path, long len, Pointer options, PointerByReference ring, byte[] error);

        static native int kf_keyring_rotate(Pointer ring, byte[] scope, long len, Pointer key, byte[] error);

        static native int kf_keyring_close(Pointer ring);

        static native int kf_field_new(
                Pointer ring, byte[] name, long nameLen, byte[] scope, long scopeLen, Pointer context, PointerByReference field, byte[] error);

        static native int kf_field_free(Pointer field);

        static native int kf_sealed_len(Pointer field, long len, LongByReference sealed, byte[] error);

        static native long kf_opened_len_max(long len);

        static native int kf_encrypt(
                Pointer field, byte type, Pointer value, long len, byte[] row, long rowLen, byte[] out, long cap, LongByReference outLen,
                byte[] error);

        static native int kf_decrypt(
                Pointer field, byte[] sealed, long len, byte[] row, long rowLen, Pointer out, long cap, byte[] opened, byte[] error);

        static native int kf_sealed_column_len(Pointer field, Pointer values, LongByReference len, byte[] error);

        static native int kf_encrypt_column(Pointer field, byte[] types, Pointer values, Pointer rows, Pointer out, byte[] error);

        static native long kf_opened_column_len_max(long len, long rows);

        static native int kf_decrypt_column(
                Pointer field, Pointer sealed, Pointer rows, byte[] types, long cap, Pointer out, Pointer opened, byte[] error);

        static native long kf_text_len(long len);

        static native long kf_text_sealed_len_max(long len);

        static native int kf_to_text(byte[] sealed, long len, byte[] text, long cap, LongByReference textLen, byte[] error);

        static native int kf_from_text(byte[] text, long len, byte[] sealed, long cap, LongByReference sealedLen, byte[] error);
    }

    /** What every failing method throws. Its message may be logged: it holds no value, key or context. */
    public static final class Failure extends RuntimeException {
        private static final long serialVersionUID = 1;
        private final int code;
        private final String kind;
        private final boolean retryable;
        private final long row;

        private Failure(int code, ByteBuffer error) {
            super(StandardCharsets.UTF_8.decode(error.slice(16, textLen(error))) + " (" + code + " " + C.kf_result_name(code) + ")");
            this.code = code;
            this.kind = C.kf_result_name(code);
            this.retryable = error.get(4) != 0;
            this.row = error.getLong(8);
        }

        private static int textLen(ByteBuffer error) {
            int len = 0;
            while (error.get(16 + len) != 0) {
                len++;
            }
            return len;
        }

        /** Permanent, and the same in all languages. */
        public int code() {
            return code;
        }

        /** The name of the code, such as "DecryptionFailed". */
        public String kind() {
            return kind;
        }

        /** Whether the same call may succeed later without anybody changing anything. */
        public boolean isRetryable() {
            return retryable;
        }

        /** The row of a column that it is about. */
        public OptionalLong row() {
            return row == -1 ? OptionalLong.empty() : OptionalLong.of(row);
        }
    }

    private interface Call {
        /** Calls a function whose last argument is a kf_error. */
        int call(byte[] error);
    }

    private static final int ERROR_LEN = 504;
    private static final int NUMBER_LEN = 24;
    private static final int MAX_NUMBER_LEN = 16;
    private static final int OPENED_LEN = 16;

    private static ByteBuffer read(byte[] struct) {
        return ByteBuffer.wrap(struct).order(ByteOrder.nativeOrder());
    }

    private static void must(Call call) {
        byte[] error = new byte[ERROR_LEN];
        int result = call.call(error);
        if (result != 0) {
            throw new Failure(result, read(error));
        }
    }

    /** Memory outside of the heap, erased before it is freed. */
    private static final class Erased implements AutoCloseable {
        final Memory memory;

        Erased(long size) {
            memory = new Memory(Math.max(size, 1));
            memory.clear();
        }

        Erased(byte[] bytes) {
            this(bytes.length);
            memory.write(0, bytes, 0, bytes.length);
        }

        @Override
        public void close() {
            memory.clear();
            memory.close();
        }
    }

    private static byte[] utf8(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] utf8(Path path) {
        return utf8(path.toString());
    }

    private static long len(byte[] bytes) {
        return bytes == null ? 0 : bytes.length;
    }

    /** Types of values, with the numbers of KF_TYPE_*. */
    public enum Type {
        BYTES,
        TEXT,
        INTEGER,
        DECIMAL,
        FLOAT,
        BOOLEAN,
        DATE,
        TIMESTAMP,
        JSON,
        NULL;

        private byte id() {
            return (byte) (ordinal() + 1);
        }

        private static Type of(byte id) {
            return values()[id - 1];
        }
    }

    /** A value: a type and bytes, which of text, JSON, decimals and bytes are what they say. */
    public static final class Value {
        private final Type type;
        private final byte[] bytes;

        public Value(Type type, byte[] bytes) {
            this.type = type;
            this.bytes = bytes;
        }

        public static Value text(String text) {
            return new Value(Type.TEXT, utf8(text));
        }

        public static Value bytes(byte[] bytes) {
            return new Value(Type.BYTES, bytes);
        }

        public static Value integer(long integer) {
            return number(Type.INTEGER, integer);
        }

        public static Value date(LocalDate date) {
            return number(Type.DATE, date.toEpochDay());
        }

        /** Absence that is itself protected. */
        public static Value absent() {
            return new Value(Type.NULL, new byte[0]);
        }

        private static Value number(Type type, long integer) {
            LongByReference len = new LongByReference();
            try (Erased number = new Erased(NUMBER_LEN); Erased out = new Erased(MAX_NUMBER_LEN)) {
                number.memory.setLong(0, integer);
                must(error -> C.kf_number_encode(type.id(), number.memory, out.memory, MAX_NUMBER_LEN, len, error));
                return new Value(type, out.memory.getByteArray(0, (int) len.getValue()));
            }
        }

        public Type type() {
            return type;
        }

        public byte[] bytes() {
            return bytes;
        }

        public String asText() {
            return new String(bytes, StandardCharsets.UTF_8);
        }

        public long asInteger() {
            return number(Type.INTEGER);
        }

        public LocalDate asDate() {
            return LocalDate.ofEpochDay(number(Type.DATE));
        }

        private long number(Type wanted) {
            if (type != wanted) {
                throw new IllegalStateException("a value of type " + type);
            }
            try (Erased value = new Erased(bytes); Erased number = new Erased(NUMBER_LEN)) {
                must(error -> C.kf_number_decode(type.id(), value.memory, bytes.length, number.memory, error));
                return number.memory.getLong(0);
            }
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Value value && value.type == type && Arrays.equals(value.bytes, bytes);
        }

        @Override
        public int hashCode() {
            return Arrays.hashCode(bytes);
        }
    }

    /** A value that was opened. What is not current should be encrypted again when convenient. */
    public record Opened(Value value, boolean isCurrent) {}

    /** Makes a keyring in a folder, with its key in a file: for one machine and for tests. */
    public static void init(Path folder, String name, String environment) {
        byte[] f = utf8(folder);
        byte[] n = utf8(name);
        byte[] e = utf8(environment);
        must(error -> C.kf_init(f, len(f), n, len(n), e, len(e), null, 0, null, error));
    }

    private static final Cleaner CLEANER = Cleaner.create();

    private interface Release {
        int release(Pointer handle);
    }

    /** A handle that close() releases or, where nobody calls that, the cleaner once its object is garbage. */
    private abstract static class Handle implements AutoCloseable {
        final Pointer handle;
        private final Cleaner.Cleanable left;

        Handle(Pointer handle, Release release) {
            this.handle = handle;
            this.left = CLEANER.register(this, () -> release.release(handle));
        }

        /** Calls a function with the handle, which the cleaner leaves alone meanwhile. */
        final void with(Call call) {
            try {
                must(call);
            } finally {
                Reference.reachabilityFence(this);
            }
        }

        /** Doing so twice does nothing. */
        @Override
        public void close() {
            left.clean();
        }
    }

    /** An open keyring. One is enough for a process. */
    public static final class Keyring extends Handle {
        private Keyring(Pointer handle) {
            super(handle, C::kf_keyring_close);
        }

        public static Keyring open(Path config, Path... policies) {
            PointerByReference options = new PointerByReference();
            PointerByReference ring = new PointerByReference();
            must(error -> C.kf_options_new(options, error));
            try {
                for (Path policy : policies) {
                    byte[] path = utf8(policy);
                    must(error -> C.kf_options_add_policy(options.getValue(), path, len(path), error));
                }
                byte[] path = utf8(config);
                must(error -> C.kf_keyring_open(path, len(path), options.getValue(), ring, error));
            } finally {
                C.kf_options_free(options.getValue());
            }
            return new Keyring(ring.getValue());
        }

        public Field field(String name) {
            return field(name, null, Map.of());
        }

        /** Binds a field of the policy to a scope (null: none) and a context. Make it once per tenant or table, not per value. */
        public Field field(String name, String scope, Map<String, String> context) {
            byte[] n = utf8(name);
            byte[] s = utf8(scope);
            PointerByReference pairs = new PointerByReference();
            PointerByReference field = new PointerByReference();
            must(error -> C.kf_context_new(pairs, error));
            try {
                context.forEach((key, value) -> {
                    byte[] k = utf8(key);
                    byte[] v = utf8(value);
                    must(error -> C.kf_context_add(pairs.getValue(), k, len(k), v, len(v), error));
                });
                with(error -> C.kf_field_new(handle, n, len(n), s, len(s), pairs.getValue(), field, error));
            } finally {
                C.kf_context_free(pairs.getValue());
            }
            return new Field(field.getValue(), this);
        }

        /** Makes a new key that seals in a scope from now on (null where no scope is used). Older ones still open. */
        public void rotate(String scope) {
            byte[] s = utf8(scope);
            with(error -> C.kf_keyring_rotate(handle, s, len(s), null, error));
        }
    }

    /** Byte strings of a column in Arrow's layout, in memory that is erased and freed by close(). */
    private static final class Column implements AutoCloseable {
        private final Memory struct = new Memory(32);
        private final Memory data;
        private final Memory offsets;
        private final int rows;

        /** Room for so many bytes in so many rows. */
        Column(long size, int rows) {
            this.data = new Memory(Math.max(size, 1));
            this.offsets = new Memory(8L * (rows + 1));
            this.rows = rows;
            offsets.setLong(0, 0);
            struct.setPointer(0, data);
            struct.setLong(8, size);
            struct.setPointer(16, offsets);
            struct.setLong(24, rows + 1L);
        }

        static Column of(List<byte[]> contents) {
            long size = contents.stream().mapToLong(Keyfold::len).sum();
            Column made = new Column(size, contents.size());
            long at = 0;
            for (int row = 0; row < contents.size(); row++) {
                byte[] content = contents.get(row);
                made.data.write(at, content, 0, content.length);
                at += content.length;
                made.offsets.setLong(8L * (row + 1), at);
            }
            return made;
        }

        /** As a kf_column, which counts rows where a kf_column_out counts offsets. */
        Pointer in() {
            struct.setLong(24, rows);
            return struct;
        }

        Pointer out() {
            return struct;
        }

        List<byte[]> contents() {
            List<byte[]> contents = new ArrayList<>(rows);
            for (int row = 0; row < rows; row++) {
                long begin = offsets.getLong(8L * row);
                contents.add(data.getByteArray(begin, (int) (offsets.getLong(8L * (row + 1)) - begin)));
            }
            return contents;
        }

        @Override
        public void close() {
            data.clear();
            data.close();
            offsets.close();
            struct.close();
        }
    }

    /** A field of the policy. {@code row} is what a value is bound to, and null where the policy does not bind rows. */
    public static final class Field extends Handle {
        /** Without it the cleaner could close the keyring under a field that is in use. */
        @SuppressWarnings("unused")
        private final Keyring ring;

        private Field(Pointer handle, Keyring ring) {
            super(handle, C::kf_field_free);
            this.ring = ring;
        }

        public byte[] encrypt(Value value, String row) {
            byte[] r = utf8(row);
            LongByReference len = new LongByReference();
            with(error -> C.kf_sealed_len(handle, value.bytes.length, len, error));
            byte[] out = new byte[(int) len.getValue()];
            try (Erased in = new Erased(value.bytes)) {
                with(error -> C.kf_encrypt(
                        handle, value.type.id(), in.memory, value.bytes.length, r, len(r), out, out.length, len, error));
            }
            return Arrays.copyOf(out, (int) len.getValue());
        }

        public Opened decrypt(byte[] sealed, String row) {
            byte[] r = utf8(row);
            long cap = C.kf_opened_len_max(sealed.length);
            byte[] opened = new byte[OPENED_LEN];
            try (Erased out = new Erased(cap)) {
                with(error -> C.kf_decrypt(handle, sealed, sealed.length, r, len(r), out.memory, cap, opened, error));
                byte[] bytes = out.memory.getByteArray(0, (int) read(opened).getLong(0));
                return new Opened(new Value(Type.of(opened[8]), bytes), opened[9] != 0);
            }
        }

        /** Seals many values in one call, each bound to its row; rows are null where the policy binds none. */
        public List<byte[]> encryptColumn(List<Value> values, List<String> rows) {
            byte[] types = new byte[values.size()];
            for (int row = 0; row < types.length; row++) {
                types[row] = values.get(row).type.id();
            }
            LongByReference len = new LongByReference();
            try (Column in = Column.of(values.stream().map(Value::bytes).toList()); Column bound = boundTo(rows)) {
                with(error -> C.kf_sealed_column_len(handle, in.in(), len, error));
                try (Column sealed = new Column(len.getValue(), types.length)) {
                    with(error -> C.kf_encrypt_column(
                            handle, types, in.in(), bound == null ? null : bound.in(), sealed.out(), error));
                    return sealed.contents();
                }
            }
        }

        /** Opens many values in one call. One that does not open fails it, and {@link Failure#row} says which. */
        public List<Value> decryptColumn(List<byte[]> sealed, List<String> rows) {
            byte[] types = new byte[sealed.size()];
            try (Column in = Column.of(sealed);
                    Column bound = boundTo(rows);
                    Column opened = new Column(C.kf_opened_column_len_max(in.data.size(), types.length), types.length)) {
                with(error -> C.kf_decrypt_column(
                        handle, in.in(), bound == null ? null : bound.in(), types, types.length, opened.out(), null, error));
                List<byte[]> contents = opened.contents();
                List<Value> values = new ArrayList<>(types.length);
                for (int row = 0; row < types.length; row++) {
                    values.add(new Value(Type.of(types[row]), contents.get(row)));
                }
                return values;
            }
        }

        private static Column boundTo(List<String> rows) {
            return rows == null ? null : Column.of(rows.stream().map(Keyfold::utf8).toList());
        }
    }

    /** The form of a sealed value for columns of text, JSON and CSV. */
    public static String toText(byte[] sealed) {
        byte[] out = new byte[(int) C.kf_text_len(sealed.length)];
        LongByReference len = new LongByReference();
        must(error -> C.kf_to_text(sealed, sealed.length, out, out.length, len, error));
        return new String(out, 0, (int) len.getValue(), StandardCharsets.US_ASCII);
    }

    /** The sealed value of a text form. */
    public static byte[] fromText(String text) {
        byte[] t = utf8(text);
        byte[] out = new byte[(int) C.kf_text_sealed_len_max(t.length)];
        LongByReference len = new LongByReference();
        must(error -> C.kf_from_text(t, t.length, out, out.length, len, error));
        return Arrays.copyOf(out, (int) len.getValue());
    }
}

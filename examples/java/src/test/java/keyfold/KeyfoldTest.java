package keyfold;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import com.sun.jna.Function;
import com.sun.jna.NativeLibrary;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.LongByReference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import keyfold.Keyfold.Failure;
import keyfold.Keyfold.Field;
import keyfold.Keyfold.Keyring;
import keyfold.Keyfold.Type;
import keyfold.Keyfold.Value;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

class KeyfoldTest {
    @TempDir
    static Path folder;

    static Path config;
    static Path policy;
    static Keyring ring;
    static Field ssn;

    @BeforeAll
    static void open() throws Exception {
        config = folder.resolve("ring/keyfold.toml");
        policy = folder.resolve("policy.toml");
        Files.writeString(policy, """
                version = 1
                [fields."patient.ssn"]
                identifier = "G"
                row_binding = "patient_id"
                [fields.note]
                row_binding = "none"
                required_context = ["table"]
                """);
        Keyfold.init(folder.resolve("ring"), "ring", "test");
        ring = Keyring.open(config, policy);
        ssn = ring.field("patient.ssn");
    }

    @AfterAll
    static void close() {
        ssn.close();
        ring.close();
    }

    static Failure fails(int code, Executable call) {
        Failure failure = assertThrows(Failure.class, call);
        assertEquals(code, failure.code(), failure.getMessage());
        return failure;
    }

    @Test
    void oneValue() {
        LocalDate day = LocalDate.of(1969, 12, 31);
        List<Value> values = List.of(
                Value.text("Zoë 病"), Value.text(""), Value.integer(Long.MIN_VALUE), Value.date(day), Value.absent(),
                Value.bytes(new byte[] {0, -1}), Value.text("x".repeat(1 << 20)));
        for (Value value : values) {
            var opened = ssn.decrypt(ssn.encrypt(value, "p-17"), "p-17");
            assertEquals(value, opened.value());
            assertTrue(opened.isCurrent());
        }
        assertEquals("Zoë 病", values.get(0).asText());
        assertEquals(Long.MIN_VALUE, values.get(2).asInteger());
        assertEquals(day, values.get(3).asDate());
        assertThrows(IllegalStateException.class, values.get(0)::asInteger);
    }

    @Test
    void errors() {
        byte[] sealed = ssn.encrypt(Value.text("999-81-5679"), "p-17");
        Failure failure = fails(301, () -> ssn.decrypt(sealed, "p-18"));
        assertEquals("DecryptionFailed", failure.kind());
        assertFalse(failure.isRetryable());
        assertEquals(OptionalLong.empty(), failure.row());
        assertFalse(failure.getMessage().isEmpty());
        fails(100, () -> ssn.decrypt(sealed, null));
        fails(601, () -> Keyring.open(Path.of("nowhere/keyfold.toml")));
        fails(200, () -> Keyfold.fromText("kf1.no"));
        assertTrue(Keyfold.toText(sealed).startsWith("kf1."));
        assertArrayEquals(sealed, Keyfold.fromText(Keyfold.toText(sealed)));
        fails(110, () -> ring.field("note").encrypt(Value.absent(), null));
        try (Field note = ring.field("note", "clinic-17", Map.of("table", "notes"));
                Field other = ring.field("note", "clinic-17", Map.of("table", "x"))) {
            byte[] inScope = note.encrypt(Value.text("a"), null);
            fails(301, () -> other.decrypt(inScope, null));
            ring.rotate("clinic-17");
            assertFalse(note.decrypt(inScope, null).isCurrent());
        }
    }

    @Test
    void column() {
        List<Value> values = List.of(Value.text("low"), Value.absent(), Value.date(LocalDate.of(2026, 11, 26)), Value.text(""));
        List<String> rows = List.of("r-1", "r-2", "r-3", "r-4");
        List<byte[]> sealed = ssn.encryptColumn(values, rows);
        assertEquals(values, ssn.decryptColumn(sealed, rows));
        for (int row = 0; row < rows.size(); row++) {
            assertEquals(values.get(row), ssn.decrypt(sealed.get(row), rows.get(row)).value());
        }
        sealed.get(2)[70] ^= 1;
        assertEquals(OptionalLong.of(2), fails(301, () -> ssn.decryptColumn(sealed, rows)).row());
        assertEquals(List.of(), ssn.encryptColumn(List.of(), List.of()));
        fails(100, () -> ssn.encryptColumn(values, List.of("r-1")));
    }

    @Test
    void threads() throws Exception {
        var pool = Executors.newFixedThreadPool(8);
        List<Callable<Boolean>> tasks = new ArrayList<>();
        for (int i = 0; i < 2000; i++) {
            String row = "p-" + i;
            tasks.add(() -> ssn.decrypt(ssn.encrypt(Value.text(row), row), row).value().asText().equals(row));
        }
        for (var done : pool.invokeAll(tasks)) {
            assertTrue(done.get());
        }
        pool.shutdown();
    }

    @Test
    void closing() {
        Keyring other = Keyring.open(config, policy);
        Field gone = other.field("patient.ssn");
        Field left = other.field("patient.ssn");
        gone.close();
        gone.close();
        fails(104, () -> gone.encrypt(Value.absent(), "p-17"));
        other.close();
        other.close();
        fails(502, () -> left.encrypt(Value.absent(), "p-17"));
    }

    /** Leaves a field and its keyring to the cleaner, and returns another field of the keyring. */
    private static Field leave(List<Long> handles) {
        Keyring other = Keyring.open(config, policy);
        handles.add(Pointer.nativeValue(other.field("patient.ssn").handle));
        return other.field("patient.ssn");
    }

    @Test
    void cleaner() throws Exception {
        List<Long> handles = new ArrayList<>();
        Field kept = leave(handles);
        Function ask = NativeLibrary.getInstance(Keyfold.LIBRARY).getFunction("kf_sealed_len");
        for (int i = 0; i < 100; i++) {
            System.gc();
            Thread.sleep(10);
            // A length is asked for by the bare handle.
            Object[] arguments = {new Pointer(handles.get(0)), 1L, new LongByReference(), null};
            if (ask.invokeInt(arguments) == 104) {
                assertEquals(Type.NULL, kept.decrypt(kept.encrypt(Value.absent(), "p-17"), "p-17").value().type());
                return;
            }
        }
        fail("the field is still there");
    }
}

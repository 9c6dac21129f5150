package values;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.function.Function;
import keyfold.Keyfold;
import keyfold.Keyfold.Field;
import keyfold.Keyfold.Keyring;
import keyfold.Keyfold.Value;

/**
 * Seals and opens the values of a file: {@code java values.Values seal|open CONFIG POLICY < INPUT > OUTPUT}.
 *
 * <p>A line of values is row, type and value, with tabs between them; bytes are in hexadecimal. A line of sealed values is row and
 * sealed value in text form.
 */
public final class Values {
    private Values() {}

    /** Does `work` with each line; an exception would have the line in its message, which may be a patient's. */
    private static <T> List<T> each(List<String> lines, String wanted, Function<String, T> work) {
        List<T> done = new ArrayList<>();
        for (String line : lines) {
            try {
                done.add(work.apply(line));
            } catch (RuntimeException refused) {
                throw new Unreadable("line " + (done.size() + 1) + " is not " + wanted);
            }
        }
        return done;
    }

    /** A line that is none of a file of values. */
    private static final class Unreadable extends RuntimeException {
        private static final long serialVersionUID = 1;

        Unreadable(String message) {
            super(message);
        }
    }

    private static Value parse(String line) {
        String[] parts = line.split("\t", 2);
        return switch (parts[0]) {
            case "text" -> Value.text(parts[1]);
            case "integer" -> Value.integer(Long.parseLong(parts[1]));
            case "date" -> Value.date(LocalDate.parse(parts[1]));
            case "bytes" -> Value.bytes(HexFormat.of().parseHex(parts[1]));
            case "null" -> Value.absent();
            default -> throw new IllegalArgumentException("no such type: " + parts[0]);
        };
    }

    private static String spell(Value value) {
        return switch (value.type()) {
            case TEXT -> "text\t" + value.asText();
            case INTEGER -> "integer\t" + value.asInteger();
            case DATE -> "date\t" + value.asDate();
            case BYTES -> "bytes\t" + HexFormat.of().formatHex(value.bytes());
            case NULL -> "null\t";
            default -> throw new IllegalArgumentException("a value of type " + value.type());
        };
    }

    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 3 || !List.of("seal", "open").contains(arguments[0])) {
            System.err.println("java values.Values seal|open CONFIG POLICY < INPUT > OUTPUT");
            System.exit(2);
        }
        try {
            run(arguments[0].equals("seal"), Path.of(arguments[1]), Path.of(arguments[2]));
        } catch (Unreadable | Keyfold.Failure failure) {
            System.err.println(failure.getMessage());
            System.exit(1);
        }
    }

    private static void run(boolean seals, Path config, Path policy) throws IOException {
        List<String> rows = new ArrayList<>();
        List<String> lines = new ArrayList<>();
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split("\t", 2);
            rows.add(parts[0]);
            lines.add(parts.length == 2 ? parts[1] : "");
        }
        List<String> done;
        try (Keyring ring = Keyring.open(config, policy); Field field = ring.field("value")) {
            done = seals
                    ? field.encryptColumn(each(lines, "row, type and value", Values::parse), rows).stream().map(Keyfold::toText).toList()
                    : field.decryptColumn(each(lines, "row and sealed value", Keyfold::fromText), rows).stream().map(Values::spell).toList();
        }
        var out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (int row = 0; row < rows.size(); row++) {
            out.print(rows.get(row) + "\t" + done.get(row) + "\n");
        }
        out.flush();
    }
}

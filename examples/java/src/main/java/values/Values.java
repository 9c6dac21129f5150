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
        if (arguments.length != 3) {
            System.err.println("java values.Values seal|open CONFIG POLICY < INPUT > OUTPUT");
            System.exit(2);
        }
        List<String> rows = new ArrayList<>();
        List<String> lines = new ArrayList<>();
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split("\t", 2);
            rows.add(parts[0]);
            lines.add(parts[1]);
        }
        List<String> done;
        try (Keyring ring = Keyring.open(Path.of(arguments[1]), Path.of(arguments[2])); Field field = ring.field("value")) {
            done = switch (arguments[0]) {
                case "seal" -> field.encryptColumn(lines.stream().map(Values::parse).toList(), rows).stream().map(Keyfold::toText).toList();
                case "open" -> field.decryptColumn(lines.stream().map(Keyfold::fromText).toList(), rows).stream().map(Values::spell).toList();
                default -> throw new IllegalArgumentException(arguments[0]);
            };
        }
        var out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (int row = 0; row < rows.size(); row++) {
            out.print(rows.get(row) + "\t" + done.get(row) + "\n");
        }
        out.flush();
    }
}

// Seals and opens the values of a file: values seal|open CONFIG POLICY < INPUT > OUTPUT.
//
// A line of values is row, type and value, with tabs between them; bytes are in hexadecimal. A line of sealed values is row and
// sealed value in text form.

#include <cstdio>
#include <iostream>
#include <keyfold.hpp>
#include <stdexcept>
#include <string>

namespace {

using keyfold::Value;

/// Of a day in the Gregorian calendar, since C++17 has no dates; the algorithms are those of Howard Hinnant.
std::int32_t days_of(int year, int month, int day)
{
    year -= month <= 2;
    const int era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    const int of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

std::string date_of(std::int64_t days)
{
    const std::int64_t since = days + 719468, era = (since >= 0 ? since : since - 146096) / 146097, day = since - era * 146097;
    const std::int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365, of_year = day - (365 * year + year / 4 - year / 100);
    const std::int64_t month = (5 * of_year + 2) / 153, real_month = month + (month < 10 ? 3 : -9);
    char text[32];
    std::snprintf(text, sizeof text, "%04d-%02d-%02d", static_cast<int>(year + era * 400 + (real_month <= 2)),
                  static_cast<int>(real_month), static_cast<int>(of_year - (153 * month + 2) / 5 + 1));
    return text;
}

std::string hex_of(keyfold::View bytes)
{
    std::string text;
    for (std::size_t i = 0; i < bytes.size(); i++)
        for (const int shift : {4, 0})
            text += "0123456789abcdef"[bytes.data()[i] >> shift & 15];
    return text;
}

std::string bytes_of(const std::string &hex)
{
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return bytes;
}

/// Takes what is before the first tab off a line.
std::string cut(std::string &line)
{
    const std::size_t tab = line.find('\t');
    if (tab == std::string::npos)
        throw std::invalid_argument("no tab");
    std::string before = line.substr(0, tab);
    line.erase(0, tab + 1);
    return before;
}

Value parse(std::string text)
{
    const std::string kind = cut(text);
    int year, month, day;
    if (kind == "text")
        return Value::text(text);
    if (kind == "integer")
        return Value::integer(std::stoll(text));
    if (kind == "date" && std::sscanf(text.c_str(), "%d-%d-%d", &year, &month, &day) == 3)
        return Value::date(days_of(year, month, day));
    if (kind == "bytes")
        return Value::bytes(bytes_of(text));
    if (kind == "null")
        return Value::null();
    throw std::invalid_argument("no such type");
}

std::string spell(const Value &value)
{
    switch (value.type()) {
    case KF_TYPE_TEXT:
        return "text\t" + std::string(value.text());
    case KF_TYPE_INTEGER:
        return "integer\t" + std::to_string(value.number().integer);
    case KF_TYPE_DATE:
        return "date\t" + date_of(value.number().integer);
    case KF_TYPE_BYTES:
        return "bytes\t" + hex_of(value.content());
    case KF_TYPE_NULL:
        return "null\t";
    default:
        throw std::runtime_error("a value of another type");
    }
}

void run(bool seals, const char *config, const char *policy)
{
    const keyfold::Keyring ring(config, keyfold::Options({policy}));
    const keyfold::Field field = ring.field("value");
    std::vector<std::uint8_t> types;
    keyfold::Column rows, contents;
    for (std::string line; std::getline(std::cin, line);) {
        try {
            rows.push_back(cut(line));
            if (seals) {
                const Value value = parse(line);
                types.push_back(value.type());
                contents.push_back(value.content());
            } else {
                contents.push_back(keyfold::from_text(line));
            }
        } catch (const std::exception &) {
            // What it is in words has the line in it, which may be a patient's.
            throw std::runtime_error("line " + std::to_string(contents.size() + 1) + " is not " + (seals ? "row, type and value" : "row and sealed value"));
        }
    }
    if (seals) {
        const keyfold::Column sealed = field.encrypt_column(types, contents, &rows);
        for (std::size_t row = 0; row < sealed.size(); row++)
            std::cout << rows[row].text() << '\t' << keyfold::to_text(sealed[row]) << '\n';
    } else {
        const keyfold::OpenedColumn opened = field.decrypt_column(contents, &rows);
        for (std::size_t row = 0; row < rows.size(); row++)
            std::cout << rows[row].text() << '\t' << spell({static_cast<kf_type>(opened.types[row]), opened.values[row]}) << '\n';
    }
}

} // namespace

int main(int argc, char **argv)
{
    const std::string what = argc == 4 ? argv[1] : "";
    if (what != "seal" && what != "open") {
        std::cerr << "values seal|open CONFIG POLICY < INPUT > OUTPUT\n";
        return 2;
    }
    std::ios::sync_with_stdio(false);
    try {
        run(what == "seal", argv[2], argv[3]);
    } catch (const keyfold::Error &error) {
        std::cerr << error.code() << ' ' << error.name() << ": " << error.what() << (error.is_retryable() ? " (try again)\n" : "\n");
        return 1;
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}

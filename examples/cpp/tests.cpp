// What a program does with keyfold.hpp: values, a column, errors, threads, closing. Says what passed and what failed.

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <keyfold.hpp>
#include <thread>

namespace {

std::atomic<int> passed, failed;

void check(bool holds, const char *what)
{
    (holds ? passed : failed)++;
    if (!holds)
        std::cerr << "FAILED: " << what << '\n';
}

template <typename Call> kf_result result_of(Call call)
{
    try {
        call();
        return KF_OK;
    } catch (const keyfold::Error &error) {
        return error.code();
    }
}

/// A folder that goes with its object.
struct Folder {
    std::filesystem::path path;
    Folder()
    {
        std::string name = (std::filesystem::temp_directory_path() / "keyfold-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr)
            throw std::runtime_error("no folder can be made");
        path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
};

void run()
{
    const Folder folder;
    const std::string policy = folder.path / "policy.toml", config = folder.path / "ring" / "keyfold.toml";
    std::ofstream(policy) << "version = 1\n[fields.\"patient.ssn\"]\nidentifier = \"G\"\nrow_binding = \"patient_id\"\n";
    keyfold::init((folder.path / "ring").string(), "ring", "test");
    keyfold::Keyring ring(config, keyfold::Options({policy}));
    keyfold::Field ssn = ring.field("patient.ssn");

    const keyfold::Value value = keyfold::Value::text("Zoë 病");
    const keyfold::Bytes sealed = ssn.encrypt(value, "p-17");
    check(ssn.decrypt(sealed, "p-17").value == value, "a value");
    try {
        (void)ssn.decrypt(sealed, "p-18");
        check(false, "another row");
    } catch (const keyfold::Error &error) {
        check(error.code() == KF_ERR_DECRYPTION_FAILED && std::string(error.name()) == "DecryptionFailed" && !error.is_retryable(),
              "another row");
    }

    keyfold::Column contents, rows;
    for (const char *content : {"low", "", "normal"})
        contents.push_back(content);
    for (const char *row : {"r-1", "r-2", "r-3"})
        rows.push_back(row);
    const keyfold::Column column = ssn.encrypt_column({KF_TYPE_TEXT, KF_TYPE_NULL, KF_TYPE_TEXT}, contents, &rows);
    check(ssn.decrypt_column(column, &rows).values[2] == "normal", "a column");
    check(ssn.decrypt(column[0], "r-1").value.text() == "low", "a value of a column");

    std::vector<std::thread> threads;
    for (int thread = 0; thread < 8; thread++)
        threads.emplace_back([&ssn, thread] {
            for (int i = 0; i < 200; i++) {
                const std::string row = std::to_string(thread) + "-" + std::to_string(i);
                check(ssn.decrypt(ssn.encrypt(keyfold::Value::integer(i), row), row).value.number().integer == i, "a thread");
            }
        });
    for (std::thread &thread : threads)
        thread.join();

    ring.rotate();
    check(!ssn.decrypt(sealed, "p-17").is_current, "a rotation");
    keyfold::Field moved = std::move(ssn);
    check(result_of([&] { (void)moved.encrypt(value, "p-17"); }) == KF_OK, "a moved field");
    ring.close();
    check(result_of([&] { (void)moved.encrypt(value, "p-17"); }) == KF_ERR_CLOSED, "a closed keyring");
}

} // namespace

int main()
{
    try {
        run();
    } catch (const std::exception &error) {
        check(false, error.what());
    }
    std::cout << passed << " passed, " << failed << " failed\n";
    return failed != 0;
}

#!/bin/sh
# The main job on the embedded default: a local KEK file and an SQLite key store in a folder of its own.
# Protects the example patients, shows what that looks like, and reveals them again.
#
#   sh examples/quickstart.sh [FOLDER]     FOLDER is made, and must not hold a keyring yet; default: quickstart
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
examples=$top/examples
if [ -n "${KEYFOLD:-}" ]; then
    keyfold=$KEYFOLD
    folder=${1:-$(mktemp -d)/ring}
else
    cargo build --release --manifest-path "$top/Cargo.toml" -p keyfold-cli
    keyfold=${CARGO_TARGET_DIR:-$top/target}/release/keyfold
    folder=${1:-quickstart}
fi

"$keyfold" init "$folder"
config=$folder/keyfold.toml
for file in patients.csv patients.ndjson; do
    "$keyfold" protect --config "$config" --policy "$examples/patients.toml" "$examples/$file" --output "$folder/protected-$file"
    "$keyfold" reveal --config "$config" --policy "$examples/patients.toml" "$folder/protected-$file" --output "$folder/revealed-$file"
    cmp "$examples/$file" "$folder/revealed-$file"
    echo "$file came back byte for byte"
done

echo
echo "The first patient, protected ($folder/protected-patients.csv):"
sed -n 2p "$folder/protected-patients.csv" | cut -c 1-230
echo
echo "What a sealed value says without any key:"
"$keyfold" inspect "$(sed -n 2p "$folder/protected-patients.csv" | cut -d , -f 1)"

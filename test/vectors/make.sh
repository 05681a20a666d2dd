#!/bin/sh
# Makes every file of this directory anew with real Nix (README.md tells which command made which file).
# Needs Nix >= 2.8 with the commands nix-store, nix-hash, nix-build and nix; root, because a chroot store is written.
# Nothing on the machine changes: store, keys and caches live in a temporary directory. The secret keys are thrown away.
set -eu
export LC_ALL=C

vectors=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$work/conf" "$work/home" "$work/trees"
cat > "$work/conf/nix.conf" <<CONF
substituters =
build-users-group =
extra-sandbox-paths = /bin /lib /lib64 /usr
experimental-features = nix-command flakes
CONF
export NIX_CONF_DIR="$work/conf" HOME="$work/home" XDG_CACHE_HOME="$work/home/.cache" NIX_REMOTE="local?root=$work/root"
rm -rf "$vectors/nar" "$vectors/narinfo" "$vectors/hashes.tsv"
mkdir -p "$vectors/nar" "$vectors/narinfo"

# --- NARs -----------------------------------------------------------------------------------------------------------
cd "$work/trees"
printf 'hello\n' > file
: > empty-file
printf '#!/bin/sh\necho hello\n' > executable && chmod 755 executable
ln -s ../target/of/link symlink
mkdir empty-directory

mkdir order
for name in a a-b a.b ab A B Z _ 10 9 .hidden ..hidden '~' ' ' 'with space' '-dash'; do printf '%s' "$name" > "order/$name"; done
mkdir 'order/a0'

mkdir bytes
printf 1 > "bytes/$(printf 'caf\303\251')"      # UTF-8
printf 2 > "bytes/$(printf 'caf\351')"          # latin1: not UTF-8
printf 3 > "bytes/$(printf '\377')"
printf 4 > "bytes/$(printf 'line\nbreak')"
printf 5 > 'bytes/back\slash'
ln -s "$(printf '\377/\303\251')" bytes/link

mkdir sizes
n=0
while [ $n -le 17 ]; do printf '%.*s' $n 'abcdefghijklmnopqrstuvwxyz' > "sizes/$(printf '%02d' $n)"; n=$((n + 1)); done

mkdir -p nested/bin nested/share/doc/deep/deeper
printf '#!/bin/sh\n' > nested/bin/run && chmod 755 nested/bin/run
ln -s run nested/bin/also-run
printf 'text\n' > nested/share/doc/deep/deeper/README
: > nested/share/doc/empty

for tree in *; do
  nix-store --dump "$tree" > "$vectors/nar/$tree.nar"
  printf '%s\t%s\t%s\n' "$tree" "$(wc -c < "$vectors/nar/$tree.nar")" "$(nix-hash --type sha256 --base32 "$tree")"
done > "$vectors/nar/hashes.tsv"
nix nar ls --json --recursive "$vectors/nar/nested.nar" / > "$vectors/nar/nested.ls.json"

# --- Hashes ---------------------------------------------------------------------------------------------------------
for algorithm in md5 sha1 sha256 sha512; do
  for text in '' a abc nixdeploy; do
    hex=$(printf '%s' "$text" | "${algorithm}sum" | cut -d' ' -f1)
    printf '%s\t%s\t%s\t%s\n' "$algorithm" "$hex" \
      "$(nix-hash --type "$algorithm" --to-base32 "$hex")" "$(nix hash to-sri --type "$algorithm" "$hex")"
  done
done > "$vectors/hashes.tsv"

# --- Narinfos and signatures ----------------------------------------------------------------------------------------
cat > "$work/closure.nix" <<'NIX'
let
  build = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
  };
  text = builtins.toFile "text" "a text without references\n";
  referring = builtins.toFile "referring-text" "a text that refers to ${text}\n";
  leaf = build "leaf-1.0" "mkdir $out; echo leaf > $out/leaf";
  self = build "self-1.0" "mkdir $out; echo $out ${leaf} > $out/refers-to-itself";
  top = build "top+name_with.all=kinds?of-characters" "mkdir $out; ln -s ${self} $out/self; echo ${leaf} ${referring} > $out/refs";
in top
NIX
nix-store --generate-binary-cache-key first-1 "$work/first.secret" "$vectors/narinfo/first.public"
nix-store --generate-binary-cache-key second-1 "$work/second.secret" "$vectors/narinfo/second.public"
top=$(nix-build --no-out-link "$work/closure.nix")
added=$(nix-store --add-fixed --recursive sha256 "$work/trees/nested")
flat=$(nix-store --add-fixed sha256 "$work/trees/file")
for compression in zstd xz none gzip; do
  nix copy --to "file://$work/$compression?compression=$compression&secret-key=$work/first.secret" "$top" "$added" "$flat"
done
nix store sign --recursive --key-file "$work/first.secret" "$top"
nix store sign --recursive --key-file "$work/second.secret" "$top"
nix copy --to "file://$work/two-signatures?compression=none" "$top"
for cache in zstd xz none gzip two-signatures; do
  mkdir "$vectors/narinfo/$cache"
  cp "$work/$cache"/*.narinfo "$work/$cache/nix-cache-info" "$vectors/narinfo/$cache/"
done
chmod -R u+rw,go+r "$vectors"
nix --version

#!/bin/sh
# Installs a release, after its signature and its hash have been checked. What action.yml runs.
#
#   install-release.sh BASE-URL VERSION PUBLIC-KEY.pem DIRECTORY      → DIRECTORY/nixdeploy
#
# BASE-URL is the folder with the archives, SHA256SUMS and SHA256SUMS.sig (https:, or file: for one that is here). Needs
# curl, tar and OpenSSL 3; on macOS, whose own openssl is another one, that of Homebrew.
set -eu
base=$1 version=$2 key=$3 directory=$4

fail() {
  echo "install-release: cannot install nixdeploy $version: $1" >&2
  exit 1
}

case $(uname -s) in
  Linux) system=linux ;;
  Darwin) system=macos ;;
  *) fail "there is none for $(uname -s)" ;;
esac
case $(uname -m) in
  x86_64 | amd64) machine=x64 ;;
  aarch64 | arm64) machine=arm64 ;;
  *) fail "there is none for $(uname -m)" ;;
esac
libc=
if [ $system = linux ] && ldd --version 2>&1 | grep -qi musl; then libc=-musl; fi
name=nixdeploy-$version-$system-$machine$libc

case $key in /*) ;; *) key=$PWD/$key ;; esac
[ -f "$key" ] || fail "there is no key to verify it with, $key"
openssl=
for program in openssl /opt/homebrew/opt/openssl@3/bin/openssl /usr/local/opt/openssl@3/bin/openssl; do
  if "$program" version 2> /dev/null | grep -q '^OpenSSL [3-9]'; then openssl=$program && break; fi
done
[ -n "$openssl" ] || fail "OpenSSL 3 is not here, which verifies it"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for file in SHA256SUMS SHA256SUMS.sig "$name.tar.gz"; do
  curl --fail --silent --show-error --location --retry 3 --output "$work/$file" "$base/$file" ||
    fail "$base/$file could not be downloaded"
done
cd "$work"
"$openssl" pkeyutl -verify -pubin -inkey "$key" -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig > /dev/null ||
  fail "the signature of SHA256SUMS is not of the key $key"
grep " $name.tar.gz\$" SHA256SUMS > wanted || fail "SHA256SUMS does not name $name.tar.gz"
if command -v sha256sum > /dev/null; then sha256sum --check --quiet wanted; else shasum -a 256 -c wanted; fi > /dev/null ||
  fail "$name.tar.gz is not the file that was signed"
tar -xzf "$name.tar.gz"
mkdir -p "$directory"
mv "$name/nixdeploy" "$directory/nixdeploy"
"$directory/nixdeploy" --version
